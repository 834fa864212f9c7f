"""The three ways in which a run ends early, each with its exit status."""

import errno

_IMPOSSIBLE_NAMES = (errno.ENAMETOOLONG, errno.ELOOP, errno.EILSEQ)


class RequestError(ValueError):
    """The request itself is wrong (exit status 2): the message names what was requested, what is there and what to do.

    Examples:
        >>> from golu_core.training import RequestError
        >>> raise RequestError("a width of 3 is odd: use --width 2 or 4")
        Traceback (most recent call last):
        golu_core...RequestError: a width of 3 is odd: use --width 2 or 4
    """


class RunFailure(RuntimeError):
    """Something failed during the run (exit status 1): the message is all that a person needs, without a traceback.

    Examples:
        >>> from golu_core.training import RunFailure
        >>> raise RunFailure("the decoder returned no pixels for owl.png")
        Traceback (most recent call last):
        golu_core...RunFailure: the decoder returned no pixels for owl.png
    """


class Interrupted(Exception):
    """A signal asked the run to stop, and everything is saved (exit status 128 + signal)."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def status_of(error: OSError) -> int:
    """The exit status of an error of the system: 2 for a name that cannot exist, which was typed, 1 for all others."""
    return 2 if error.errno in _IMPOSSIBLE_NAMES else 1
