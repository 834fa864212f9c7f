"""GoLU by its name in models of transformers that are built from a config."""

from __future__ import annotations

import pytest
import torch

from golu_core import GoLU, register_with_transformers
from golu_core.activation import ACTIVATIONS

transformers = pytest.importorskip("transformers")
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 50}


def bert(name):
    return transformers.BertModel(transformers.BertConfig(**SMALL, hidden_act=name)).eval()


def llama(name):
    return transformers.LlamaModel(transformers.LlamaConfig(**SMALL, hidden_act=name)).eval()


@pytest.mark.parametrize("build", [bert, llama])
def test_a_model_that_names_it(build, tmp_path):
    """Its modules, its outputs against the same weights with the formula, and its way through the disk."""
    register_with_transformers()
    torch.manual_seed(0)
    model = build("golu")
    assert sum(isinstance(module, GoLU) for module in model.modules()) == 2
    tokens = torch.randint(50, (2, 7))
    found = model(tokens).last_hidden_state
    plain = build("relu")
    plain.load_state_dict(model.state_dict())
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.ReLU) or name in ("intermediate_act_fn", "act_fn"):
                setattr(module, name, Formula())
    assert torch.allclose(plain(tokens).last_hidden_state, found, atol=1e-5)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert torch.equal(again(tokens).last_hidden_state, found)


class Formula(torch.nn.Module):
    def forward(self, x):
        return x * torch.exp(-torch.exp(-x))


def test_what_transformers_has_stays():
    """The call adds what is missing, once, and changes nothing else."""
    from transformers.activations import ACT2FN

    register_with_transformers()
    known = {name: type(ACT2FN[name]) for name in ("relu", "gelu_new", "relu2", "golu", "telu", "smelu", "logish")}
    names = list(ACT2FN)
    assert register_with_transformers() == () and list(ACT2FN) == names
    assert known == {name: type(ACT2FN[name]) for name in known}
    assert known["golu"] is GoLU and known["relu2"].__module__.startswith("transformers")
    assert set(known) <= {*ACTIVATIONS, "gelu_new"}
