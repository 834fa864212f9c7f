"""A forked command is like one that was started afresh: streams, status, files, and what it inherits."""

from __future__ import annotations

import ast
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fork_server
import forks
from command_line import Program
from detect_program import copy_few
from faults import TRAIN, run_folder
from golu_core.training.data.digits import write_digits
from golu_core.training.tasks.task import installed_tasks
from golu_detect.samples import write_digit_scenes
from translation_program import prepared

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ENDINGS = {
    "success": "print(open(0).read().upper())",
    "a file": "open('written', 'w').write('it is here'); print('ä', file=sys.stderr)",
    "a status": "sys.exit(3)",
    "a large status": "sys.exit(259)",
    "a message": "sys.exit('no such thing')",
    "a message that is no text": "sys.exit([1, 2])",
    "an error": "print('before'); {}['absent']",
    "an interrupt": "print('before'); raise KeyboardInterrupt",
    "an interrupt from outside": "os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
    "a termination": "print('lost'); os.kill(os.getpid(), signal.SIGTERM)",
    "a kill": "print('printed', flush=True); os.kill(os.getpid(), signal.SIGKILL)",
    "a reader that is gone": "os.close(1); print('nowhere')",
    "handlers of the end": "atexit.register(print, 'at exit'); print('first')",
    "a thread": "threading.Thread(target=lambda: (time.sleep(0.2), print('from a thread'))).start(); print('main')",
    "an import that fails": "import no_such_module",
    "a warning": "warnings.warn('beware')",
}
SEEN = """
import json, os, resource, signal, sys, threading
from forks import LIMITS
seen = {
    "argv": sys.argv, "path": sys.path, "flags": list(sys.flags), "cwd": os.getcwd(), "variables": dict(os.environ),
    "name": __name__, "spec": __spec__.name, "main": sys.modules["__main__"].__dict__ is globals(), "file": __file__,
    "handlers": {n: str(signal.getsignal(n)) for n in signal.valid_signals() if "SIGKILL" not in str(n)},
    "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, ())), "umask": os.umask(0), "nice": os.nice(0),
    "limits": [resource.getrlimit(limit) for limit in range(10)], "parent": os.getppid(), "stdin": sys.stdin.read(),
    "threads": len(os.listdir("/proc/self/task")), "leads": os.getsid(0) == os.getpid(),
    "descriptors": [os.path.exists(f"/proc/self/fd/{n}") for n in range(20)],
    "streams": [[s.encoding, s.errors, s.newlines, s.line_buffering, s.write_through, s.name, s.mode]
                for s in (sys.stdin, sys.stdout, sys.stderr)],
}
print(json.dumps(seen))
"""


@pytest.fixture(autouse=True)
def first_variables(monkeypatch):
    """Those with which this process began: commands that other tests called in it have left some of their own."""
    for name in os.environ.keys() - forks.FIRST_VARIABLES.keys():
        if not name.startswith("PYTEST_"):
            monkeypatch.delenv(name)
    for name, value in forks.FIRST_VARIABLES.items():
        monkeypatch.setenv(name, value)


def ended(module: str, code: str, cwd: Path, fresh: bool) -> tuple[int | None, str, str, dict[str, bytes]]:
    """How `python -m module` ends in a folder of its own, and the files that it leaves."""
    cwd.mkdir(parents=True)
    (cwd / f"{module}.py").write_text(code)
    (cwd / "input").write_text("some text\n")
    with (cwd / "input").open() as file:
        done = forks.run(
            command(module, "a", "b c"), cwd=cwd, env=forks.environment(), timeout=60, stdin=file, fresh=fresh
        )
    files = {path.name: path.read_bytes() for path in cwd.iterdir() if path.is_file()}
    return done.returncode, done.stdout, done.stderr.replace(str(cwd), ""), files


def command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_ending_is_that_of_a_new_interpreter(ending, tmp_path):
    code = f"import atexit, os, signal, sys, threading, time, warnings\n{ENDINGS[ending]}\n"
    forked, fresh = (ended("program", code, tmp_path / str(how), how) for how in (False, True))
    assert forked == fresh


