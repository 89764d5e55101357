"""
Processes that have their imports behind them.

To import pandas, pyarrow and the SDK takes a process four seconds of a processor; a test that wants to see what a
process does, and not how it begins, can have one in a few milliseconds. `command` is the line to start in place of
``[sys.executable, ...]``: one interpreter for all of a worker's tests has imported everything, and forks.

``python warm_python.py SOCKET`` is that interpreter. It ends with the process that started it. A process of its own
ends after its last `atexit` function; with ``WARM_PYTHON_ENDS_WHOLE`` in its environment it goes through all of
Python's end, which takes a third of a second.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

PROXY = Path(__file__).with_name("warm_proxy.py")
OPTIONAL = (
    "IPython",
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipywidgets",
    "matplotlib.pyplot",
    "openpyxl",
    "tqdm",
)
"""What a script or a kernel imports besides, where it is installed."""

_started: dict[str, Any] = {}
_exit_code: list[int] = []


def command(*arguments: str | Path) -> list[str]:
    """Return the command line of a process that does what ``python *arguments`` would do."""
    if not sys.platform.startswith("linux"):
        return [sys.executable, *map(str, arguments)]  # a fork is not safe there once frameworks are loaded
    if not _started:
        folder = tempfile.TemporaryDirectory(prefix="warm-")  # not below a test's: a socket's name is a hundred letters
        path = f"{folder.name}/socket"
        process = subprocess.Popen(
            [sys.executable, "-Xfrozen_modules=off", __file__, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("the warm interpreter did not start")
        _started.update(path=path, process=process, folder=folder)
        atexit.register(_end)
    return [sys.executable, "-I", "-S", str(PROXY), _started["path"], *map(str, arguments)]


def _end() -> None:
    process = _started["process"]
    process.stdin.close()
    process.wait(20)
    process.stdout.close()
    _started["folder"].cleanup()


# ---------------------------------------------------------------- the interpreter that forks


def _import_all() -> None:
    import crash_jobs

    for name in (*crash_jobs.PRELOADED, "pandas_batch.shell", "pandas_batch.simulator"):
        importlib.import_module(name)
    for name in OPTIONAL:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _read(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile() as lines:
        return json.loads(lines.readline()), streams


def serve(path: str) -> tuple[dict[str, Any], list[int]]:
    """Fork a child for each connection until standard input ends; return, in the child, what it is to do."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, socket.socket] = {}
    os.write(1, b"ready\n")
    while True:
        ready, _, _ = select.select([0, listener, woken, *children.values()], [], [])
        if woken in ready:
            os.read(woken, 1024)
        while children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            with contextlib.suppress(OSError), children.pop(pid) as connection:
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        for pid, connection in children.items():
            if connection in ready or 0 in ready:
                os.kill(pid, signal.SIGKILL)  # whoever stood for it is gone
        if 0 in ready:
            sys.exit()
        if listener in ready:
            connection, _ = listener.accept()
            job, streams = _read(connection)
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for opened in (listener, connection, *children.values()):
                    opened.close()
                os.close(woken)
                os.close(waker)
                return job, streams
            children[pid] = connection
            for stream in streams:
                os.close(stream)
            connection.sendall(f"{pid}\n".encode())


def become(job: dict[str, Any], streams: list[int]) -> None:
    """Be the process that the job describes, as Python's own start would make it."""
    os.setpgid(0, 0)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    time.tzset()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    is_unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    for number, name, errors in ((1, "stdout", "strict"), (2, "stderr", "backslashreplace")):
        stream = open(number, "w", encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115 - the process's own
        stream.reconfigure(line_buffering=number == 2 or os.isatty(number), write_through=is_unbuffered)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - the same
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__builtins__ = __builtins__  # type: ignore[attr-defined]  # a main module has them
    kind, *rest = job["arguments"]
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if kind == "-c":
        source, *rest = rest
        sys.argv, first = ["-c", *rest], ""
        code = compile(source, "<string>", "exec")
    elif kind == "-m":
        module, *rest = rest
        first = os.getcwd()
        sys.path[:0] = [first]
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{module}.__main__")
        assert spec is not None
        assert spec.origin is not None
        main.__spec__, main.__file__, main.__package__ = spec, spec.origin, spec.parent
        sys.argv = [spec.origin, *rest]
        code = spec.loader.get_code(spec.name)  # type: ignore[union-attr]  # a file has a loader
        if module == "ipykernel_launcher":
            pd.set_option("display.max_columns", 20)  # as pandas chooses where a kernel imports it
        sys.path.pop(0)
    else:
        sys.argv, first = [kind, *rest], str(Path(kind).resolve().parent)
        main.__file__ = kind
        code = compile(Path(kind).read_bytes(), kind, "exec")
    sys.path[:1] = [first, *(path for path in paths if path not in sys.path)]  # in place of the folder of this file
    if "WARM_PYTHON_ENDS_WHOLE" in os.environ:
        exec(code, main.__dict__)
        return
    with _at_the_end():
        exec(code, main.__dict__)


@contextlib.contextmanager
def _at_the_end() -> Iterator[None]:
    """Tell of what a program raised as Python does, and note how it ends."""
    try:
        yield
        _exit_code.append(0)
    except SystemExit as left:
        if isinstance(left.code, int | None):
            _exit_code.append((left.code or 0) & 0xFF)
        else:
            print(left.code, file=sys.stderr)
            _exit_code.append(1)
    except BaseException as error:
        own = error.__traceback__  # this function, and the one that called the program
        theirs = own.tb_next.tb_next if own is not None and own.tb_next is not None else None
        sys.excepthook(type(error), error.with_traceback(theirs), theirs)
        _exit_code.append(-signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1)


def _end_now() -> None:
    """End after the program's own last functions: to take apart all that was imported takes a third of a second."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if _exit_code:
        if _exit_code[-1] < 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(_exit_code[-1])


if __name__ == "__main__":
    atexit.register(_end_now)  # before anything else: it is called last
    _import_all()
    gc.collect()
    gc.freeze()
    become(*serve(sys.argv[1]))
