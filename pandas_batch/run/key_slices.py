"""Where equal keys stand in a column: mostly side by side, which a slice says without copying anything."""

from __future__ import annotations

import numpy as np

Places = slice | np.ndarray


def places_of(keys: np.ndarray) -> dict[int, Places]:
    """
    Return where each of `keys` stands, in ascending order; a slice where that is one block, which copies nothing.

    Examples
    --------
    >>> places_of(np.array([2, 2, 1]))
    {1: slice(2, 3, None), 2: slice(0, 2, None)}
    >>> places_of(np.array([2, 1, 2]))[2]
    array([0, 2])
    """
    if not len(keys):
        return {}
    starts = np.concatenate(([0], np.flatnonzero(keys[1:] != keys[:-1]) + 1))
    of_block = keys[starts]
    found: dict[int, Places] = {}
    if len(np.unique(of_block)) == len(starts):
        ends = [*starts[1:].tolist(), len(keys)]
        found = {key: slice(*ends_of) for key, *ends_of in zip(of_block.tolist(), starts.tolist(), ends, strict=True)}
    else:
        by_key = np.argsort(keys, kind="stable")
        borders = np.flatnonzero(np.diff(keys[by_key])) + 1
        found = {int(keys[part[0]]): part for part in np.split(by_key, borders)}
    return dict(sorted(found.items()))


def is_all(needed: np.ndarray, n: int) -> bool:
    """Return whether `needed` are the places 0 to `n` - 1, in that order."""
    return len(needed) == n and n > 0 and needed[0] == 0 and bool((needed[1:] - needed[:-1] == 1).all())
