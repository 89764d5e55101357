"""Files for other programs, written and read again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandas_batch.saving import read_frame, save

ANSWERED = {"output": "yes", "status": "succeeded"}


def test_a_text_that_is_marked_in_a_csv_is_read_as_it_was(tmp_path: Path) -> None:
    """What was written for a spreadsheet and is read again is the same rows, which nobody pays for twice."""
    frame = pd.DataFrame({"a": ["=1+1", "'tis", "-1", "-x", "@b", "plain"], "=b": ["1", "2", "3", "4", "5", "6"]})
    frame = frame.assign(**ANSWERED)
    path = tmp_path / "answers.csv"
    save(frame, path, labels=False)
    assert "'=1+1" in path.read_text(encoding="utf-8")
    assert read_frame(path).astype(object).equals(frame.astype(object))


@given(st.lists(st.text("'=+-@1a", min_size=1), min_size=1, max_size=5))
def test_any_text_of_a_csv_is_read_as_it_was(texts: list[str]) -> None:
    """An apostrophe that stands in a text comes back, however much it looks like a mark."""
    frame = pd.DataFrame({"a": texts}).assign(**ANSWERED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.csv"
        save(frame, path, labels=False)
        assert read_frame(path)["a"].tolist() == texts


@pytest.mark.parametrize("raw", [False, True], ids=["not ours", "written raw"])
def test_a_file_without_marks_is_read_as_it_stands(tmp_path: Path, raw: bool) -> None:
    """A prompt that begins with a quoted sign is no formula that somebody has marked."""
    path = tmp_path / "rows.csv"
    texts = ["'@home' is where?", "'-' or '+'?", "=1+1"]
    if raw:
        save(pd.DataFrame({"a": texts}).assign(**ANSWERED), path, labels=False, raw=True)
    else:
        path.write_text("a\n" + "\n".join(texts[:2]) + "\n", encoding="utf-8")
    assert read_frame(path)["a"].tolist() == (texts if raw else texts[:2])
