"""The pieces of the panel as HTML, split by how often they change; pure functions of one status.

Every text from outside goes through `safe`. Nothing in a piece that changes each second is animated: writing
a piece anew starts its animations anew.
"""

from __future__ import annotations

from html import escape
from urllib.parse import urlsplit

from pandas_batch.amounts import duration, usd, whole_percent
from pandas_batch.errors import clip
from pandas_batch.types import BatchStatus, FailedRow, RunStatus

from .wording import (
    BAD_ROWS,
    Word,
    batch_word,
    clock_time,
    day_and_time,
    elapsed_s,
    n_rows_succeeded,
    run_word,
    saved_by_batching_usd,
    sentence,
)

CONSOLE_URL = "https://platform.claude.com/workspaces/default/batches"
N_BATCHES_SHOWN = 40
N_FAILED_SHOWN = 10

_FAILED_ROWS = Word("▲", "", "bad")
_CANCELED_ROWS = Word("⊘", "", "off")
_ENDED = ("ended", "collected")
_UNDER_WAY = ("posting", "unproved", "in_progress", "canceling")


def safe(text: object, n_chars: int = 300) -> str:
    """
    Return `text` so that it can stand in HTML, as content or in a quoted attribute.

    Examples
    --------
    >>> safe('<b onclick="x">')
    '&lt;b onclick=&quot;x&quot;&gt;'
    """
    return escape(clip(str(text), n_chars), quote=True)


def _glyph(word: Word) -> str:
    return f'<span class="pdb-glyph pdb-{word.tone}" aria-hidden="true">{word.glyph}</span>'


def _usd(amount: float | None) -> str:
    return escape(usd(amount))


_AND = '<span class="pdb-sep"> · </span>'
"""Keeps words apart where there is no style sheet, as on GitHub and in notebooks that are not trusted."""


def head(status: RunStatus) -> str:
    """Return name, state, and what the run is: changes with the state only."""
    word = run_word(status)
    requests = f"{status.n_requests:,} {'request' if status.n_requests == 1 else 'requests'}"
    if status.n_reused:
        requests += f", {status.n_reused:,} reused"
    return (
        '<div class="pdb-head">'
        f'<b class="pdb-name">{safe(status.name or "Claude batch", 120)}</b>{_AND}'
        f'<span class="pdb-pill pdb-is-{word.tone}">{_glyph(word)} {safe(word.text)}</span></div>'
        f'<div class="pdb-sub">{safe(status.model, 120)} · {status.n_rows:,} rows · {requests}</div>'
    )


def said(status: RunStatus) -> str:
    """Return the sentence on what happens now, for the live region that a screen reader follows."""
    text = sentence(status)
    n_batches = len(status.batches)
    spoken = f"{run_word(status).text}. {status.n_batches_ended} of {n_batches} batches ended."
    shown = f'<div class="pdb-say">{safe(text, 600)}</div>' if text else ""
    return f'<div role="status" aria-live="polite"><span class="pdb-quiet">{safe(spoken)} </span>{shown}</div>'


def _fact(label: str, big: str, of: str = "", sub: str = "") -> str:
    of = f' <span class="pdb-of">{of}</span>' if of else ""
    sub = f'{_AND}<span class="pdb-sub">{sub}</span>' if sub else ""
    name = f'<span class="pdb-label">{label}<span class="pdb-sep">: </span></span>'
    return f'<div>{name}<span><b class="pdb-big">{big}</b>{of}</span>{sub}</div>'


def facts(status: RunStatus) -> str:
    """Return rows, batches and money, with the bar over all batches: changes when a batch has changed."""
    cells = [
        _fact(
            "Rows answered",
            f"{n_rows_succeeded(status):,}",
            f"of {status.n_rows:,}",
            _without_answer(status),
        ),
        _fact("Batches ended", f"{status.n_batches_ended:,}", f"of {len(status.batches):,}"),
    ]
    bound = f"at most {_usd(status.cost_usd_max)}" if status.cost_usd_max is not None else "no upper bound known"
    if not status.n_rows_answered and not status.is_final:
        cells.append(_fact("Cost", "—", sub=bound))
    else:
        cells += _money(status, bound)
    return f'<div class="pdb-facts">{"".join(cells)}</div>{_bar_over_all(status)}'


def _without_answer(status: RunStatus) -> str:
    counts = status.counts
    n_canceled = counts.get("canceled", 0)
    n_failed = status.n_failed - n_canceled
    # A row that could not be sent is skipped and failed; it is counted as failed.
    n_unsendable = max(0, n_failed - sum(counts.get(name, 0) for name in BAD_ROWS))
    n_skipped = counts.get("skipped", 0) - n_unsendable
    failed = "failed" if n_canceled else "without an answer"
    parts = ((n_canceled, "canceled"), (n_failed, failed), (n_skipped, "skipped"))
    return ", ".join(f"{n:,} {what}" for n, what in parts if n > 0)


