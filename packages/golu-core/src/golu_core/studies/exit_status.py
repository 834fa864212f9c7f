"""Exit statuses of the commands of studies: a refusal, a failure or a stop is one message, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from golu_core.training.config.named_activations import only_named_code
from golu_core.training.messages.errors import Interrupted, RequestError, status_of
from golu_core.training.messages.text_sinks import complain, prepare_streams


def exit_status(command: str, run: Callable[[], int]) -> int:
    """What a command's function returns, or the status of how it ended: 2 for a refusal, 1 for a failure of the system.

    Args:
        command: The command as it is typed, for messages.
        run: does the work.
    """
    prepare_streams()
    try:
        with only_named_code():
            return run()
    except RequestError as error:
        return _told(command, error, 2)
    except Interrupted as stop:
        return _told(command, stop, 128 + stop.signal_number)
    except KeyboardInterrupt:
        return _told(command, "interrupted", 128 + signal.SIGINT)
    except BrokenPipeError:  # the reader of a pipe, such as `head`, is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _told(command, error, status_of(error))


def _told(command: str, error: Exception | str, status: int) -> int:
    complain(f"{command}: {error}")
    return status
