"""Completion of column names behind ``df.claude_batch.submit("``, in a real shell of IPython."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from pandas_batch.completion import columns_for, offer_columns

FRAME = pd.DataFrame(columns=["review", "rating", "re-view", 'with"quote', "other", 3, ("a", "b"), "line\nend"])


@pytest.fixture
def ipython(tmp_path: Path) -> Iterator[Any]:
    """A shell of IPython with a frame in it."""
    main = sys.modules["__main__"]
    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}), ipython_dir=str(tmp_path / "ipython"))
    shell.user_ns["df"] = FRAME
    offer_columns(shell)
    offer_columns(shell)
    yield shell
    shell.atexit_operations()
    atexit.unregister(shell.atexit_operations)  # not twice
    # A shell takes its place, and what starts processes later looks there.
    sys.modules["__main__"] = main


def completed(ipython: Any, text: str) -> list[str]:
    """Return the completions of `text`, each as what the line would be."""
    return [text[: one.start] + one.text + text[one.end :] for one in ipython.Completer.completions(text, len(text))]


@pytest.mark.filterwarnings("ignore::IPython.core.completer.ProvisionalCompleterWarning")  # a provisional way in
def test_a_shell_completes_the_columns_of_a_frame_and_nothing_else(ipython: Any) -> None:
    """What Tab offers are the columns, once each, and picking one gives the line that was meant."""
    for call in ('df.claude_batch.submit("', "df.claude_batch.trial('", 'out = df.claude_batch.estimate(prompt_col="'):
        assert completed(ipython, call + "r") == [call + name for name in ("rating", "re-view", "review")]
    assert completed(ipython, 'df.claude_batch.submit("re') == [
        f'df.claude_batch.submit("{name}' for name in ("re-view", "review")
    ]
    template = 'df.claude_batch.submit(prompt="Judge {oth'
    assert completed(ipython, template) == ['df.claude_batch.submit(prompt="Judge {other']
    names = [getattr(one, "matcher_identifier", "") for one in ipython.Completer.custom_matchers]
    assert names.count("pandas_batch.columns") == 1


@pytest.mark.parametrize(
    "text",
    [
        'df.head("r',
        'nobody.claude_batch.submit("r',
        'number.claude_batch.submit("r',
        'df.claude_batch.submit("review", system="r',
        'df.claude_batch.submit("review", name="r',
        'df.claude_batch.submit("review").head("r',
        'df.claude_batch.submit(prompt="Judge {{oth',
        'df.claude_batch.attach("r',
        "",
    ],
)
def test_where_no_column_is_wanted_none_is_offered(text: str) -> None:
    """Nothing is offered for other arguments, other calls, or what is no frame; nothing is evaluated."""
    assert columns_for(text, {"df": FRAME, "number": 3}) is None


def test_names_that_the_quotes_cannot_hold_are_not_offered() -> None:
    """A column whose name would end the text, or is no text, is left out."""
    found = columns_for('df.claude_batch.submit("', {"df": FRAME})
    assert found is not None
    assert found[1] == ["review", "rating", "re-view", "other"]
    found = columns_for("df.claude_batch.submit('", {"df": FRAME})
    assert found is not None
    assert 'with"quote' in found[1]
