"""The process against closed forms, samplers against a Gaussian of known noise, the UNet against a count by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from golu_core.activation import GoLU
from golu_core.training.config.run_config import limited_steps
from golu_core.training.config.schedules import learning_rate
from golu_core.training.messages.errors import RequestError, RunFailure
from golu_diffusion.cli import COMMAND_LINE
from golu_diffusion.config import Model, Noise
from golu_diffusion.data import _area_weights, fitted, pixels_of, scaled
from golu_diffusion.diffusion import Diffusion, batch_noise, check_sampling, in_fixed_batches, sampled
from golu_diffusion.model import Attention, UNet
from golu_diffusion.recipes import RECIPES
from golu_diffusion.train import epoch_order

DIFFUSION = Diffusion(Noise())


# ---------------------------------------------------------------------------------------------------------- the process


def exact(t: int) -> tuple[float, float, float]:
    """beta, alpha_bar and alpha_bar before, of step t, in Python's own arithmetic."""
    betas = [1e-4 + (0.02 - 1e-4) * k / 999 for k in range(t + 1)]
    bars = [1.0]
    for beta in betas:
        bars.append(bars[-1] * (1 - beta))
    return betas[-1], bars[-1], bars[-2]


@pytest.mark.parametrize("t", [0, 1, 10, 500, 998, 999])
def test_constants_match_closed_forms(t):
    beta, bar, before = exact(t)
    assert DIFFUSION.beta[t].item() == pytest.approx(beta, rel=1e-6)
    assert DIFFUSION.alpha_bar[t].item() == pytest.approx(bar, rel=1e-6)
    assert DIFFUSION.image_scale[t].item() == pytest.approx(math.sqrt(bar), rel=1e-6)
    assert DIFFUSION.noise_scale[t].item() == pytest.approx(math.sqrt(1 - bar), rel=1e-6)
    assert DIFFUSION.posterior_variance[t].item() == pytest.approx(beta * (1 - before) / (1 - bar), rel=1e-6, abs=1e-12)


def test_the_forward_process_is_that_of_single_steps():
    """Noise added step by step (equation 2) has the mean and variance of equation 4."""
    mean, variance = 1.0, 0.0
    for t in range(300):
        mean *= math.sqrt(1 - exact(t)[0]) if t < 3 else math.sqrt(1 - DIFFUSION.beta[t].item())
        variance = variance * (1 - DIFFUSION.beta[t].item()) + DIFFUSION.beta[t].item()
    assert DIFFUSION.image_scale[299].item() == pytest.approx(mean, rel=1e-5)
    assert DIFFUSION.noise_scale[299].item() ** 2 == pytest.approx(variance, rel=1e-5)


def test_noised_images_are_denoised():
    images, noise = torch.randn(3, 3, 4, 4), torch.randn(3, 3, 4, 4)
    steps = torch.tensor([0, 300, 700])
    x = DIFFUSION.noised(images, steps, noise)
    torch.testing.assert_close(DIFFUSION.denoised(x, steps, noise), images, rtol=1e-3, atol=1e-3)