def _money(status: RunStatus, bound: str) -> list[str]:
    paid = ""
    if status.paid_usd is not None and status.cost_usd is not None and status.paid_usd < status.cost_usd:
        paid = f"{_usd(status.paid_usd)} paid by this run"
    label, sub = ("Cost", paid) if status.is_final else ("Cost so far", paid or bound)
    cells = [_fact(label, _usd(status.cost_usd), sub=sub)]
    saved_usd = saved_by_batching_usd(status)
    share = ""
    if saved_usd is not None and status.cost_usd_standard:
        share = f"{_usd(saved_usd)} less ({whole_percent(saved_usd, status.cost_usd_standard)})"
    cells.append(_fact("Without batching", _usd(status.cost_usd_standard), sub=share))
    if status.n_reused or status.saved_by_reuse_usd:
        n_answers = f"{status.n_reused:,} answers reused" if status.n_reused else "same prompts sent once"
        cells.append(_fact("Saved by reuse", _usd(status.saved_by_reuse_usd), sub=n_answers))
    return cells


def _segments(parts: list[tuple[str, int]], whole: int) -> str:
    return "".join(
        f'<span class="pdb-s-{tone}" style="width:{100 * part / whole:.3f}%"></span>'
        for tone, part in parts
        if part and whole
    )


def _bar_over_all(status: RunStatus) -> str:
    """Return the bar over all rows; it moves when a whole batch has ended, because only then anything is known."""
    whole = max(status.n_rows, 1)
    counts = status.counts
    parts = [
        ("ok", counts.get("succeeded", 0)),
        ("bad", sum(counts.get(name, 0) for name in BAD_ROWS)),
        ("off", counts.get("canceled", 0) + counts.get("skipped", 0)),
    ]
    if not any(part for _, part in parts):
        parts = [("ok", status.n_rows_answered)]
    return (
        '<div class="pdb-bar pdb-all" role="progressbar" aria-label="Batches ended" aria-valuemin="0" '
        f'aria-valuemax="{len(status.batches)}" aria-valuenow="{status.n_batches_ended}" '
        f'aria-valuetext="{n_rows_succeeded(status)} of {status.n_rows} rows answered">'
        f"{_segments(parts, whole)}</div>"
    )


def times(status: RunStatus) -> str:
    """Return elapsed time, expiry, and polls: the one piece that changes with the clock."""
    spent = duration(elapsed_s(status))
    if status.is_final:
        until = status.finished_at or status.now
        took, ended = ("took", "ended") if status.finished_at else ("stopped after", "at")
        parts = [f"started {day_and_time(status.started_at)}", f"{took} {spent}", f"{ended} {day_and_time(until)}"]
    else:
        parts = [f"elapsed {spent}"]
        if status.expires_at is not None:
            left_s = (status.expires_at - status.now).total_seconds()
            # Whole minutes: a countdown by the second would be a message by the second.
            left_s -= left_s % 60
            parts.append(f"expires in {duration(left_s) if left_s >= 600 else f'{max(0, int(left_s // 60))} min'}")
        parts.append(f"last check {clock_time(status.last_poll_at)}" if status.last_poll_at else "not checked yet")
        if status.next_poll_at is not None:
            parts.append(f"next {clock_time(status.next_poll_at)}")
    return '<div class="pdb-times">' + _AND.join(f"<span>{safe(part)}</span>" for part in parts) + "</div>"


def batches(status: RunStatus, *, animate: bool = True) -> str:
    """Return the table of batches: changes when a batch has changed."""
    if not status.batches:
        return ""
    shown = _shown(status.batches)
    rows = "".join(_batch_row(number, batch, status.base_url, animate=animate) for number, batch in shown)
    rest = len(status.batches) - len(shown)
    more = f'<div class="pdb-sub">and {rest:,} more batches</div>' if rest else ""
    return (
        '<div class="pdb-scroll" tabindex="0" role="region" aria-label="Batches">'
        '<table class="pdb-table pdb-batches"><thead><tr><th>Batch</th><th>Status</th><th></th>'
        '<th class="pdb-n">Succeeded</th><th class="pdb-n">Errored</th><th class="pdb-n">Expired</th>'
        '<th class="pdb-n">Canceled</th><th class="pdb-n">Processing</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{more}"
    )


def _shown(of: tuple[BatchStatus, ...]) -> list[tuple[int, BatchStatus]]:
    """Return the batches that get a line, the unfinished before the finished, in their order."""
    numbered = list(enumerate(of, 1))
    if len(numbered) <= N_BATCHES_SHOWN:
        return numbered
    first = sorted(numbered, key=lambda pair: (pair[1].state in _ENDED, pair[1].state not in _UNDER_WAY, pair[0]))
    return sorted(first[:N_BATCHES_SHOWN])


