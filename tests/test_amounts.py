"""The same amount is spelled the same way wherever it stands, and what is not nothing never reads as nothing."""

from __future__ import annotations

import ast
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import pandas_batch
from pandas_batch.amounts import UNKNOWN, usd

PACKAGE = Path(pandas_batch.__file__).parent


@given(st.floats(min_value=1e-9, max_value=1e9))
def test_what_is_not_nothing_never_reads_as_nothing(amount: float) -> None:
    """An amount reads as a number within half a percent of it, or half a cent."""
    text = usd(amount)
    read = float(text.removeprefix("$").replace(",", ""))
    assert read > 0
    assert abs(read - amount) <= max(0.00501 * amount if amount < 0.1 else 0.0051, 0)
    assert len(text.partition(".")[2]) >= 2


def test_what_is_not_known_is_said() -> None:
    """None, and what is no number, is unknown; nothing is $0.00."""
    assert [usd(amount) for amount in (None, float("inf"), float("nan"), 0.0, -0.5)] == [
        UNKNOWN,
        UNKNOWN,
        UNKNOWN,
        "$0.00",
        "-$0.50",
    ]


def test_dollars_are_spelled_in_one_file() -> None:
    """No file but `amounts` puts a number behind a dollar sign."""
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        if path.name == "amounts.py" or "simulator" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.JoinedStr):
                continue
            for before, value in zip(node.values, node.values[1:], strict=False):
                text = before.value if isinstance(before, ast.Constant) else ""
                if isinstance(value, ast.FormattedValue) and str(text).endswith("$"):
                    wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert wrong == []
