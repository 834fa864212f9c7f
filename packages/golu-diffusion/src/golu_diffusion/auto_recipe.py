"""The recipe `pictures`: network, image size, batch size, and epochs for the user's own folder of images."""

from __future__ import annotations

from dataclasses import replace

from golu_core.training import Cosine, StepWarmup, WeightAverage
from golu_core.training.config import Fitted, check_fields, fitting_batch, median, passes, power_of_two, rounded
from golu_core.training.data import HEADERS, examined, of_examined

from .config import DiffusionConfig
from .data import load_data

_SMALLEST, _LARGEST = 16, 64
_WIDE_FROM = 10_000  # number of images from which the paper's width is used; half of it below
_AVERAGED = 0.05  # fraction of the steps that the average of the weights covers
_LONGEST_AVERAGE = 0.9999  # Ho et al. (2020), appendix B
_TUNED, _RATE_TUNED = 3, 0.25  # with pretrained weights: a third of the epochs, a quarter of the learning rate


def fit_pictures(
    recipe: DiffusionConfig, asked: DiffusionConfig, given: frozenset[str]
) -> Fitted[DiffusionConfig] | None:
    """Return the recipe for the requested images, or for those in DATA_DIR/pictures; None if there are none.

    Levels, groups, dropout, and the learning rate at the paper's width, 2e-4, are those of the paper's network and of
    Ho et al. (2020); the rules that depend on the number of images are our own. Samples are gray only if no image has
    color, according to the file format or the pixels.

    Raises:
        RequestError: The images are missing or malformed, or the noise is invalid.
    """
    check_fields(asked.noise, "--noise.")
    folder = None if asked.data.is_own else asked.data_dir / asked.data.name
    if folder is not None and not folder.is_dir():
        return None
    data = asked.data if folder is None else replace(asked.data, images=folder)
    loaded = load_data(replace(asked, data=replace(data, channels=1)))  # no notes about missing colors in gray
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