def test_a_ddpm_step_has_the_posteriors_mean():
    """With the true noise, algorithm 2's mean is equation 7 for the image that the noise belongs to."""
    image, noise, t = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4), 400
    x = DIFFUSION.noised(image, torch.tensor([t]), noise)
    beta, bar, before = exact(t)
    posterior = math.sqrt(before) * beta / (1 - bar) * image + math.sqrt(1 - beta) * (1 - before) / (1 - bar) * x
    found = DIFFUSION.ddpm_step(x, t, noise, torch.zeros_like(x))
    torch.testing.assert_close(found, posterior, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("t", [1, 400, 999])
def test_ddim_with_eta_1_is_ddpm_with_the_posteriors_variance(t):
    """DDIM's section 4.1; and equation 7's variance in float64."""
    x, noise, draw = (torch.randn(2, 3, 4, 4) for _ in range(3))
    ddpm = DIFFUSION.ddpm_step(x, t, noise, draw, "posterior")
    torch.testing.assert_close(DIFFUSION.ddim_step(x, t, t - 1, noise, draw, eta=1.0), ddpm, rtol=1e-4, atol=1e-4)
    beta, bar, before = exact(t)
    spread = (ddpm - DIFFUSION.ddpm_step(x, t, noise, torch.zeros_like(x), "posterior")) / draw
    torch.testing.assert_close(spread.median().item(), math.sqrt(beta * (1 - before) / (1 - bar)), rtol=1e-3, atol=1e-6)


class Gaussian:
    """Data of a normal distribution, whose best noise predictor is known in closed form."""

    mean, deviation = 0.2, 0.2

    def __call__(self, x, steps):
        bar = DIFFUSION.alpha_bar[steps][:, None, None, None]
        variance = bar * self.deviation**2 + 1 - bar
        return (1 - bar).sqrt() * (x - bar.sqrt() * self.mean) / variance


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(
    ("sampler", "steps", "noise"),
    [
        ("ddpm", None, {}),
        ("ddpm", None, {"variance": "posterior"}),
        ("ddim", 100, {}),
        ("ddim", 1000, {}),
        ("ddim", 1000, {"eta": 0.5}),
        ("ddim", 1000, {"eta": 1.0}),
    ],
)
def test_samplers_recover_a_gaussian(sampler, steps, noise, clip):
    shape = (3, 24, 24)
    *_, x = sampled(DIFFUSION, Gaussian(), range(6), shape, seed=1, sampler=sampler, steps=steps, clip=clip, **noise)
    count = x.numel()
    assert x.mean().item() == pytest.approx(0.2, abs=5 * 0.2 / math.sqrt(count) + 0.01)
    # relative deviation of a sample's standard deviation, and a coarse DDIM's own error
    assert x.std().item() == pytest.approx(0.2, rel=5 / math.sqrt(2 * count) + 0.03)
    standard = (x - x.mean()) / x.std()
    assert standard.pow(3).mean().abs() < 0.15 and abs(standard.pow(4).mean() - 3) < 0.3


def test_predicted_images_are_kept_in_range():
    image, noise, t = 3 * torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), 700
    x = DIFFUSION.noised(image, torch.tensor([t, t]), noise)
    clipped = DIFFUSION.denoised(x, torch.tensor([t, t]), DIFFUSION.in_range(x, t, noise))
    torch.testing.assert_close(clipped, image.clamp(-1, 1), rtol=1e-3, atol=1e-3)


def test_ddims_times():
    assert DIFFUSION.ddim_times(1000) == list(range(999, -1, -1))
    assert DIFFUSION.ddim_times(3) == [999, 500, 0]
    assert DIFFUSION.ddim_times(1) == [999]
    for count in range(1, 1001):
        times = DIFFUSION.ddim_times(count)
        assert len(set(times)) == count and times == sorted(times, reverse=True) and times[0] == 999
    with pytest.raises(RequestError, match="not between 1 and the 1000"):
        DIFFUSION.ddim_times(1001)
    with pytest.raises(RequestError, match="ddpm uses all 1000"):
        check_sampling("ddpm", 50, 1000)
    with pytest.raises(RequestError, match="--eta has no effect on ddpm"):
        check_sampling("ddpm", None, 1000, eta=0.5)
    with pytest.raises(RequestError, match="--variance has no effect on ddim"):
        check_sampling("ddim", 50, 1000, variance="beta")
    with pytest.raises(RequestError, match="unknown sampler"):
        check_sampling("euler", None, 1000)


@pytest.mark.parametrize(
    "noise", [Noise(steps=0), Noise(beta_start=0.0), Noise(beta_start=0.5, beta_end=0.1), Noise(beta_end=1.0)]
)
def test_an_impossible_process_is_refused(noise):
    with pytest.raises(RequestError, match=r"--noise\.(steps|beta-start|beta-end)"):
        Diffusion(noise)


UNDERFLOWS = [
    Noise(beta_end=0.5),
    Noise(beta_end=0.99),
    Noise(beta_end=0.2),
    Noise(steps=100_000),
    Noise(steps=10_000),
    Noise(beta_start=1e-9),
    Noise(beta_start=1e-300, beta_end=1e-300),
    Noise(beta_start=1e-12, beta_end=1e-8, steps=50),
]


