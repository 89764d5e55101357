"""Places of keys: each key's own, whether they stand side by side or not."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pandas_batch.run.key_slices import is_all, places_of


@given(st.lists(st.integers(-2, 3), max_size=12))
def test_places_of_keys_are_where_they_stand(keys: list[int]) -> None:
    """Each key is told once, in ascending order, with all its places in the order of the column."""
    column = np.array(keys, np.int64)
    found = places_of(column)
    assert list(found) == sorted(set(keys))
    for key, places in found.items():
        assert np.arange(len(keys))[places].tolist() == [i for i, other in enumerate(keys) if other == key]


@given(st.lists(st.integers(0, 3), max_size=5), st.integers(0, 5))
def test_all_means_all_in_order(needed: list[int], n: int) -> None:
    """Only the places from 0 on, each once and in order, are all of them."""
    assert is_all(np.array(needed, np.int64), n) == (n > 0 and needed == list(range(n)))
