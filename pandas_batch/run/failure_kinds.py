"""The failed rows of a run, grouped by what was said of them: three hundred rows are mostly two or three causes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_batch.errors import clip
from pandas_batch.types import FailureKind

from .joining import columns_of
from .worth_asking import advice_on

if TYPE_CHECKING:
    from .run_answers import RunAnswers

N_EXAMPLES = 3
_N_MESSAGES = 3
"""So many different messages of one type of error are distinguished."""


def kinds_of(answers: RunAnswers, index: pd.Index) -> tuple[FailureKind, ...]:
    """
    Return the kinds of failure, the most frequent first.

    Parameters
    ----------
    answers
        For the rows of a frame.
    index
        The labels of these rows.
    """
    positions = answers.failed_positions()
    if not len(positions):
        return ()
    columns, _ = columns_of(answers, ["status", "error"], rows=positions)
    # Of a hundred thousand failed rows few differ: texts are looked at once each.
    (status_codes, statuses), (error_codes, errors) = (_coded(columns[name]) for name in ("status", "error"))
    codes, pairs = pd.factorize(status_codes.astype(np.int64) * len(errors) + error_codes)
    said = [(statuses[pair // len(errors)], errors[pair % len(errors)]) for pair in pairs.tolist()]
    types = [(status, error.partition(":")[0] if ":" in error else "") for status, error in said]
    n_messages = Counter(types)
    # Messages that name each row's own trouble would be one kind a row.
    keys = [one if n_messages[one] > _N_MESSAGES else pair for one, pair in zip(types, said, strict=True)]
    kind_of_pair, _ = pd.factorize(pd.Series(keys, dtype=object))
    codes = kind_of_pair[codes]
    n_rows = np.bincount(codes)
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(n_rows)[:-1]])
    kinds = []
    for code in np.argsort(-n_rows, kind="stable").tolist():
        first = order[starts[code] : starts[code] + min(N_EXAMPLES, int(n_rows[code]))]
        status, error = statuses[status_codes[first[0]]], errors[error_codes[first[0]]]
        kinds.append(
            FailureKind(
                status=status,
                error=clip(error, 200),
                n_rows=int(n_rows[code]),
                advice=advice_on(status, error),
                examples=tuple(clip(str(index[positions[at]]), 60) for at in first.tolist()),
            )
        )
    return tuple(kinds)


def first_text(cell: Any) -> str:
    """
    Return a cell as text; of a list of samples the first that says something.

    Examples
    --------
    >>> first_text([None, "x"]), first_text("y"), first_text(None)
    ('x', 'y', '')
    """
    if isinstance(cell, list):
        return next((one for one in cell if isinstance(one, str)), "")
    return cell if isinstance(cell, str) else ""


def _coded(values: Any) -> tuple[np.ndarray, list[str]]:
    """Return cells as codes and the texts that they stand for; of a list of samples the first that says something."""
    cells = pd.Series(values)
    if cells.dtype == object:
        cells = cells.map(
            lambda cell: next((v for v in cell if isinstance(v, str)), "") if isinstance(cell, list) else cell
        )
    codes, texts = pd.factorize(cells, use_na_sentinel=False)
    return codes, [text if isinstance(text, str) else "" for text in texts]
