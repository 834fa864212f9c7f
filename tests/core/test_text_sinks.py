"""Text from outside reaches each sink as it is, and is obeyed by none."""

from __future__ import annotations

import pytest

from golu_core.training.locks import only_writer
from golu_core.training.ownership import discard, new_folder, write_json
from golu_core.training.text_sinks import LONGEST_NAME, fitting_name


@pytest.mark.parametrize("name", ["a" * 247, "a" * 251 + ".txt", "é" * 127])
def test_a_name_may_be_as_long_as_the_file_system_allows(name, tmp_path):
    """The hidden siblings that a write leaves for a moment have longer names than the file."""
    assert len(name.encode()) <= LONGEST_NAME
    write_json(tmp_path / name, 1)
    (tmp_path / name).unlink()
    with only_writer(tmp_path / name), new_folder(tmp_path / name) as partial:
        write_json(partial / "run.json", {"format": "golu-run/1"})
    discard(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_long_names_stay_apart_when_they_are_cut():
    first, second = (fitting_name("é" * 200 + letter, ".png") for letter in "ab")
    assert first != second
    assert max(len(f"{name}.png".encode()) for name in (first, second)) <= LONGEST_NAME
    assert fitting_name("short", ".png") == "short"
