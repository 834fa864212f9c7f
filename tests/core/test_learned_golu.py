"""GoLU whose alpha, beta and gamma are tensors: values, gradients of all four, and the module that learns them."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from functools import partial

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import nn

from golu_core import GoLU, golu, replace_activations, size_per_channel
from golu_core.activation import build_activation, gated
from golu_core.training.config.optim import AdamW, Sgd, parameter_groups

VALUES = {"alpha": 1.3, "beta": 0.6, "gamma": 1.7}
TENSORS = {name: torch.tensor(value, dtype=torch.float64) for name, value in VALUES.items()}
POINTS = torch.linspace(-6, 6, 25, dtype=torch.float64) + 0.013


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_values_are_those_of_numbers(dtype):
    x = torch.cat([POINTS, torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4])]).to(dtype)
    found = golu(
        x, **{name: tensor.to(torch.float32 if dtype.itemsize < 8 else dtype) for name, tensor in TENSORS.items()}
    )
    expected = golu(x, **VALUES)
    assert found.dtype == dtype
    assert torch.allclose(found, expected, rtol=4 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("shape", [(), (8,), (4, 1)])
def test_gradients_of_all_four(shape):
    x = POINTS[:24].reshape(3, 8)[:, None].repeat(1, 4, 1).clone().requires_grad_()
    own = [
        (tensor.expand(shape) + 0.1 * torch.rand(shape, dtype=torch.float64)).requires_grad_()
        for tensor in TENSORS.values()
    ]
    assert torch.autograd.gradcheck(golu, (x, *own))
    assert torch.autograd.gradgradcheck(golu, (x[0].detach().clone().requires_grad_(), *own))


def test_no_gradient_is_nan():
    x = torch.tensor([-math.inf, -1e38, -1e4, -50.0, -5.0, -0.0, 0.0, 50.0, 1e4, 1e38], requires_grad=True)
    own = [torch.tensor(value, requires_grad=True) for value in VALUES.values()]
    y = golu(x, *own)
    gradients = torch.autograd.grad(y[1:-1].sum(), [x, *own], retain_graph=True)
    assert not y.isnan().any() and not any(gradient.isnan().any() for gradient in gradients)
    assert golu(torch.tensor([math.nan]), *own).isnan().all()


def test_transforms():
    module = GoLU(**VALUES, learnable=True)
    x = torch.randn(4, 8)
    expected = GoLU(**VALUES)(x)
    assert torch.allclose(torch.compile(module, fullgraph=True, backend="eager")(x), expected, atol=1e-6)
    assert torch.allclose(torch.export.export(module, (x,)).module()(x), expected, atol=1e-6)
    assert torch.allclose(torch.func.vmap(module)(x), expected, atol=1e-6)
    parameters = dict(module.named_parameters())
    found = torch.func.grad(lambda p: torch.func.functional_call(module, p, (x,)).sum())(parameters)
    assert set(found) == {"log_alpha", "log_beta", "log_gamma"} and all(g.isfinite() for g in found.values())
    with torch.autocast("cpu", torch.bfloat16):
        assert module(nn.Linear(8, 8)(x)).dtype == torch.bfloat16


def test_the_module():
    module = GoLU(**VALUES, learnable=True)
    assert [getattr(module, name) for name in VALUES] == pytest.approx(list(VALUES.values()))
    assert set(module.state_dict()) == {"log_alpha", "log_beta", "log_gamma"} and not GoLU().state_dict()
    other = GoLU(learnable=True)
    other.load_state_dict(module.state_dict())
    assert other.beta == pytest.approx(0.6) and "learnable" in repr(other)
    other.gamma = 3.0
    assert other.gamma == pytest.approx(3.0) and copy.deepcopy(other).gamma == pytest.approx(3.0)
    with pytest.raises(ValueError, match="must be positive"):
        other.beta = -1.0
    with pytest.raises(ValueError, match="must be positive"):
        GoLU(alpha=0.0, learnable=True)
    x, up = torch.randn(4, 8), torch.randn(4, 8)
    assert torch.equal(gated(module, x, up), module(x) * up)


def test_a_module_that_an_older_version_pickled():
    older = GoLU(beta=0.5)
    del older.learnable, older.per_channel
    module = pickle.loads(pickle.dumps(older))
    x = torch.randn(10)
    assert torch.equal(module(x), golu(x, beta=0.5)) and "beta=0.5" in repr(module)


def test_it_stays_positive_and_learns():
    torch.manual_seed(0)
    module = GoLU(learnable=True)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    x = torch.linspace(-3, 3, 200)
    target = golu(x, 0.5, 2.0, 0.7)
    for _ in range(2000):
        optimizer.zero_grad()
        (module(x) - target).square().mean().backward()
        optimizer.step()
    assert [module.alpha, module.beta, module.gamma] == pytest.approx([0.5, 2.0, 0.7], rel=0.05)


@pytest.mark.parametrize(
    "optim",
    [Sgd(weight_decay=0.1, decay=decay) for decay in ("all", "all_but_norms", "matrices")] + [AdamW(weight_decay=0.1)],
)
@pytest.mark.parametrize("shape", [(), (4,), (4, 1, 1)])
def test_no_weight_decay(optim, shape):
    model = nn.Sequential(nn.Linear(4, 4), GoLU(learnable=True, shape=shape))
    groups = parameter_groups(model, optim)
    own = {id(parameter) for parameter in model[1].parameters()}
    decayed = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    assert len(own) == 3 and not own & decayed and id(model[0].weight) in decayed


def test_scripting_is_refused():
    with pytest.warns((FutureWarning, DeprecationWarning)), pytest.raises((RuntimeError, torch.jit.Error)):
        torch.jit.script(GoLU(learnable=True))(torch.randn(3))


# torch's layers, each of n channels: how it is made, the dimensions of one sample, and whether it takes one alone
OF_CHANNELS: dict[str, tuple[Callable[[int], nn.Module], int, bool]] = {
    **{f"Conv{n}d": (partial(getattr(nn, f"Conv{n}d"), 6, kernel_size=1), n + 1, True) for n in (1, 2, 3)},
    **{
        f"ConvTranspose{n}d": (partial(getattr(nn, f"ConvTranspose{n}d"), 6, kernel_size=1), n + 1, True)
        for n in (1, 2, 3)
    },
    **{f"InstanceNorm{n}d": (partial(getattr(nn, f"InstanceNorm{n}d"), affine=True), n + 1, True) for n in (1, 2, 3)},
    **{f"BatchNorm{n}d": (getattr(nn, f"BatchNorm{n}d"), n + 1, False) for n in (1, 2, 3)},
    "GroupNorm": (partial(nn.GroupNorm, 2), 3, False),
    "Linear": (partial(nn.Linear, 6), 2, True),
    "LayerNorm": (nn.LayerNorm, 3, True),
    "a convolution and a norm that permutes": (lambda n: nn.Sequential(nn.Conv2d(n, n, 1), ChannelNorm(n)), 3, False),
}


class ChannelNorm(nn.LayerNorm):
    """As torchvision and timm have it in ConvNeXt."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TestPerChannel:
    def test_channels_are_where_layers_have_them(self):
        """Each layer has another number of channels, and each image as many rows as channels, so that sizes alone
        would not tell."""
        own = [GoLU(learnable=True, per_channel=True) for _ in range(6)]
        model = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), own[0]),
            *(Permuted(0, 2, 3, 1), nn.LayerNorm(16), nn.Linear(16, 24), own[1]),
            *(nn.Flatten(1, 2), own[2], Permuted(0, 2, 1), nn.Conv1d(24, 5, 1), own[3]),
            *(nn.Flatten(), nn.Linear(5 * 256, 7), own[4], nn.BatchNorm1d(7), own[5]),
        )
        x = torch.randn(2, 3, 16, 16)
        before = {name: value.clone() for name, value in model.named_buffers()}
        assert model.train().training
        size_per_channel(model, (x,))
        assert [tuple(module.log_alpha.shape) for module in own] == [(16, 1, 1), (24,), (24,), (5, 1), (7,), (7,)]
        assert model[0].training
        assert before and all(torch.equal(value, before[name]) for name, value in model.named_buffers())
        plain = copy.deepcopy(model)
        for name, module in model.named_children():
            if isinstance(module, GoLU):
                plain._modules[name] = GoLU()
        assert torch.allclose(model(x), plain(x), atol=1e-5)

    @pytest.mark.parametrize(
        ("layer", "batched"),
        [
            (name, batched)
            for name, (_, _, alone) in OF_CHANNELS.items()
            for batched in (True, False)
            if batched or alone
        ],
    )
    def test_the_layers_own_dimensions_decide_and_not_their_sizes(self, layer, batched):
        """All dimensions are of one size, so that sizes tell nothing."""
        make, dimensions, _ = OF_CHANNELS[layer]
        model = nn.Sequential(make(6), GoLU(learnable=True, per_channel=True))
        size_per_channel(model, (torch.randn([6] * (dimensions + batched)),))
        of_space = 0 if layer in ("Linear", "LayerNorm") else dimensions - 1
        assert model[1].log_alpha.shape == (6, *[1] * of_space)

    def test_a_side_path_does_not_move_the_channels(self):
        """As in a UNet: an embedding of the step goes through a linear layer, between two convolutions."""

        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.time = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(8, 4)
                self.norm, self.act = nn.GroupNorm(2, 4), GoLU(learnable=True, per_channel=True)

            def forward(self, x, step):
                return self.act(self.norm(self.conv(x) + self.time(step)[:, :, None, None]))

        for side in (2, 4):
            model = Block()
            size_per_channel(model, (torch.randn(1, 3, side, side), torch.randn(1, 8)))
            assert model.act.log_alpha.shape == (4, 1, 1)

    def test_values_and_gradients_are_those_of_each_channel(self):
        module = GoLU(learnable=True, shape=(3, 1, 1)).double()
        with torch.no_grad():
            for name, tensor in module.named_parameters():
                tensor.copy_(torch.linspace(-0.4, 0.5, 3).reshape(3, 1, 1) + len(name) / 50)
        x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
        y = module(x)
        y.square().sum().backward()
        for channel in range(3):
            own = [p.detach()[channel, 0, 0].exp() for p in module.parameters()]
            one = GoLU(*[float(value) for value in own], learnable=True).double()
            part = x.detach()[:, channel].clone().requires_grad_()
            expected = one(part)
            expected.square().sum().backward()
            assert torch.allclose(y[:, channel], expected)
            assert torch.allclose(x.grad[:, channel], part.grad)
            for whole, alone in zip(module.parameters(), one.parameters(), strict=True):
                assert torch.allclose(whole.grad[channel, 0, 0], alone.grad)

    def test_a_saved_module_says_how_many(self, tmp_path):
        module = GoLU(learnable=True, shape=(5,))
        nn.init.normal_(module.log_beta)
        other = GoLU(beta=2.0, learnable=True, per_channel=True)
        assert set(other.state_dict()) == set(module.state_dict())
        with pytest.raises((NotImplementedError, RuntimeError)):
            save_model(other, str(tmp_path / "unsized.safetensors"))
        save_model(module, str(tmp_path / "sized.safetensors"))
        load_model(other, str(tmp_path / "sized.safetensors"))
        x = torch.randn(4, 5)
        assert torch.equal(other(x), module(x)) and "(5,)" in repr(other)
        with pytest.raises(RuntimeError, match="size mismatch"):
            GoLU(learnable=True, shape=(6,)).load_state_dict(module.state_dict())

    def test_values_are_kept_until_the_size_is_known(self):
        module = copy.deepcopy(GoLU(alpha=1.5, learnable=True, per_channel=True).double())
        module.gamma = 0.5
        with pytest.raises(ValueError, match="size_per_channel"):
            module(torch.randn(4, 5))
        size_per_channel(module, (torch.randn(4, 5).double(),))
        assert module.log_alpha.dtype == torch.float64
        assert torch.allclose(module.log_alpha.exp(), torch.full((5,), 1.5, dtype=torch.float64))
        assert torch.allclose(module.log_gamma.exp(), torch.full((5,), 0.5, dtype=torch.float64))
        with pytest.raises(ValueError, match=r"read log_alpha.exp\(\)"):
            _ = module.alpha
        with pytest.raises(ValueError, match="already has a shape"):
            module.set_shape((3,))

    @pytest.mark.parametrize("given", [{"per_channel": True}, {"shape": (3,)}])
    def test_what_is_not_learned_is_one_number(self, given):
        with pytest.raises(ValueError, match="add learnable=True"):
            GoLU(**given)
        with pytest.raises(ValueError, match="add learnable=True"):
            build_activation("golu(per_channel=true)")

    def test_where_it_cannot_be_told_it_is_refused(self):
        model = nn.Sequential(nn.AvgPool2d(2), nn.ReLU())
        with pytest.raises(ValueError, match="channel dimension is unknown"):
            size_per_channel(nn.Sequential(GoLU(learnable=True, per_channel=True)), (torch.randn(1, 3, 4, 4),))
        with pytest.raises(ValueError, match="channel dimension is unknown"):
            replace_activations(
                model, "relu", "golu(learnable=true, per_channel=true)", example_inputs=(torch.randn(1, 3, 4, 4),)
            )

    def test_nothing_is_run_where_no_channels_are_looked_for(self):
        class Odd(nn.Module):
            """As a model of transformers whose config says something else than others' do."""

            main_input_name = "pixel_values"

            def __init__(self) -> None:
                super().__init__()
                self.config = type("Config", (), {"image_size": None})()
                self.layer, self.act = nn.Linear(3, 4), nn.ReLU()

            def forward(self, x):
                return self.act(self.layer(x))

        assert replace_activations(Odd(), "relu", "golu").swapped == ("act",)

    def test_what_is_never_called_learns_one_of_each(self):
        model = nn.Sequential(nn.Linear(3, 4), GoLU(learnable=True, per_channel=True))
        model.unused = GoLU(learnable=True, per_channel=True)
        model.forward = lambda x: model[1](x=model[0](x))  # by its name, which is one way to call it
        size_per_channel(model, (torch.randn(2, 3),))
        assert model.unused.log_alpha.shape == () and model[1].log_alpha.shape == (4,)


class Permuted(nn.Module):
    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x):
        return x.permute(self.order)
