"""A run as a picture and as a table: every figure that the account has, readable on any ground and without color."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

import pandas_batch
from pandas_batch import simulator

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture
def run() -> Iterator[Any]:
    """Return a run of which some rows failed."""
    with simulator.serve(seconds_per_batch=0) as server:
        server.faults.add(simulator.RowFault("errored", marker="bad"))
        frame = pd.DataFrame({"review": [f"row {i}" for i in range(20)] + ["bad 1", "bad 2"]})
        made = frame.claude_batch.start("review", client=server.client(), progress="off", name="a $name$")
        yield made.wait()


def texts(figure: Any) -> str:
    """Return every text that is drawn."""
    figure.canvas.draw()
    found = figure.findobj(matplotlib.text.Text)
    return "\n".join(text.get_text() for text in found if text.get_visible()).replace("\\$", "$")


def test_a_picture_has_what_the_account_has(run: Any) -> None:
    """Rows, tokens, cost against the estimate, lengths and times: each in axes of its own, named, with its values."""
    axes = run.plot()
    told = texts(axes[0].figure)
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == ["rows", "tokens", "cost against the estimate", "length of answers (tokens)", "time of batches"]
    for words in ("succeeded", "errored", "20", "2", "billed", "at most", "median", "a $name$: 22 rows"):
        assert words in told, words
    pyplot.close(axes[0].figure)


def luminance(color: Any) -> float:
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in matplotlib.colors.to_rgb(color)]
    return sum(share * channel for share, channel in zip((0.2126, 0.7152, 0.0722), channels, strict=True))


def test_a_picture_is_read_on_any_ground_and_without_color(run: Any) -> None:
    """It has no ground of its own, its texts are 4 to 1 on white and on black, and failed rows are hatched."""
    axes = run.plot()
    figure = axes[0].figure
    figure.canvas.draw()
    assert figure.patch.get_alpha() == 0
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_text():
            tone = luminance(text.get_color())
            assert (1.05 / (tone + 0.05)) > 4, text.get_text()
            assert ((tone + 0.05) / (luminance("#111111") + 0.05)) > 4, text.get_text()
    hatches = {
        tick.get_text(): bar.get_hatch() for tick, bar in zip(axes[0].get_yticklabels(), axes[0].patches, strict=True)
    }
    assert bool(hatches["errored"]) is True
    assert not hatches["succeeded"]
    pyplot.close(figure)


def test_axes_of_ones_own_get_the_rows(run: Any) -> None:
    """Given axes, the rows by status are drawn there, and nothing else is made."""
    figure, ax = pyplot.subplots()
    assert run.plot(ax) is ax
    assert "20" in texts(figure)
    pyplot.close(figure)


def test_runs_are_listed_with_what_became_of_them(run: Any) -> None:
    """A line has rows answered and failed, cost and bill, and a time without a fraction; twice it is the same."""
    listed = pandas_batch.runs()
    line = listed.loc[run.id]
    assert (line["rows"], line["answered"], line["failed"]) == (22, 20, 2)
    assert line["cost_usd"] == line["paid_usd"] == run.cost_usd
    assert line["created_at"].microsecond == 0
    assert list(listed.columns)[:7] == ["name", "status", "model", "rows", "answered", "failed", "cost_usd"]
    pd.testing.assert_frame_equal(pandas_batch.runs(), listed)


def test_a_summary_is_a_series_that_reads_like_the_estimate(run: Any) -> None:
    """Its amounts are spelled, in text and in HTML, and it is a Series all the same."""
    told = run.summary()
    assert isinstance(told, pd.Series)
    assert told["rows succeeded"] == 20
    assert "upper bound before (USD)" in repr(told)
    assert "$" in repr(told)
    assert type(told.head(3)) is pd.Series
    html = told._repr_html_()
    assert "<table" in html
    assert "a $name$" in html
