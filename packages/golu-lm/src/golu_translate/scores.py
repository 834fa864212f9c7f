"""Translation quality: BLEU in the three versions that papers report, and chrF, by sacreBLEU (Post, WMT 2018)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from golu_core.training import RequestError

if TYPE_CHECKING:
    from sacrebleu.metrics import BLEU

# fairseq's scripts/compound_split_bleu.sh
_HYPHEN = re.compile(r"(\S)-(\S)")
# languages without spaces for which sacreBLEU has no word segmenter: their BLEU is computed on characters
_CHARACTERS = frozenset({"bo", "dz", "km", "lo", "my", "th"})
_TWO_LETTERS = {"cmn": "zh", "yue": "zh", "zho": "zh", "jpn": "ja", "kor": "ko", "bod": "bo", "dzo": "dz", "khm": "km"}
_TWO_LETTERS |= {"lao": "lo", "mya": "my", "tha": "th"}  # codespell:ignore tha
"""The language codes of sacreBLEU and `_CHARACTERS` for ISO 639-3 codes."""


@dataclass(frozen=True)
class Scores:
    """Scores on a test set.

    Attributes:
        values: `bleu`, computed on plain text with sacreBLEU's tokenizer for the target language; `bleu_tokenized`,
            computed on the recipe's words, as fairseq reports it; `bleu_compound`, the same with hyphens inside words
            split off, as in Vaswani et al. (2017) and fairseq's `compound_split_bleu.sh`; and `chrf`. All in %.
        signatures: sacreBLEU's signatures of `bleu` and `chrf`, which include the tokenizer. Only numbers with the same
            signature are comparable.
    """

    values: dict[str, float]
    signatures: dict[str, str]


def scores(
    texts: Sequence[str],
    references: Sequence[str],
    words: Sequence[str],
    reference_words: Sequence[str],
    language: str,
) -> Scores:
    """Score translations.

    Args:
        texts: The translations as plain text.
        references: One reference for each translation.
        words: The words of the translations, separated by single spaces.
        reference_words: The words of the references.
        language: The target language, ISO 639.

    Raises:
        RequestError: The numbers of translations and references differ, there are none, or a package for splitting the
            language into words is not installed.
    """
    from sacrebleu.metrics import CHRF

    if len(texts) != len(references):
        raise RequestError(f"there are {len(texts):,} translations, and {len(references):,} references")
    if not texts:
        raise RequestError("there is nothing to be scored")
    bleu, chrf = bleu_of(language), CHRF()
    values = {
        "bleu": bleu.corpus_score(list(texts), [list(references)]).score,
        "bleu_tokenized": _of_words(words, reference_words),
        "bleu_compound": _of_words(*([split_compounds(line) for line in lines] for lines in (words, reference_words))),
        "chrf": chrf.corpus_score(list(texts), [list(references)]).score,
    }
    return Scores(values, {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())})


def bleu_of(language: str) -> BLEU:
    """Return sacreBLEU's BLEU with its tokenizer for a target language.

    The tokenizer is 13a for most languages, `zh` for Chinese, `ja-mecab` for Japanese, and `ko-mecab` for Korean. Thai,
    Lao, Khmer, Burmese, Tibetan, and Dzongkha, which are also written without spaces between words, use `char`.

    Args:
        language: The target language, ISO 639.

    Raises:
        RequestError: The language needs a package that is not installed.
    """
    from sacrebleu.metrics import BLEU

    known = _TWO_LETTERS.get(language, language)
    try:
        return BLEU(trg_lang=known, tokenize="char" if known in _CHARACTERS else None)
    except (ImportError, RuntimeError):  # depends on sacreBLEU's version
        raise RequestError(
            f"BLEU of translations into {language} needs a package that cuts the language into words: "
            f"pip install 'sacrebleu[{known}]'"
        ) from None


def _of_words(words: Sequence[str], references: Sequence[str]) -> float:
    """BLEU on the given words without smoothing, as computed by Moses' multi-bleu and fairseq."""
    from sacrebleu.metrics import BLEU

    metric = BLEU(tokenize="none", smooth_method="none", force=True)
    return float(metric.corpus_score(list(words), [list(references)]).score)


def split_compounds(line: str) -> str:
    """Split off hyphens inside words; of two around a single letter only the first, as in the original script."""
    return _HYPHEN.sub(r"\1 ##AT##-##AT## \2", line)
