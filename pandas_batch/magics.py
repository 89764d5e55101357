"""``%load_ext pandas_batch``: the runs of a store and a prompt over a frame, as magics of IPython.

::

    %claude_batch                        the runs of this store
    %claude_batch watch NAME             wait for one, with its panel
    %claude_batch cancel NAME            cancel one

    %pandas_batch_tb                     the whole traceback of the last error, of which three lines were shown

    %%claude_batch df --prefix x_        the text of the cell is a template over the columns of df
    Classify: {title}
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from typing import Any, NoReturn

import pandas as pd

from .errors import InputError, clip, full_traceback

_LINE = "%claude_batch                # or: %claude_batch watch NAME, %claude_batch cancel NAME"
_CELL = "%%claude_batch df --prefix x_"


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are ours, and end no kernel."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {clip(message)}.", hint=self.epilog or "")


def _line_parser() -> _Parser:
    parser = _Parser(prog="%claude_batch", add_help=False, epilog=_LINE)
    parser.add_argument("verb", nargs="?", choices=("runs", "watch", "cancel"), default="runs")
    parser.add_argument("run", nargs="?")
    parser.add_argument("--store")
    return parser


def _cell_parser() -> _Parser:
    parser = _Parser(prog="%%claude_batch", add_help=False, epilog=_CELL)
    parser.add_argument("frame")
    for name in ("system", "model", "name", "prefix", "store", "to"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--max-cost-usd", type=float)
    parser.add_argument("--overwrite", action="store_true", default=None)
    return parser


def _parsed(parser: _Parser, line: str) -> argparse.Namespace:
    try:
        return parser.parse_args(shlex.split(line))
    except InputError as told:
        # Of the parser itself, and whole; without what argparse raised on the way.
        raise told from None
    except ValueError as error:
        raise InputError(f"{parser.prog}: {clip(str(error))}.", hint=parser.epilog or "") from None


def line_magic(line: str) -> Any:
    """
    Do what ``%claude_batch`` is asked for: list the runs, wait for one, or cancel one.

    Examples
    --------
    >>> line_magic("runs").columns[:2].tolist()
    ['name', 'status']
    """
    from pandas_batch.run.library import load, runs

    asked = _parsed(_line_parser(), line)
    if asked.verb == "runs":
        return runs(asked.store)
    if asked.run is None:
        raise InputError(f"%claude_batch {asked.verb}: of which run?", hint=_LINE)
    run = load(asked.run, store=asked.store)
    return run.cancel() if asked.verb == "cancel" else run.wait()


def cell_magic(line: str, cell: str, frame_of: Callable[[str], Any], bind: Callable[[str, Any], None]) -> pd.DataFrame:
    """
    Submit a frame with the text of a cell as its template, and return the frame with the answers.

    Parameters
    ----------
    line
        The name of the frame, and options.
    cell
        The template.
    frame_of, bind
        Look up a name, and bind one.

    Raises
    ------
    InputError
        The line is not understood, or names no frame. Nothing was sent.
    """
    asked = vars(_parsed(_cell_parser(), line))
    name, to = asked.pop("frame"), asked.pop("to")
    frame = frame_of(name)
    if not isinstance(frame, pd.DataFrame):
        kind = "not there" if frame is None else f"a {type(frame).__name__}"
        raise InputError(f"%%claude_batch takes the name of a DataFrame; {clip(name)!r} is {kind}.", hint=_CELL)
    if to is not None and not to.isidentifier():
        raise InputError(f"%%claude_batch: --to {clip(to)!r} is no name.", hint=f"{_CELL} --to answers")
    if to == name:
        raise InputError(
            f"%%claude_batch: --to {clip(to)} would replace the frame that is asked about.",
            hint=f"{_CELL} --to answers",
        )
    template = cell.rstrip("\n")
    if not template.strip():
        raise InputError(
            "%%claude_batch: the cell has no text, which would be the prompt.", hint=f"{_CELL}\nClassify: {{title}}"
        )
    out: pd.DataFrame = frame.claude_batch.submit(
        prompt=template, **{option: value for option, value in asked.items() if value is not None}
    )
    if to is not None:
        bind(to, out)
    return out


def register_magics(ipython: Any) -> None:
    """Register both magics with a shell of IPython; ``%load_ext pandas_batch`` calls this."""

    def claude_batch(line: str, cell: str | None = None) -> Any:
        if cell is None:
            return line_magic(line)
        names = ipython.user_ns
        return cell_magic(line, cell, names.get, names.__setitem__)

    claude_batch.__doc__ = __doc__
    ipython.register_magic_function(full_traceback, magic_kind="line", magic_name="pandas_batch_tb")
    ipython.register_magic_function(claude_batch, magic_kind="line_cell", magic_name="claude_batch")
