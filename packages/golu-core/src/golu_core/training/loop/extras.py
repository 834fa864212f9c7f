"""Optional outputs of a run, such as pictures: written after weights and result; a failure is only a warning."""

from __future__ import annotations

from collections.abc import Callable

from ..messages.errors import Interrupted


class Extras:
    """The optional outputs of a run.

    Args:
        warn: The function that prints a warning.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._warned: set[str] = set()
        self.can_retry = False
        """Whether writing one failed, so that the same command may write it later. Other failures are permanent."""

    def make(self, what: str, make: Callable[[], None]) -> None:
        """Write one optional output; if that fails, warn once.

        Args:
            what: The file's name in the warning.
            make: The function that writes the file.
        """
        try:
            make()
        except Interrupted:
            raise
        except Exception as error:  # from matplotlib, Pillow, a tokenizer, the disk, or memory
            disk = isinstance(error, OSError) or isinstance(error.__cause__, OSError)
            self.can_retry = self.can_retry or disk
            if what not in self._warned:
                self._warned.add(what)
                problem = str(error).strip().partition("\n")[0] or type(error).__name__
                rest = "the same command tries again" if disk else "the run is complete without it"
                self._warn(f"{what} could not be made ({problem}); {rest}")
