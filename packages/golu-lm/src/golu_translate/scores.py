"""How good translations are: BLEU in the three ways that papers print, and chrF, all by sacreBLEU (Post, WMT 2018)."""

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
# languages written without spaces for which sacreBLEU has no word segmenter: their BLEU is of characters
_CHARACTERS = frozenset({"bo", "dz", "km", "lo", "my", "th"})
_TWO_LETTERS = {"cmn": "zh", "yue": "zh", "zho": "zh", "jpn": "ja", "kor": "ko", "bod": "bo", "dzo": "dz", "khm": "km"}
_TWO_LETTERS |= {"lao": "lo", "mya": "my", "tha": "th"}  # codespell:ignore tha
"""What sacreBLEU and `_CHARACTERS` call languages by, for their ISO 639-3 codes."""


@dataclass(frozen=True)
class Scores:
    """Scores of a test set.

    Attributes:
        values: `bleu`, of text as it is written, by sacreBLEU's own words for the target language; `bleu_tokenized`, of
            words as the recipe cuts them, which fairseq prints; `bleu_compound`, of these with hyphens inside words set
            apart, as in Vaswani et al. (2017) and fairseq's `compound_split_bleu.sh`; and `chrf`. All in %.
        signatures: sacreBLEU's, of `bleu` and `chrf`; they name the tokenizer, and only numbers with the same
            signature can be compared.
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
    """The scores of translations.

    Args:
        texts: translations as they are written.
        references: one for each.
        words: of the translations, with one space between them.
        reference_words: of the references.
        language: of the translations, ISO 639.

    Raises:
        RequestError: there are not as many references as translations, or none at all, or a package that cuts the
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
    """Return sacreBLEU's BLEU with the tokenizer that it has for a target language.

    Most languages have 13a, Chinese `zh`, Japanese `ja-mecab`, and Korean `ko-mecab`. Thai, Lao, Khmer, Burmese,
    Tibetan and Dzongkha, which have no spaces between words either, have `char`.

    Args:
        language: ISO 639.

    Raises:
        RequestError: the language needs a package that is not installed.
    """
    from sacrebleu.metrics import BLEU

    known = _TWO_LETTERS.get(language, language)
    try:
        return BLEU(trg_lang=known, tokenize="char" if known in _CHARACTERS else None)
    except (ImportError, RuntimeError):  # which it is depends on sacreBLEU's version
        raise RequestError(
            f"BLEU of translations into {language} needs a package that cuts the language into words: "
            f"pip install 'sacrebleu[{known}]'"
        ) from None


def _of_words(words: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of words as they are, without smoothing, as Moses' multi-bleu and fairseq compute it."""
    from sacrebleu.metrics import BLEU

    metric = BLEU(tokenize="none", smooth_method="none", force=True)
    return float(metric.corpus_score(list(words), [list(references)]).score)


def split_compounds(line: str) -> str:
    """A line with hyphens inside words set apart; of two around one letter the second stays, as there."""
    return _HYPHEN.sub(r"\1 ##AT##-##AT## \2", line)
