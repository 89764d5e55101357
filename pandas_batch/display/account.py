"""The account of a run: what happened and what it cost, as HTML that needs nothing, and as text."""

from __future__ import annotations

from pandas_batch.amounts import duration, rows, short, usd
from pandas_batch.errors import clip
from pandas_batch.types import RunStatus

from . import fragments
from .stylesheet import style_element
from .wording import (
    batch_message,
    batch_word,
    day_and_time,
    elapsed_s,
    n_rows_succeeded,
    preparing_words,
    run_word,
    saved_by_batching_usd,
    sentence,
)

# MathJax would set what stands between two dollar signs as a formula, and follow its links.
_NO_MATH = "mathjax_ignore tex2jax_ignore"

# ipywidgets marks so what has lost its kernel.
_DEAD = ".jupyter-widgets-disconnected"

_N_BATCHES_IN_TEXT = 10
_N_KINDS_IN_TEXT = 5


def static_html(status: RunStatus) -> str:
    """
    Return the account of a run as one self-contained piece of HTML.

    It runs no script, loads nothing, and reads the same in a saved notebook, an export, a mail or without
    its style sheet. Every text in it is escaped.

    Parameters
    ----------
    status
        The run at one instant.

    Returns
    -------
    str
        A ``<div>`` element.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> at = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
    >>> status = RunStatus(run_id="run_1", name="<reviews>", model="claude-haiku-4-5-20251001", base_url="",
    ...                    store_path=".pandas_batch", state="in_progress", now=at, started_at=at)
    >>> "&lt;reviews&gt;" in static_html(status), "<script" in static_html(status)
    (True, False)
    """
    return f'<div class="pdb {_NO_MATH}">{style_element()}{fragments.account(status)}</div>'


def kept_html(status: RunStatus, key: str) -> str:
    """
    Return the account for a place beside a live panel: it is seen where that panel is not, or is dead.

    Front ends keep a widget's view in the notebook, and without its kernel it is an error message. Whether
    the panel lives, the style sheet sees: no script is needed.

    Parameters
    ----------
    status
        The run at one instant.
    key
        Tells this panel from others on the page; letters and digits.

    Returns
    -------
    str
        A ``<div>`` element.
    """
    if not key.isalnum():
        raise ValueError("a key is made of letters and digits")
    panel, account = f".pdb-live.pdb-of-{key}", f".pdb-kept.pdb-of-{key}"
    lives = f":root:has({panel}:not({_DEAD}))"
    rules = (
        f"{lives} {account},{lives} .jp-OutputArea-child:has({account}),"
        f":root:has({account}) {panel}{_DEAD}{{display:none}}"
    )
    return f'<div class="pdb-kept pdb-of-{key}"><style><!--{rules}--></style>{static_html(status)}</div>'


def text_line(status: RunStatus) -> str:
    """
    Return the run in one line, without prompts, answers or keys.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> at = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
    >>> text_line(RunStatus(run_id="run_1", name="reviews", model="m", base_url="", store_path="",
    ...                     state="in_progress", now=at, started_at=at, n_rows=1204, cost_usd_max=2.5))
    'run_1 (reviews): in progress, 0 of 1,204 rows answered, 0 of 0 batches ended, at most $2.50'
    """
    if status.state == "preparing":
        return f"{clip(status.name or 'a call', 60)}: {preparing_words(status)}; nothing was sent yet"
    name = f" ({clip(status.name, 60)})" if status.name else ""
    word = run_word(status).text
    parts = [
        word[:1].lower() + word[1:],
        f"{n_rows_succeeded(status):,} of {rows(status.n_rows)} answered",
        f"{status.n_batches_ended:,} of {len(status.batches):,} batches ended",
    ]
    if status.n_failed:
        parts.append(f"{status.n_failed:,} without an answer")
    is_under_way = any(batch.state in ("in_progress", "canceling", "unproved") for batch in status.batches)
    if status.n_rows_answered or status.is_final:
        parts.append("cost unknown" if status.cost_usd is None else usd(status.cost_usd))
    if status.cost_usd_max is not None and (is_under_way or not (status.n_rows_answered or status.is_final)):
        parts.append(f"at most {usd(status.cost_usd_max)}")
    return f"{clip(status.run_id, 80)}{name}: {', '.join(parts)}"


def text_account(status: RunStatus) -> str:
    """
    Return the account of a run as a few lines of plain text, for terminals and for readers of a notebook's source.

    Parameters
    ----------
    status
        The run at one instant.

    Returns
    -------
    str
        Lines without control characters; texts from outside are clipped.
    """
    lines = [text_line(status)]
    if status.state == "preparing":
        return lines[0]
    if text := sentence(status):
        lines.append(f"  {clip(text, 400)}")
    lines.append(f"  model {clip(status.model, 80)}, {status.n_requests:,} requests, {status.n_reused:,} reused")
    if status.n_rows_answered or status.is_final:
        lines.append(f"  {_money(status)}")
    if status.tokens_in is not None:
        lines.append(f"  tokens: {short(status.tokens_in)} in, {short(status.tokens_out)} out")
    took = "took" if status.finished_at else "elapsed"
    lines.append(f"  started {day_and_time(status.started_at)}, {took} {duration(elapsed_s(status))}")
    for number, batch in enumerate(status.batches, 1):
        if words := batch_message(number, batch, status.now):
            lines.append(f"  {clip(words, 300)}")
    for number, batch in enumerate(status.batches[:_N_BATCHES_IN_TEXT], 1):
        counts = (
            f"{batch.succeeded:,} succeeded, {batch.errored:,} errored, {batch.expired:,} expired, "
            f"{batch.canceled:,} canceled, {batch.processing:,} processing"
        )
        lines.append(f"  {clip(batch.batch_id or f'batch {number}', 80)}  {batch_word(batch).text}: {counts}")
    if len(status.batches) > _N_BATCHES_IN_TEXT:
        lines.append(f"  and {len(status.batches) - _N_BATCHES_IN_TEXT:,} more batches")
    for kind in status.kinds[:_N_KINDS_IN_TEXT]:
        words = "" if kind.error.startswith(kind.status) else f"{kind.status}: "
        lines.append(
            f"  {rows(kind.n_rows)} {words}{clip(kind.error, 160)}; worth asking again: {clip(kind.advice, 60)}; "
            f"for example {clip(', '.join(kind.examples), 120)}"
        )
    if len(status.kinds) > _N_KINDS_IN_TEXT:
        lines.append(f"  and {len(status.kinds) - _N_KINDS_IN_TEXT:,} more kinds of failure")
    if status.retry:
        lines.append(f"  to ask again: {clip(status.retry, 300)}")
    if status.reattach:
        lines.append(f"  after a restart: {clip(status.reattach, 200)}")
    return "\n".join(lines)


def _money(status: RunStatus) -> str:
    parts = [f"cost {usd(status.cost_usd)}"]
    if status.paid_usd is not None and status.paid_usd != status.cost_usd:
        parts.append(f"paid by this run {usd(status.paid_usd)}")
    saved_usd = saved_by_batching_usd(status)
    if saved_usd is not None:
        parts.append(f"saved by batching {usd(saved_usd)}")
    if status.saved_by_reuse_usd:
        parts.append(f"saved by reuse {usd(status.saved_by_reuse_usd)}")
    return ", ".join(parts)
