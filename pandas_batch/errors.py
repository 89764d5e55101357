"""What can go wrong, as one tree.

::

    PandasBatchError
    ├─ InputError(ValueError)          the call was wrong; nothing was sent, nothing billed
    │  ├─ ColumnNotFoundError(KeyError)
    │  ├─ UnknownOptionError(TypeError)
    │  ├─ PromptError                  .rows holds the offending rows
    │  ├─ BudgetError
    │  └─ BatchTooLargeError
    ├─ NotEndedError(RuntimeError)     the batch is still being processed
    ├─ ResultsGoneError                the results were deleted or are older than 29 days
    ├─ UnreadableAnswerError           a proxy or a portal answered in the API's place
    ├─ LostAnswerError                 a create was sent, its answer never came
    ├─ WaitTimeout(TimeoutError)       the wait ended, the run goes on; .run holds it
    ├─ WorseRunError(AssertionError)   a compared run costs more, or answers worse, than it may
    └─ StoreError                      the store cannot be read or written
       ├─ RunNotFoundError
       └─ FrameMismatchError

A message has three parts: what is wrong (with the user's own value), what was sent, billed and saved, and
the line to type next. No API key and no prompt text ever stands in one. Errors of the anthropic SDK pass
through unchanged, with a note (``add_note``).
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from types import FrameType
from typing import Any

NOTHING_SENT = "Nothing was sent, nothing was billed."

KEY = re.compile(r"sk-ant-[A-Za-z0-9_-]{4,}")
"""What an API key of Anthropic looks like."""

_SHOWN_CHARS = 200


def clip(text: str, n_chars: int = _SHOWN_CHARS) -> str:
    r"""
    Shorten a text from outside to `n_chars` and make its control characters visible.

    Server messages may echo a prompt and terminal text may carry escape codes: neither may reach a
    terminal, a log or a notebook whole. An API key is never shown.

    Examples
    --------
    >>> clip("first line\n" + "x" * 300, n_chars=20)
    'first line\\nxxxxxxxx…'
    """
    text = KEY.sub("sk-ant-…", text)
    shown = text if len(text) <= n_chars else text[: n_chars - 1] + "…"
    if shown.isprintable():
        return shown
    before = " " + shown
    return "".join(
        c if is_shown(c, before[at]) else c.encode("unicode_escape").decode("ascii") for at, c in enumerate(shown)
    )


_JOINERS = frozenset("\u200c\u200d\u180e")
# Signs of Arabic, Syriac and Kaithi that Unicode counts among the invisible, and that are seen
# (https://www.unicode.org/reports/tr44/#Prepended_Concatenation_Mark).
_SEEN = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")


def is_shown(character: str, before: str) -> bool:
    r"""
    Return whether a character may stand as it is: it is seen, or joins the letter before it to the next.

    The joiners of Persian, Hindi, Mongolian and of emoji belong to the word; after a plain Latin letter they join
    nothing, and only make two names look alike that are not.

    Examples
    --------
    >>> is_shown("\u200c", "\u06cc"), is_shown("\u200c", "a"), is_shown("\u202e", "\u06cc"), is_shown("\n", "a")
    (True, False, False, False)
    """
    if character.isprintable() or character in _SEEN:
        return True
    return character in _JOINERS and not before.isascii() and (before.isprintable() or before in _JOINERS)


def is_one_line(text: str) -> bool:
    """Return whether all of `text` is seen on one line: no control character, none that turns the direction."""
    return text.isprintable() or all(is_shown(c, before) for before, c in zip(" " + text, text, strict=False))


def _is_asked_by_tb() -> bool:
    """Return whether IPython's ``%tb`` wants to show an error again: then it is the traceback that is wanted."""
    asking = sys._getframe(3) if sys._getframe(2).f_code.co_name == "showtraceback" else None
    return asking is not None and asking.f_code.co_name == "tb"


def full_traceback(_: str = "") -> None:
    """
    Print the whole traceback of the last error; in IPython ``%pandas_batch_tb``.

    Examples
    --------
    >>> full_traceback()   # doctest: +SKIP
    Traceback (most recent call last):
    """
    error = getattr(sys, "last_value", None)
    said = "No error was shown yet.\n" if error is None else "".join(traceback.format_exception(error))
    sys.stdout.write(said)


