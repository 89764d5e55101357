"""Statuses of runs that never were: every state, and every text field at somebody's mercy."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pandas_batch.types import BatchStatus, FailedRow, FailureKind, FirstAnswer, RunStatus, Stop

STARTED_AT = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
BATCH_IDS = (
    "msgbatch_01HkcTjaV5uDC8jWR4ZsDV8d",
    "msgbatch_01Jp9xQm2nYtLr6KfWb3EaVs",
    "msgbatch_013Zva2CMHLNnXjNJJKqJ2EF",
)
ERRORS = (
    ("errored", "invalid_request_error: messages.0: text content blocks must be non-empty"),
    ("errored", "overloaded_error: Overloaded"),
    ("expired", "expired: the batch ended before this request was processed"),
)
_SIZES = (402, 402, 400)


def run_status(
    n_ended: int = 1,
    state: str | None = None,
    *,
    seconds: float = 262.0,
    started_at: datetime = STARTED_AT,
    **changes: Any,
) -> RunStatus:
    """Return a run of three batches of which `n_ended` have ended; -1: nothing is posted yet."""
    now = started_at + timedelta(seconds=seconds)
    is_over = n_ended == len(_SIZES)
    state = state or ("submitting" if n_ended < 0 else "collected" if is_over else "in_progress")
    ended = max(n_ended, 0)
    n_answered = sum(_SIZES[:ended])
    status = RunStatus(
        run_id="run_k3v9m2xq",
        name="reviews",
        model="claude-haiku-4-5-20251001",
        base_url="https://api.anthropic.com",
        store_path="/home/ada/reviews/.pandas_batch",
        state=state,
        now=now,
        started_at=started_at,
        expires_at=None if n_ended < 0 or is_over else started_at + timedelta(hours=24),
        last_poll_at=now if n_ended >= 0 else None,
        next_poll_at=now + timedelta(seconds=20) if 0 <= n_ended < len(_SIZES) else None,
        finished_at=now if is_over else None,
        n_rows=sum(_SIZES),
        n_rows_answered=n_answered,
        counts={"succeeded": n_answered - 3 * ended, "errored": 2 * ended, "expired": ended},
        batches=tuple(_batch(i, n_ended, state) for i in range(len(_SIZES))),
        n_failed=3 * ended,
        failed=tuple(
            FailedRow(label=str(17 + 7 * i), position=17 + 7 * i, status=ERRORS[i % 3][0], error=ERRORS[i % 3][1])
            for i in range(3 * ended)
        ),
        kinds=_kinds(ended),
        tokens_in=48_210 * ended or None,
        tokens_out=3_900 * ended or None,
        cost_usd=0.4512 * ended,
        paid_usd=0.4012 * ended,
        cost_usd_standard=0.9024 * ended,
        saved_by_reuse_usd=0.05 * ended,
        cost_usd_max=2.31,
        n_requests=1124,
        n_reused=80,
        reattach='run = pandas_batch.load("run_k3v9m2xq")',
        retry='pandas_batch.load("run_k3v9m2xq").retry_failed()' if is_over else "",
        expression='pandas_batch.load("run_k3v9m2xq")',
        can_cancel=state in ("submitting", "in_progress"),
    )
    return replace(status, **changes)


def _kinds(n_ended: int) -> tuple[FailureKind, ...]:
    if not n_ended:
        return ()
    advices = ("no: change the prompt", "yes", "yes")
    return tuple(
        FailureKind(status=status, error=error, n_rows=n_ended, advice=advice, examples=(str(17 + 7 * i),))
        for i, ((status, error), advice) in enumerate(zip(ERRORS, advices, strict=True))
    )


def _batch(i: int, n_ended: int, state: str) -> BatchStatus:
    n = _SIZES[i]
    if i < n_ended:
        return BatchStatus(
            batch_id=BATCH_IDS[i],
            state="collected",
            n_requests=n,
            succeeded=n - 3,
            errored=2,
            expired=1,
            created_at=STARTED_AT,
            ended_at=STARTED_AT + timedelta(seconds=120 + 60 * i),
        )
    if n_ended < 0:
        return BatchStatus(batch_id=None, state="waiting", n_requests=n, processing=n)
    running = "canceling" if state == "canceling" else "in_progress"
    return BatchStatus(batch_id=BATCH_IDS[i], state=running, n_requests=n, processing=n)


def with_everywhere(text: str, n_ended: int = 1) -> RunStatus:
    """Return a status that has `text` in every field that may come from outside."""
    status = run_status(n_ended)
    return replace(
        status,
        run_id=text,
        name=text,
        model=text,
        base_url=text,
        store_path=text,
        message=text,
        reattach=text,
        retry=text,
        expression=text,
        batches=tuple(replace(batch, batch_id=text, message=text) for batch in status.batches),
        kinds=tuple(replace(kind, status=text, error=text, advice=text, examples=(text,)) for kind in status.kinds),
        stop=Stop(why=text, said=text, advice=text, where=text),
        answers=(FirstAnswer(label=text, prompt=text, output=text),),
        prompt_name=text,
        failed=(
            FailedRow(label=text, position=0, status=text, error=text),
            FailedRow(label=text, position=1, status="errored", error=f"api_error: {text}"),
        ),
    )


_SCRIPT = "window.pdbHit=(window.pdbHit||0)+1"

ATTACKS: tuple[str, ...] = (
    f"<script>{_SCRIPT}</script>",
    f"<ScRiPt>{_SCRIPT}</sCrIpT>",
    f"</div></div><script>{_SCRIPT}</script>",
    f"</style><script>{_SCRIPT}</script>",
    f"</title></textarea><script>{_SCRIPT}</script>",
    f"--><script>{_SCRIPT}</script><!--",
    f"]]><script>{_SCRIPT}</script>",
    f"<script src='data:text/javascript,{_SCRIPT}'></script>",
    f"<script/x>{_SCRIPT}</script>",
    f"<<script>{_SCRIPT}//<</script>",
    f"<img src=x onerror={_SCRIPT}>",
    f'"><img src=x onerror="{_SCRIPT}">',
    f"'><img src=x onerror='{_SCRIPT}'>",
    f"<img src=x onerror={_SCRIPT}//",
    f"<img/src/onerror={_SCRIPT}>",
    f"<image src=x onerror={_SCRIPT}>",
    f"<svg onload={_SCRIPT}>",
    f"<svg/onload={_SCRIPT}//",
    f"<svg><script>{_SCRIPT}</script></svg>",
    f"<svg><animate onbegin={_SCRIPT} attributeName=x dur=1s>",
    f"<svg><a xlink:href='javascript:{_SCRIPT}'><text y=20>x</text></a></svg>",
    f"<svg><foreignObject><iframe srcdoc='<script>parent.{_SCRIPT[7:]}</script>'>",
    f"<math><mtext><table><mglyph><style><img src=x onerror={_SCRIPT}>",
    f"<math href='javascript:{_SCRIPT}'>x</math>",
    f"<body onload={_SCRIPT}>",
    f"<input autofocus onfocus={_SCRIPT}>",
    f"<select autofocus onfocus={_SCRIPT}>",
    f"<textarea autofocus onfocus={_SCRIPT}>",
    f"<details open ontoggle={_SCRIPT}>",
    f"<video><source onerror={_SCRIPT}></video>",
    f"<audio src=x onerror={_SCRIPT}>",
    f"<marquee onstart={_SCRIPT}>x</marquee>",
    f"<iframe src='javascript:parent.{_SCRIPT[7:]}'></iframe>",
    f"<iframe srcdoc='<script>parent.{_SCRIPT[7:]}</script>'></iframe>",
    f"<object data='javascript:{_SCRIPT}'></object>",
    f"<embed src='javascript:{_SCRIPT}'>",
    f"<a href='javascript:{_SCRIPT}' id=pdb-attack>x</a>",
    f"<a href=' java&#10;script:{_SCRIPT}'>x</a>",
    f"javascript:{_SCRIPT}",
    f"<form action='javascript:{_SCRIPT}'><button autofocus>x</button></form>",
    f"<base href='javascript:{_SCRIPT}//'>",
    f"<meta http-equiv=refresh content='0;url=javascript:{_SCRIPT}'>",
    "<link rel=stylesheet href='data:text/css,*{display:none}'>",
    "<style>*{display:none!important}</style>",
    f'" onmouseover="{_SCRIPT}" x="',
    f"' onfocus='{_SCRIPT}' autofocus x='",
    f'" style="animation:pdb-go 1s" onanimationstart="{_SCRIPT}" x="',
    f"$\\href{{javascript:{_SCRIPT}}}{{x}}$",
    f"\\(\\href{{javascript:{_SCRIPT}}}{{x}}\\)",
    f"&lt;script&gt;{_SCRIPT}&lt;/script&gt;",
    f"\u202e<script>{_SCRIPT}</script>\x1b[31m\x00",
    f"[x](javascript:{_SCRIPT}) ![x](x) <b>`x`</b> {{{{constructor.constructor('{_SCRIPT}')()}}}}",
)
"""Texts that want to be more than text; where one succeeds, `window.pdbHit` counts it."""


class PlayedRun:
    """
    A run without engine or server: a thread in a copied context that tells a display one status after the other.

    `log` holds what the buttons did, with the seconds since the start and the name of the thread.
    """

    def __init__(self, *, seconds: float = 6.0, mode: str = "auto", blocking: bool = False, beats: int = 3) -> None:
        from pandas_batch.display.display import Actions
        from pandas_batch.display.progress import open_display

        self.log: list[tuple[str, float, str]] = []
        self._wake = threading.Event()
        self._began_s = time.monotonic()
        self._began_at = datetime.now(UTC)
        self._seconds = seconds
        self._canceled = threading.Event()
        self.over = threading.Event()
        actions = Actions(lambda: (self._note("cancel"), self._canceled.set()), lambda: self._note("check"))
        self.display: Any = open_display(mode, actions, self.status(-1), blocking=blocking)
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._go, beats), daemon=True)
        self._thread.start()

    def _note(self, what: str) -> None:
        self.log.append((what, round(time.monotonic() - self._began_s, 1), threading.current_thread().name))

    def status(self, n_ended: int, state: str | None = None, **changes: Any) -> RunStatus:
        seconds = (datetime.now(UTC) - self._began_at).total_seconds()
        return run_status(n_ended, state, seconds=seconds, started_at=self._began_at, **changes)

    def _go(self, beats: int) -> None:
        for n_ended in range(beats):
            self.last = self.status(n_ended)
            self.display.update(self.last)
            if self._canceled.wait(self._seconds / 3):
                self.display.update(self.status(n_ended, "canceling"))
                time.sleep(1.0)
                break
        counts = {"canceled": 1204} if self._canceled.is_set() else None
        self.last = self.status(3, "collected", **({"counts": counts, "n_failed": 0, "failed": ()} if counts else {}))
        self.display.finish(self.last)
        self.over.set()

    def wait(self) -> None:
        """Wait as a blocking call does: with a tick, and giving the display back on an interrupt."""
        try:
            while not self.over.wait(0.25):
                pass
        except KeyboardInterrupt:
            self.display.interrupted(self.last)
            raise
        self.display.finish(self.last)

    async def wait_async(self) -> None:
        """Wait as ``await run`` does."""
        while not self.over.is_set():
            await asyncio.sleep(0.1)
        self.display.finish(self.last)
