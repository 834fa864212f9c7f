"""What a recipe consists of, read from the objects that it builds: networks on the meta device, optimizers, transforms.

`published_ingredients` holds the same, typed from what is published. Both are texts, so that the page on reproduction
can print them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from golu_core import replace_activations
from golu_core.training.config import LastAverage, limited_steps
from golu_core.training.config.optim import build_optimizer
from golu_core.training.config.schedules import learning_rate
from golu_core.training.data import MissingSamples
from golu_core.training.tasks.task import installed_tasks, recipes_of

_SHOWN = {
    "SGD": {"lr": "rate", "momentum": "momentum", "dampening": "dampening", "nesterov": "Nesterov"},
    "AdamW": {"lr": "rate", "betas": "betas", "eps": "eps", "amsgrad": "AMSGrad"},
    "RMSpropTF": {"lr": "rate", "alpha": "alpha", "momentum": "momentum", "eps": "eps", "centered": "centered"},
}
_OWN = {"relu": "ReLU", "gelu": "GELU", "swish": "SiLU"}


def recipe_named(name: str) -> tuple[str, Any]:
    """The task and the config of an installed recipe."""
    ((task, config),) = [
        (task.name, recipes_of(task)[name]) for task in installed_tasks().values() if name in recipes_of(task)
    ]
    return task, config


def ingredients_of(name: str) -> dict[str, str]:
    """All ingredients of a recipe, as texts by their names."""
    task, config = recipe_named(name)
    network, steps = _NETWORKS[task](config), steps_per_epoch(name)
    found = {
        "parameters": f"{sum(p.numel() for p in network.parameters()):,}",
        "dropout": _dropout(network),
        "optimizer": _optimizer(network, config),
        "weight decay": _decay(network, config),
        "batch": f"{config.batch_size:,}",
        "length": _length(config, steps),
        "clip": "none" if config.clip is None else f"norm {config.clip:g}",
        "precision": {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}[config.mixed_precision],
        **_OF_TASK[task](config, network),
    }
    swapped = replace_activations(network, config.default_activation, "golu").swapped
    return {"activations": f"{len(swapped)} {_OWN[config.default_activation]}", **found}


def steps_per_epoch(name: str) -> int:
    """Steps of an epoch on the published data set; 1 where a task counts steps alone."""
    task, config = recipe_named(name)
    if task == "vision":
        from golu_vision.train import epoch_order

        return epoch_order(config, config.data.train_images).steps_per_epoch
    if task == "detect":
        from golu_detect.orders import training_order

        return training_order(config, MissingSamples(config.data.train_size)).steps_per_epoch
    if task == "diffusion":
        from golu_diffusion.train import epoch_order as diffusion_order

        return diffusion_order(config, config.data.train_size).steps_per_epoch
    return 1


def rate_at(name: str, step: int, steps: int) -> float:
    """The learning rate of a recipe's step, counted from 0, in a run of `steps` steps an epoch."""
    _, config = recipe_named(name)
    return learning_rate(config.schedule, config.optim.lr, step, steps, config.length(steps).epochs)


def updates(name: str) -> int:
    """Optimizer steps of a whole run."""
    _, config = recipe_named(name)
    return limited_steps(config, config.length(steps_per_epoch(name)).steps)


def _length(config: Any, steps: int) -> str:
    total = limited_steps(config, config.length(steps).steps)
    if not hasattr(config, "epochs"):
        return f"{total:,} updates"
    whole = total == config.epochs * steps
    passes = f"{config.epochs} epochs of {steps:,}" if whole else f"{total / steps:.1f} passes"
    return f"{passes}, {total:,} updates"


def _dropout(network: nn.Module) -> str:
    rates = [module.p for module in network.modules() if isinstance(module, nn.Dropout) and module.p]
    rates += [getattr(network, "drop_rate", 0.0)] * bool(getattr(network, "drop_rate", 0.0))
    depths = [module.drop_prob for module in network.modules() if type(module).__name__ == "DropPath"]
    parts = [f"dropout {max(rates):g}"] if rates else []
    parts += [f"stochastic depth up to {max(depths):g}"] if any(depths) else []
    return ", ".join(parts) or "none"


def _optimizer(network: nn.Module, config: Any) -> str:
    optimizer = build_optimizer(network, config.optim, torch.device("meta"))
    kind = type(optimizer).__name__
    words = []
    for key, label in _SHOWN[kind].items():
        value = optimizer.defaults[key]
        if value is True:
            words.append(label)
        elif value:
            words.append(f"{label} {' '.join(f'{v:.6g}' for v in (value if isinstance(value, tuple) else (value,)))}")
    return f"{kind}, {', '.join(words)}"


