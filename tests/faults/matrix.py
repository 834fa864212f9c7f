"""Which faults are tested, what comes of each, and which test shows it: docs/reliability.md is made of this table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        what: happens.
        then: what the program does, and what the same command does afterwards.
        tests: that show it, as `file::function`.
        tasks: for which they run it.
    """

    what: str
    then: str
    tests: tuple[str, ...]
    tasks: str = "all"


_SAME = "the same command ends with the same bytes, and no other files remain"
_DISK = "tests/faults/test_disk.py"
_DAMAGE = "tests/faults/test_damage.py"
_RIGHTS = "tests/faults/test_rights_and_space.py"
_BETWEEN = "tests/faults/test_between.py"
_SIGNALS = "tests/core/test_signals.py"
_WRITERS = "tests/faults/test_writers.py"
_EXTRAS = "tests/core/test_extras.py"
_SURROUNDINGS = "tests/core/test_surroundings.py"
MATRIX: dict[str, tuple[Fault, ...]] = {
    "A process ends": (
        Fault(
            "`kill -9` at any change of a file in the run folder, in a write after half of its bytes",
            _SAME,
            (f"{_DISK}::test_a_fault_in_the_run_folder",),
        ),
        Fault(
            "`kill -9` while sample data or tokens are written",
            _SAME,
            (f"{_DISK}::test_a_fault_in_the_data_folder",),
            "vision, lm, detect",
        ),
        Fault(
            "`kill -9` at any change of a file by any other command that writes: {writers}",
            f"{_SAME}, in the temporary folder neither",
            (
                f"{_WRITERS}::test_a_fault_in_a_command_that_writes",
                "tests/core/test_output_folder.py::test_the_same_command_succeeds_after_a_kill_at_any_change",
            ),
        ),
        Fault(
            "`kill -9` several times in one run, in one process and in two",
            _SAME,
            tuple(
                f"tests/{folder}/test_continuation.py::test_killed_several_times_then_finished"
                for folder in ("vision", "lm", "translate", "detect", "diffusion")
            ),
        ),
        Fault(
            "SIGINT, SIGTERM or SIGHUP to one process or to all, with loader processes and without",
            f"the step is finished and saved, status 130, 143 or 129; {_SAME}",
            (
                f"{_SIGNALS}::test_a_signal_to_the_group_saves",
                "tests/vision/test_continuation.py::test_signal_saves_and_the_same_command_continues",
            ),
        ),
        Fault(
            "a kill after the result and before the pictures",
            "the result stays, and the same command makes the pictures",
            (f"{_EXTRAS}::test_the_result_stays_while_extras_are_made_again",),
        ),
        Fault(
            "a loss is not finite",
            "status 1 within one step, and `failure.json` names the step, the reason and the last good checkpoint",
            (f"{_EXTRAS}::test_a_run_that_its_numbers_end_says_so_until_it_goes_on",),
        ),
        Fault(
            "pictures, samples, curves or scores of samples fail",
            "one warning each, status 0: weights and result are written before",
            (f"{_EXTRAS}::test_an_extra_that_raises_is_one_warning",),
        ),
        Fault(
            "a loader process is killed",
            "one message, status 1; loaders end with their run, however it ends",
            (f"{_SIGNALS}::test_loader_processes",),
        ),
        Fault(
            "one of two machines is lost: every process on it is killed",
            "the other one ends; both started again end with the same bytes",
            ("tests/faults/test_two_hosts.py::test_a_lost_machine",),
            "lm",
        ),
    ),
    "The disk fails": (
        Fault(
            "no space left from any change of a file on; half of a write is done",
            f"one message, status 1; with space again, {_SAME}",
            (f"{_DISK}::test_a_fault_in_the_run_folder", f"{_DISK}::test_a_fault_in_the_data_folder"),
        ),
        Fault(
            "no space left while another command writes: {writers}",
            f"one message, status 1, and no torn weights under their name; with space again, {_SAME}",
            (f"{_WRITERS}::test_a_fault_in_a_command_that_writes",),
        ),
        Fault(
            "input and output errors from any change of a file on",
            f"one message, status 1; on a whole disk, {_SAME}",
            (f"{_DISK}::test_a_fault_in_the_run_folder", f"{_DISK}::test_a_fault_in_the_data_folder"),
        ),
        Fault(
            "a small disk is full, or has no inodes left",
            f"one message, status 1; on a larger one, {_SAME}",
            (f"{_RIGHTS}::test_a_small_disk",),
        ),
        Fault(
            "output, run, checkpoint or data folder cannot be written, or not be read",
            f"one message that names it, status 1 or 2, nothing written; then {_SAME}",
            (f"{_RIGHTS}::test_a_folder_without_rights",),
        ),
        Fault(
            "a file system that refuses `chmod`",
            "nothing: permissions are only widened, and the owner can read the files without it",
            (f"{_SURROUNDINGS}::test_a_run_is_trained_where_chmod_is_refused",),
        ),
        Fault(
            "a file system without locks",
            "one message, nothing written",
            (f"{_SURROUNDINGS}::test_a_file_system_without_locks_is_named",),
        ),
        Fault(
            "the run folder is somebody else's",
            "one message that names it, nothing written",
            (f"{_RIGHTS}::test_a_folder_of_somebody_else",),
        ),
        Fault(
            "a finished run and the data cannot be written",
            "evaluation and training elsewhere work as ever",
            (f"{_RIGHTS}::test_finished_runs_and_data_need_not_be_writable",),
        ),
    ),
    "A file is damaged": (
        Fault(
            "each file of a stopped run: {damages}",
            "the program reports and replaces it, with the same final bytes; or one message and nothing written",
            (f"{_DAMAGE}::test_a_damaged_file_of_a_stopped_run",),
        ),
        Fault(
            "each file of a finished run: {damages}",
            "evaluation gives the same digits or one message; `train` completes the run to the same bytes. Pictures "
            "and checkpoints of a finished run may be deleted",
            (f"{_DAMAGE}::test_a_damaged_file_of_a_finished_run",),
        ),
        Fault(
            "files of the data, between stop and continuation: {damages}",
            "one message and nothing written, or the same bytes where the content is the same",
            (f"{_DAMAGE}::test_a_damaged_file_of_the_data",),
        ),
        Fault(
            "results, configs and weights that were made to do harm",
            "one message; nothing in them is executed",
            (
                "tests/vision/test_run_folder.py::test_what_only_malice_makes_is_refused_in_words",
                "tests/studies/test_hostile_input.py",
                "tests/studies/test_trust.py",
            ),
        ),
        Fault(
            "each file of yours that a command reads: UTF-16, Latin-1, a byte order mark, NUL bytes, empty, a line "
            "of 10 MB, a folder or a pipe in its place",
            "the same data as from UTF-8 where the encoding is supported, otherwise one message that names the file, "
            "status 2; nothing hangs",
            ("tests/core/test_user_files.py::test_a_file_is_read_right_or_refused", "tests/core/test_readers.py"),
        ),
    ),
    "Something else changes between stop and continuation": (
        Fault("{place}", _SAME, (f"{_BETWEEN}::test_place_changes_nothing",)),
        Fault(
            "the number of processes",
            "the same numbers up to rounding",
            (
                "tests/lm/test_continuation.py::"
                "test_a_signal_saves_and_the_run_continues_with_another_number_of_processes",
            ),
            "lm",
        ),
        Fault(
            "versions of Python, torch and what else is used",
            "the change is said, and the run goes on",
            (
                f"{_BETWEEN}::test_other_versions_are_said",
                "tests/vision/test_run_folder.py::test_other_versions_are_said_once",
            ),
        ),
        Fault(
            "any field of the config: {other}, and all others",
            "one message that names the field, nothing written",
            (f"{_BETWEEN}::test_another_config_is_refused", "tests/vision/test_flips.py"),
        ),
        Fault(
            "a second run starts in the same folder",
            "it waits 15 seconds, then one message, status 2",
            (f"{_BETWEEN}::test_a_second_run_in_the_folder_is_refused",),
        ),
    ),
    "A command line is wrong": (
        Fault(
            "values that are not of a flag's type, NaN, huge, empty, odd Unicode, a file for a folder",
            "one message, status 2, nothing written",
            (
                "tests/faults/test_command_lines.py::test_a_wrong_value_is_one_message",
                "tests/faults/test_command_lines.py::test_a_wrong_place_is_one_message",
            ),
        ),
    ),
}
