"""The process that `forks` forks: it imports what the programs import, and becomes a command in each fork.

It must not run anything before: one thread of OpenMP or of the autograd engine, and no fork could compute.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import io
import json
import os
import random
import resource
import runpy
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

from forks import LARGEST_REQUEST, LAUNCHER, ForkServer, popen

# what the packages' programs import, at their start or in a function; nothing else may stand here
IMPORTED = (
    *(
        f"golu_{task}.{part}"
        for task in ("vision", "lm", "translate", "detect", "diffusion")
        for part in ("cli", "train")
    ),
    "golu_core.cli",
    "golu_core.training.loop.run",
    "golu_core.training.export.exporting",
    "golu_core.training.figures.drawing",
    "scipy.stats",  # not sklearn: it would start a thread of pyarrow's
)


def main() -> None:
    """Import, and fork until the other end of the channel is closed."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    for name in IMPORTED:
        importlib.import_module(name)
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"importing started {len(threads) - 1} threads, which a fork would not have"
    gc.collect()
    gc.freeze()  # or the first collection of each fork would copy all pages
    channel.send(b"ready")
    request = serve(channel)
    if request is None:
        os._exit(0)  # taking everything to pieces would only make complaints
    become(request)


def serve(channel: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; return it in the fork, and None in this process when there are no more."""
    while True:
        content, streams, _, _ = socket.recv_fds(channel, LARGEST_REQUEST, 3)
        if not content:
            return None
        reader, writer = os.pipe()
        between = os.fork()
        if between == 0:
            between = os.getpid()
            child = os.fork()
            if child == 0:
                while os.getppid() == between:  # until it is the child of who asked for it
                    time.sleep(0.0005)
                for descriptor in (reader, writer, channel.detach()):
                    os.close(descriptor)
                return {**json.loads(content), "streams": streams}
            os.write(writer, str(child).encode())
            os._exit(0)
        os.waitpid(between, 0)
        channel.send(os.read(reader, 100))
        for descriptor in (reader, writer, *streams):
            os.close(descriptor)


def become(request: dict[str, Any]) -> None:
    """Turn this fork into `python -m module arguments`, and return as that would end."""
    _take_what_a_process_inherits(request)
    module, *arguments = request["words"]
    if module == LAUNCHER:
        worker = _fork_workers()
        if worker is not None:
            become(worker)
            return
    _look_like_a_new_interpreter(module, arguments, request["unbuffered"])
    os._exit(_status_of(functools.partial(runpy._run_module_as_main, module)))  # type: ignore[attr-defined]


def _status_of(program: Callable[[], object]) -> int:
    """Run a program to what the interpreter does at its end, but for taking all modules to pieces, which takes long."""
    status = 0
    try:
        program()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if status != (stop.code or 0):
            print(stop.code, file=sys.stderr)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError as error:
        print(f"Exception ignored in: {sys.stdout!r}\n{type(error).__name__}: {error}", file=sys.stderr)
        return 120
    if status == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return status & 255


def _take_what_a_process_inherits(request: dict[str, Any]) -> None:
    for number, descriptor in enumerate(request["streams"]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if request["session"]:
        os.setsid()
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    for limit, bounds in request["limits"].items():
        if resource.getrlimit(int(limit)) != tuple(bounds):
            resource.setrlimit(int(limit), tuple(bounds))
    os.environ.clear()
    os.environ.update(request["environment"])


def _look_like_a_new_interpreter(module: str, arguments: list[str], unbuffered: bool) -> None:
    sys.argv[:] = ["-m", *arguments]
    sys.path[0] = os.getcwd()
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.modules["__main__"].__dict__["__builtins__"] = __builtins__
    sys.modules.pop(LAUNCHER, None)  # accelerate has imported it, of which runpy would warn
    importlib.invalidate_caches()
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    sys.excepthook = functools.partial(_without_frames_of_this_file, sys.excepthook)
    _open_streams(unbuffered)


def _open_streams(unbuffered: bool) -> None:
    """Open the standard streams as the interpreter does at its start, for what their descriptors are now."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        buffering = 0 if unbuffered and number else -1
        file: Any = open(number, "wb" if number else "rb", buffering=buffering, closefd=False)  # noqa: SIM115
        getattr(file, "raw", file).name = f"<{name}>"
        lines = not unbuffered and (file.isatty() or number == 2)
        stream: Any = io.TextIOWrapper(file, old.encoding, old.errors, "\n", lines, unbuffered)
        stream.mode = "w" if number else "r"
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _without_frames_of_this_file(hook: Any, kind: Any, error: BaseException, trace: types.TracebackType | None) -> None:
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    hook(kind, error.with_traceback(trace), trace)


def _fork_workers() -> dict[str, Any] | None:
    """Let the launcher fork its workers, too; return in the launcher with None, in a worker with its request.

    A fork of this process is their server. Signals to the launcher's group do not end it, the launcher's end does.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        os.close(nothing)
        worker = serve(theirs)
        if worker is None:
            os._exit(0)
        return worker
    theirs.close()
    handler = importlib.import_module("torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler")
    start = functools.partial(popen, ForkServer(ours))
    handler.Popen = lambda args, **options: start(args, **options)  # type: ignore[attr-defined]
    return None


if __name__ == "__main__":
    main()
