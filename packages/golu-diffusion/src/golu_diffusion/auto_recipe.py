"""The recipe `pictures`: network, size, batch and epochs for a folder of pictures of the user's own."""

from __future__ import annotations

from dataclasses import replace

from golu_core.training import Cosine, StepWarmup, WeightAverage
from golu_core.training.config import Fitted, check_fields, fitting_batch, median, passes, power_of_two, rounded
from golu_core.training.data import HEADERS, examined, of_examined

from .config import DiffusionConfig
from .data import load_data

_SMALLEST, _LARGEST = 16, 64
_WIDE_FROM = 10_000  # pictures from which the paper's width is taken, half of it below
_AVERAGED = 0.05  # share of the steps over which the average of the weights reaches back
_LONGEST_AVERAGE = 0.9999  # Ho et al. (2020), appendix B
_TUNED, _RATE_TUNED = 3, 0.25  # a run from given weights has a third of the epochs, and a quarter of the rate


def fit_pictures(
    recipe: DiffusionConfig, asked: DiffusionConfig, given: frozenset[str]
) -> Fitted[DiffusionConfig] | None:
    """The recipe for the pictures that are asked for, or that lie in DATA_DIR/pictures; None if there are none.

    Levels, groups, dropout and the rate at the paper's width are those of the paper's network and of Ho et al. (2020),
    2e-4; what depends on how many pictures there are is ours. They are drawn in gray only if none of them has color,
    which their formats state, or the pixels of all others show.

    Raises:
        RequestError: the pictures are missing or malformed, or the noise is impossible.
    """
    check_fields(asked.noise, "--noise.")
    folder = None if asked.data.is_own else asked.data_dir / asked.data.name
    if folder is not None and not folder.is_dir():
        return None
    data = asked.data if folder is None else replace(asked.data, images=folder)
    loaded = load_data(replace(asked, data=replace(data, channels=1)))  # in gray nothing is said of missing colors
    source = loaded.train.source
    count = source.count
    looked_at = examined(count, HEADERS)
    side = median([source.header(number).shorter for number in looked_at])
    is_gray = loaded.color.is_excluded
    size = asked.data.size if "data.size" in given else power_of_two(side, _SMALLEST, _LARGEST)
    large = size >= _LARGEST
    tuned = asked.init_from is not None
    batch = asked.batch_size if "batch_size" in given else power_of_two(count / 8, 8, 64)
    batch = fitting_batch(batch, count)
    by_count = round(passes(count, 100, 50, 1000) / (_TUNED if tuned else 1))
    epochs = asked.epochs if "epochs" in given else by_count
    steps = epochs * max(1, count // batch)
    fitted = replace(
        recipe,
        model=replace(
            recipe.model,
            width=recipe.model.width if count >= _WIDE_FROM else recipe.model.width // 2,
            multipliers=(1, 2, 2, 2) if large else (1, 2, 2),
        ),
        data=replace(
            recipe.data,
            images=folder,
            size=size,
            channels=1 if is_gray else 3,
            train_size=count,
            test_size=loaded.test.source.count,
        ),
        optim=replace(recipe.optim, lr=rounded(recipe.optim.lr * (_RATE_TUNED if tuned else 1.0))),
        schedule=Cosine(final_lr=0.0, per="step", warmup=StepWarmup(steps=max(1, min(1000, steps // 20)))),
        average=WeightAverage(decay=min(_LONGEST_AVERAGE, round(1 - 1 / max(2.0, _AVERAGED * steps), 4))),
        epochs=epochs,
        batch_size=batch,
        eval_noise_draws=power_of_two(256 / loaded.test.source.count, 1, 64),
    )
    found = (
        f"{count:,} training and {loaded.test.source.count:,} test pictures{' without color' if is_gray else ''}, "
        f"median shorter side {side:,} pixels{of_examined(len(looked_at), count)}"
    )
    return Fitted(fitted, found, count)
