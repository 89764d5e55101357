"""The short way of the simulator for plain rows gives what its long way gives."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator_lab import VERSION, params

from pandas_batch.simulator.models import MODELS
from pandas_batch.simulator.plain_rows import PlainRows
from pandas_batch.simulator.rendering import _Row
from pandas_batch.simulator.tokens import PromptCache


@given(
    prompts=st.lists(st.text(max_size=40), min_size=1, max_size=4),
    model=st.sampled_from([*sorted(MODELS), "claude-unknown"]),
    max_tokens=st.integers(-1, 30) | st.just(10**6),
    system=st.none() | st.text(max_size=20),
    answer=st.none() | st.text(max_size=20),
)
@settings(max_examples=300, deadline=None)
def test_the_short_way_gives_what_the_long_way_gives(prompts, model, max_tokens, system, answer):
    """Plain rows are answered faster, and to the byte the same."""
    plain = PlainRows(answer, VERSION)
    for number, prompt in enumerate(prompts):
        wanted = params(prompt, model=model, max_tokens=max_tokens) | ({} if system is None else {"system": system})
        raw = msgspec.Raw(msgspec.json.encode(wanted))
        short = plain.result(raw, number)
        kind, long = _Row(raw, answer, PromptCache(), VERSION, [], 0.0, number).result(None)
        if short is not None:
            assert (kind, long) == ("succeeded", short)


def test_nearly_all_plain_rows_take_the_short_way():
    """The short way is not given up for a row it is meant for."""
    raw = msgspec.Raw(msgspec.json.encode(params("How are you?", system="Be terse.")))
    assert PlainRows(None, VERSION).result(raw, 1) is not None
    assert PlainRows(lambda asked: "x", VERSION).result(raw, 1) is not None
    assert PlainRows(lambda asked: {"x": 1}, VERSION).result(raw, 1) is None
