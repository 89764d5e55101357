"""A few rows with their answers as soon as there are any: a bad prompt is seen after minutes, and canceled."""

from __future__ import annotations

import os
import string
from typing import TYPE_CHECKING

import numpy as np

from pandas_batch.errors import clip
from pandas_batch.results.row_status import CODE
from pandas_batch.types import FirstAnswer

from .failure_kinds import first_text
from .joining import columns_of

if TYPE_CHECKING:
    from pandas_batch.store import RunRecord, Store

    from .run_answers import RunAnswers
    from .target_frame import TargetFrame

ENVIRONMENT = "PANDAS_BATCH_SHOW_ANSWERS"
"""Where it is ``0``, no answer is ever shown by a panel."""

_N_SHOWN = 3
_N_CHARS = 120


def first_answers(answers: RunAnswers, target: TargetFrame, store: Store, record: RunRecord) -> tuple[FirstAnswer, ...]:
    """Return some answered rows, spread over those that are; none where the environment does not want it."""
    if os.environ.get(ENVIRONMENT, "").strip() == "0":
        return ()
    codes = answers.codes_of_requests()
    sent = np.flatnonzero(answers.request_of_row >= 0)
    answered = sent[codes[answers.request_of_row[sent]] == CODE["succeeded"]]
    if not len(answered):
        return ()
    positions = np.unique(answered[np.linspace(0, len(answered) - 1, min(_N_SHOWN, len(answered))).astype(np.int64)])
    columns, _ = columns_of(answers, ["output"], rows=positions)
    labels = target.index(store, record.id)[positions]
    name = prompt_name_of(target, record)
    prompts = [""] * len(positions)
    if name and target.frame is not None:
        prompts = [str(cell) for cell in target.frame[_column(target, name)].iloc[positions].tolist()]
    return tuple(
        FirstAnswer(label=clip(str(label), 60), prompt=_one_line(prompt), output=_one_line(first_text(output)))
        for label, prompt, output in zip(labels, prompts, columns["output"], strict=True)
    )


def prompt_name_of(target: TargetFrame, record: RunRecord) -> str:
    """Return the name of the column that the prompts stand in, or the first of a template; "" where there is none."""
    if target.frame is None:
        return ""
    column = record.options.get("prompt_col")
    wanted = [column.get("label") if isinstance(column, dict) else column]
    template = record.options.get("prompt")
    if isinstance(template, str):
        try:
            wanted += [field for _, field, _, _ in string.Formatter().parse(template) if field]
        except ValueError:
            return ""
    names = [str(name) for name in wanted if name is not None]
    return next((name for name in names if _column(target, name) is not None), "")


def _column(target: TargetFrame, name: str) -> object:
    """Return the label of the one column of that name, or None."""
    if target.frame is None or not target.frame.columns.is_unique:
        return None
    return next((label for label in target.frame.columns if str(label) == name), None)


def _one_line(text: str) -> str:
    return clip(" ".join(text[: 4 * _N_CHARS].split()), _N_CHARS)
