"""`RunConfig`: the fields that every recipe has, and which of them make up a run's identity."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import tyro

from golu_core.activation.names.registry import canonical_name

from ..messages.errors import RequestError
from .fields import PositiveFloat, PositiveInt, Range, Samples, Seed, added_field, check_fields
from .optim import Optim, Sgd
from .schedules import Constant, Schedule
from .variants import KIND, kind_of, read_variants

Config = TypeVar("Config", bound="RunConfig")

ACTIVATION_SOURCE = "activation_source"
"""The field that identifies the code of a custom activation: a checksum, or a package's version."""
_LARGEST_EVALUATION_BATCH = 256
_PAPER_SEEDS = 3
_TABLE_COLUMNS = ("relu", "gelu", "swish", "mish", "golu")
_PICTURE_COLUMNS = ("relu", "leaky_relu", "elu", "gelu", "swish", "mish", "golu")


def runtime_field(default: Any) -> Any:
    """Declare a field that decides where and how a run runs, not what it computes; it may change when a run continues.

    Args:
        default: The field's default.

    Examples:
        >>> from dataclasses import dataclass, fields
        >>> from golu_core.training import EpochConfig, runtime_field
        >>> @dataclass(frozen=True, kw_only=True)
        ... class TabularConfig(EpochConfig):
        ...     preview_every: int = runtime_field(100)
        >>> [field.name for field in fields(TabularConfig) if not field.metadata.get("identity", True)][-2:]
        ['check_data', 'preview_every']
    """
    return field(default=default, metadata={"identity": False})


