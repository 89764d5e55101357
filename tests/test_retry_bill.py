"""The bill of requests that are written down already, told before they are sent again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pandas as pd
import pytest
from retry_lab import CASES, failed_run, settled

from pandas_batch.estimates.retry_bill import estimate_bodies
from pandas_batch.requests.options import parse_options
from pandas_batch.wire.wire import Wire

AT = datetime(2026, 11, 23, tzinfo=UTC)


def written_down(run: Any) -> list[bytes]:
    """Return the params of all requests of a run as JSON."""
    bodies = []
    for batch in run.store.batches.of_run(run.id):
        for _, request in run.store.files.spooled_requests(batch.key):
            bodies.append(msgspec.json.encode(msgspec.json.decode(request)["params"]))
    return bodies


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_the_bill_lies_between_the_bounds(api: Any, clock: Any, case: str, counted: bool) -> None:
    """Counted or not, and whatever the requests hold, what is billed for them lies within what was told."""
    frame, options = CASES[case]
    failed = failed_run(frame, api, clock, **options, max_tokens=64)
    bodies = written_down(failed)
    told = estimate_bodies(bodies, options=failed.options, wire=failed.wire() if counted else None, at=AT)
    assert told.to_send == len(bodies)
    assert (told.basis[:10] == "counted on") is counted
    paid_usd = settled(failed.retry_failed()).paid_usd
    assert 0 < told.cost_usd_min <= paid_usd <= told.cost_usd_max


def test_what_cannot_be_bounded_or_priced_is_said(api: Any, clock: Any) -> None:
    """Requests of several models are told apart; an unknown price or input from afar leaves no upper bound."""
    far = [{"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}]
    bodies = [
        msgspec.json.encode({"model": model, "max_tokens": 10, "messages": [{"role": "user", "content": content}]})
        for model, content in (("claude-haiku-4-5", "a"), ("claude-unknown", "b"), ("claude-haiku-4-5", far))
    ]
    told = estimate_bodies(bodies, options=parse_options({}), wire=None, at=AT)
    assert told.models == ("claude-haiku-4-5", "claude-unknown")
    assert told.unpriced == ("claude-unknown",)
    assert told.unbounded == ("images or documents are given as URL or file id",)
    assert (told.cost_usd_min, told.cost_usd_max, told.input_tokens_high) == (None, None, None)
    assert told.output_tokens_max == 30


def test_of_large_requests_few_are_counted(api: Any, clock: Any) -> None:
    """No more than 16 MB are uploaded for the sake of counts, and none that is too large to be counted."""
    frame = pd.DataFrame({"prompt": [f"{i} " + "x" * 3_000_000 for i in range(8)] + ["y" * 9_000_000]})
    bodies = written_down(failed_run(frame, api, clock, preflight=False))
    n_before = api.calls("count_tokens")
    wire = Wire(api.client(max_retries=0))
    told = estimate_bodies(bodies, options=parse_options({}), wire=wire, at=AT)
    assert api.calls("count_tokens") - n_before == 5
    assert told.basis.startswith("counted on 5 of 9 requests")
