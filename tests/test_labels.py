"""The forms that labels come in."""

from __future__ import annotations

import enum
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from pandas_batch.errors import InputError
from pandas_batch.requests.labels import with_plain_labels
from pandas_batch.requests.options import parse_options
from pandas_batch.requests.schema import OutputSchema


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Word(enum.StrEnum):
    GOOD = "good"
    BAD = "bad"


@pytest.mark.parametrize(
    "labels",
    [
        ("good", "bad"),
        pd.Series(["good", "bad", "good", None]),
        pd.Series(pd.Categorical(["bad"], categories=["good", "bad"])),
        pd.Categorical(["bad"], categories=["good", "bad"]),
        pd.CategoricalDtype(["good", "bad"]),
        np.array(["good", "bad"]),
        pd.Index(["good", "bad"]),
        pd.Series(["good", "bad"]).unique(),
        {"good": 1, "bad": 2}.keys(),
        {1: "good", 2: "bad"}.values(),
        Mood,
        Word,
        [Mood.GOOD, Mood.BAD],
        Literal["good", "bad"],
    ],
    ids=lambda labels: type(labels).__name__,
)
def test_whatever_has_an_order_is_a_list_of_labels(labels: Any) -> None:
    """The same labels in any form are the same schema, of the option as in the client layer, and are remembered."""
    of_list = OutputSchema.of(["good", "bad"])
    options = parse_options({"output_schema": labels}, prompt_col="review")
    assert options.output_schema == ["good", "bad"]
    assert options.not_remembered == ()
    assert OutputSchema.of(labels).canonical == of_list.canonical
    assert OutputSchema.of(labels).parsed('{"label": "bad"}') == ("bad", "")


@pytest.mark.parametrize(
    ("labels", "line"),
    [({"good", "bad"}, "['bad', 'good']"), (frozenset(map(str, range(99))), "sorted(labels)"), ({1}, "sorted(labels)")],
)
def test_what_has_no_order_is_refused_with_the_line(labels: Any, line: str) -> None:
    """The order of labels is that of the category, so a set of them is given back in one."""
    with pytest.raises(InputError, match="no order") as caught:
        parse_options({"output_schema": labels}, prompt_col="review")
    assert caught.value.hint == f"output_schema={line}"


@pytest.mark.parametrize("schema", [{"score": float}, None, int, list[str]])
def test_what_is_no_list_of_labels_is_left_alone(schema: Any) -> None:
    """Types, dicts and classes come back as they were."""
    assert with_plain_labels(schema) is schema


def test_a_dtype_without_categories_is_not_free_text() -> None:
    """Labels that are still to come are none: the rows would be paid for without them."""
    with pytest.raises(InputError, match="without labels"):
        OutputSchema.of(with_plain_labels(pd.CategoricalDtype()))