@dataclass(frozen=True)
class PublishedAt:
    """Further published results of a recipe, such as those at another learning rate.

    Attributes:
        settings: The fields, by their flags' names, in which those runs differ from the recipe; empty for runs of the
            recipe with activations that the paper's table leaves out.
        results: Published mean, and ± where one is printed, by metric and activation.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Mapping[str, tuple[float, float | None]]] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperRow:
    """The row of the paper that a recipe stands for.

    Attributes:
        model, dataset: The names in the paper.
        metric: The metric that runs are compared by; a key of `metrics` in result.json.
        size: The number of parameters of the model.
        results: Published mean and ± over 3 seeds, by metric and activation, in the metric's unit; empty if the paper
            prints none.
        ddof: Of the deviation that ± is a standard error of: ± is std(ddof)/√3. It is 0 in all cells that can be
            checked against published results of single seeds, but for Mask R-CNN's.
        further: Published results at other settings, or of other activations.
        given: Fields that the published runs set to what only a user's disk has, with the end of that value.
    """

    model: str
    dataset: str
    metric: str
    size: int
    results: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    ddof: int = 0
    further: tuple[PublishedAt, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)

    def published_with(self, changed: Mapping[str, Any]) -> dict[str, dict[str, tuple[float, float | None]]]:
        """Return the published results of runs with these settings, by metric and activation.

        Args:
            changed: The fields in which the runs differ from the recipe, with the runs' values.

        Examples:
            >>> from golu_core.training.config import PaperRow, PublishedAt
            >>> at_a_tenth = PublishedAt({"optim.lr": 0.01}, {"top1": {"relu": (75.1, None)}})
            >>> row = PaperRow("ResNet", "images", "top1", 1, {"top1": {"relu": (75.4, 0.07)}}, further=(at_a_tenth,))
            >>> row.published_with({}), row.published_with({"optim.lr": 0.01}), row.published_with({"epochs": 2})
            ({'top1': {'relu': (75.4, 0.07)}}, {'top1': {'relu': (75.1, None)}}, {})
        """
        if any(not str(changed.get(name)).endswith(end) for name, end in self.given.items()):
            return {}
        varied = {name: value for name, value in changed.items() if name not in self.given}
        found: dict[str, dict[str, tuple[float, float | None]]] = {}
        for settings, results in [({}, self.results), *((at.settings, at.results) for at in self.further)]:
            if dict(settings) == varied:
                for metric, values in results.items():
                    found[metric] = {**values, **found.get(metric, {})}
        return found

    def sample_deviation(self, printed: float) -> float:
        """Return the sample deviation over 3 seeds that a printed ± stands for.

        Examples:
            >>> from golu_core.training.config import PaperRow
            >>> round(PaperRow("ResNet-18", "ImageNet-1k", "top1", 11_689_512).sample_deviation(0.06), 3)
            0.127
        """
        return printed * math.sqrt(_PAPER_SEEDS) * math.sqrt((_PAPER_SEEDS - self.ddof) / (_PAPER_SEEDS - 1))


def published(columns: str) -> dict[str, tuple[float, float]]:
    """Mean and spread of the activations that the paper's tables compare.

    Args:
        columns: `69.74±0.07 70.66±0.05 …`, in the tables' order: ReLU, GELU, Swish, Mish, GoLU.
    """
    cells = [tuple(map(float, cell.split("±"))) for cell in columns.split()]
    return {name: (mean, spread) for name, (mean, spread) in zip(_TABLE_COLUMNS, cells, strict=True)}


def pictured(columns: str) -> dict[str, tuple[float, float | None]]:
    """Means of the activations that the paper's pictures of learning rates compare.

    Args:
        columns: `73.26 73.25 …`, in the pictures' order: ReLU, LeakyReLU, ELU, GELU, Swish, Mish, GoLU.
    """
    return {name: (float(mean), None) for name, mean in zip(_PICTURE_COLUMNS, columns.split(), strict=True)}


@dataclass(frozen=True)
class RunLength:
    """How long a run is, in the epochs that its schedule counts."""

    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return self.epochs * self.steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The fields that every recipe has. Inherit from it, or from `EpochConfig`, and add your task's own fields.

    Each field is a flag of `train`, described by the docstring after it, and its type decides which values it accepts.
    A recipe is a value of such a class.

    Examples:
        >>> from dataclasses import dataclass, replace
        >>> from golu_core.training import AdamW, RunConfig
        >>> recipe = RunConfig(recipe="tumors", batch_size=64, optim=AdamW(lr=0.01))
        >>> replace(recipe, activation="gelu", seed=1).optim.lr
        0.01
    """

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {"micro_batch_size": "max_device_batch"}

    recipe: Annotated[str, tyro.conf.Suppress] = ""
    """The recipe's name."""
    paper: Annotated[PaperRow | None, tyro.conf.Suppress] = runtime_field(None)
    """The paper's row that the recipe reproduces; None if there is none."""

    activation: str = "golu"
    """Activation function: `golu`, `relu`, `gelu`, `swish` and more (`golu-core activations`), `golu(beta=0.5)`; or
    your own, `./file.py:Name` or `package.module:Name`, whose code is run."""
    activation_source: Annotated[str, tyro.conf.Suppress, tyro.conf.Fixed] = added_field("")
    """Checksum of the file, or version of the package, with a custom activation's code."""
    seed: Seed = 0
    """Seed of the initial weights, the order of the data, augmentation and dropout."""
    max_steps: PositiveInt | None = None
    """Stop after this many optimizer steps, as a finished run of that length."""
    holdout: Literal["test", "validation"] = added_field("test")
    """Data that the run is evaluated on: the test set, or 10% of the training data, which are then not trained on.
    Choose settings with `validation`, and leave the test set for the final runs."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Autocast to a half type."""
    compile: bool = False
    """Compile the model with torch.compile."""
    deterministic: bool = False
    """Use only deterministic kernels on the GPU: slower, but a resumed run is bit for bit the uninterrupted one."""

    init_from: str | None = added_field(None)
    """Start from pretrained weights: a finished run's folder, a `.safetensors` file, a state dict from torch.save, or
    a name that the task supports: `torchvision:IMAGENET1K_V2`, `timm:default`, or a Hugging Face model's folder or
    `hf:ID`, whose sizes the run then uses."""
    freeze: tuple[str, ...] = added_field(())
    """Parts of the network to freeze, by patterns of module names such as `layer1`; batch norms in
    them keep their statistics."""

    optim: Optim = Sgd()
    """Optimizer."""
    schedule: Schedule = Constant()
    """Learning rate over the run."""
    batch_size: Samples = 256
    """Samples of one optimizer step, over all processes."""
    micro_batch_size: Samples | None = None
    """Maximum micro-batch size per device. A larger share of the batch is split and its gradients are accumulated;
    batch norm and dropout then see micro-batches, so this changes the numbers."""
    clip: PositiveFloat | None = None
    """Clip the gradient to this norm."""

    data_dir: Path = runtime_field(Path("data"))
    """Folder that holds the data sets."""
    output_dir: Path = runtime_field(Path("runs"))
    """Folder for runs: OUTPUT_DIR/<task>/<recipe>/<activation>/seed<N>."""
    num_workers: Annotated[int, Range(ge=0, le=512)] | None = runtime_field(None)
    """Loader processes per training process; by default its share of the cores, and 0 for data in memory."""
    checkpoint_every: PositiveInt | None = runtime_field(None)
    """Steps between checkpoints, in addition to the one at the end of each epoch."""
    keep_checkpoints: PositiveInt = runtime_field(2)
    """How many checkpoints are kept."""
    log_every: PositiveInt = runtime_field(50)
    """Steps between lines of training metrics in metrics.jsonl."""
    tracker: Literal["none", "tensorboard", "wandb"] = runtime_field("none")
    """Experiment tracker, in addition to metrics.jsonl."""
    overwrite: bool = runtime_field(False)
    """Delete the existing run and start again, once: typed again after a stop, the same command continues."""
    dry_run: bool = runtime_field(False)
    """Read the data, build the model, print what would run, and refuse what training would refuse; write nothing."""
    check_data: bool = runtime_field(False)
    """Read every sample before training, and name the first one that cannot be decoded."""

    @property
    def default_activation(self) -> str:
        """The activation of the architecture as published, with which training times are compared."""
        raise NotImplementedError

    @property
    def primary_metric(self) -> str:
        """The metric by which runs of this config are compared, as result.json names it."""
        raise NotImplementedError

    def length(self, steps_per_epoch: int) -> RunLength:
        """Return the planned length of the run, ignoring `max_steps`.

        Args:
            steps_per_epoch: The steps per epoch in the order of the training set.
        """
        raise NotImplementedError

    @property
    def units_per_sample(self) -> int:
        """The number of throughput units per sample."""
        return 1

    @property
    def evaluation_batch(self) -> int:
        """Samples that a device takes at once in evaluation.

        It follows from the training batch and is not a field: networks round differently for other batches, and
        so a number would depend on where a run was evaluated.
        """
        return min(self.micro_batch_size or self.batch_size, _LARGEST_EVALUATION_BATCH)


