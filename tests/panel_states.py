"""One status for each look of the panel: those of the design, and those that are seldom seen."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from pandas_batch.types import BatchStatus, FailureKind, FirstAnswer, RunStatus, Stop

try:
    from .run_statuses import STARTED_AT
except ImportError:  # in a kernel of a browser test, which has this folder on its path
    from run_statuses import STARTED_AT  # type: ignore[no-redef]  # found in one of two places

_RUN = 'pandas_batch.load("run_261130_150842_26de0e")'
_KINDS = (
    FailureKind(
        status="errored",
        error="overloaded_error: Overloaded",
        n_rows=12,
        advice="yes",
        examples=("19", "33", "68"),
    ),
    FailureKind(
        status="errored",
        error="invalid_request_error: text content blocks must be non-empty",
        n_rows=2,
        advice="no: change the prompt",
        examples=("128", "611"),
    ),
)
_ANSWERS = (
    FirstAnswer(label="r17", prompt="The kettle boils fast, but the lid …", output="mixed"),
    FirstAnswer(label="r230", prompt="Broke after a day.", output="negative"),
    FirstAnswer(label="r401", prompt="Love it.", output="positive"),
)


def _batch(i: int, state: str, n: int = 240, n_errored: int = 0, **changes: Any) -> BatchStatus:
    is_over = state in ("collected", "ended")
    batch = BatchStatus(
        batch_id=None if state in ("waiting", "blocked", "unproved") else f"msgbatch_{i:024d}",
        state=state,
        n_requests=n,
        processing=0 if is_over else n,
        succeeded=n - n_errored if is_over else 0,
        errored=n_errored if is_over else 0,
        created_at=STARTED_AT,
        ended_at=STARTED_AT + timedelta(minutes=9 + 4 * (i % 3)) if is_over else None,
    )
    return replace(batch, **changes)


def _status(**fields: Any) -> RunStatus:
    common: dict[str, Any] = {
        "run_id": "run_261130_150842_26de0e",
        "name": "Reviews Q3",
        "model": "claude-haiku-4-5",
        "base_url": "https://api.anthropic.com",
        "store_path": "/home/ada/reviews/.pandas_batch",
        "now": STARTED_AT + timedelta(minutes=12),
        "started_at": STARTED_AT,
        "n_rows": 1200,
        "n_requests": 1200,
        "reattach": f"run = {_RUN}",
        "expression": _RUN,
        "cost_usd_max": 0.21,
        "budget_usd": 5.0,
    }
    return RunStatus(**common | fields)


_ALIVE: dict[str, Any] = {
    "last_poll_at": STARTED_AT + timedelta(minutes=11),
    "next_poll_at": STARTED_AT + timedelta(minutes=12),
    "expires_at": STARTED_AT + timedelta(hours=24),
    "can_cancel": True,
}
_HALF: dict[str, Any] = {
    "n_rows_answered": 720,
    "cost_usd": 0.011,
    "paid_usd": 0.011,
    "cost_usd_standard": 0.022,
    "tokens_in": 17_210,
    "tokens_out": 2_400,
}
_DONE: dict[str, Any] = {
    "state": "collected",
    "finished_at": STARTED_AT + timedelta(minutes=44),
    "n_rows_answered": 1200,
    "cost_usd": 0.018,
    "paid_usd": 0.018,
    "cost_usd_standard": 0.036,
    "tokens_in": 28_700,
    "tokens_out": 3_900,
}
_SPENT = Stop(
    why="the spend limit of your organization is reached",
    said="You have reached your API usage limits. Access will be restored at the start of next month.",
    advice="When the limit is lifted, run the same line again; what was sent is not paid twice.",
    where="Raise it: platform.claude.com → Settings → Limits",
)


def panel_states() -> dict[str, RunStatus]:
    """Return a status by the name of its look."""
    running = _status(
        **_ALIVE,
        **_HALF,
        state="in_progress",
        counts={"succeeded": 706, "errored": 14, "pending": 480},
        n_failed=14,
        kinds=_KINDS,
        answers=_ANSWERS,
        prompt_name="review",
        batches=(
            _batch(0, "collected"),
            _batch(1, "collected", n_errored=14),
            _batch(2, "collected"),
            _batch(3, "in_progress"),
            _batch(4, "in_progress"),
        ),
    )
    one = _status(**_ALIVE, state="in_progress", counts={"pending": 1200}, batches=(_batch(0, "in_progress", 1200),))
    spent = _status(
        **_ALIVE,
        state="blocked",
        name="Spend limit",
        n_rows=60,
        n_requests=60,
        counts={"pending": 60},
        stop=_SPENT,
        under_way_usd_max=0.0053,
        batches=(_batch(0, "in_progress", 20), _batch(1, "blocked", 20), _batch(2, "blocked", 20)),
    )
    good = _status(**_DONE, counts={"succeeded": 1200}, batches=tuple(_batch(i, "collected") for i in range(5)))
    retry = f"{_RUN}.retry_failed()"
    some = replace(good, counts={"succeeded": 1186, "errored": 14}, n_failed=14, kinds=_KINDS, retry=retry)
    many = replace(
        running,
        n_failed=300,
        counts={"succeeded": 420, "errored": 300, "pending": 480},
        kinds=tuple(replace(_KINDS[i % 2], n_rows=30, error=f"type{i}_error: something {i}") for i in range(10)),
        batches=tuple(
            _batch(i, "collected" if i < 70 else "in_progress", 12, i % 3 if i < 70 else 0) for i in range(100)
        ),
    )
    canceled = FailureKind(
        status="canceled",
        error="canceled: the batch was canceled before this request was processed",
        n_rows=720,
        advice="yes",
        examples=("480", "481", "482"),
    )
    lost = _batch(0, "unproved", 400, message="the answer to its create was lost", until=one.now + timedelta(minutes=9))
    return {
        "preparing": replace(
            one,
            state="preparing",
            batches=(),
            run_id="",
            reattach="",
            store_path="",
            n_rows=500_000,
            n_rows_prepared=182_000,
            n_requests=0,
            now=STARTED_AT + timedelta(seconds=4.1),
            can_cancel=False,
            cost_usd_max=None,
            last_poll_at=None,
            next_poll_at=None,
            expires_at=None,
        ),
        "one": one,
        "one at the end": replace(good, batches=(_batch(0, "collected", 1200),)),
        "running": running,
        "many": many,
        "outage": replace(
            running, message="The server cannot be reached; the batches go on at the server. Trying again."
        ),
        "lost": replace(
            one,
            state="submitting",
            message="The answer to a create was lost. Looking for the batch.",
            batches=(lost, _batch(1, "in_progress", 400), _batch(2, "waiting", 400)),
        ),
        "canceling": replace(running, state="canceling", can_cancel=False),
        "spent": spent,
        "spent and over": replace(spent, can_cancel=False, last_poll_at=None, next_poll_at=None),
        "good": good,
        "from the store": replace(good, is_from_store=True),
        "some failed": some,
        "many failed": replace(many, state="collected", finished_at=many.now, retry=retry, answers=()),
        "all failed": replace(
            good,
            counts={"errored": 1200},
            n_failed=1200,
            kinds=(replace(_KINDS[1], n_rows=1200),),
            cost_usd=0.0,
            paid_usd=0.0,
            cost_usd_standard=0.0,
            tokens_in=None,
            tokens_out=None,
            retry=f'{_RUN}.retry_failed(errors="all")   # as they are these would fail again',
        ),
        "canceled": replace(
            good, counts={"succeeded": 480, "canceled": 720}, n_failed=720, kinds=(canceled,), retry=retry
        ),
        "right to left": replace(running, name="نقد کتاب‌ها", prompt_name="متن"),
    }
