"""What the calls of a run take, and what they leave as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pandas_batch.errors import InputError
from pandas_batch.run.call_values import RUN_IS_AS_IT_WAS, check_file, check_value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", "x"),
        ("timeout", -1),
        ("timeout", float("nan")),
        ("timeout", True),
        ("timeout", 1e12),
        ("server", "no"),
        ("force", 1),
        ("partial", None),
        ("max_cost_usd", "5"),
    ],
)
def test_a_wrong_value_leaves_the_run_as_it_was(name: str, value: Any) -> None:
    """What merely looks like a number, or like yes, is refused before the run is touched."""
    with pytest.raises(InputError, match=name) as caught:
        check_value(name, value)
    assert caught.value.state == RUN_IS_AS_IT_WAS
    assert caught.value.hint


def test_what_fits_comes_back() -> None:
    """A number of seconds is one, None is no limit, True is True."""
    assert (check_value("timeout", 5), check_value("timeout", None), check_value("force", True)) == (5.0, None, True)


@pytest.mark.parametrize(
    "path", [5, None, "", " ", b"x", ["a"], "no/such/folder/x.jsonl", ".", "x" * 300, "~nobody-here/x"]
)
def test_a_file_that_cannot_be_written_is_refused_with_a_line(
    path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No path, a folder, or a file in a folder that is not there: said before anything is written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        check_file(path, 'run.to_jsonl("results.jsonl")')
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []
    assert check_file("there.jsonl", "") == Path("there.jsonl")


def test_a_path_with_a_zero_byte_is_refused() -> None:
    """Whatever the version of Python says of it."""
    with pytest.raises(InputError):
        check_file("a\0b/c", "run.to_jsonl(...)")
    with pytest.raises(InputError):
        check_file("a\0b", "run.to_jsonl(...)")
