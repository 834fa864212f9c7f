"""Convert text to subwords and back: Moses' tokenizer (`sacremoses`), then joint byte pairs (`tokenizers`)."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from numpy.typing import NDArray

from golu_core.training import RequestError
from golu_core.training.storage import regular_json

from .vocabulary import END, SYMBOLS, UNKNOWN

if TYPE_CHECKING:
    import tokenizers

Numbers = NDArray[numpy.uint16]

_WORD_END = "</w>"
_MOST_CHARACTERS = 2_000
_WHITE = re.compile(r"\s+")


@dataclass(frozen=True)
class Words:
    """The tokenization of a language's text into words, and its inverse.

    Attributes:
        language: The language for Moses' rules, ISO 639-1.
        moses: Use Moses' tokenizer; otherwise split at white space.
        normalize: First normalize quotes, dashes, and spaces with Moses' normalize-punctuation.
        aggressive_dashes: Split words at dashes, written as `@-@` (Moses' `-a`).
    """

    language: str
    moses: bool = True
    normalize: bool = False
    aggressive_dashes: bool = False

    def cut(self, text: str) -> str:
        """Return the words of a text, separated by single spaces."""
        text = _not_printed().sub(" ", text)
        if self.normalize:
            text = self._normalizer.normalize(text)
        if self.moses:
            text = self._tokenizer.tokenize(text, return_str=True, aggressive_dash_splits=self.aggressive_dashes)
        return _WHITE.sub(" ", text).strip()

    def join(self, words: str) -> str:
        """Return the text for words as `cut` returns them."""
        if not self.moses:
            return words
        text: str = self._detokenizer.detokenize(words.split())
        return text

    @cached_property
    def _normalizer(self) -> Any:
        from sacremoses import MosesPunctNormalizer

        return MosesPunctNormalizer(self.language)

    @cached_property
    def _tokenizer(self) -> Any:
        from sacremoses import MosesTokenizer

        return MosesTokenizer(self.language)

    @cached_property
    def _detokenizer(self) -> Any:
        from sacremoses import MosesDetokenizer

        return MosesDetokenizer(self.language)


class Subwords:
    """A joint vocabulary of byte pairs.

    Args:
        path: The file that `learn_subwords` wrote; it may have additional fields.

    Attributes:
        content: The contents of the file.
        vocabulary: The index of each subword.
        merges: The merges, in the order in which they were learned.

    Raises:
        RequestError: The file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            written = regular_json(path)
            self.content: dict[str, Any] = written
            self.merges: list[tuple[str, str]] = [(left, right) for left, right in written["merges"]]
            self.vocabulary: dict[str, int] = dict(written["vocabulary"])
            self._encoder = _encoder(self.vocabulary, self.merges)
        except FileNotFoundError:
            raise RequestError(f"there is no vocabulary {path}: prepare the data again") from None
        except Exception as error:  # tokenizers raises its own exception for each mistake
            raise RequestError(f"{path} is damaged ({error}): prepare the data again") from None
        self._pieces = {number: piece for piece, number in self.vocabulary.items()}
        self._pieces[UNKNOWN] += _WORD_END

    @property
    def size(self) -> int:
        """The number of subwords, including the four symbols."""
        return len(self.vocabulary)

    def encode(self, lines: Sequence[str]) -> list[Numbers]:
        """Return the subwords of lines that are already split into words."""
        found = self._encoder.encode_batch_fast(list(lines), add_special_tokens=False)
        return [numpy.array(encoding.ids, dtype=numpy.uint16) for encoding in found]

    def words(self, subwords: Iterable[int]) -> str:
        """Return the words of subwords, separated by single spaces; an unknown character is `<unk>`."""
        text = "".join(self._pieces.get(number, self._pieces[UNKNOWN]) for number in subwords)
        return text.replace(_WORD_END, " ").strip()


@dataclass(frozen=True)
class Codec:
    """Convert the text of two languages to a translator's subwords and back.

    Attributes:
        subwords: The joint vocabulary.
        source, target: The tokenization of each language.
    """

    subwords: Subwords
    source: Words
    target: Words

    def encoded(self, lines: Sequence[str], longest: int) -> list[Numbers]:
        """Return sentences as a translator's inputs, each with its end-of-sentence symbol.

        Args:
            lines: Lines in the source language.
            longest: Maximum number of subwords per sentence.

        Raises:
            RequestError: A sentence has more subwords.
        """
        found = self.sentences(lines)
        for number, sentence in enumerate(found, 1):
            if len(sentence) > longest:
                raise RequestError(
                    f"line {number:,} has {len(sentence):,} subwords, and the model accepts {longest:,}: cut it in two"
                )
        return found

    def sentences(self, lines: Sequence[str]) -> list[Numbers]:
        """Return sentences of any length as a translator's inputs, each with its end-of-sentence symbol."""
        end = numpy.array([END], dtype=numpy.uint16)
        cut = self.subwords.encode([self.source.cut(line) for line in lines])
        return [numpy.concatenate([sentence, end]) for sentence in cut]

    def text(self, subwords: Iterable[int]) -> str:
        """Return the text of a translation's subwords."""
        return self.target.join(self.subwords.words(subwords))


def learn_subwords(lines: Callable[[], Iterable[str]], size: int, path: Path) -> None:
    """Learn byte pairs (Sennrich et al., ACL 2016) from lines of words, and write them to a JSON file.

    Equal lines produce byte-identical files, regardless of the order in which `tokenizers` counts words: word-final
    characters, whose indices would depend on that order, are numbered beforehand.

    Args:
        lines: A function that returns an iterator over the lines of both languages, called more than once.
        size: Vocabulary size, including the four symbols; a small text may result in fewer.
        path: The file to write, with `vocabulary` and `merges`.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    characters, ends = _characters(lines(), min(_MOST_CHARACTERS, (size - len(SYMBOLS)) // 4))
    learner = Tokenizer(models.BPE(end_of_word_suffix=_WORD_END))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*SYMBOLS, *(letter + _WORD_END for letter in ends)],
        end_of_word_suffix=_WORD_END,
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        show_progress=False,
    )
    learner.train_from_iterator(lines(), trainer)
    model = json.loads(learner.to_str())["model"]
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    path.write_text(json.dumps({"vocabulary": model["vocab"], "merges": merges}, ensure_ascii=False), encoding="utf-8")


def _characters(lines: Iterable[str], most: int) -> tuple[list[str], list[str]]:
    """Return the most frequent characters, and those that also end words, sorted."""
    counted: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for line in lines:
        counted.update(line)
        ends.update(word[-1] for word in line.split())
    del counted[" "]
    kept = sorted(sorted(counted, key=lambda letter: (-counted[letter], letter))[:most])
    return kept, sorted(set(kept) & set(ends))


@cache
def _not_printed() -> Any:
    """Match Unicode's category C and line separators, like Moses' remove-non-printing-char."""
    import regex

    return regex.compile(r"[\p{C}\u2028\u2029]+")


def _encoder(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    """Return an encoder that never parses symbols in text: there, `</s>` is four characters."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    if [vocabulary.get(symbol) for symbol in SYMBOLS] != list(range(len(SYMBOLS))):
        raise ValueError(f"it has not the symbols {' '.join(SYMBOLS)}")
    encoder = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=SYMBOLS[UNKNOWN], end_of_word_suffix=_WORD_END)
    )
    encoder.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return encoder
