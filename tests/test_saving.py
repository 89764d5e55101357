"""Files for other programs, written and read again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pandas_batch.saving import read_frame, save


def test_a_text_that_is_marked_in_a_csv_is_read_as_it_was(tmp_path: Path) -> None:
    """What was written for a spreadsheet and is read again is the same rows, which nobody pays for twice."""
    frame = pd.DataFrame({"a": ["=1+1", "'tis", "-1", "-x", "@b", "plain"], "=b": ["1", "2", "3", "4", "5", "6"]})
    path = tmp_path / "answers.csv"
    save(frame, path, labels=False)
    assert "'=1+1" in path.read_text(encoding="utf-8")
    assert read_frame(path).astype(object).equals(frame.astype(object))
