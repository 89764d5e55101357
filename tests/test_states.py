"""The table of a batch's states: complete, obeyed by the store, and the one that the page shows."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from store_lab import add_run

from pandas_batch.store import Store
from pandas_batch.store.states import (
    AT_THE_SERVER,
    BATCH_STATES,
    IN_FLIGHT,
    MEANINGS,
    RECORDED,
    SETTLED,
    TO_SEND,
    TRANSITIONS,
    UNDECIDED,
    WITHOUT_ID,
)


def test_every_state_has_a_meaning_and_a_line() -> None:
    """The table knows every state, and only states."""
    assert set(MEANINGS) == set(TRANSITIONS) == set(BATCH_STATES)
    assert {to for following in TRANSITIONS.values() for to in following} <= set(BATCH_STATES)


def test_a_state_is_settled_or_something_is_left_to_do() -> None:
    """The named sets part the states: what is not settled is at the server or has no id there yet, or is asked live."""
    assert {*SETTLED, *AT_THE_SERVER, *WITHOUT_ID, "live"} == set(BATCH_STATES)
    assert not SETTLED & (AT_THE_SERVER | WITHOUT_ID)
    assert not AT_THE_SERVER & WITHOUT_ID
    assert WITHOUT_ID == RECORDED | UNDECIDED
    assert IN_FLIGHT == TO_SEND | AT_THE_SERVER


def test_every_state_is_reached_and_ends() -> None:
    """From ``intent`` or ``live`` every state is reached, and from every state one in which nothing is left to do."""

    def reached(start: str) -> set[str]:
        seen, new = {start}, [start]
        while new:
            more = set(TRANSITIONS[new.pop()]) - seen  # type: ignore[index]  # a plain text
            seen |= more
            new += more
        return seen

    assert reached("intent") | reached("live") == set(BATCH_STATES)
    assert all(reached(state) & SETTLED for state in BATCH_STATES)


def test_what_was_withdrawn_or_is_home_stays_so() -> None:
    """A canceled batch is never posted, and answers that are here are never paid again: damaged, they are fetched."""
    for state in ("withdrawn", "split"):
        assert not TRANSITIONS[state]  # type: ignore[index]  # a plain text
    assert set(TRANSITIONS["collected"]) == {"ended"}


def test_the_store_takes_the_steps_of_the_table_and_no_other(tmp_path: Path) -> None:
    """A step that the table has is taken; any other is refused and changes nothing."""
    store = Store.open(tmp_path / "store")
    (key,) = add_run(store, "r", n=2).batch_keys
    for state, to in product(BATCH_STATES, BATCH_STATES):
        store.batches.update(key, state=state)
        if to in TRANSITIONS[state]:
            assert store.batches.transition(key, expect=[state], to=to)
            assert store.batches.get(key).state == to
        else:
            with pytest.raises(ValueError, match="does not go"):
                store.batches.transition(key, expect=[state], to=to)
            assert store.batches.get(key).state == state
