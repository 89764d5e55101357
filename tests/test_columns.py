"""The table of columns: each entry is made, has the dtype that it says, and is read by everything that needs it."""

from __future__ import annotations

import pandas as pd
import pytest
from rowlab import all_outcomes, ask, cut_on_purpose, plan_outcomes

from pandas_batch.columns import COLUMN, COLUMNS, Column
from pandas_batch.requests.text_dtype import text_dtype
from pandas_batch.run import joining
from pandas_batch.run.joining import MAKERS


def test_every_column_has_a_maker_and_every_maker_a_column() -> None:
    """A name without a maker does not pass here, nor a maker that no column asks for."""
    assert {column.made_as for column in COLUMNS} == set(MAKERS)
    assert len(COLUMN) == len(COLUMNS)


def dtype_of(column: Column) -> object:
    return text_dtype() if column.dtype == "text" else pd.api.types.pandas_dtype(column.dtype)


@cut_on_purpose
@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_every_column_comes_with_the_dtype_that_it_says(api, clock, column):
    """Alone, and whatever became of its rows, a column has its own dtype, also where nothing was sent."""
    plan_outcomes(api)
    for frame in (all_outcomes(1), pd.DataFrame({"prompt": [None, " "]}), pd.DataFrame({"prompt": []}, dtype=str)):
        out = ask(frame, api, clock, columns=[column.name], on_unsendable="skip").result()
        assert out.columns.tolist() == [*frame.columns, column.name]
        assert out[column.name].dtype == dtype_of(column)


def test_a_new_column_is_one_entry_and_its_maker(api, clock, monkeypatch):
    """What options take, what is made and what is refused follow the table."""
    entry = Column("shout", "the answer in capitals", "text", "shout", "named")
    monkeypatch.setitem(COLUMN, "shout", entry)
    makers = {**MAKERS, "shout": lambda gathered, name: gathered.batch_ids(name)}
    monkeypatch.setattr(joining, "MAKERS", makers)
    out = ask(pd.DataFrame({"prompt": ["a"]}), api, clock, columns=["shout"]).result()
    assert out["shout"].notna().all()
