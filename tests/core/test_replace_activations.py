"""`replace_activations` on small models, on the recipes' networks and on Hugging Face models."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from golu_core import GoLU, build_activation, replace_activations
from golu_core.activation import ACTIVATIONS, canonical_name, find_activations


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        shared = nn.ReLU()
        self.first = nn.Sequential(nn.Linear(4, 4), shared)
        self.second = nn.ModuleDict({"a": shared, "b": nn.ModuleList([nn.ReLU(inplace=True)])})
        self.other = nn.GELU()

    def forward(self, x):
        x = F.relu(self.second["a"](self.first(x)))
        return self.other(self.second["b"][0](x)) + torch.relu(x).sigmoid()


def test_swaps_recursively_and_a_shared_module_once():
    model = Branches().eval()
    report = replace_activations(model, "relu", "golu", example_inputs=(torch.zeros(2, 4),))
    assert report.swapped == ("first.1", "second.a", "second.b.0")
    assert model.first[1] is model.second["a"]
    assert isinstance(model.second["b"][0], GoLU) and model.second["b"][0] is not model.first[1]
    assert not model.first[1].training
    assert isinstance(model.other, nn.GELU)
    assert [(call.module, call.activation, call.count) for call in report.left] == [("", "relu", 2)]
    assert "first.1" in str(report) and "relu called in the model's own forward (2 times)" in str(report)


@pytest.mark.parametrize("example", [None, (torch.zeros(2, 4),)], ids=["traced", "run"])
def test_functional_calls_are_found_both_ways(example):
    report = replace_activations(Branches(), "relu", "golu", example_inputs=example)
    assert sum(call.count for call in report.left) == 2


def test_running_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Dropout())
    before = copy.deepcopy(model.state_dict())
    replace_activations(model, "relu", "golu", example_inputs=(torch.randn(4, 3),))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_that_cannot_be_traced_says_so():
    class Dynamic(nn.Module):
        def forward(self, x):
            return F.relu(x) if x.sum() > 0 else x

    report = replace_activations(Dynamic(), "relu", "golu")
    assert report.left is None and "TraceError" in report.untraced
    assert "not searched for" in str(report)


def test_what_is_swapped_in_is_not_searched():
    model = nn.Sequential(nn.ReLU(), nn.Linear(2, 2))
    report = replace_activations(model, "relu", lambda: nn.Sequential(GoLU(), nn.ReLU()))
    assert report.swapped == ("0",)
    assert isinstance(model[0][1], nn.ReLU)


def test_by_class_and_by_factory():
    model = nn.Sequential(nn.SiLU(), nn.ReLU())
    report = replace_activations(model, nn.SiLU, lambda: GoLU(alpha=2.0))
    assert report.swapped == ("0",) and report.old == "swish"
    assert model[0].alpha == 2


def test_the_model_itself_cannot_be_swapped_in_place():
    with pytest.raises(ValueError, match="cannot replace itself"):
        replace_activations(nn.ReLU(), "relu", "golu")


def test_new_parameters_follow_the_model():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).to(torch.bfloat16)
    replace_activations(model, "relu", "prelu")
    assert model[1].weight.dtype == torch.bfloat16


def test_function_attributes_and_the_fused_path_of_the_transformer_layer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0).eval()  # holds F.relu, not a module
    x = torch.randn(2, 3, 8)
    report = replace_activations(layer, "relu", "golu", example_inputs=(x,))
    assert report.swapped == ("activation",)
    with torch.no_grad():
        fast_or_not = layer(x)
    torch.testing.assert_close(fast_or_not, layer.train()(x).detach())


def test_a_gate_is_kept():
    from torchvision.ops import SqueezeExcitation

    model = nn.Sequential(SqueezeExcitation(8, 2), nn.Sigmoid())
    report = replace_activations(model, "sigmoid", "golu", example_inputs=(torch.zeros(1, 8, 4, 4),))
    assert report.swapped == ("1",) and report.gates == ("0.scale_activation",)


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_registry(name):
    module = build_activation(name.upper())
    assert module(torch.randn(3)).shape == (3,)
    holder = nn.Sequential(module, nn.Linear(3, 3))
    assert replace_activations(holder, name, "golu").swapped == ("0",)
    assert canonical_name(f" {name} ") == name


def test_unknown_names():
    assert canonical_name("SiLU") == "swish"
    with pytest.raises(ValueError, match="did you mean 'mish'"):
        canonical_name("mihs")


@pytest.mark.parametrize(
    ("model", "own", "count", "left"),
    [
        ("torchvision/resnet18", "relu", 9, []),
        ("torchvision/resnet34", "relu", 17, []),
        ("torchvision/resnet50", "relu", 17, []),
        ("torchvision/wide_resnet50_2", "relu", 17, []),
        ("torchvision/densenet121", "relu", 120, [("", "relu", 1)]),
        ("torchvision/vit_b_16", "gelu", 12, []),
        ("torchvision/vit_b_32", "gelu", 12, []),
        ("timm/efficientnet_b0", "swish", 49, []),
        ("timm/tiny_vit_21m_224", "gelu", 23, []),
        ("timm/vit_tiny_patch16_224", "gelu", 12, []),
    ],
)
def test_networks_of_the_recipes(model, own, count, left):
    """All modules of the class are gone, as many as an independent count of classes finds, and no other."""
    from golu_vision.config import Data, Model
    from golu_vision.model import build_network

    network = build_network(Model(model), 10, Data())
    classes = {"relu": (nn.ReLU,), "gelu": (nn.GELU,), "swish": (nn.SiLU,)}[own]
    names = [name for name, module in network.named_modules() if isinstance(module, classes)]
    report = replace_activations(network, own, "golu", example_inputs=(torch.zeros(1, 3, 224, 224),))
    assert list(report.swapped) == names
    assert len(names) == count
    assert not any(isinstance(module, classes) for module in network.modules())
    assert [(call.module, call.activation, call.count) for call in report.left] == left
    assert any(isinstance(module, nn.Sigmoid) for module in network.modules()) == ("efficientnet" in model)


class Unused(nn.Module):
    """As Hugging Face's Mamba: a module that nobody calls, beside a function that does the work."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.act = nn.SiLU()
        self.used = nn.SiLU()

    def forward(self, x, scale=1.0):
        return self.used(F.silu(self.linear(x))) * scale


