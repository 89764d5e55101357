"""Completion of column names: ``df.claude_batch.submit("<Tab>`` in IPython and in notebooks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_CALLS = "submit|asubmit|start|trial|preview|estimate"
_OF_A_COLUMN = "prompt_col|images_col|documents_col"
_OF_A_TEMPLATE = "prompt|system"

# The name of a frame, a call, and the text that begins at the cursor: as the first argument, or behind the name of an
# option that takes a column; or a field of a template. Nothing is evaluated: the frame has to have a name.
_COLUMN = re.compile(
    rf"(?P<frame>[^\W\d]\w*)\.claude_batch\.(?:{_CALLS})\((?:\s*|(?:.*,)?\s*(?:{_OF_A_COLUMN})\s*=\s*)"
    r"(?P<quote>[\"'])(?P<begun>[^\"']*)$"
)
_FIELD = re.compile(
    rf"(?P<frame>[^\W\d]\w*)\.claude_batch\.(?:{_CALLS})\(.*?\b(?:{_OF_A_TEMPLATE})\s*=\s*"
    r"(?P<quote>[\"'])(?:[^\"']*[^{\"'])?\{(?P<begun>[^{}\"']*)$"
)


def columns_for(text: str, names: Mapping[str, Any]) -> tuple[str, list[str]] | None:
    """
    Return what is begun at the end of a line, and the columns that it may become; None where no column is wanted.

    Parameters
    ----------
    text
        The line up to the cursor.
    names
        The names of the session.

    Examples
    --------
    >>> import pandas as pd
    >>> names = {"df": pd.DataFrame(columns=["review", "rating", 3])}
    >>> columns_for('out = df.claude_batch.submit("r', names)
    ('r', ['review', 'rating'])
    >>> columns_for('df.claude_batch.submit(prompt="Judge: {rev', names)
    ('rev', ['review'])
    >>> columns_for('df.head("r', names) is None
    True
    """
    found = _COLUMN.search(text) or _FIELD.search(text)
    if found is None:
        return None
    columns = getattr(names.get(found["frame"]), "columns", None)
    if columns is None:
        return None
    begun = found["begun"]
    # A name with a quote or a line end in it cannot be written between these quotes as it is.
    fits = [name for name in columns if isinstance(name, str) and name.isprintable() and found["quote"] not in name]
    return begun, [name for name in fits if name.startswith(begun) and "\\" not in name]


def matcher_of(shell: Any) -> Callable[[Any], dict[str, Any]]:
    """Return a matcher for the completer of an IPython shell."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    def match_columns(context: Any) -> dict[str, Any]:
        found = columns_for(context.text_until_cursor, shell.user_ns)
        if found is None:
            return {"completions": []}
        begun, columns = found
        return {
            "completions": [SimpleCompletion(text=name, type="column") for name in columns],
            "matched_fragment": begun,
            "suppress": bool(columns),
        }

    matcher: Callable[[Any], dict[str, Any]] = context_matcher(identifier="pandas_batch.columns", priority=1000)(
        match_columns
    )
    return matcher


def offer_columns(shell: Any) -> None:
    """Let a shell of IPython complete the names of columns; once, and not at all where its version has no matchers."""
    matchers = getattr(getattr(shell, "Completer", None), "custom_matchers", None)
    if matchers is None or any(getattr(one, "matcher_identifier", "") == "pandas_batch.columns" for one in matchers):
        return
    try:
        matchers.append(matcher_of(shell))
    except (ImportError, TypeError):  # before IPython 8.6
        return
