"""The pause after failures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pandas_batch.wire.backoff import backoff_s


@given(st.integers(-1, 10**6), st.floats(0.01, 10), st.floats(10, 600), st.floats(1.0, 3.0))
def test_a_pause_grows_and_is_bounded(n_failures: int, first_s: float, most_s: float, growth: float) -> None:
    """After the first failure it is about `first_s`, after more of them longer, and never much above `most_s`."""
    pause_s = backoff_s(n_failures, first_s=first_s, most_s=most_s, growth=growth)
    assert 0.75 * first_s <= pause_s <= 1.25 * most_s
    assert n_failures > 1 or pause_s <= 1.25 * first_s
    assert n_failures < 3 or pause_s >= 0.75 * min(most_s, first_s * growth**2)


def test_pauses_differ() -> None:
    """Many that failed at the same time do not come back at the same time."""
    assert len({backoff_s(5) for _ in range(50)}) > 25
