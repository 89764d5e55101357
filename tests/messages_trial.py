"""What a trial says of a number of rows, or of labels, that mean no rows; their messages stand in messages.txt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from pandas_batch.run.trial import rows_to_try

SECRET = "the text of a prompt"

INDEX = pd.Index(["r1", "r2", "r1"])

WRONG: list[Any] = [0, 51, 2.5, True, None, "r1", [], ["nobody"], [["r1"]], ["a", "b", "c", "d"]]


def cases() -> dict[str, Callable[[], object]]:
    """Return what to call by the title of its case."""
    made: dict[str, Callable[[], object]] = {f"n={n!r}": lambda n=n: rows_to_try(INDEX, n) for n in WRONG}
    made["a label of too many rows"] = lambda: rows_to_try(pd.Index(["same"] * 60), ["same"])
    made["a label, no rows"] = lambda: rows_to_try(pd.Index([]), ["same"])
    return made