def _offer_full_traceback() -> None:
    """Let ``%pandas_batch_tb`` be there with the first error that a shell of IPython shows."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None and shell.find_line_magic("pandas_batch_tb") is None:
        shell.register_magic_function(full_traceback, magic_kind="line", magic_name="pandas_batch_tb")


class PandasBatchError(Exception):
    """
    Base of all errors of this package.

    Parameters
    ----------
    what
        What is wrong, quoting the user's own value.
    state
        What was sent, billed and saved.
    hint
        The line to type next, or what to do.

    Examples
    --------
    >>> print(PandasBatchError("x=3 is odd.", "Nothing was sent.", "df.claude_batch.submit(x=4)"))
    x=3 is odd.
      Nothing was sent.
        df.claude_batch.submit(x=4)
    """

    def __init__(self, what: str, state: str = "", hint: str = "") -> None:
        super().__init__(what, state, hint)
        self.what = what
        self.state = state
        self.hint = hint

    def __str__(self) -> str:
        parts = [self.what]
        if self.state:
            parts.append(f"  {self.state}")
        if self.hint:
            parts.append("\n".join(f"    {line}" for line in self.hint.splitlines()))
        return "\n".join(parts)

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook, or a terminal that runs IPython, shows: the message alone, as a rule."""
        _offer_full_traceback()
        if os.environ.get("PANDAS_BATCH_TRACEBACK", "") == "full" or _is_asked_by_tb():
            return "".join(traceback.format_exception(self)).splitlines()
        said = f"{type(self).__name__}: {self}".splitlines()
        return [*said, *(line for note in getattr(self, "__notes__", ()) for line in note.splitlines())]


class InputError(PandasBatchError, ValueError):
    """The call was wrong. Nothing was sent and nothing was billed."""

    def __init__(self, what: str, state: str = NOTHING_SENT, hint: str = "") -> None:
        super().__init__(what, state, hint)


class ColumnNotFoundError(InputError, KeyError):
    """A named column is not in the frame."""

    # KeyError prints the repr of its argument; the message has to stay readable.
    __str__ = PandasBatchError.__str__


class UnknownOptionError(InputError, TypeError):
    """A keyword is neither an option nor a Messages parameter that a batch takes."""


class PromptError(InputError):
    """
    Some rows hold something that cannot be sent.

    Attributes
    ----------
    rows
        DataFrame of the offending rows: their labels as index, ``position`` and ``reason`` as columns.
    """

    def __init__(self, what: str, state: str = NOTHING_SENT, hint: str = "", *, rows: Any = None) -> None:
        super().__init__(what, state, hint)
        self.rows = rows


class BudgetError(InputError):
    """The upper bound of the cost is above ``max_cost_usd``, or cannot be known."""


class BatchTooLargeError(InputError):
    """More requests or bytes than one batch may hold (100,000 requests, 256 MB)."""


class NotEndedError(PandasBatchError, RuntimeError):
    """Results were asked for before the batch had ended."""


class ResultsGoneError(PandasBatchError):
    """The server no longer has the results: 29 days have passed, or the batch was deleted."""


class UnreadableAnswerError(PandasBatchError):
    """
    Something that is not the API answered: a proxy, a captive portal, a broken gateway.

    Attributes
    ----------
    server_at
        The time that the answer's ``Date`` header tells (aware UTC datetime), or None.
    """

    def __init__(self, what: str, state: str = "", hint: str = "", *, server_at: Any = None) -> None:
        super().__init__(what, state, hint)
        self.server_at = server_at


class LostAnswerError(PandasBatchError):
    """
    A create was sent and its answer never came: the batch may exist, and may be billed.

    Attributes
    ----------
    n_requests
        Number of requests in the batch whose answer was lost.
    posted_at
        When the create was sent (aware UTC datetime).
    """

    def __init__(
        self, what: str, state: str = "", hint: str = "", *, n_requests: int = 0, posted_at: Any = None
    ) -> None:
        super().__init__(what, state, hint)
        self.n_requests = n_requests
        self.posted_at = posted_at


class WaitTimeout(PandasBatchError, TimeoutError):
    """
    The wait ended before the run did. The run goes on.

    Attributes
    ----------
    run
        The run (or, from the client layer, the batch) that was waited for.
    """

    def __init__(self, what: str, state: str = "", hint: str = "", *, run: Any = None) -> None:
        super().__init__(what, state, hint)
        self.run = run


class WorseRunError(PandasBatchError, AssertionError):
    """A run costs more or answers worse than the one it was compared with: a CI job fails on it."""


class StoreError(PandasBatchError):
    """The store cannot be read or written, or is of a newer version."""


class RunNotFoundError(StoreError):
    """No run of that id or name is in the store."""


class FrameMismatchError(StoreError):
    """No row of the frame belongs to the run."""


def outside_level() -> int:
    """Return the ``stacklevel`` at which a warning of the caller names the user's line, not one of this package."""
    level = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and f"{frame.f_globals.get('__name__', '')}.".startswith("pandas_batch."):
        frame = frame.f_back
        level += 1
    return level