def _batch_row(number: int, batch: BatchStatus, base_url: str, *, animate: bool) -> str:
    word = batch_word(batch)
    if batch.batch_id is None:
        name = f'<span class="pdb-dim">batch {number}</span>'
    else:
        name = f"<code>{safe(batch.batch_id, 140)}</code>"
        if _is_anthropic(base_url):
            name = f'<a href="{CONSOLE_URL}" target="_blank" rel="noopener noreferrer">{name}</a>'
    note = ' <span class="pdb-dim">(of another run)</span>' if batch.reused else ""
    counts = (
        ("Succeeded", batch.succeeded),
        ("Errored", batch.errored),
        ("Expired", batch.expired),
        ("Canceled", batch.canceled),
        ("Processing", batch.processing),
    )
    cells = "".join(f'<td class="pdb-n" data-label="{label}">{_count(label, n)}</td>' for label, n in counts)
    return (
        f'<tr><td class="pdb-id">{name}{note}</td>'
        f'<td class="pdb-state">{_glyph(word)} {safe(word.text)}</td>'
        f'<td class="pdb-barcell">{_batch_bar(number, batch, animate=animate)}</td>{cells}</tr>'
    )


def _count(label: str, n: int) -> str:
    if not n:
        return '<span class="pdb-0">0</span>'
    return f"<b>{n:,}</b>" if label in ("Errored", "Expired") else f"{n:,}"


def _is_anthropic(base_url: str) -> bool:
    """Return whether the batch is one that the Console knows: not one of a simulator or a gateway."""
    try:
        host = urlsplit(base_url).hostname or ""
    except ValueError:
        return False
    return host == "anthropic.com" or host.endswith(".anthropic.com")


def _batch_bar(number: int, batch: BatchStatus, *, animate: bool) -> str:
    label = f'role="progressbar" aria-label="Batch {number}"'
    if batch.state in _UNDER_WAY:
        # No aria-valuenow: how far a running batch is, nobody knows but the server.
        live = "live" if animate else "still"
        return f'<div class="pdb-bar" {label}><span class="pdb-s-{live}"></span></div>'
    n_done = batch.succeeded + batch.errored + batch.expired + batch.canceled
    whole = max(batch.n_requests, n_done, 1)
    parts = [("ok", batch.succeeded), ("bad", batch.errored + batch.expired), ("off", batch.canceled)]
    return (
        f'<div class="pdb-bar" {label} aria-valuemin="0" aria-valuemax="{whole}" aria-valuenow="{n_done}">'
        f"{_segments(parts, whole)}</div>"
    )


def errors(status: RunStatus) -> str:
    """Return the first failed rows, with what the server said of each."""
    if not status.failed:
        return ""
    shown = status.failed[:N_FAILED_SHOWN]
    n_failed = max(status.n_failed, len(status.failed))
    first = f", the first {len(shown)}" if n_failed > len(shown) else ""
    rows = "".join(
        f'<tr><td class="pdb-row">{safe(row.label, 80)}</td><td>{safe(row.status, 40)}</td>'
        f"{_kind_and_message(row)}</tr>"
        for row in shown
    )
    # Whoever cancels knows what is missing: a list of it would only push the rest out of sight.
    is_canceled = all(row.status == "canceled" for row in shown)
    glyph, is_open = (_glyph(_CANCELED_ROWS), "") if is_canceled else (_glyph(_FAILED_ROWS), " open")
    after = [f"All of them: <code>{safe(status.expression, 200)}.failed</code>"] if first and status.expression else []
    if status.retry:
        after.append(f"Ask again: <code>{safe(status.retry, 300)}</code>")
    hint = f'<div class="pdb-sub">{" · ".join(after)}</div>' if after else ""
    return (
        f"<details{is_open}><summary>{glyph} "
        f"{n_failed:,} {'row' if n_failed == 1 else 'rows'} without an answer{first}</summary>"
        '<div class="pdb-scroll" tabindex="0" role="region" aria-label="Failed rows">'
        '<table class="pdb-table pdb-failed">'
        "<thead><tr><th>Row</th><th>Status</th><th>Error</th><th>Message</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{hint}</details>"
    )


def _kind_and_message(row: FailedRow) -> str:
    kind, colon, message = row.error.partition(": ")
    if not colon or not kind.replace("_", "").isalnum():
        kind, message = "", row.error
    if kind == row.status:
        kind = ""
    return f'<td>{safe(kind, 60)}</td><td class="pdb-wrap">{safe(message, 300)}</td>'


def as_of(status: RunStatus) -> str:
    """Return what a picture of an unfinished run is, and the line that leads from it to the run."""
    if status.is_final:
        return ""
    on_server = "; what is on the server goes on" if any(batch.batch_id for batch in status.batches) else ""
    line = f" Pick the run up again: <code>{safe(status.reattach, 300)}</code>" if status.reattach else ""
    return f'<div class="pdb-note">A picture as of {safe(day_and_time(status.now))}{on_server}.{line}</div>'


def foot(status: RunStatus, *, again: bool = True) -> str:
    """Return where the run is kept, and the line that picks it up after a restart, ready to copy."""
    lines = [("Run", status.run_id), ("Store", status.store_path)]
    if again and status.reattach:
        lines.insert(0, ("After a restart", status.reattach))
    rows = (f"<div><span>{name}</span> <code>{safe(text, 300)}</code></div>" for name, text in lines)
    return f'<div class="pdb-foot">{"".join(rows)}</div>'
