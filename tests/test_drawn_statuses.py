"""No combination of states breaks the layout of the panel, or advises a line that does nothing."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pandas_batch import engine
from pandas_batch.display import fragments
from pandas_batch.display.account import static_html, text_account, text_line
from pandas_batch.display.outlook import expected_usd, time_left
from pandas_batch.display.panel import Panel
from pandas_batch.display.wording import is_troubled
from pandas_batch.types import ROW_STATUSES, BatchStatus, FailureKind, RunStatus, Stop

from .run_statuses import STARTED_AT, run_status
from .test_account import Reader, assert_only_ours, pieces

_STATES = ("preparing", "submitting", "blocked", "in_progress", "canceling", "ended", "collected")
_BATCH_STATES = ("waiting", "posting", "unproved", "in_progress", "canceling", "ended", "collected")
_BATCH_STATES += ("blocked", "gone", "canceled", "withdrawn")
_money = st.none() | st.floats(0, 1e6)
_counts = st.integers(0, 100_000)
_seconds = st.integers(-100, 200_000).map(lambda s: STARTED_AT + timedelta(seconds=s))


@st.composite
def batches(draw: Any) -> BatchStatus:
    ended = draw(st.none() | _seconds)
    return BatchStatus(
        batch_id=draw(st.none() | st.just("msgbatch_01")),
        state=draw(st.sampled_from(_BATCH_STATES)),
        n_requests=draw(_counts),
        processing=draw(_counts),
        succeeded=draw(_counts),
        errored=draw(_counts),
        canceled=draw(_counts),
        expired=draw(_counts),
        created_at=draw(st.none() | _seconds),
        ended_at=ended,
        reused=draw(st.booleans()),
        message=draw(st.sampled_from(["", "the answer to its create was lost"])),
        until=draw(st.none() | _seconds),
    )


@st.composite
def statuses(draw: Any) -> RunStatus:
    counts = draw(st.dictionaries(st.sampled_from(ROW_STATUSES), st.integers(1, 1000), max_size=4))
    state = draw(st.sampled_from(_STATES))
    return RunStatus(
        run_id="run_1",
        name=draw(st.none() | st.text(max_size=20)),
        model="m",
        base_url=draw(st.sampled_from(["", "https://api.anthropic.com"])),
        store_path="store",
        state=state,
        message=draw(st.sampled_from(["", "The server cannot be reached; trying again."])),
        now=draw(_seconds),
        started_at=draw(_seconds),
        expires_at=draw(st.none() | _seconds),
        last_poll_at=draw(st.none() | _seconds),
        next_poll_at=draw(st.none() | _seconds),
        finished_at=draw(st.none() | _seconds),
        n_rows=sum(counts.values()),
        n_rows_answered=draw(st.integers(0, sum(counts.values()))),
        counts=counts,
        batches=tuple(draw(st.lists(batches(), max_size=8))),
        n_failed=draw(st.integers(0, sum(counts.values()))),
        kinds=tuple(
            FailureKind(status="errored", error=f"e_error: {i}", n_rows=i + 1, advice="yes", examples=("a",))
            for i in range(draw(st.integers(0, 7)))
        ),
        stop=draw(st.none() | st.just(Stop(why="x", said="y", advice="z"))) if state == "blocked" else None,
        cost_usd=draw(_money),
        paid_usd=draw(_money),
        cost_usd_standard=draw(_money),
        saved_by_reuse_usd=draw(_money),
        cost_usd_max=draw(_money),
        cost_usd_expected=draw(_money),
        budget_usd=draw(_money),
        under_way_usd_max=draw(_money),
        tokens_in=draw(st.none() | _counts),
        tokens_out=draw(st.none() | _counts),
        durations_s=tuple(draw(st.lists(st.floats(0, 90_000), max_size=4))),
        can_cancel=draw(st.booleans()),
        is_from_store=draw(st.booleans()),
        retry=draw(st.sampled_from(["", 'pandas_batch.load("run_1").retry_failed()'])),
        reattach='run = pandas_batch.load("run_1")',
        expression='pandas_batch.load("run_1")',
    )


@given(statuses())
def test_every_combination_has_a_panel_and_an_account(status: RunStatus) -> None:
    """The HTML is whole and ours, no number is left out as None or nan, and the text is plain lines."""
    html = static_html(status)
    assert_only_ours(html)
    assert_only_ours(pieces(status))
    said = "".join(Reader(html).text)
    assert not re.search(r"\\b(None|nan|inf)\\b", said)
    assert "\n" not in text_line(status)
    for line in text_account(status).splitlines():
        assert line.isprintable()
    # No bar is longer than its track.
    widths = re.findall(r'<span class="pdb-s-\w+" style="width:([\d.]+)%', fragments.bar(status))
    assert all(float(width) <= 100.001 for width in widths) or sum(status.counts.values()) > status.n_rows


@given(statuses())
def test_a_line_is_advised_only_where_there_is_one(status: RunStatus) -> None:
    """`retry_failed` is named as often as the run says that it would ask for something, and bound to the run."""
    shown = static_html(status).replace("&quot;", '"')
    is_said = status.retry != "" and status.n_failed > 0
    assert ("retry_failed" in shown) == is_said
    assert "run.retry_failed" not in shown
    assert "run.failed" not in shown


@given(statuses())
def test_what_is_to_come_is_never_less_than_what_is(status: RunStatus) -> None:
    """What the run may cost in the end is not below what it has cost; time left is words, whatever the clocks say."""
    expected = expected_usd(status)
    assert expected is None or status.cost_usd is None or expected >= status.cost_usd * 0.999
    assert all(time_left(status))


@settings(max_examples=25)
@given(st.lists(statuses(), min_size=2, max_size=5))
def test_one_panel_lives_through_every_order_of_states(drawn: list[RunStatus]) -> None:
    """Whatever follows on whatever, a panel that is over is the account, and nothing of the live one is left."""
    panel = Panel()
    for status in [*drawn, replace(drawn[0], now=drawn[0].now + timedelta(seconds=1))]:
        panel.update(status)
        shown = {name for name, widget in panel._html.items() if widget.value} - {"style", "live"}
        assert ("over" in shown) == status.is_final
        assert not status.is_final or shown == {"over"}


def test_every_sentence_of_an_engine_that_tries_again_is_trouble() -> None:
    """What the engine says while it hears nothing of the server never stands beside a calm state."""
    said = []
    for path in Path(engine.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
                said += (
                    [node.value]
                    if re.search(r"[Tt]rying again|was lost; looking|was lost\. Looking", node.value)
                    else []
                )
    assert len(said) >= 3
    status = run_status(1)
    for words in said:
        message = f"The server cannot be reached{words}" if words.startswith(";") else words
        assert is_troubled(replace(status, message=message)), words
    assert not is_troubled(status)
    assert "with trouble" in static_html(replace(status, message=said[0].replace(";", "The server cannot be reached;")))