@pytest.mark.parametrize("noise", UNDERFLOWS)
def test_a_schedule_that_underflows_is_refused(noise):
    with pytest.raises(RequestError, match=r"--noise\.(steps|beta).* in float32|in float32.*--noise\.steps"):
        Diffusion(noise)


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 1000, 4000])
@pytest.mark.parametrize("first", [6e-8, 1e-5, 1e-3, 0.1])
@pytest.mark.parametrize("last", [6e-8, 1e-4, 0.02, 0.08, 0.3, 0.999])
def test_what_is_not_refused_is_finite_in_every_sampler(steps, first, last):
    """With each kind of noise, and whatever steps the sampler visits."""
    noise = Noise(steps=steps, beta_start=first, beta_end=last)
    try:
        process = Diffusion(noise)
    except RequestError:
        return
    assert torch.isfinite(process.posterior_variance).all() and (process.image_scale > 0).all()

    def predict(x, steps):
        return (x - 0.3) * 0.9

    for sampler, options in (
        ("ddpm", {}),
        ("ddpm", {"variance": "posterior"}),
        ("ddim", {"eta": 0.0}),
        ("ddim", {"eta": 1.0}),
    ):
        if sampler == "ddim":
            options = {**options, "steps": min(steps, 10)}
        elif steps > 100:
            continue
        drawn = list(sampled(process, predict, [0, 1], (1, 2, 2), seed=0, sampler=sampler, **options))
        assert torch.isfinite(drawn[-1]).all()


def test_what_is_left_of_the_image_is_computed_as_torch_does():
    for noise in (Noise(), Noise(steps=7, beta_start=0.1, beta_end=0.3), Noise(steps=1)):
        assert noise.log_remaining == pytest.approx(Diffusion(noise).alpha_bar[-1].log().item(), rel=1e-9)


@pytest.mark.parametrize(
    "flags", [["--noise.beta-end", "0.5"], ["--noise.steps", "100000"], ["--noise.beta-start", "1e-9"]]
)
@pytest.mark.parametrize("recipe", ["ddpm-digits", "pictures"])
def test_an_impossible_schedule_is_refused_before_anything_is_read(flags, recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "no-image.png").write_text("nothing that could be read")
    own = ["--data.images", "few"] if recipe == "pictures" else []
    monkeypatch.setattr("golu_core.training.data.images.read_file", lambda path: pytest.fail("an image was read"))
    for more in ([], ["--dry-run"]):
        assert COMMAND_LINE.main(["train", recipe, *own, *flags, *more]) == 2
        printed = capsys.readouterr()
        assert flags[0] in printed.err and len(printed.err.splitlines()) == 1 and not printed.out
    assert [path.name for path in tmp_path.iterdir()] == ["few"]


def test_pixels_that_are_not_finite_are_not_painted():
    for value in (float("nan"), float("inf"), -float("inf")):
        images = torch.zeros(2, 3, 4, 4)
        images[1, 2, 3, 0] = value
        with pytest.raises(RunFailure, match="not finite"):
            pixels_of(images)


# ------------------------------------------------------------------------------------------------------------- the UNet

SMALL = Model(width=16, multipliers=(1, 2), blocks=1, attention=(1,), groups=4, dropout=0.0)


def convolution(inputs, outputs, size=3):
    return inputs * outputs * size * size + outputs


def block(inputs, outputs, embedded, attention):
    count = 2 * inputs + convolution(inputs, outputs) + embedded * outputs + outputs
    count += 2 * outputs + convolution(outputs, outputs)
    count += 0 if inputs == outputs else convolution(inputs, outputs, 1)
    return count + (2 * outputs + 4 * convolution(outputs, outputs, 1) if attention else 0)


