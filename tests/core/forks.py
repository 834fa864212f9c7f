"""Starts `python -m golu_X` as a fork of a process that has imported everything already: 0.1 seconds instead of 4 to 9.

    pytest worker ── fork server (imports torch and all packages once, runs nothing)
          └───────── a fork for each command: a child of the worker, as subprocess.Popen's would be

`start` gives the `subprocess.Popen` of a command: forked where nothing can tell the difference, and started afresh
where something might: other environment variables than the server's, flags of the interpreter, code after `-c`.
GOLU_FRESH_STARTS=1 starts every command afresh.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LAUNCHER = "torch.distributed.run"
LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
LARGEST_REQUEST = 150_000  # bytes; the kernel's buffers hold 208 KiB
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class ForkServer:
    """The end of a channel to a process that forks.

    Args:
        channel: connected to `fork_server.serve`.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._libc = ctypes.CDLL(None)

    def fork(self, request: Mapping[str, Any], streams: Sequence[int]) -> int:
        """Return the id of a new child of this process, which becomes the command of the request."""
        content = json.dumps(request).encode()
        assert len(content) < LARGEST_REQUEST
        with self._lock:
            # the child's parent ends at once, by which the child becomes that of the next subreaper above
            self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(self._channel, [content], list(streams))
                return int(self._channel.recv(100))
            finally:
                self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class ForkedProcess(subprocess.Popen[str]):
    """A Popen whose child was forked and not executed; all its methods are Popen's own.

    Args:
        server: forks.
        args: `[python, -m, module, ...]`.
        options: of Popen, but for those that only an executed program can have.
    """

    def __init__(self, server: ForkServer, args: Sequence[str], **options: Any) -> None:
        self._server = server
        super().__init__(args, **options)

    def _execute_child(  # type: ignore[no-untyped-def]
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid, umask,
        start_new_session, process_group,
    ):  # fmt: skip
        """Start the child; what Popen calls with the ends of the pipes."""
        words = _words_of(args)
        assert words is not None and preexec_fn is None and not pass_fds and not shell and close_fds
        assert executable is gid is gids is uid is None and umask == process_group == -1
        mask = os.umask(0o022)
        os.umask(mask)
        variables = dict(os.environ if env is None else env)
        request = {
            "unbuffered": "-u" in args[1:2] or bool(variables.get("PYTHONUNBUFFERED")),
            "words": words,
            "cwd": os.path.abspath(cwd or "."),
            "environment": variables,
            "session": start_new_session,
            "umask": mask,
            "limits": {limit: resource.getrlimit(limit) for limit in LIMITS},
        }
        ends = [own if end == -1 else end for own, end in enumerate((p2cread, c2pwrite, errwrite))]
        self.pid = self._server.fork(request, ends)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]


def _words_of(command: Sequence[str]) -> list[str] | None:
    """The module and arguments of `[python, -m, module, ...]`; None for a command of another form."""
    python, *words = command
    words = words[1:] if words[:1] == ["-u"] else words
    return words[1:] if python == sys.executable and words[:1] == ["-m"] else None


def popen(server: ForkServer | None, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Start a command, as a fork if there is a server and the command is a module."""
    if server is None or _words_of(command) is None:
        return subprocess.Popen(command, **options)
    return ForkedProcess(server, command, **options)


def environment(**changes: str) -> dict[str, str]:
    """The variables of a command: those of this process, one thread and the CPU."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **changes}


# pytest's own, and what torch and scikit-learn set when they are imported
_NOT_READ = ("PYTEST_", "TORCHINDUCTOR_CACHE_DIR", "KMP_INIT_AT_FORK", "KMP_DUPLICATE_LIB_OK")
FIRST_VARIABLES = dict(os.environ)
_ENVIRONMENT = environment()  # the server's, before any test changes what imports read


def start(command: Sequence[str], *, env: Mapping[str, str], fresh: bool = False, **options: Any) -> Any:
    """Start a command as `subprocess.Popen(text=True)` does.

    Args:
        command: of the words `[python, -m, module, ...]`.
        env: all its variables.
        fresh: Whether it must be a new interpreter.
        options: of Popen.
    """
    server = None if fresh or not can_fork(env) else _server()
    return popen(server, command, env=env, text=True, **options)


def run(
    command: Sequence[str], *, env: Mapping[str, str], timeout: float, fresh: bool = False, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run(capture_output=True, text=True)` does."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(command, env=env, fresh=fresh, **pipes, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
        return subprocess.CompletedProcess(list(command), process.poll(), out, err)


def can_fork(env: Mapping[str, str]) -> bool:
    """Whether a command with these variables may be a fork: its imports would read the same as the server's did."""
    ours, theirs = ({k: v for k, v in e.items() if not k.startswith(_NOT_READ)} for e in (_ENVIRONMENT, env))
    return ours == theirs and "GOLU_FRESH_STARTS" not in os.environ and sys.platform == "linux"


@functools.cache
def _server() -> ForkServer:
    """The server of this pytest process, which ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    script = Path(__file__).with_name("fork_server.py")
    with theirs:
        subprocess.Popen(
            [sys.executable, str(script), str(theirs.fileno())],
            env=_ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    assert ours.recv(100) == b"ready", "the fork server does not start"
    return ForkServer(ours)
