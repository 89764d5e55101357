"""The lookup over many segments finds what a dict would find."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import store_lab
from store_lab import BASE_URL, prints

from pandas_batch.errors import StoreError
from pandas_batch.store import IN_FLIGHT, Store
from pandas_batch.store import segments as segments_module
from pandas_batch.store.segments import Candidate, find_requests, lookup_keys, read_segment, write_segment

NO_DRAWS = np.zeros(0, np.uint16)


@given(n=st.integers(0, 300), seed=st.integers(0, 9), n_kinds=st.sampled_from([1, 3, 1000]))
@settings(max_examples=30)
def test_a_segment_comes_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, n: int, seed: int, n_kinds: int
) -> None:
    """Fingerprints and draws by position, and the keys sorted over them."""
    dice = np.random.default_rng(seed)
    found = prints(0, n_kinds)[dice.integers(0, n_kinds, n)]
    draws = dice.integers(0, 65536, n).astype(np.uint16)
    path = tmp_path_factory.mktemp("segments") / "x.seg"
    write_segment(path, found, draws)
    segment = read_segment(path)
    assert segment.n_requests == n
    assert (segment.fingerprints == found).all()
    assert (segment.draws == draws).all()
    assert (segment.keys == np.sort(lookup_keys(found, draws))).all()
    assert (lookup_keys(found, draws)[segment.order] == segment.keys).all()


def test_a_cut_or_foreign_segment_is_an_error(tmp_path: Path) -> None:
    """A file that is not a whole segment is never read as one."""
    path = tmp_path / "1" / "x.seg"
    path.parent.mkdir()
    write_segment(path, prints(0, 100), np.zeros(100, np.uint16))
    whole = path.read_bytes()
    for data in (b"", whole[:50], whole[:-100], whole[:64], b"x" * len(whole)):
        path.write_bytes(data)
        with pytest.raises(StoreError, match="damaged"):
            read_segment(path)


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    """Fingerprints of another length than the draws, or of another width, are a mistake of the caller."""
    for found, draws in ((prints(0, 3), NO_DRAWS), (np.zeros((3, 8), np.uint8), np.zeros(3, np.uint16))):
        with pytest.raises(ValueError, match="belong together"):
            write_segment(tmp_path / "x.seg", found, draws)


requests = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), max_size=15)
batches = st.lists(
    st.tuples(
        requests,
        st.sampled_from(["in flight", "some succeeded", "all succeeded", "none succeeded"]),
        st.integers(0, 2**15 - 1),
    ),
    max_size=6,
)


def arrays(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    numbers = [number for number, _ in pairs]
    return prints(0, 13)[numbers], np.array([draw for _, draw in pairs], dtype=np.uint16)


@given(asked=requests, stored=batches, per_search=st.sampled_from([1, 10, 4_000_000]))
@settings(max_examples=150)
def test_the_search_equals_a_dict(
    tmp_path_factory: pytest.TempPathFactory,
    asked: list[tuple[int, int]],
    stored: list[tuple[list[tuple[int, int]], str, int]],
    per_search: int,
) -> None:
    """Of all candidates the last that holds a request wins; duplicates asked for all get it."""
    folder = tmp_path_factory.mktemp("search")
    known: dict[tuple[int, int], tuple[int, set[int]]] = {}
    candidates = []
    for key, (pairs, kind, bits) in enumerate(stored):
        path = folder / str(key)
        write_segment(path, *arrays(pairs))
        mask = {
            "in flight": None,
            "some succeeded": np.array([bool(bits >> i & 1) for i in range(len(pairs))], dtype=bool),
            "all succeeded": np.ones(len(pairs), bool),
            "none succeeded": np.zeros(len(pairs), bool),
        }[kind]
        candidates.append(Candidate(key, path, mask))
        here: dict[tuple[int, int], set[int]] = {}
        for position, pair in enumerate(pairs):
            if mask is None or mask[position]:
                here.setdefault(pair, set()).add(position)
        known |= {pair: (key, positions) for pair, positions in here.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments_module, "_ROWS_PER_SEARCH", per_search)
        keys, positions = find_requests(*arrays(asked), candidates)
    for pair, key, position in zip(asked, keys.tolist(), positions.tolist(), strict=True):
        if pair in known:
            assert (key, position) == (known[pair][0], position)
            assert position in known[pair][1]
        else:
            assert (key, position) == (-1, -1)


def test_requests_whose_keys_collide_are_told_apart(tmp_path: Path) -> None:
    """Equal keys decide nothing: the whole fingerprint and the draw do."""
    found = np.zeros((4, 16), np.uint8)
    found[:, 15] = [1, 2, 3, 4]  # the key is made of the first eight bytes
    draws = np.zeros(4, np.uint16)
    assert len(set(lookup_keys(found, draws).tolist())) == 1
    write_segment(tmp_path / "a", found[[0, 2]], draws[:2])
    keys, positions = find_requests(found, draws, [Candidate(7, tmp_path / "a", None)])
    assert keys.tolist() == [7, -1, 7, -1]
    assert positions.tolist() == [0, -1, 1, -1]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def found_in(store: Store, start: int, n: int, draw: int = 0, base_url: str = BASE_URL) -> list[int]:
    keys, _ = store.batches.find_answers(prints(start, n), np.full(n, draw, np.uint16), base_url=base_url)
    return keys.tolist()


def test_every_state_offers_its_answers_or_not(store: Store) -> None:
    """In flight: all; collected: what succeeded; refused, gone, split, being canceled: nothing."""
    (key,) = store_lab.add_run(store, "r", n=4).batch_keys
    for state in IN_FLIGHT:
        store.batches.update(key, state=state)
        assert found_in(store, 0, 4) == [key] * 4
    for state in ("refused", "gone", "split", "collected"):
        store.batches.update(key, state=state)
        assert found_in(store, 0, 4) == [-1] * 4
    store.batches.update(key, state="collected")
    store.batches.set_succeeded(key, np.array([True, False, True, True]))
    assert found_in(store, 0, 4) == [key, -1, key, key]
    assert store.batches.succeeded_of(key).tolist() == [True, False, True, True]


def test_answers_are_collected_once_and_only_from_a_batch_that_has_ended(store: Store) -> None:
    """State and usable answers are recorded together, or neither is."""
    (key,) = store_lab.add_run(store, "r", n=2).batch_keys
    assert not store.batches.set_collected(key, np.array([True, True]))
    assert (store.batches.get(key).state, store.batches.succeeded_of(key)) == ("intent", None)
    store.batches.update(key, state="ended")
    assert store.batches.set_collected(key, np.array([True, False]))
    assert not store.batches.set_collected(key, np.array([False, False]))
    assert (store.batches.get(key).state, store.batches.succeeded_of(key).tolist()) == ("collected", [True, False])


def test_a_batch_that_is_being_canceled_is_waited_for(store: Store) -> None:
    """It may be answered, and billed, all the same; once it is home, what it has answered is offered and no more."""
    (key,) = store_lab.add_run(store, "r", n=2).batch_keys
    store.batches.update(key, state="bound", cancel_initiated_at=store_lab.CREATED_AT)
    assert found_in(store, 0, 2) == [key, key]
    store.batches.update(key, state="collected")
    store.batches.set_succeeded(key, np.array([True, False]))
    assert found_in(store, 0, 2) == [key, -1]


def test_an_answer_comes_before_a_promise_and_the_newest_first(store: Store) -> None:
    """Succeeded before in flight, newer before older."""
    first, second, third = (store_lab.add_run(store, f"r{i}", n=2).batch_keys[0] for i in range(3))
    assert found_in(store, 0, 2) == [third, third]
    store.batches.update(first, state="collected")
    store.batches.set_succeeded(first, np.array([True, False]))
    assert found_in(store, 0, 2) == [first, third]
    store.batches.update(second, state="collected")
    store.batches.set_succeeded(second, np.array([True, True]))
    assert found_in(store, 0, 2) == [second, second]


def test_draws_and_servers_are_kept_apart(store: Store) -> None:
    """Another draw of the same request, or the same request to another server, is another answer."""
    (key,) = store_lab.add_run(store, "r", n=2).batch_keys
    assert found_in(store, 0, 2, draw=1) == [-1, -1]
    assert found_in(store, 0, 2, base_url="http://127.0.0.1:8765") == [-1, -1]
    assert found_in(store, 1, 2) == [key, -1]
    assert found_in(store, 0, 0) == []


def test_a_mask_of_another_length_is_refused(store: Store) -> None:
    """The mask has one entry per request."""
    (key,) = store_lab.add_run(store, "r", n=2).batch_keys
    with pytest.raises(ValueError, match="2 requests"):
        store.batches.set_succeeded(key, np.array([True]))