def test_the_published_unet_has_its_size():
    """Level by level, as Ho et al. describe it: 128, 256, 256, 256 channels, attention at level 1 and in the middle."""
    total = 128 * 512 + 512 + 512 * 512 + 512 + convolution(3, 128)
    total += 2 * block(128, 128, 512, False) + convolution(128, 128)
    total += block(128, 256, 512, True) + block(256, 256, 512, True) + convolution(256, 256)
    total += 2 * block(256, 256, 512, False) + convolution(256, 256) + 2 * block(256, 256, 512, False)
    total += block(256, 256, 512, True) + block(256, 256, 512, False)
    total += 3 * block(512, 256, 512, False) + convolution(256, 256)
    total += 3 * block(512, 256, 512, False) + convolution(256, 256)
    total += 2 * block(512, 256, 512, True) + block(384, 256, 512, True) + convolution(256, 256)
    total += block(384, 128, 512, False) + 2 * block(256, 128, 512, False)
    total += 2 * 128 + convolution(128, 3)
    with torch.device("meta"):
        model = UNet(RECIPES["ddpm-celeba"].model, "golu")
    assert sum(p.numel() for p in model.parameters()) == total == RECIPES["ddpm-celeba"].paper.size


def test_every_activation_is_the_runs():
    with torch.device("meta"):
        published, ours = (UNet(RECIPES["ddpm-celeba"].model, name) for name in ("swish", "golu"))
    silus = sum(isinstance(module, nn.SiLU) for module in published.modules())
    assert silus == 68 == sum(isinstance(module, GoLU) for module in ours.modules())
    assert not any(isinstance(module, nn.SiLU) for module in ours.modules())


def test_stated_size_of_the_digits_unet():
    recipe = RECIPES["ddpm-digits"]
    assert sum(p.numel() for p in UNet(recipe.model, "golu").parameters()) == recipe.paper.size


def test_attention_is_softmax_of_scaled_products():
    torch.manual_seed(0)
    layer, x = Attention(8, 4), torch.randn(2, 8, 3, 5)
    y = layer.norm(x)
    q, k, v = (f(y).flatten(2) for f in (layer.query, layer.key, layer.value))
    weights = (torch.einsum("ncq,nck->nqk", q, k) / math.sqrt(8)).softmax(-1)
    expected = x + layer.projection(torch.einsum("nqk,nck->ncq", weights, v).reshape(x.shape))
    torch.testing.assert_close(layer(x), expected)


def test_the_time_embedding_is_the_published_one():
    embedding = UNet(SMALL, "swish").time
    table = torch.exp(-torch.arange(0, 16, 2) / 16 * math.log(10_000))
    angles = torch.tensor([0.0, 7.0, 999.0])[:, None] * table
    expected = embedding.layers(torch.stack([angles.sin(), angles.cos()], dim=-1).view(3, 16))
    torch.testing.assert_close(embedding(torch.tensor([0, 7, 999])), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 5}, "groups 5 does not"),
        ({"attention": (2,)}, "a level that"),
        ({"width": 7}, "even"),
        ({"blocks": 0}, "blocks must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(RequestError, match=message):
        UNet(dataclasses.replace(SMALL, **change), "golu")


@pytest.mark.parametrize("sampler", [pytest.param("ddpm", marks=pytest.mark.slow), "ddim"])
def test_images_do_not_depend_on_the_batch(sampler):
    torch.manual_seed(0)
    model, process = UNet(SMALL, "golu").eval(), Diffusion(Noise(steps=30))
    drawn = {}
    for size in (1, 7, 16):
        parts = []
        for start in range(0, 16, size):
            numbers = range(start, min(start + size, 16))
            *_, x = sampled(
                process,
                in_fixed_batches(model),
                numbers,
                (3, 16, 16),
                seed=2,
                sampler=sampler,
                steps=30 if sampler == "ddpm" else 9,
            )
            parts.append(x)
        drawn[size] = torch.cat(parts)
    assert torch.equal(drawn[1], drawn[7]) and torch.equal(drawn[1], drawn[16])


def test_noise_belongs_to_an_image_and_a_purpose():
    one = batch_noise(3, [4, 5], 10, (3, 2, 2), "cpu")
    assert torch.equal(one[1:], batch_noise(3, [5], 10, (3, 2, 2), "cpu"))
    assert not torch.equal(one, batch_noise(3, [4, 5], 11, (3, 2, 2), "cpu"))
    assert not torch.equal(one, batch_noise(4, [4, 5], 10, (3, 2, 2), "cpu"))


# ----------------------------------------------------------------------------------------------------------- the images


@pytest.mark.parametrize(("inputs", "outputs"), [(218, 78), (178, 64), (9, 4), (6, 3)])
def test_area_weights_are_means_of_areas(inputs, outputs):
    weights = _area_weights(inputs, outputs)
    fine = torch.eye(inputs).repeat_interleave(outputs, dim=0)  # each pixel in as many parts as there are outputs
    expected = fine.view(outputs, inputs, inputs).mean(dim=1)
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)


