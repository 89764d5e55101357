"""The magics of IPython: a prompt over a frame, and the runs of a store, without leaving the cell."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
from warm_python import command as warm

import pandas_batch
from pandas_batch import simulator
from pandas_batch.errors import InputError, RunNotFoundError


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[simulator.Simulator]:
    with simulator.serve(seconds_per_batch=0) as api:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.base_url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "simulator")
        yield api


@pytest.fixture
def ipython(api: simulator.Simulator, tmp_path: Path) -> Iterator[Any]:
    """A shell of IPython with the extension loaded, and a frame in it."""
    main = sys.modules["__main__"]
    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}), ipython_dir=str(tmp_path / "ipython"))
    shell.run_line_magic("load_ext", "pandas_batch")
    shell.user_ns["df"] = pd.DataFrame({"title": ["A", "B", None], "number": [1, 2, 3]}, index=["x", "y", "z"])
    yield shell
    shell.atexit_operations()
    atexit.unregister(shell.atexit_operations)  # not twice
    # A shell takes its place, and what starts processes later looks there.
    sys.modules["__main__"] = main


def test_a_cell_is_a_template_over_a_frame(ipython: Any, api: simulator.Simulator) -> None:
    """The frame with the answers is the value of the cell; the frame itself is never replaced."""
    before = ipython.user_ns["df"].copy()
    out = ipython.run_cell_magic("claude_batch", "df --prefix x_ --max-tokens 9 --name cell", "Classify: {title}\n")
    assert out["x_status"].tolist() == ["succeeded", "succeeded", "skipped"]
    assert out.index.tolist() == ["x", "y", "z"]
    assert ipython.user_ns["df"].equals(before)
    assert [text.removeprefix("> ") for text in out["x_output"].iloc[:2]] == ["Classify: A", "Classify: B"]
    line = "df --prefix x_ --max-tokens 9 --name cell --to answers"
    again = ipython.run_cell_magic("claude_batch", line, "Classify: {title}")
    assert ipython.user_ns["answers"].equals(again)
    assert again.equals(out)
    assert api.calls("create") == 1


def test_the_runs_of_the_store_are_listed_watched_and_canceled(ipython: Any, api: simulator.Simulator) -> None:
    """`%claude_batch` is `pandas_batch.runs()`; a name is enough to wait for a run or to cancel it."""
    assert ipython.run_line_magic("claude_batch", "").empty
    ipython.run_cell_magic("claude_batch", "df --name cell", "{title}?")
    assert ipython.run_line_magic("claude_batch", "")["name"].tolist() == ["cell"]
    assert ipython.run_line_magic("claude_batch", "watch cell").counts == {"succeeded": 2, "skipped": 1}
    assert "nothing to cancel" in ipython.run_line_magic("claude_batch", "cancel cell")


@pytest.mark.parametrize(
    ("line", "cell", "words"),
    [
        ("nothing", "{title}?", "not there"),
        ("number", "{title}?", "a int"),
        ("df --nonsense 1", "{title}?", "nonsense"),
        ("df --max-tokens many", "{title}?", "many"),
        ("df --to 1x", "{title}?", "no name"),
        ("df --to df", "{title}?", "would replace the frame"),
        ("df 'open", "{title}?", "quotation"),
        ("", "{title}?", "frame"),
        ("df", "  \n", "no text"),
        ("df", "{titel}?", "titel"),
    ],
)
def test_mistakes_in_a_cell_are_words_and_nothing_is_sent(
    ipython: Any, api: simulator.Simulator, line: str, cell: str, words: str
) -> None:
    """What is not understood raises an `InputError` of three lines at most; a kernel is never ended by it."""
    ipython.user_ns["number"] = 1
    with pytest.raises(pandas_batch.PandasBatchError) as told:
        ipython.run_cell_magic("claude_batch", line, cell)
    assert words in str(told.value)
    assert "\\n" not in str(told.value)
    assert str(told.value).count("%%claude_batch") <= 2
    assert api.calls("create") == 0


def test_mistakes_in_a_line_are_words(ipython: Any) -> None:
    """An unknown verb, a missing run and an unknown one are told."""
    for line, kind in (("wach cell", InputError), ("watch", InputError), ("watch nothing", RunNotFoundError)):
        with pytest.raises(kind):
            ipython.run_line_magic("claude_batch", line)
    with pytest.raises(InputError) as told:
        ipython.run_line_magic("claude_batch", "show x")
    what, state, hint = str(told.value).splitlines()
    assert what.startswith("%claude_batch: argument verb: invalid choice: 'show'")
    assert what.count("%claude_batch") == state.count("Nothing was sent") == 1
    assert hint.strip().startswith("%claude_batch ")


def test_an_error_is_three_lines_and_its_traceback_one_line_away(ipython: Any, capsys: Any) -> None:
    """A cell that fails shows what, what was sent, and the way on; ``%tb`` and ``%pandas_batch_tb`` show all of it."""
    ipython.run_cell("df.claude_batch.submit('titel')")
    short = capsys.readouterr().out
    assert "There is no column" in short or "titel" in short
    assert "Traceback" not in short
    assert len(short.strip().splitlines()) <= 5
    for magic in ("%tb", "%pandas_batch_tb"):
        ipython.run_cell(magic)
        full = capsys.readouterr().out
        assert "Traceback" in full
        assert short.strip().splitlines()[0] in full
    ipython.run_cell("df.claude_batch.submit('titel')")
    assert "Traceback" not in capsys.readouterr().out


def test_the_full_traceback_is_offered_without_the_extension(api: simulator.Simulator, tmp_path: Path) -> None:
    """The first error that is shown brings ``%pandas_batch_tb`` along."""
    code = "import pandas as pd, pandas_batch\npd.DataFrame({'a': ['x']}).claude_batch.submit('b')"
    script = tmp_path / "two_cells.ipy"
    script.write_text(
        f"try:\n    get_ipython().run_cell({code!r})\nfinally:\n    get_ipython().run_cell('%pandas_batch_tb')\n"
    )
    done = subprocess.run(
        warm("-m", "IPython", "--no-banner", "--colors=nocolor", script),
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")},
        check=False,
    )
    assert done.stdout.startswith("ColumnNotFoundError: "), done.stdout + done.stderr
    assert done.stdout.count("Traceback (most recent call last)") == 1
