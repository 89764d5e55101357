"""The code blocks of a page, run as one session: what a page shows is what happens.

A Markdown comment ``<!-- before: ... -->`` holds Python that is run where it stands and that readers do not see: what
the server answers, what goes wrong. A block of ``text`` after a block of Python or of a console is what that prints,
with ``...`` for what differs each time. A block with ``title="name.py"`` is written to that file.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import pandas_batch
from pandas_batch import shell

ROOT = Path(__file__).parents[1]
LIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_PIECE = re.compile(r"^<!-- before:\n?(.*?)-->|^```(\w+)(?: title=\"([\w.-]+)\")?\n(.*?)^```", re.MULTILINE | re.DOTALL)

REVIEWS = pd.DataFrame(
    {
        "title": ["Kettle", "Lamp", "Chair", "Kettle"],
        "review": ["It boils fast.", "It broke after a day.", "Comfortable, but heavy.", "It boils fast."],
        "lang": ["en", "en", "fr", "en"],
    }
)


@dataclass(frozen=True)
class Piece:
    """A block of a page, or what is done before one; `line` is where it stands."""

    kind: str
    text: str
    title: str | None
    line: int


def pieces_of(text: str) -> Iterator[Piece]:
    """Yield the blocks of a page and what is done before them, in their order."""
    for found in _PIECE.finditer(text):
        before, kind, title, block = found.groups()
        at = 1 if kind is None else 4
        line = text[: found.start(at)].count("\n")
        yield Piece("before" if kind is None else kind, before if kind is None else block, title, line)


class Session:
    """
    One page, read from top to bottom in a folder of its own.

    Parameters
    ----------
    path
        The page.
    namespace
        The names that its Python knows already.
    """

    def __init__(self, path: Path, namespace: dict[str, Any]) -> None:
        self.path = path
        self.namespace = {"__name__": "__main__", **namespace}
        self.shown: str | None = None
        self.n_run = 0

    def run(self, text: str) -> None:
        """Run every piece of `text`; a kind that nobody runs is an error."""
        for piece in pieces_of(text):
            self.n_run += piece.kind != "before"
            getattr(self, f"_{piece.kind}")(piece)

    def _before(self, piece: Piece) -> None:
        self._execute(piece)

    def _python(self, piece: Piece) -> None:
        if piece.title is not None:
            Path(piece.title).write_text(piece.text, encoding="utf-8")
            return
        if piece.text.startswith("%"):
            self._magic(piece)
            return
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            value = self._execute(piece)
            if value is not None:
                print(value if hasattr(value, "__dataclass_fields__") else repr(value))
        self.shown = said.getvalue()

    def _execute(self, piece: Piece) -> Any:
        """Run Python as a cell of a notebook is run; return the value of its last line."""
        # Where the block stands in the page is where a traceback points.
        tree = ast.parse("\n" * piece.line + piece.text, str(self.path))
        last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
        value = None
        for part, mode in ((tree, "exec"), (last, "eval")):
            if part is None:
                continue
            code = compile(part, str(self.path), mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            value = eval(code, self.namespace)
            if inspect.iscoroutine(value):
                value = asyncio.run(value)
        return value

    def _text(self, piece: Piece) -> None:
        assert self.shown is not None, f"{self.path.name}:{piece.line}: nothing was run that could print this"
        same = doctest.OutputChecker().check_output(piece.text, self.shown, LIKE)
        assert same, f"{self.path.name}:{piece.line}: shown\n{piece.text}\nbut it is\n{self.shown}"

    def _console(self, piece: Piece) -> None:
        said = io.StringIO()
        for line in piece.text.splitlines():
            assert line.startswith("$ "), f"{self.path.name}:{piece.line}: {line!r} is no command"
            self._command(line.removeprefix("$ "), said)
        self.shown = said.getvalue()

    def _command(self, line: str, said: io.StringIO) -> None:
        command, _, comment = line.partition("  #")
        wanted = re.search(r"exit (\d+)", comment)
        words = shlex.split(command)
        if words[0] == "pandas-batch":
            with contextlib.redirect_stdout(said):
                code = shell.main(words[1:])
            assert code == int(wanted[1] if wanted else 0), f"{self.path.name}: {command}: {code}\n{said.getvalue()}"
        elif words[0] == "export":
            os.environ.update(word.split("=", 1) for word in words[1:])
        elif words[0] == "make":
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), command
        elif words[:2] == ["pip", "install"]:
            asked = re.search(r"pandas-batch\[(.*?)\]", command)
            extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
            assert asked is None or set(asked[1].split(",")) <= set(extras), command
        elif words[:3] == ["python", "-m", "pandas_batch.simulator"]:
            said.write(_process([sys.executable, "-m", "pandas_batch.simulator", "--help"]))
        elif words[0] == "python":
            with contextlib.redirect_stdout(said):
                runpy.run_path(words[1], run_name="__main__")
        elif words[0] == "pytest":
            start = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "page_plugin"]
            said.write(_process([*start, *words[1:]]))
        else:
            raise AssertionError(f"{self.path.name}: nobody runs {command!r}")

    def _cron(self, piece: Piece) -> None:
        """Run what the table of cron would: five fields, then a command of ours, whose output goes to a file."""
        for line in piece.text.splitlines():
            if line and not line.startswith("#"):
                command = line.split(maxsplit=5)[5].replace("\\%", "%")
                ours = re.search(r"pandas-batch (.*?)(?: >> \S+ 2>&1)?$", command)
                assert ours, command
                with contextlib.redirect_stdout(io.StringIO()):
                    assert shell.main(shlex.split(ours[1])) == 0, command

    def _yaml(self, piece: Piece) -> None:
        """Check that a workflow can be read, and that it calls only what the page has."""
        steps = [step for job in yaml.safe_load(piece.text)["jobs"].values() for step in job["steps"]]
        for command in (step["run"] for step in steps if "run" in step):
            for word in shlex.split(command):
                assert not word.endswith(".py") or Path(word).exists(), command

    def _bash(self, piece: Piece) -> None:
        done = subprocess.run(["bash", "-n"], input=piece.text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def _json(self, piece: Piece) -> None:
        assert self.shown is not None
        assert json.loads(piece.text).keys() <= json.loads(self.shown).keys()

    def _magic(self, piece: Piece) -> None:
        """Run a cell as IPython does, with our magics loaded."""
        from IPython.core.interactiveshell import InteractiveShell

        ipython = InteractiveShell.instance(user_ns=self.namespace)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            result = ipython.run_cell(piece.text)
        result.raise_error()
        self.shown = said.getvalue()


def _process(command: list[str]) -> str:
    # The page stands in a folder of its own: ours are named.
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def names() -> dict[str, Any]:
    """Return the names that every page may use: pandas, this package, and a frame of reviews."""
    return {"pd": pd, "pandas_batch": pandas_batch, "df": REVIEWS.copy()}