@pytest.mark.parametrize(
    "inputs",
    [None, (torch.zeros(2, 4),), {"x": torch.zeros(2, 4), "scale": 2.0}],
    ids=["traced", "positional", "keyword"],
)
def test_what_is_never_called_is_named(inputs):
    model = Unused()
    report = replace_activations(model, "swish", "golu", example_inputs=inputs)
    assert report.swapped == ("act", "used") and report.uncalled == ("act",)
    assert [(call.activation, call.count) for call in report.left] == [("swish", 1)]
    assert "swapped act, but the forward pass never calls it" in str(report)


@pytest.mark.parametrize("inputs", [None, (torch.zeros(2, 3, 8),)], ids=["traced", "run"])
def test_what_torchs_own_layers_call_is_not_said_to_be_uncalled(inputs):
    """A trace does not go into a layer of torch.nn."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=nn.GELU(), batch_first=True, dropout=0.0)
    model = nn.Sequential(layer, nn.Linear(8, 2))
    for report in (
        find_activations(model, "gelu", example_inputs=inputs),
        replace_activations(model, "gelu", "golu", example_inputs=inputs),
    ):
        assert report.swapped == ("0.activation",) and report.uncalled == ()


def test_a_shared_module_counts_as_called_under_each_name():
    model = Branches()
    model.third = model.other
    report = replace_activations(model, "gelu", "golu", example_inputs=(torch.zeros(2, 4),))
    assert report.swapped == ("other", "third") and report.uncalled == ()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript
@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("inputs", [None, (torch.zeros(2, 4),)], ids=["traced", "run"])
def test_scripted_parts_are_named(inputs, traced):
    part = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.ReLU())
    scripted = torch.jit.trace(part, torch.zeros(2, 4)) if traced else torch.jit.script(part)
    model = nn.Sequential(nn.ReLU(), scripted)
    report = replace_activations(model, "relu", "golu", example_inputs=inputs)
    assert report.swapped == ("0",)
    assert [(call.module, call.activation, call.count) for call in report.left] == [("1", "relu", 2)]


def test_a_network_that_never_calls_its_activation_is_refused_for_training():
    from golu_core.training.messages.errors import RequestError
    from golu_core.training.tasks.swapped import swapped_for

    model = Unused()
    model.used = nn.Identity()
    with pytest.raises(RequestError, match="never calls its modules of swish, such as act"):
        swapped_for(model, "swish", "golu", (torch.zeros(2, 4),))


def hugging_face_models():
    """Small models of transformers: how each is made, its activation, and how many are swapped and never called."""
    import transformers as t

    small = {"vocab_size": 64, "num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2}
    small |= {"intermediate_size": 32}
    image = {k: v for k, v in small.items() if k != "vocab_size"} | {"image_size": 28, "patch_size": 14}
    both = {"vocab_size": 64, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2}
    both |= {
        f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in (("ffn_dim", 32), ("attention_heads", 2))
    }
    return {
        "bert": (lambda: t.BertModel(t.BertConfig(**small)), "gelu", 2, 0),
        "gpt2": (
            lambda: t.GPT2LMHeadModel(t.GPT2Config(vocab_size=64, n_layer=2, n_embd=16, n_head=2, n_positions=16)),
            "gelu", 2, 0,
        ),
        "llama": (lambda: t.LlamaForCausalLM(t.LlamaConfig(**small, num_key_value_heads=2)), "swish", 2, 0),
        "gemma": (lambda: t.GemmaForCausalLM(t.GemmaConfig(**small, num_key_value_heads=2, head_dim=8)), "gelu", 2, 0),
        "t5": (
            lambda: t.T5ForConditionalGeneration(
                t.T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
            ),
            "relu", 4, 0,
        ),
        "bart": (lambda: t.BartModel(t.BartConfig(**both)), "gelu", 4, 0),
        "vit": (lambda: t.ViTModel(t.ViTConfig(**image)), "gelu", 2, 0),
        "convnext": (
            lambda: t.ConvNextModel(t.ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4, image_size=64)),
            "gelu", 4, 0,
        ),
        "whisper": (
            lambda: t.WhisperModel(
                t.WhisperConfig(**both, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)
            ),
            "gelu", 4, 0,
        ),
        "mamba": (
            lambda: t.MambaModel(t.MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, state_size=4)),
            "swish", 2, 2,
        ),
    }  # fmt: skip


@pytest.mark.slow
def test_models_of_transformers_are_understood_without_inputs():
    pytest.importorskip("transformers", reason="needs transformers, from the dependency group test")
    for name, (make, own, swapped, uncalled) in hugging_face_models().items():
        report = replace_activations(make().eval(), own, "golu")
        assert (len(report.swapped), len(report.uncalled)) == (swapped, uncalled), f"{name}: {report}"
        assert report.left is not None, f"{name}: {report.untraced}"
        assert bool(report.left) == (name in ("mamba", "whisper")), f"{name}: {report}"


@pytest.mark.slow
def test_hugging_face_bert_and_gpt2():
    transformers = pytest.importorskip("transformers", reason="needs transformers, from the dependency group test")
    small = {"vocab_size": 64, "num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2}
    bert = transformers.BertModel(transformers.BertConfig(**small, intermediate_size=32)).eval()
    tokens = torch.zeros(1, 5, dtype=torch.long)
    report = replace_activations(bert, "gelu", "golu", example_inputs=(tokens,))
    assert report.swapped == tuple(f"encoder.layer.{n}.intermediate.intermediate_act_fn" for n in range(2))
    assert isinstance(bert.pooler.activation, nn.Tanh)
    assert report.left == ()
    gpt2 = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=64, n_layer=2, n_embd=16, n_head=2, n_positions=16)
    ).eval()
    before = gpt2(tokens).logits
    report = replace_activations(gpt2, "gelu", "golu", example_inputs=(tokens,))
    assert report.swapped == tuple(f"transformer.h.{n}.mlp.act" for n in range(2))
    assert not torch.allclose(gpt2(tokens).logits, before)


def test_a_report_without_swaps_names_the_activations_that_are_there():
    """torchvision's MobileNetV2 has 35 ReLU6, and "0 swapped" told nobody so."""
    network = torchvision.models.mobilenet_v2()
    report = replace_activations(network, "relu", "golu")
    assert report.swapped == () and report.others == (("ReLU6", 35),)
    assert "the model has 35 ReLU6" in str(report)
    report = replace_activations(network, nn.ReLU6, "golu")
    assert len(report.swapped) == 35 and report.others == ()
    assert find_activations(nn.Sequential(nn.Linear(2, 2)), "relu").others == ()
    gated = nn.ModuleDict({"gate": nn.Sigmoid(), "linear": nn.Linear(2, 2)})
    assert find_activations(gated, "sigmoid").gates == ("gate",) and find_activations(gated, "sigmoid").others == ()