@pytest.mark.parametrize("session", [False, True])
def test_what_a_program_sees(session, tmp_path):
    (tmp_path / "program.py").write_text(SEEN.replace("from forks import LIMITS\n", ""))
    seen = []
    mask = os.umask(0o027)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[0] - 1, files[1]))
    try:
        for fresh in (False, True):
            options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "start_new_session": session}
            env = forks.environment(PYTEST_CURRENT_TEST="changed")
            process = forks.start(command("program", "x"), cwd=tmp_path, env=env, fresh=fresh, **options)
            assert isinstance(process, forks.ForkedProcess) is not fresh
            seen.append(json.loads(process.communicate(timeout=60)[0]))
    finally:
        os.umask(mask)
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
    assert seen[0] == seen[1]
    assert seen[0]["parent"] == os.getpid() and seen[0]["umask"] == 0o027 and seen[0]["leads"] is session


def test_a_fork_sees_nothing_of_another(tmp_path):
    code = """
import json, os, random, sys, numpy
print(getattr(json, "mark", None), os.environ.get("MARK"), "this" in sys.modules)
print(random.random(), numpy.random.rand())
json.mark = os.environ["MARK"] = "left"
import this
"""
    first, second = (ended("program", code, tmp_path / str(n), False)[1].splitlines() for n in range(2))
    assert first[0] == second[0] == "None None False"
    assert not set(first[1].split()) & set(second[1].split()), "the same random numbers, which no two programs have"


def test_other_variables_mean_a_new_interpreter(tmp_path):
    for changes, kind in (({}, forks.ForkedProcess), ({"OMP_NUM_THREADS": "2"}, subprocess.Popen)):
        process = forks.start(
            command("this"), cwd=tmp_path, env=forks.environment(**changes), stdout=subprocess.DEVNULL
        )
        assert type(process) is kind and process.wait(60) == 0


def test_a_process_that_takes_too_long_is_ended(tmp_path):
    (tmp_path / "program.py").write_text("import time; time.sleep(60)")
    with pytest.raises(subprocess.TimeoutExpired):
        forks.run(command("program"), cwd=tmp_path, env=forks.environment(), timeout=0.5)
    process = forks.start(command("program"), cwd=tmp_path, env=forks.environment())
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM


def test_the_server_imports_what_the_packages_import():
    """What a program forgets to import, a fork would have."""
    imported = set()
    for path in ROOT.glob("packages/*/src/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported |= {f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)}
    assert not {name for name in fork_server.IMPORTED if not name.startswith("golu_")} - imported


@pytest.mark.parametrize(("task", "processes"), [*((task, 1) for task in TRAIN), ("lm", 2)])
def test_each_task_trains_as_from_a_new_interpreter(task, processes, tmp_path):
    """The one place where every task is started as a person starts it, so it also finds what is not imported."""
    write_digits(tmp_path / "digits")
    assert forks.can_fork(forks.environment()), "what the packages import changes variables"
    program = Program(installed_tasks()[task].package)
    arguments, outcomes = TRAIN[task], []
    if task == "detect":  # of which the evaluation on all scenes would take a minute
        few = copy_few(write_digit_scenes(tmp_path / "scenes"), tmp_path / "few")
        arguments = [*arguments, "--data-dir", str(few)]
    if task == "translation":
        prepared(tmp_path / "pairs")
        arguments = [*arguments, "--data-dir", str(tmp_path / "pairs")]
    for fresh in (False, True):
        cwd = tmp_path / str(fresh)
        cwd.mkdir()
        done = program.run(*arguments, cwd=cwd, processes=processes, fresh=fresh)
        assert done.returncode == 0, done.stderr
        refused = program.run("train", "no-such-recipe", cwd=cwd, fresh=fresh)
        assert refused.returncode == 2
        kept = {
            p.relative_to(cwd): p.read_bytes() for p in cwd.rglob("*") if p.suffix in (".safetensors", ".png", ".txt")
        }
        assert cwd / run_folder(task) / "model.safetensors" in {cwd / name for name in kept}
        said = [line for line in done.stdout.splitlines() if "/s" not in line]  # times differ
        outcomes.append((said, done.stderr, refused.stdout, refused.stderr, kept))
    for forked, fresh in zip(*outcomes, strict=True):
        assert forked == fresh
