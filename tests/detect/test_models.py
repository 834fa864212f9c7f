"""Networks against torchvision's own builders, and the backbone that they start from."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torchvision.models import detection, segmentation

from example_result import example_result
from golu_core.activation import GoLU
from golu_core.training.config.optim import build_optimizer, parameter_groups
from golu_core.training.config.run_config import checked
from golu_core.training.config.schedules import learning_rate
from golu_core.training.messages.errors import RequestError
from golu_core.training.runs.results import write_result
from golu_core.training.storage.fingerprint import file_digest
from golu_detect.model import backbone_weights, build_model, build_network
from golu_detect.recipes import RECIPES

BUILDERS = {
    "deeplabv3-resnet50-coco": (segmentation.deeplabv3_resnet50, {"aux_loss": True, "num_classes": 21}),
    "fasterrcnn-resnet50-fpn-coco": (detection.fasterrcnn_resnet50_fpn, {"num_classes": 91}),
    "retinanet-resnet50-fpn-coco": (detection.retinanet_resnet50_fpn_v2, {"num_classes": 91}),
    "maskrcnn-resnet50-fpn-coco": (detection.maskrcnn_resnet50_fpn, {"num_classes": 91}),
}


@pytest.mark.parametrize("recipe", BUILDERS)
def test_networks_are_torchvisions_and_every_relu_module_is_swapped(recipe):
    config = RECIPES[recipe]
    build, arguments = BUILDERS[recipe]
    with torch.device("meta"):
        theirs = build(weights=None, weights_backbone=None, **arguments)
    ours, swapped = build_model(config, config.data.expected_classes)
    shapes, expected = ({n: t.shape for n, t in m.state_dict().items()} for m in (ours, theirs))
    assert shapes == expected
    assert sum(p.numel() for p in ours.parameters()) == config.paper.size
    relus = sum(isinstance(module, torch.nn.ReLU) for module in theirs.modules())
    assert swapped.swapped == relus == sum(isinstance(module, GoLU) for module in ours.modules())
    left = {"fasterrcnn": 1, "maskrcnn": 1, "retinanet": 1, "deeplabv3": 0}
    assert len(swapped.left) == left[config.model.kind], swapped.left


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name.endswith("digits")])
def test_small_networks_have_their_stated_size(recipe):
    config = RECIPES[recipe]
    assert sum(p.numel() for p in build_network(config.model, 11).parameters()) == config.paper.size


def test_detectors_sizes_follow_the_recipe():
    network = build_network(RECIPES["retinanet-resnet50-fpn-coco"].model, 91)
    assert network.transform.min_size == (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    assert network.transform.max_size == 1333
    assert build_network(RECIPES["fasterrcnn-resnet50-fpn-coco"].model, 91).transform.min_size == (800,)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A run folder as golu-vision leaves it, of an untrained ResNet-50."""
    folder = tmp_path_factory.mktemp("vision") / "seed0"
    folder.mkdir()
    torch.manual_seed(3)
    state = torchvision.models.resnet50(weights=None).state_dict()
    save_file(state, folder / "model.safetensors")
    files = {"model.safetensors": file_digest(folder / "model.safetensors")}
    write_result(folder / "result.json", example_result(model="torchvision/resnet50", files=files))
    return folder, state


@pytest.mark.parametrize("recipe", ["deeplabv3-resnet50-coco", "fasterrcnn-resnet50-fpn-coco"])
def test_a_classifiers_weights_are_all_taken_but_its_last_layer(recipe, classifier):
    folder, state = classifier
    config = dataclasses.replace(RECIPES[recipe], backbone=str(folder))
    network, _ = build_model(config, config.data.expected_classes, backbone_weights(config))
    body = network.backbone if "deeplab" in recipe else network.backbone.body
    found = body.state_dict()
    assert set(state) - set(found) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(found[name], state[name]) for name in found)
    frozen = {name.partition(".")[0] for name, p in body.named_parameters() if not p.requires_grad}
    assert frozen == (set() if "deeplab" in recipe else {"conv1", "bn1", "layer1"})


def test_a_backbone_of_another_kind_is_refused(classifier, tmp_path):
    folder, state = classifier
    config = RECIPES["fasterrcnn-resnet50-fpn-coco"]

    def refusal(**changes):
        changed = dataclasses.replace(config, **changes)
        with pytest.raises(RequestError) as error:
            build_model(changed, 91, backbone_weights(changed))
        return str(error.value)

    assert "was trained with golu, but relu" in refusal(backbone=str(folder), activation="relu")
    assert "other code of golu: none there, sha256:1 now" in refusal(backbone=str(folder), activation_source="sha256:1")
    assert "neither a run folder" in refusal(backbone="IMAGENET1K_V9")
    assert "was trained with relu, but golu" in refusal(backbone="IMAGENET1K_V1")
    assert "is not finished: it has no result.json" in refusal(backbone=str(tmp_path))
    save_file({name: tensor for name, tensor in state.items() if "layer3" not in name}, tmp_path / "part.safetensors")
    assert "does not fit" in refusal(backbone=str(tmp_path / "part.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"nonsense")
    assert "cannot be read as safetensors" in refusal(backbone=str(tmp_path / "broken.safetensors"))
    write_result(tmp_path / "result.json", example_result(model="timm/vit"))
    assert "is a timm/vit" in refusal(backbone=str(tmp_path))
    small = dataclasses.replace(RECIPES["fasterrcnn-digits"], backbone=str(folder))
    with pytest.raises(RequestError, match=r"needs --model\.backbone resnet50"):
        checked(small)
    shutil.copytree(folder, tmp_path / "flipped")
    with (tmp_path / "flipped" / "model.safetensors").open("r+b") as file:
        file.seek(100_000)
        file.write(b"x")
    assert "does not have the checksum" in refusal(backbone=str(tmp_path / "flipped"))


def test_retinanet_decays_all_but_norms_as_torchvisions_reference_does():
    from torchvision.ops._utils import split_normalization_params

    config = RECIPES["retinanet-resnet50-fpn-coco"]
    network = build_network(config.model, 91)
    decayed, plain = parameter_groups(network, config.optim)
    norms, others = split_normalization_params(network)
    assert (plain["weight_decay"], decayed["weight_decay"]) == (0.0, 0.05)
    assert {id(p) for p in plain["params"]} == {id(p) for p in norms}
    assert {id(p) for p in decayed["params"]} == {id(p) for p in others}


def test_the_auxiliary_head_learns_ten_times_as_fast():
    config = RECIPES["deeplabv3-resnet50-coco"]
    network = build_network(config.model, 21)
    optimizer = build_optimizer(network, config.optim, torch.device("cpu"))
    scales = {group["lr_scale"]: len(group["params"]) for group in optimizer.param_groups}
    assert scales == {1.0: len([n for n, _ in network.named_parameters() if not n.startswith("aux")]), 10.0: 5}


def test_learning_rates_are_those_of_torchvisions_schedulers():
    config = RECIPES["fasterrcnn-resnet50-fpn-coco"]
    steps, epochs = 30, 26
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.02)
    main = torch.optim.lr_scheduler.MultiStepLR(optimizer, [16, 22], 0.1)
    for epoch in range(epochs):
        warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, total_iters=29) if epoch == 0 else None
        for step in range(steps):
            ours = learning_rate(config.schedule, 0.02, epoch * steps + step, steps, epochs)
            assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6), (epoch, step)
            optimizer.step()
            if warmup is not None:
                warmup.step()
        main.step()
