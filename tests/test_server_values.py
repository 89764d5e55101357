"""What a server says of a batch: whatever a gateway makes of it, reading it raises nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandas_batch.server_values import counts_of, n_requests_of, time_of, times_of
from pandas_batch.wire.endpoints import own_path

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["created_at", "expires_at", "ended_at", "cancel_initiated_at", "archived_at", "request_counts", "id"]
)


@given(st.dictionaries(names, anything))
def test_no_value_of_a_server_raises(batch: dict) -> None:
    """Times come out aware or None, counts as natural numbers or not at all, whatever went in."""
    read = times_of(batch)
    assert all(read[name] is None or read[name].tzinfo is UTC for name in read if name != "counts")
    assert all(isinstance(n, int) and n >= 0 for n in read["counts"].values())
    n_requests = n_requests_of(batch)
    assert n_requests is None or n_requests > 0


@given(st.datetimes(), st.integers(-12, 12))
def test_a_time_of_any_zone_is_the_same_instant(at: datetime, hours: int) -> None:
    """What is written with an offset is read as that instant, and what is written without one is UTC."""
    there = at.replace(tzinfo=timezone(timedelta(hours=hours)))
    try:
        here = there.astimezone(UTC)
    except OverflowError:
        assert time_of(there.isoformat()) is None
        return
    assert time_of(there.isoformat()) == here
    assert time_of(at.isoformat()) == at.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "counts", [None, [], {"processing": -1}, {"processing": "3"}, {"processing": True}, {"a": 1.5}]
)
def test_counts_that_cannot_be_read_are_not_known(counts) -> None:
    """Half of the counts is no count: a batch of unknown size may be any batch."""
    assert counts_of(counts) == {}
    assert n_requests_of({"request_counts": counts}) is None


@pytest.mark.parametrize("left_out", ["processing", "succeeded", "errored", "canceled", "expired"])
@pytest.mark.parametrize("as_null", [True, False])
def test_a_size_is_known_only_where_every_count_is(left_out: str, as_null: bool) -> None:
    """A count that a gateway leaves out may be any number, and with it the size of the batch."""
    counts: dict = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 1)
    assert n_requests_of({"request_counts": counts}) == 5
    del counts[left_out]
    if as_null:
        counts[left_out] = None
    assert n_requests_of({"request_counts": counts}) is None


@pytest.mark.parametrize(
    ("results_url", "path"),
    [
        ("https://gate.example/v9/results/x", "https://gate.example/v9/results/x"),
        ("https://gate.example:443/r?sig=1", "https://gate.example/r?sig=1"),
        ("/r/1", "https://gate.example/r/1"),
        ("https://GATE.example/r", "https://gate.example/r"),
        ("http://gate.example/r", None),
        ("https://gate.example:8443/r", None),
        ("https://gate.example.evil.test/r", None),
        ("https://user@gate.example/r", None),
        ("//evil.test/r", None),
        ("https://evil.test/r", None),
        ("https:gate.example/r", None),
        ("r", None),
        (None, None),
        (5, None),
        ("https://[", None),
        ("https://gate.example\\@evil.test/r", None),
    ],
)
def test_results_are_fetched_from_the_clients_own_origin_only(results_url, path) -> None:
    """A key travels to the scheme, host and port that its client was made for, whatever an answer names."""
    assert own_path(results_url, "https://gate.example/proxy") == path