@dataclass(frozen=True, kw_only=True)
class EpochConfig(RunConfig):
    """The fields of recipes whose runs are passes over a training set.

    Examples:
        >>> from golu_core.training import EpochConfig
        >>> EpochConfig(recipe="tumors", epochs=8, batch_size=32).length(steps_per_epoch=15).steps
        120
    """

    epochs: PositiveInt = 90
    """Passes over the training set."""
    drop_last: bool = False
    """Drop the samples that do not fill the epoch's last batch; otherwise the epoch's first samples fill it."""

    def length(self, steps_per_epoch: int) -> RunLength:
        return RunLength(self.epochs, steps_per_epoch)


def checked(config: Config) -> Config:
    """The config with its activation's canonical name; RequestError where a field has an impossible value."""
    try:
        activation = canonical_name(config.activation)
    except ValueError as error:
        raise RequestError(str(error)) from None
    check_fields(config)
    _check_given(config)
    return dataclasses.replace(config, activation=activation)


def require_tracker(config: RunConfig) -> None:
    """Raise RequestError if the tracker's package is not installed; only training needs it."""
    if config.tracker != "none" and importlib.util.find_spec(config.tracker) is None:
        raise RequestError(f"--tracker {config.tracker} needs the package: pip install {config.tracker}")


def _check_given(config: RunConfig) -> None:
    """Raises RequestError where a flag is of weights that are given, and none are."""
    if config.init_from is not None:
        return
    if config.freeze:
        raise RequestError("--freeze needs pretrained weights: pass --init-from")
    if config.optim.backbone_lr_scale != 1:
        raise RequestError("--optim.backbone-lr-scale needs pretrained weights: pass --init-from")


def limited_steps(config: RunConfig, planned: int) -> int:
    """Return the number of optimizer steps of a run: as planned, or `max_steps` if that is lower."""
    return planned if config.max_steps is None else min(planned, config.max_steps)


def to_json(value: Any) -> Any:
    """A config as JSON values: dataclasses to objects, tuples to lists, paths to strings; variants have a `kind`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = {KIND: kind_of(value)} if hasattr(value, KIND) else {}
        return {**kind, **{f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_json(config_type: type[Config], values: Mapping[str, Any]) -> Config:
    """Return the config that `to_json` wrote; raise RequestError if a value is malformed or invalid."""
    import cattrs

    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(Path, lambda value, _: Path(value))
    read_variants(converter)
    try:
        config = converter.structure(dict(values), config_type)
    except Exception as error:
        problems = "; ".join(cattrs.transform_error(error))
        raise RequestError(f"this config is not one of {config_type.__name__}: {problems}") from None
    return checked(config)