def test_images_are_scaled_and_cut_as_published():
    image = torch.zeros(3, 218, 178, dtype=torch.uint8)
    image[:, 109 - 60 : 109 + 60, 89 - 60 : 89 + 60] = 200
    found = fitted(image, 64)
    assert found.shape == (3, 64, 64)
    assert found[0, 32, 32] == 200 and found[0, 2, 2] == 0
    assert (found[0] > 100).sum().item() == pytest.approx((120 * 64 / 178) ** 2, rel=0.04)
    assert fitted(torch.randint(255, (3, 8, 8), dtype=torch.uint8), 16).shape == (3, 16, 16)
    wide = torch.zeros(3, 10, 40, dtype=torch.uint8)
    assert fitted(wide, 5).shape == (3, 5, 5)


def test_pixels_come_back():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    assert torch.equal(pixels_of(scaled(pixels, torch.device("cpu"))), pixels)


def test_learning_rates_are_those_of_timms_scheduler():
    from timm.scheduler import CosineLRScheduler

    config = RECIPES["ddpm-celeba-cosine"]
    steps, epochs, warmup = 40, 6, 50
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    theirs = CosineLRScheduler(
        optimizer, t_initial=steps * epochs, warmup_t=warmup, warmup_lr_init=1e-4, warmup_prefix=True, t_in_epochs=False
    )
    schedule = dataclasses.replace(config.schedule, warmup=dataclasses.replace(config.schedule.warmup, steps=warmup))
    for step in range(steps * epochs):
        theirs.step_update(step)
        ours = learning_rate(schedule, config.optim.lr, step, steps, epochs)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6), step


def test_the_published_rate_never_changes():
    """As timm's scheduler does where `step` advances it though it counts updates: the rate stays at the warm-up's."""
    from timm.scheduler import CosineLRScheduler

    config = RECIPES["ddpm-celeba"]
    steps, epochs, warmup = 40, 6, 50
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    theirs = CosineLRScheduler(
        optimizer, t_initial=steps * epochs, warmup_t=warmup, warmup_lr_init=1e-4, warmup_prefix=True, t_in_epochs=False
    )
    for step in range(steps * epochs):
        theirs.step(step)
        ours = learning_rate(config.schedule, config.optim.lr, step, steps, epochs)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6), step


@pytest.mark.parametrize(
    ("name", "updates"), [("ddpm-celeba", 31_750), ("ddpm-celeba-50", 127_150), ("ddpm-celeba-cosine", 127_150)]
)
def test_how_many_updates_a_recipe_makes(name, updates):
    """Published: 50 epochs over a process's quarter of the images in whole batches of 64; described: over all."""
    config = RECIPES[name]
    order = epoch_order(config, config.data.train_size)
    assert limited_steps(config, config.length(order.steps_per_epoch).steps) == updates
    assert updates == 50 * (162_770 // (4 if name == "ddpm-celeba" else 1) // 64)


def test_a_short_runs_average_does_not_consist_of_its_first_weights():
    """The decay of update n is at most (1 + n) / (10 + n); a recipe that fixes its decay has it from the first on."""
    from golu_core.training.config.optim import WeightAverage, averaged_model

    model = nn.Linear(1, 1, bias=False)
    averages = {ramp: averaged_model(model, WeightAverage(decay=0.9999, ramp=ramp)) for ramp in (True, False)}
    expected = 0.0
    for number in range(200):
        nn.init.constant_(model.weight, float(number > 0))
        for average in averages.values():
            average.update_parameters(model)
        if number:
            decay = min(0.9999, (1 + number) / (10 + number))
            expected = expected * decay + (1 - decay)
    assert averages[True].module.weight.item() == pytest.approx(expected, rel=1e-4)
    assert averages[True].module.weight.item() > 0.99
    assert averages[False].module.weight.item() < 0.05
