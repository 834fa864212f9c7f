"""`golu-translate prepare`: convert sentence pairs to a folder of subwords."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from golu_core.training import PositiveInt, RequestError
from golu_core.training.config import FolderName, PositiveFloat, Range
from golu_core.training.messages import say
from golu_core.training.storage import discard, foreign_files, partial_of, read_marker, sweep_partials
from golu_core.training.tasks import parsed_flags

from .pairs_folder import FORMAT, META_FILE, SUBWORDS_FILE, Cutting, prepare_pairs
from .parallel_text import SPLITS, Languages, own_pairs, wmt14


@dataclass(frozen=True)
class PrepareFlags:
    """Tokenize pairs of sentences for training a translator."""

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {"max_subwords": "most_subwords", "max_ratio": "most_ratio"}

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """`wmt14`, or a file or folder of pairs."""
    pair: str = "en-de"
    """Source and target language as ISO 639 codes, such as `en-de`."""
    data_dir: Path = Path("data")
    """Folder that holds the data sets."""
    name: FolderName | None = None
    """Folder below it; by default the data set's or file's name with the languages, such as `wmt14-en-de`."""
    vocabulary: Annotated[int, Range(ge=64, le=1 << 16)] = 32_768
    """Subwords of both languages together, with four symbols; pass the same number as --model.vocabulary."""
    moses: bool = True
    """Cut text into words by Moses' rules; otherwise white space parts them."""
    normalize: bool = False
    """Normalize punctuation first (Moses), as fairseq's own preparation of WMT14 does, and Google's does not."""
    aggressive_dashes: bool = False
    """Set dashes inside words apart (Moses' `-a`), as fairseq's own preparation does, and Google's does not."""
    max_subwords: PositiveInt = 250
    """Leave out training pairs with a longer side."""
    max_ratio: PositiveFloat | None = None
    """Maximum length ratio: leave out training pairs in which one side has more than this many times the subwords of
    the other. fairseq's preparation uses 1.5."""
    hub: str | None = None
    """Alternative hub id, or path of a local copy of the data set."""
    revision: str | None = None
    """Revision of the data set on the hub."""
    num_workers: Annotated[int, Range(ge=1, le=512)] = os.cpu_count() or 1
    """Processes that cut text into words."""
    overwrite: bool = False
    """Delete what `prepare` wrote there and start again."""

    @property
    def cutting(self) -> Cutting:
        """The settings that determine the subword indices."""
        old = {old: new for new, old in self.FORMER_NAMES.items()}  # meta.json keeps its original names
        return Cutting(**{f.name: getattr(self, old.get(f.name, f.name)) for f in dataclasses.fields(Cutting)})


def prepare_command(arguments: Sequence[str]) -> None:
    """Run `golu-translate prepare DATASET [flags]`."""
    flags = parsed_flags(PrepareFlags, arguments, "golu-translate prepare")
    dataset = flags.dataset
    languages = Languages.parsed(flags.pair)
    if dataset == "wmt14":
        text = wmt14(flags.hub, flags.revision, languages)
    else:
        for flag, given in (("--hub", flags.hub), ("--revision", flags.revision)):
            if given is not None:
                raise RequestError(f"{flag} has no effect on files, such as {dataset}: leave it out")
        text = own_pairs(Path(dataset), languages)
    stem = "wmt14" if dataset == "wmt14" else Path(dataset).resolve().name.split(".")[0]
    folder = flags.data_dir / (flags.name or f"{stem}-{languages}")
    if flags.overwrite:
        _remove_prepared(folder)
    meta = prepare_pairs(text, languages, folder, flags.cutting, flags.num_workers, show_progress=True)
    for remark in text.remarks:
        say(f"note: {remark}")
    for split, facts in meta["splits"].items():
        say(f"{split}: {facts['pairs']:,} pairs, {facts['subwords'][0]:,} and {facts['subwords'][1]:,} subwords")
        for reason, count in facts["left_out"].items():
            say(f"note: {count:,} pairs of {split} were left out: {reason}")
    say(f"prepared: {folder}, vocabulary {meta['vocabulary']:,}")


def _remove_prepared(folder: Path) -> None:
    """Remove what --overwrite replaces; raise RequestError if the folder is not prepared pairs."""
    meta = read_marker(folder, META_FILE)
    if folder.exists() and (meta is None or meta.get("format") != FORMAT):
        raise RequestError(
            f"{folder} does not hold pairs that golu-translate prepare made, so --overwrite does not remove it: "
            f"choose a --name"
        )
    sweep_partials(folder)  # version 0.2 could leave some partial folders inside
    sides = () if meta is None else tuple(meta["languages"])
    written = (f"{split}.{side}{end}" for split in SPLITS for side in sides for end in ("", ".words", ".bin"))
    foreign = foreign_files(folder, (META_FILE, SUBWORDS_FILE, *written))
    if foreign:
        raise RequestError(
            f"{foreign[0]} was not made by golu-translate prepare: move it away, or choose another --name"
        )
    discard(folder)
    discard(partial_of(folder))
