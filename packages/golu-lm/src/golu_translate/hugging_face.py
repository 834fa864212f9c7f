"""Convert weights and vocabulary to and from Hugging Face's FSMT, fairseq's Transformer (needs `transformers`)."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from golu_core.training import RequestError
from golu_core.training.finetuning import transformers_activation, transformers_config, transformers_library
from golu_core.training.storage import scratch_folder

from .config import BeamSearch, Transformer
from .model import Translator
from .pairs_folder import Cutting
from .parallel_text import Languages
from .subwords import Codec
from .vocabulary import BEGIN, END, PAD, SYMBOLS

if TYPE_CHECKING:
    from transformers import FSMTForConditionalGeneration, FSMTTokenizer

# the preprocessing that FSMT's own tokenizer applies before byte pairs
_THEIR_CUTTING = {"moses": True, "normalize": True, "aggressive_dashes": True}


def to_fsmt(
    model: Translator, activation: str, languages: Languages, search: BeamSearch
) -> FSMTForConditionalGeneration:
    """Return a Hugging Face FSMT with the translator's weights.

    Args:
        model: The translator to copy the weights from.
        activation: The model's activation.
        languages: The source and target languages.
        search: Settings of the beam search, which become the defaults of `generate`.

    Raises:
        RequestError: transformers is not installed, or it lacks the activation.
    """
    transformers = transformers_library()
    sizes = model.sizes
    theirs: FSMTForConditionalGeneration = transformers.FSMTForConditionalGeneration(
        transformers.FSMTConfig(
            langs=[languages.source, languages.target],
            src_vocab_size=sizes.vocabulary,
            tgt_vocab_size=sizes.vocabulary,
            activation_function=transformers_activation(activation),
            d_model=sizes.width,
            max_position_embeddings=sizes.longest,
            encoder_layers=sizes.layers,
            decoder_layers=sizes.layers,
            encoder_attention_heads=sizes.heads,
            decoder_attention_heads=sizes.heads,
            encoder_ffn_dim=sizes.feed_forward,
            decoder_ffn_dim=sizes.feed_forward,
            dropout=sizes.dropout,
            tie_word_embeddings=True,
            bos_token_id=BEGIN,
            pad_token_id=PAD,
            eos_token_id=END,
            decoder_start_token_id=END,
        )
    )
    generation = theirs.generation_config
    generation.num_beams, generation.length_penalty = search.beam, search.length_penalty
    generation.max_length, generation.min_new_tokens = sizes.longest, 1  # no empty translations, as in golu-translate
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "activation" in name:
                raise RequestError(f"{activation} learns, and FSMT cannot store its parameters")
            theirs.model.get_parameter(their_name(name)).copy_(parameter)
    return theirs.eval()


def from_fsmt(model: Translator, source: str) -> None:
    """Load the weights of a Hugging Face FSMT, such as fairseq's translators on the hub, into a model of equal size.

    Args:
        model: The model, changed in place.
        source: A folder written by `save_pretrained`, or a name on the hub.

    Raises:
        RequestError: transformers is not installed, the source cannot be loaded, or its sizes differ.
    """
    transformers = transformers_library()
    try:
        loaded = transformers.FSMTForConditionalGeneration.from_pretrained(
            source, trust_remote_code=False, weights_only=True
        )
    except Exception as error:  # the hub, the network, and the file formats raise their own exceptions
        raise RequestError(f"transformers cannot load an FSMT from {source!r}: {str(error)[:300]}") from None
    theirs: dict[str, Tensor] = loaded.model.state_dict()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            there = theirs.get(their_name(name))
            if there is None or there.shape != parameter.shape:
                found = "no such weights" if there is None else f"weights of {tuple(there.shape)}"
                raise RequestError(f"{source} has {found} for {name}, which has {tuple(parameter.shape)} here")
            parameter.copy_(there)


def their_name(name: str) -> str:
    """Return FSMT's name for a parameter, which is also fairseq's."""
    if name == "embedding.weight":
        return "decoder.embed_tokens.weight"
    half, rest = name.split(".", 1)
    return f"{half}.layers.{rest}"


def to_fsmt_tokenizer(codec: Codec, cutting: Cutting, languages: Languages, longest: int) -> FSMTTokenizer:
    """Return an FSMT tokenizer with the translator's byte pairs.

    Args:
        codec: The translator's codec.
        cutting: The tokenization of the translator's text.
        languages: The source and target languages.
        longest: Maximum number of subwords per sentence.

    Raises:
        RequestError: FSMT's tokenizer would split text differently.
    """
    differing = {name: value for name, value in _THEIR_CUTTING.items() if getattr(cutting, name) != value}
    if differing:
        flags = " ".join(f"--{name.replace('_', '-')}" for name in differing)
        raise RequestError(f"FSMT's tokenizer cuts text otherwise than this run; prepare the data with {flags} for it")
    transformers = transformers_library()
    with scratch_folder() as place:
        words, merges = place / "vocabulary.json", place / "merges.txt"
        words.write_text(json.dumps(codec.subwords.vocabulary, ensure_ascii=False), encoding="utf-8")
        lines = "".join(f"{left} {right}\n" for left, right in codec.subwords.merges)
        merges.write_text(lines, encoding="utf-8")
        tokenizer: FSMTTokenizer = transformers.FSMTTokenizer(
            langs=[languages.source, languages.target],
            src_vocab_file=str(words),
            tgt_vocab_file=str(words),
            merges_file=str(merges),
            model_max_length=longest,
            **dict(zip(("bos_token", "pad_token", "sep_token", "unk_token"), SYMBOLS, strict=True)),
        )
        return tokenizer


def sized_like(source: str, model: Transformer) -> Transformer:
    """Return the sizes of an FSMT; raise RequestError if it cannot be loaded or its architecture is not supported."""
    theirs = transformers_config(source, "translator")
    for problem, found in (
        (f"it is a {theirs.model_type}", theirs.model_type != "fsmt"),
        ("its halves have different sizes", theirs.model_type == "fsmt" and not _has_equal_halves(theirs)),
        ("its embeddings are not one", not theirs.tie_word_embeddings),
        ("its embeddings are not scaled", not getattr(theirs, "scale_embedding", True)),
    ):
        if found:
            raise RequestError(f"--init-from {source}: {problem}, which this model cannot have")
    return dataclasses.replace(
        model,
        layers=theirs.encoder_layers,
        heads=theirs.encoder_attention_heads,
        width=theirs.d_model,
        feed_forward=theirs.encoder_ffn_dim,
        vocabulary=theirs.tgt_vocab_size,
    )


def _has_equal_halves(theirs: Any) -> bool:
    return bool(
        theirs.encoder_layers == theirs.decoder_layers
        and theirs.encoder_attention_heads == theirs.decoder_attention_heads
        and theirs.encoder_ffn_dim == theirs.decoder_ffn_dim
        and theirs.src_vocab_size == theirs.tgt_vocab_size
    )
