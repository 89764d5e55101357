"""Marks against formulas: nothing marked is run, and every text comes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pandas_batch.formulas import is_formula, marked, without_mark

TEXTS = st.text("'=+-@\t\r\n＝＋－＠01.,eE a", max_size=8)


@given(TEXTS)
def test_what_is_marked_is_no_formula_and_comes_back(text: str) -> None:
    """Whatever a text begins with: no spreadsheet runs what is written, and what is read is the text."""
    assert not is_formula(marked(text))
    assert without_mark(marked(text)) == text


@given(st.none() | st.integers() | st.floats(allow_nan=False))
def test_other_values_stay(value: object) -> None:
    """A number is no text, and stays a number."""
    assert marked(value) is without_mark(value) is value
