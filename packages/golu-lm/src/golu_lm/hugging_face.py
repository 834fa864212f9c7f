"""Convert weights from and to Hugging Face's GPT-2, and export models (`pip install golu-lm[transformers]`)."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from golu_core.training import FinishedRun, RequestError
from golu_core.training.export import export_to_transformers
from golu_core.training.finetuning import transformers_activation, transformers_config, transformers_library
from golu_core.training.messages import complain

from .config import LmConfig, Model
from .model import GPT
from .tokenizers import END_OF_TEXT, Tokenizer, build_tokenizer

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

# Hugging Face uses Conv1D layers with (in, out) weights; ours are linear layers with (out, in)
_TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
_EPSILON = 1e-5


def sized_like(source: str, model: Model) -> Model:
    """Return the sizes of a Hugging Face GPT-2, so that you need not type them; a shorter context is kept.

    Args:
        source: A folder written by `save_pretrained`, or a name on the hub.
        model: The sizes whose dropout and context are kept.

    Raises:
        RequestError: transformers is not installed, the source cannot be loaded, or its architecture is not supported.
    """
    theirs = transformers_config(source, "GPT-2")
    for problem, found in (
        (f"it is a {theirs.model_type}", theirs.model_type != "gpt2"),
        ("its output layer is not tied to its embedding", not theirs.tie_word_embeddings),
        ("its attention is not scaled by the width of a head", not getattr(theirs, "scale_attn_weights", True)),
        ("its attention is scaled by the layer", getattr(theirs, "scale_attn_by_inverse_layer_idx", False)),
        ("it has cross-attention", getattr(theirs, "add_cross_attention", False)),
        (
            f"its feed-forward layers are {getattr(theirs, 'n_inner', None)} wide, not four times the width",
            getattr(theirs, "n_inner", None) not in (None, 4 * getattr(theirs, "n_embd", 0)),
        ),
        (
            f"its layer norms have epsilon {getattr(theirs, 'layer_norm_epsilon', None)}, not {_EPSILON}",
            getattr(theirs, "layer_norm_epsilon", None) != _EPSILON,
        ),
    ):
        if found:
            raise RequestError(f"--init-from {source}: {problem}, which this model cannot have")
    if model.mlp == "gated":
        raise RequestError(f"--init-from {source}: a GPT-2 has no gated MLP: leave --model.mlp out")
    return dataclasses.replace(
        model,
        layers=theirs.n_layer,
        heads=theirs.n_head,
        width=theirs.n_embd,
        vocabulary=theirs.vocab_size,
        context=min(model.context, theirs.n_positions),
        bias=True,
    )


def load_hugging_face(model: GPT, source: str) -> None:
    """Load the weights of a Hugging Face GPT-2 into a model with the sizes that `sized_like` returns.

    Args:
        model: The model, changed in place.
        source: A folder written by `save_pretrained`, or a name on the hub.

    Raises:
        RequestError: transformers is not installed, the source cannot be loaded, or its sizes differ.
    """
    theirs = transformers_library().GPT2LMHeadModel
    try:
        loaded = theirs.from_pretrained(source, trust_remote_code=False, weights_only=True)
    except Exception as error:  # the hub, the network, and the file formats raise their own exceptions
        raise RequestError(f"transformers cannot load a GPT-2 from {source!r}: {str(error)[:300]}") from None
    copy_from_hugging_face(model, loaded, source)


def copy_from_hugging_face(model: GPT, loaded: GPT2LMHeadModel, source: str = "the model") -> None:
    """Copy the weights of a loaded model; positions are cropped to our context, as nanoGPT does.

    Raises:
        RequestError: The sizes differ, or the loaded model has biases and ours has none.
    """
    state = loaded.transformer.state_dict()
    if loaded.config.n_head != model.sizes.heads:
        raise RequestError(f"{source} has {loaded.config.n_head} heads, the model {model.sizes.heads}")
    biases = [name for name, tensor in state.items() if name.endswith("bias") and tensor.ndim == 1 and tensor.any()]
    if biases and not model.sizes.bias:
        raise RequestError(f"{source} has biases, such as {biases[0]}: pass --model.bias")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in state:
                raise RequestError(f"{source} has no {name}: it has other --model.layers")
            tensor = _turned(name, state[name])
            if name == "wpe.weight":
                tensor = tensor[: len(parameter)]
            if tensor.shape != parameter.shape:
                raise RequestError(f"{source} has {name} of {tuple(tensor.shape)}, the model {tuple(parameter.shape)}")
            parameter.copy_(tensor)
    blocks = sum(name.endswith("mlp.c_fc.weight") for name in state)
    if blocks != model.sizes.layers:
        raise RequestError(f"{source} has {blocks} layers, the model {model.sizes.layers}")


def to_hugging_face(model: GPT, activation: str, end_of_text: int | None = None) -> GPT2LMHeadModel:
    """Return a Hugging Face GPT-2 with the model's weights; missing biases become 0.

    Args:
        model: The model to copy the weights from.
        activation: The model's activation.
        end_of_text: The tokenizer's token between documents, or None if unknown.

    Raises:
        RequestError: transformers is not installed, or it lacks the activation.
    """
    transformers = transformers_library()
    name = transformers_activation(activation)
    sizes: Model = model.sizes
    if sizes.mlp == "gated":
        raise RequestError("transformers' GPT-2 has no gated MLP, so a model with --model.mlp gated is not one")
    theirs: GPT2LMHeadModel = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=sizes.vocabulary,
            n_positions=sizes.context,
            n_embd=sizes.width,
            n_layer=sizes.layers,
            n_head=sizes.heads,
            activation_function=name,
            resid_pdrop=sizes.dropout,
            embd_pdrop=sizes.dropout,
            attn_pdrop=sizes.dropout,
            bos_token_id=end_of_text,
            eos_token_id=end_of_text,
        )
    )
    ours = dict(model.named_parameters())
    with torch.no_grad():
        for parameter_name, parameter in theirs.transformer.named_parameters():
            if parameter_name in ours:
                parameter.copy_(_turned(parameter_name, ours[parameter_name]))
            else:
                parameter.zero_()
    return theirs.eval()


def to_hugging_face_tokenizer(tokenizer: Tokenizer, context: int) -> PreTrainedTokenizerFast:
    """Return a transformers tokenizer with the same tokens; there, `<|endoftext|>` in text is the end-of-text token.

    Args:
        tokenizer: The byte-pair or byte tokenizer.
        context: The model's context length in tokens.

    Raises:
        RequestError: transformers is not installed.
    """
    transformers = transformers_library()
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters, ranks = bytes_to_unicode(), tokenizer.ranks

    def written(piece: bytes) -> str:
        return "".join(letters[byte] for byte in piece)

    # tiktoken merges any two adjacent pieces that form a token, lowest rank first
    merges = [
        (written(token[:cut]), written(token[cut:]))
        for token in sorted(ranks, key=ranks.__getitem__)
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
    vocabulary = {written(token): rank for token, rank in ranks.items()}
    theirs = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(tokenizer.pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    theirs.decoder = decoders.ByteLevel()
    theirs.add_special_tokens([END_OF_TEXT])
    wrapped: PreTrainedTokenizerFast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=theirs,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    return wrapped


def export_to_hugging_face(folder: Path, out: Path) -> None:
    """Write a run's model and tokenizer as transformers loads them.

    Raises:
        RequestError: The run is not finished, transformers is not installed or lacks the model, or `out` is not empty.
    """
    export_to_transformers(
        out,
        partial(_export_gpt2, folder),
        pipeline="text-generation",
        model="AutoModelForCausalLM",
        call="model(torch.tensor([[1, 2, 3], [4, 5, 6]])).logits",
    )


def _export_gpt2(folder: Path, out: Path) -> FinishedRun[LmConfig]:
    finished = FinishedRun.at(folder, LmConfig)
    config = finished.config
    model = GPT(config.model, config.activation)
    finished.load_weights(model)
    try:
        tokenizer: Tokenizer | None = build_tokenizer(config.data.tokenizer, config.data.vocab_file)
    except RequestError as error:  # not one of ours, or its vocabulary cannot be downloaded
        tokenizer = None
        complain(f"warning: no tokenizer is exported: {error}")
    end_of_text = None if tokenizer is None else tokenizer.end_of_text
    to_hugging_face(model, config.activation, end_of_text).save_pretrained(out)
    if tokenizer is not None:
        to_hugging_face_tokenizer(tokenizer, config.model.context).save_pretrained(out)
    return finished


def _turned(name: str, tensor: Tensor) -> Tensor:
    return tensor.t() if name.endswith(_TRANSPOSED) else tensor