def _decay(network: nn.Module, config: Any) -> str:
    groups = build_optimizer(network, config.optim, torch.device("meta")).param_groups
    counts = Counter({(g["weight_decay"], g["lr_scale"]): len(g["params"]) for g in groups})
    return ", ".join(
        f"{decay:g} on {count} tensors" + (f" at {scale:g} times the rate" if scale != 1 else "")
        for (decay, scale), count in sorted(counts.items(), key=lambda item: (-item[0][0], item[0][1]))
    )


# ----------------------------------------------------------------------------------------------------------- networks


def _vision_network(config: Any) -> nn.Module:
    from golu_vision.model import build_network

    with torch.device("meta"):
        return build_network(config.model, config.data.classes, config.data)


def _detect_network(config: Any) -> nn.Module:
    from golu_detect.model import build_network

    with torch.device("meta"):
        return build_network(config.model, config.data.expected_classes)


def _lm_network(config: Any) -> nn.Module:
    from golu_lm.model import GPT

    with torch.device("meta"):
        return GPT(config.model, config.default_activation)


def _translation_network(config: Any) -> nn.Module:
    from golu_translate.model import Translator

    with torch.device("meta"):
        return Translator(config.model, config.default_activation)


def _diffusion_network(config: Any) -> nn.Module:
    from golu_diffusion.model import UNet

    with torch.device("meta"):
        return UNet(config.model, config.default_activation, config.data.channels)


_NETWORKS = {
    "vision": _vision_network,
    "detect": _detect_network,
    "lm": _lm_network,
    "translation": _translation_network,
    "diffusion": _diffusion_network,
}

# -------------------------------------------------------------------------------------------------- what a task adds


def _normed_over(config: Any, network: nn.Module) -> str:
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
        return "none"
    size = config.micro_batch_size if config.batch_norm == "per_process" else config.batch_size
    return f"over {size} images"


def _vision(config: Any, network: nn.Module) -> dict[str, str]:
    from golu_vision.transforms import evaluation_transform

    test = evaluation_transform(config.data)
    data, mix, average = test.keywords["data"], config.mix, config.average
    whole = data.size == test.keywords["shorter"]
    return {
        "initial weights": _initial_weights(config),
        "training images": _training_images(config),
        "normalization": f"{' '.join(f'{m:g}' for m in data.mean)}; {' '.join(f'{s:g}' for s in data.std)}",
        "mixing": "none" if mix is None else f"MixUp {mix.mixup:g} or CutMix {mix.cutmix:g}, in groups of {mix.group}",
        "loss": "cross-entropy" + (f", label smoothing {config.label_smoothing:g}" * bool(config.label_smoothing)),
        "batch norm": _normed_over(config, network),
        "average": "none" if average is None else _average(average),
        "evaluation": "as they are"
        if whole
        else f"shorter side {test.keywords['shorter']}, {data.interpolation}; center crop {data.size}",
        "number": f"top-1 of the {'average' if average is not None and average.evaluate else 'last weights'}",
    }


def _average(average: Any) -> str:
    if isinstance(average, LastAverage):
        return f"mean of the last {average.count}, {average.every} updates apart"
    often = "update" if average.every == 1 else f"{average.every} updates"
    copied = f", a copy for {average.copy_epochs} epochs" * bool(average.copy_epochs)
    return f"decay {average.decay:.4g} every {often}{copied}" + ", its decay grows" * average.ramp


def _initial_weights(config: Any) -> str:
    """Of this package's networks as they are drawn; others are built by their library."""
    from golu_vision.model import build_network

    library = config.model.name.partition("/")[0]
    if library in ("torchvision", "timm"):
        return f"{library}'s"
    torch.manual_seed(0)
    network: Any = build_network(config.model, config.data.classes, config.data)
    weight = max((m.weight for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)), key=torch.numel)
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
    deviation, largest = weight.std().item(), weight.abs().max().item()
    kinds = {
        "normal, variance 2 / inputs": (2 / fan_in) ** 0.5,
        "uniform, variance 4 / (inputs + outputs)": (4 / (fan_in + fan_out)) ** 0.5,
        "uniform, variance 1 / (3 inputs)": (1 / (3 * fan_in)) ** 0.5,
    }
    (kind,) = [
        text
        for text, expected in kinds.items()
        if abs(deviation / expected - 1) < 0.02 and (largest <= 1.7321 * expected) == text.startswith("uniform")
    ]
    return f"{kind}; the head's bias {'uniform' if network.head.bias.any() else '0'}"


