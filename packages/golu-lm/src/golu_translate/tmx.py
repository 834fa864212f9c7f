"""Sentence pairs in TMX 1.4b, the exchange format of translation memories."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from golu_core.training import RequestError
from golu_core.training.storage import opened, xml_elements

_XML_LANGUAGE = ("{http://www.w3.org/XML/1998/namespace}lang", "lang")
_CODES = frozenset({"bpt", "ept", "it", "ph", "ut"})
"""Inline elements with codes of another format, such as `<b>`. A `sub` element in them is not part of the sentence
either; it may be the title of a link, for example."""
_BREAKS = frozenset({"lb", "pb", "cb"})
"""Types of codes for line, page, and column breaks, which separate the words around them."""
_TEXT = frozenset({"hi"})
"""Inline elements whose text is part of the sentence."""


@dataclass
class TmxRemarks:
    """The parts of a TMX file that were left out.

    Attributes:
        path: The file.
        codes: Sentences that had inline codes.
        variants: Units with several variants of a language, by language.
    """

    path: Path
    codes: int = 0
    variants: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """Return notes for the user, as sentences."""
        found = []
        if self.codes:
            found.append(f"inline codes were left out of sentences of {self.path}: {self.codes:,} in all")
        for language, count in sorted(self.variants.items()):
            found.append(
                f"the first of several variants of {language} was used in units of {self.path}: {count:,} in all"
            )
        return found


def tmx_pairs(path: Path, source: str, target: str, remarks: TmxRemarks | None = None) -> Iterator[tuple[str, str]]:
    """Yield the pairs of two languages, ignoring regions.

    Of several variants of a language in one unit, such as `en-US` and `en-GB`, the first is used. Inline codes are
    left out, and the text of `<hi>` is kept.

    Args:
        path: The file, possibly compressed.
        source, target: The languages, ISO 639.
        remarks: Notes to fill in while the file is read.

    Raises:
        RequestError: The file is not XML, or a sentence has an element that TMX does not have.
    """
    remarks = TmxRemarks(path) if remarks is None else remarks
    with opened(path) as file:
        for unit in xml_elements(file, path, "is not a TMX file"):
            if _name(unit) != "tu":
                continue
            sides: dict[str, str] = {}
            several: set[str] = set()
            for variant in (part for part in unit if _name(part) == "tuv"):
                language = _language_of(variant)
                if language not in (source, target):
                    continue
                if language in sides:
                    several.add(language)
                    continue
                sides[language] = _sentence(variant, remarks)
            remarks.variants.update(several)
            if len(sides) == 2:
                yield sides[source], sides[target]
            unit.clear()


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _language_of(variant: ElementTree.Element) -> str:
    """Return the language of a variant: `en` for `en-US` and `EN_gb`."""
    name = next((variant.attrib[key] for key in _XML_LANGUAGE if key in variant.attrib), "")
    return re.split("[-_]", name.lower())[0]


def _sentence(variant: ElementTree.Element, remarks: TmxRemarks) -> str:
    segment = next((part for part in variant if _name(part) == "seg"), None)
    if segment is None:
        return ""
    if any(_name(part) in _CODES for part in segment.iter()):
        remarks.codes += 1
    return " ".join("".join(_texts(segment, remarks.path)).split())


def _texts(element: ElementTree.Element, path: Path) -> Iterator[str]:
    """Yield the text of an element and its children, without codes."""
    yield element.text or ""
    for part in element:
        name = _name(part)
        if name in _TEXT:
            yield from _texts(part, path)
        elif name not in _CODES:
            raise RequestError(
                f"{path} has <{name}> in a sentence, and TMX 1.4 does not specify whether it holds text or codes: "
                f"replace it by <hi> or <ph>"
            )
        elif part.attrib.get("type", "").lower() in _BREAKS:
            yield " "
        yield part.tail or ""
