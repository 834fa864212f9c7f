"""What a run can do without, such as pictures: it comes after weights and result, and a failure is one warning."""

from __future__ import annotations

from collections.abc import Callable

from ..messages.errors import Interrupted


class Extras:
    """The extras of a run.

    Args:
        warn: Prints a warning.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._warned: set[str] = set()
        self.can_retry = False
        """Whether the disk refused one, which the same command may write later; what cannot be drawn never will be."""

    def make(self, what: str, make: Callable[[], None]) -> None:
        """Make one; if that fails, warn of it once.

        Args:
            what: The file, for the warning.
            make: Makes it.
        """
        try:
            make()
        except Interrupted:
            raise
        except Exception as error:  # of matplotlib, Pillow, a tokenizer, the disk, memory
            disk = isinstance(error, OSError) or isinstance(error.__cause__, OSError)
            self.can_retry = self.can_retry or disk
            if what not in self._warned:
                self._warned.add(what)
                problem = str(error).strip().partition("\n")[0] or type(error).__name__
                rest = "the same command tries again" if disk else "the run is complete without it"
                self._warn(f"{what} could not be made ({problem}); {rest}")