def _training_images(config: Any) -> str:
    from golu_vision.config import TimmAugment
    from golu_vision.transforms import training_transform

    pipeline: Any = training_transform(config.data, config.augment)
    steps = pipeline.transforms[1].transforms if isinstance(config.augment, TimmAugment) else pipeline.transforms
    texts = [text for step in steps if (text := _step(step))]
    texts += [f"each image {config.repeats} times in a row"] if config.repeats > 1 else []
    return "; ".join(texts) or "as they are"


def _step(step: Any) -> str:
    kind = type(step).__name__
    if kind == "RandomCrop" and step.padding:
        return f"crop of {step.size[0]} padded by {step.padding[0]}"
    if kind in ("RandomResizedCrop", "RandomResizedCropAndInterpolation"):
        modes = step.interpolation if isinstance(step.interpolation, tuple | list) else [step.interpolation]
        names = " or ".join(getattr(mode, "value", mode) for mode in modes)
        area, ratio = step.scale, step.ratio
        return f"crop of {area[0]:.0%} to {area[1]:.0%}, {ratio[0]:.2f} to {ratio[1]:.2f}, to {step.size[0]}, {names}"
    if kind == "RandomHorizontalFlip":
        return f"flip {step.p:g}"
    if kind == "AutoAugment":
        return f"AutoAugment {step.policy.value}, {step.interpolation.value}"
    if kind == "RandAugment":
        first = step.ops[0]
        mode = first.kwargs["resample"]
        drawn = "drawn" if isinstance(mode, tuple) else "not drawn"
        grows = " growing with it" * ("Increasing" in " ".join(op.name for op in step.ops))
        parts = f"{step.num_layers} of {len(step.ops)}, magnitude {first.magnitude} ± {first.magnitude_std}{grows}"
        return f"RandAugment {parts}, interpolation {drawn}"
    if kind == "RandomErasing":
        return f"erasing {step.probability:g} by noise" if step.per_pixel else "erasing"
    return ""


def _detect(config: Any, network: nn.Module) -> dict[str, str]:
    augment, model = config.augment, config.model
    flip = "flip 0.5; " * augment.flip
    if config.segments:
        low, high = augment.resize
        return {
            "training images": f"shorter side {low} to {high}; {flip}crop of {augment.crop}",
            "loss": f"cross-entropy, {model.aux_weight:g} times the auxiliary head's added",
            "batch norm": _normed_over(config, network),
            "evaluation": f"shorter side {augment.eval_side}",
        }
    sides = " ".join(map(str, model.shorter_side))
    return {
        "training images": f"{flip}shorter side {sides}, longer at most {model.longer_side}",
        "grouping": f"aspect ratios, {config.group_size} images",
        "batch norm": _normed_over(config, network),
        "evaluation": f"one image, shorter side {model.shorter_side[-1]}",
    }


def _lm(config: Any, network: nn.Module) -> dict[str, str]:
    model = config.model
    biases = "biases" if model.bias else "no biases"
    return {
        "network": f"{model.layers} layers, {model.heads} heads, width {model.width}, {biases}",
        "context": f"{model.context}",
        "estimates": f"every {config.eval_every:,} updates, {config.eval_sequences // config.micro_batch_size} batches",
    }


def _translation(config: Any, network: nn.Module) -> dict[str, str]:
    return {
        "average": _average(config.average),
        "loss": f"cross-entropy, label smoothing {config.label_smoothing:g}",
    }


def _diffusion(config: Any, network: nn.Module) -> dict[str, str]:
    model, noise = config.model, config.noise
    betas = f"{noise.beta_start:g} to {noise.beta_end:g}"
    return {
        "network": f"width {model.width}, times {' '.join(map(str, model.multipliers))}, {model.blocks} blocks",
        "noise": f"{noise.steps} steps, {betas}",
        "training images": f"{config.data.size} x {config.data.size}" + "; flip 0.5" * config.data.flip,
        "average": "none" if config.average is None else _average(config.average),
    }


_OF_TASK = {
    "vision": _vision,
    "detect": _detect,
    "lm": _lm,
    "translation": _translation,
    "diffusion": _diffusion,
}
