"""Convert text to tokens and back: GPT-2's byte pairs by tiktoken, or plain bytes."""

from __future__ import annotations

import base64
import codecs
import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy
from numpy.typing import NDArray

from golu_core.training import RequestError
from golu_core.training.storage import read_text, scratch_folder

if TYPE_CHECKING:
    import tiktoken

Tokens = NDArray[numpy.uint32]

END_OF_TEXT = "<|endoftext|>"

# as in OpenAI's encoder.py, and in tiktoken's definition of the encoding
_GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT2_END = 50_256
_BYTES_END = 256


class Tokenizer(Protocol):
    """A tokenizer.

    Attributes:
        name: `gpt2` or `bytes`.
        size: Number of tokens, including the end of text.
        end_of_text: The token after each document.
        pattern: Regular expression for the pieces of text that are encoded separately.
        ranks: The token of each byte sequence; lower tokens are merged first.
    """

    name: str
    size: int
    end_of_text: int
    pattern: str

    @property
    def ranks(self) -> Mapping[bytes, int]: ...

    def encode_all(self, texts: Sequence[str], threads: int) -> list[Tokens]:
        """Return the tokens of each text; special tokens in a text are not parsed."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token; empty for the end of text."""
        ...


class ByteTokenizer:
    """UTF-8 bytes as tokens 0 to 255, and 256 as the end of text."""

    name = "bytes"
    size = 257
    end_of_text = _BYTES_END
    pattern = r"[\s\S]"

    @property
    def ranks(self) -> Mapping[bytes, int]:
        """Map each byte to itself."""
        return {bytes([byte]): byte for byte in range(_BYTES_END)}

    def encode_all(self, texts: Sequence[str], threads: int) -> list[Tokens]:
        """Return the bytes of each text."""
        return [numpy.frombuffer(text.encode("utf-8"), dtype=numpy.uint8).astype(numpy.uint32) for text in texts]

    def token_bytes(self, token: int) -> bytes:
        """Return the byte itself."""
        return bytes([token]) if token < _BYTES_END else b""


class Gpt2Tokenizer:
    """GPT-2's byte pairs.

    Args:
        vocab_file: The vocabulary; by default, tiktoken downloads it on first use.

    Raises:
        RequestError: The vocabulary is missing, is not GPT-2's, or cannot be downloaded.
    """

    name = "gpt2"
    size = 50_257
    end_of_text = _GPT2_END
    pattern = _GPT2_PATTERN

    def __init__(self, vocab_file: Path | None = None) -> None:
        self.encoding = _gpt2_encoding(vocab_file)

    @property
    def ranks(self) -> Mapping[bytes, int]:
        """Byte sequences by merge order."""
        return {self.encoding.decode_single_token_bytes(token): token for token in range(_GPT2_END)}

    def encode_all(self, texts: Sequence[str], threads: int) -> list[Tokens]:
        """Return the tokens of each text like tiktoken's `encode_ordinary_batch`, but in arrays."""
        with ThreadPoolExecutor(threads) as pool:  # tiktoken releases the GIL
            return list(pool.map(self._encode, texts))

    def _encode(self, text: str) -> Tokens:
        tokens: Tokens = self.encoding.encode_to_numpy(text, disallowed_special=())
        return tokens

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token; empty for the end of text and for padding rows of the model's vocabulary."""
        return self.encoding.decode_single_token_bytes(token) if token < _GPT2_END else b""


def build_tokenizer(name: str, vocab_file: Path | None) -> Tokenizer:
    """Build the named tokenizer; raise RequestError if it does not exist or its vocabulary is missing."""
    if name == "bytes":
        return ByteTokenizer()
    if name == "gpt2":
        return Gpt2Tokenizer(vocab_file)
    raise RequestError("the meaning of the tokens is unknown: name the tokenizer with --data.tokenizer gpt2 or bytes")


def encode_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the tokens of a prompt; raise RequestError if it is not valid Unicode."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(f"the prompt cannot be encoded: {error}") from None
    return [int(token) for token in tokenizer.encode_all([text], 1)[0]]


def decoded_stream(tokenizer: Tokenizer, tokens: Iterator[int]) -> Iterator[str]:
    """Yield the text of tokens as they arrive; a character is held back until all its bytes are complete."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in tokens:
        yield decoder.decode(tokenizer.token_bytes(token))
    yield decoder.decode(b"", final=True)


def _gpt2_encoding(vocab_file: Path | None) -> tiktoken.Encoding:
    import tiktoken

    if vocab_file is None:
        try:
            return tiktoken.get_encoding("gpt2")
        except Exception as error:  # requests raises a different exception for each network failure
            raise RequestError(
                f"tiktoken cannot download GPT-2's vocabulary ({type(error).__name__}): "
                f"name a file with --data.vocab-file (prepare, generate: --vocab-file), a "
                f".tiktoken file or a folder with vocab.bpe and encoder.json"
            ) from None
    ranks = _read_vocabulary(vocab_file)
    if sorted(ranks.values()) != list(range(_GPT2_END)):
        raise RequestError(
            f"{vocab_file} is not GPT-2's vocabulary: it has {len(ranks):,} byte pairs, not {_GPT2_END:,}"
        )
    return tiktoken.Encoding(
        name="gpt2",
        pat_str=_GPT2_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={END_OF_TEXT: _GPT2_END},
        explicit_n_vocab=_GPT2_END + 1,
    )


def _read_vocabulary(path: Path) -> dict[bytes, int]:
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    if not path.is_dir():
        return _ranks_of(read_text(path, missing=f"there is no vocabulary {path}"), path)
    with scratch_folder() as scratch, _without_cache():
        copies = [scratch / name for name in ("vocab.bpe", "encoder.json")]
        for copy in copies:  # tiktoken reads these as UTF-8, without checking that they are files
            copy.write_text(read_text(path / copy.name), encoding="utf-8")
        try:
            return data_gym_to_mergeable_bpe_ranks(*map(str, copies))
        except Exception as error:  # tiktoken raises various exceptions for other file types
            raise RequestError(f"{path} cannot be read as a vocabulary: {error or type(error).__name__}") from None


def _ranks_of(text: str, path: Path) -> dict[bytes, int]:
    """Parse ranks of byte sequences: each line of a `.tiktoken` file has base64 bytes, a space, and the rank."""
    found: dict[bytes, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            pair, rank = line.split()
            found[base64.b64decode(pair, validate=True)] = int(rank)
        except ValueError:
            raise RequestError(
                f"{path} cannot be read as a vocabulary: line {number:,} is not base64, a space and a number"
            ) from None
    return found


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """Disable tiktoken's cache, which identifies a file by its name, even if its contents have changed."""
    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    os.environ["TIKTOKEN_CACHE_DIR"] = ""
    try:
        yield
    finally:
        del os.environ["TIKTOKEN_CACHE_DIR"]
        if before is not None:
            os.environ["TIKTOKEN_CACHE_DIR"] = before
