"""Arrow in and out: a column of Arrow is read where it lies, and answers leave as they lie in the store."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from conftest import FakeClock
from rowlab import all_outcomes, ask, plan_outcomes

from pandas_batch import simulator


def test_answers_leave_as_arrow_without_a_copy_of_their_texts(api: simulator.Simulator, clock: FakeClock) -> None:
    """``run.to_arrow()`` of 6 MB of answers allocates less than a tenth of that, and holds every row in order."""
    frame = pd.DataFrame({"prompt": [f"{i} " + "x" * 2_000 for i in range(3_000)]})
    run = ask(frame, api, clock)
    run.wait()
    before = pa.total_allocated_bytes()
    table = run.to_arrow()
    allocated = pa.total_allocated_bytes() - before
    n_text = sum(len(text) for text in frame["prompt"])
    assert table.column("output").to_pylist() == frame["prompt"].tolist()
    assert table.column("output").nbytes >= n_text
    assert allocated < n_text / 10


def test_arrow_out_holds_what_the_frame_holds(api: simulator.Simulator, clock: FakeClock) -> None:
    """Row by row, of every outcome, the Arrow table says what the added columns of the frame say."""
    plan_outcomes(api)
    run = ask(all_outcomes(), api, clock)
    with pytest.warns(UserWarning, match="see the column stop_reason"):
        out = run.result()
    table = run.to_arrow()
    assert table.num_rows == len(out)
    for name in table.column_names:
        expected = [None if pd.isna(value) else value for value in out[name].tolist()]
        assert table.column(name).to_pylist() == expected, name


@pytest.mark.parametrize("reader", [{"dtype_backend": "pyarrow"}, {"dtype_backend": "numpy_nullable"}, {}])
def test_a_column_of_any_backend_asks_the_same(
    reader: dict[str, Any], api: simulator.Simulator, clock: FakeClock
) -> None:
    """Read with Arrow-backed, nullable or plain columns, the same file is the same run: nothing is asked twice."""
    text = "prompt,n\nalpha,1\nnaïve,2\n,3\n"
    frame = pd.read_csv(io.StringIO(text), **reader)
    first = ask(pd.read_csv(io.StringIO(text)), api, clock)
    first.wait()
    out = ask(frame, api, clock).result()
    assert out["output"].tolist()[:2] == ["alpha", "naïve"]
    assert out["status"].tolist() == ["succeeded", "succeeded", "skipped"]
    assert api.calls("create") == 1
    assert (out[frame.columns].dtypes == frame.dtypes).all()
