"""The pieces of the panel as HTML, split by how often they change; pure functions of one status.

Every text from outside goes through `safe`. Nothing in a piece that changes each second is animated, and nothing in a
piece that changes at all can have the focus or be folded: writing a piece anew starts it anew.
"""

from __future__ import annotations

from html import escape
from urllib.parse import urlsplit

from pandas_batch.amounts import duration, rows, short, usd, whole_percent
from pandas_batch.errors import clip
from pandas_batch.types import BatchStatus, RunStatus

from .display import FinishOffer
from .outlook import expected_usd, time_left
from .wording import (
    BAD_ROWS,
    Word,
    batch_message,
    batch_word,
    clock_time,
    day_and_time,
    day_words,
    elapsed_s,
    is_troubled,
    n_rows_succeeded,
    preparing_words,
    run_word,
    sentence,
    where_it_stands,
)

CONSOLE_URL = "https://platform.claude.com/workspaces/default/batches"
N_BATCHES_SHOWN = 40
N_SQUARES = 400
N_KINDS_SHOWN = 4
N_MESSAGES_SHOWN = 3

_CANCELED_ROWS = Word("⊘", "", "off")
_FAILED_ROWS = Word("▲", "", "bad")


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


# -------------------------------------------------------------------- while it goes on


def head(status: RunStatus) -> str:
    """Return name, state, and what the run is: changes with the state only."""
    return f'<div class="pdb-head">{_name(status)}{_AND}{_pill(status)}{_AND}{_what(status)}</div>'


def _name(status: RunStatus) -> str:
    return f'<b class="pdb-name" dir="auto">{safe(status.name or "Claude batch", 120)}</b>'


def _pill(status: RunStatus) -> str:
    word = run_word(status)
    return f'<span class="pdb-pill pdb-is-{word.tone}">{_glyph(word)} {safe(word.text)}</span>'


def _what(status: RunStatus) -> str:
    parts = [safe(status.model, 120), rows(status.n_rows)]
    n_asked = status.n_rows - status.counts.get("skipped", 0)
    if status.n_requests and (status.n_requests != n_asked or status.n_reused):
        parts.append(f"{status.n_requests:,} {'request' if status.n_requests == 1 else 'requests'}")
    if status.n_reused:
        parts.append(f"{status.n_reused:,} reused")
    return f'<span class="pdb-sub">{" · ".join(part for part in parts if part)}</span>'


def live_region() -> str:
    """
    Return the region that a screen reader follows: written once, and the state is a class of the panel around it.

    A node that is replaced together with its text is not read out; so all that it can say is in it, and the style
    sheet shows the one of them that holds.
    """
    said = "".join(f'<span class="pdb-w-{state}">{_SPOKEN[state]}</span>' for state in _SPOKEN)
    ended = "".join(
        f'<span class="pdb-e-{tenth}">{tenth}0 % of the batches have ended. </span>' for tenth in range(1, 10)
    )
    return f'<div role="status" aria-live="polite" class="pdb-quiet">{said}{ended}</div>'


_SPOKEN = {
    "preparing": "Preparing the rows. ",
    "submitting": "Submitting the batches. ",
    "in_progress": "In progress. ",
    "trouble": "In progress, with trouble. ",
    "canceling": "Canceling. ",
    "ended": "All batches have ended, fetching the answers. ",
    "blocked": "Stopped. ",
    "collected": "Finished. ",
}


def spoken(status: RunStatus) -> tuple[str, ...]:
    """Return the classes of the panel that choose what `live_region` says."""
    state = "trouble" if is_troubled(status) else status.state
    n = len(status.batches)
    tenth = 10 * status.n_batches_ended // n if n > 1 else 0
    return (f"pdb-at-{state}", *([f"pdb-done-{tenth}"] if 0 < tenth < 10 else []))


def said(status: RunStatus) -> str:
    """Return the sentence on what happens now, and what is to be said of single batches."""
    if status.state == "blocked":
        return _stopped(status)
    text = sentence(status)
    shown = f'<div class="pdb-say">{safe(text, 600)}</div>' if text else ""
    told = [
        words for number, batch in enumerate(status.batches, 1) if (words := batch_message(number, batch, status.now))
    ]
    lines = "".join(f'<div class="pdb-sub">{safe(words)}</div>' for words in told[:N_MESSAGES_SHOWN])
    if len(told) > N_MESSAGES_SHOWN:
        lines += f'<div class="pdb-sub">and the like for {len(told) - N_MESSAGES_SHOWN:,} more</div>'
    return shown + lines


def offer(offered: FinishOffer) -> str:
    """Return what it takes to finish the run now, or why it is not finished, above the figures."""
    line = f" <code>{safe(offered.hint)}</code>" if offered.hint else ""
    return f'<div class="pdb-note">{safe(offered.words, 700)}{line}</div>'


def _stopped(status: RunStatus) -> str:
    stop = status.stop
    if stop is None:
        return f'<div class="pdb-say">{safe(sentence(status), 600)}</div>'
    said = f' <q class="pdb-said" dir="auto">{safe(stop.said)}</q>' if stop.said else ""
    where = f' <span class="pdb-sub">{safe(stop.where)}</span>' if stop.where else ""
    return (
        f'<div class="pdb-say">{safe(where_it_stands(status), 600)}{said}</div>'
        f'<div class="pdb-say">{safe(stop.advice)}{where}</div>'
    )


def _fact(label: str, big: str, of: str = "", sub: str = "") -> str:
    of = f' <span class="pdb-of">{of}</span>' if of else ""
    sub = f'{_AND}<span class="pdb-sub">{sub}</span>' if sub else ""
    name = f'<span class="pdb-label">{label}<span class="pdb-sep">: </span></span>'
    return f'<div>{name}<span><b class="pdb-big">{big}</b>{of}</span>{sub}</div>'


def facts(status: RunStatus) -> str:
    """Return rows, time, money and tokens: changes when a batch has changed, and with the time left once a minute."""
    if status.state == "preparing":
        return ""
    if status.state == "blocked" and not status.n_rows_answered:
        return ""
    cells = [_fact("Answered", f"{n_rows_succeeded(status):,}", f"of {status.n_rows:,}{_without_answer(status)}")]
    if status.is_final or status.state == "blocked":
        cells.append(_fact("Took" if status.finished_at else "Stopped after", duration(elapsed_s(status))))
    else:
        left, because = time_left(status)
        cells.append(_fact("Time left", left, sub=safe(because)))
    cells.append(_money(status))
    if status.tokens_in is not None and status.tokens_out is not None:
        n = max(1, n_rows_succeeded(status))
        a_row = f"{short(status.tokens_in / n)} + {short(status.tokens_out / n)} a row"
        cells.append(_fact("Tokens in / out", f"{short(status.tokens_in)} / {short(status.tokens_out)}", sub=a_row))
    return f'<div class="pdb-facts">{"".join(cells)}</div>'


def _without_answer(status: RunStatus) -> str:
    counts = status.counts
    n_canceled = counts.get("canceled", 0)
    n_failed = status.n_failed - n_canceled
    # A row that could not be sent is skipped and failed; it is counted as failed.
    n_unsendable = max(0, n_failed - sum(counts.get(name, 0) for name in BAD_ROWS))
    n_skipped = counts.get("skipped", 0) - n_unsendable
    parts = ((n_failed, "failed"), (n_canceled, "canceled"), (n_skipped, "skipped"))
    return "".join(f" · {n:,} {what}" for n, what in parts if n > 0)


def _discount(status: RunStatus) -> str:
    """Return how much of the standard price was paid; "" where that is not known, or all of it."""
    if status.cost_usd is None or not status.cost_usd_standard or status.cost_usd >= status.cost_usd_standard:
        return ""
    share = whole_percent(status.cost_usd, status.cost_usd_standard)
    return "half of the standard price" if share.startswith("50") else f"{share} of the standard price"


def _money(status: RunStatus) -> str:
    bound = f"at most {_usd(status.cost_usd_max)}" if status.cost_usd_max is not None else "no upper bound known"
    budget = f"budget {_usd(status.budget_usd)}" if status.budget_usd is not None else ""
    if not status.n_rows_answered and not status.is_final:
        if status.cost_usd_expected is not None:
            return _fact("Cost expected", _usd(status.cost_usd_expected), sub=_joined(bound, budget))
        if status.cost_usd_max is None:
            return _fact("Cost", "—", sub=_joined(bound, budget))
        return _fact("Cost", bound, sub=_joined(budget, "usually far less"))
    paid = ""
    if status.paid_usd is not None and status.cost_usd is not None and status.paid_usd < status.cost_usd:
        paid = f"{_usd(status.paid_usd)} paid by this run"
    spared = f"{_usd(status.saved_by_reuse_usd)} spared by reuse" if status.saved_by_reuse_usd else ""
    discount = _discount(status)
    if status.is_final:
        if discount and status.cost_usd_standard is not None:
            discount += f" of {_usd(status.cost_usd_standard)}" if discount.startswith("half") else ""
            discount = discount.replace("half of the standard price of", "half of the standard")
        return _fact("Cost", _usd(status.cost_usd), sub=_joined(paid, discount, spared))
    expected = expected_usd(status)
    if expected is None:
        return _fact("Cost so far", _usd(status.cost_usd), sub=_joined(paid, bound, budget, discount))
    both = f"{_usd(status.cost_usd)} → {_usd(expected)}"
    return _fact("Cost so far → expected", both, sub=_joined(paid, bound, budget, discount))


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def _segments(parts: list[tuple[str, int]], whole: int) -> str:
    return "".join(
        f'<span class="pdb-s-{tone}" style="width:{100 * part / whole:.3f}%"></span>'
        for tone, part in parts
        if part and whole
    )


def bar(status: RunStatus, *, animate: bool = True) -> str:
    """Return the bar over all rows, which moves when a whole batch has ended; and a square for each batch."""
    if status.state == "preparing":
        return _bar_of_preparing(status, animate=animate)
    if status.state == "blocked" and not status.n_rows_answered:
        return ""
    whole = max(status.n_rows, 1)
    counts = status.counts
    parts = [
        ("ok", counts.get("succeeded", 0)),
        ("bad", sum(counts.get(name, 0) for name in BAD_ROWS)),
        ("off", counts.get("canceled", 0) + counts.get("skipped", 0)),
    ]
    if not any(part for _, part in parts):
        parts = [("ok", status.n_rows_answered)]
    is_moving = not status.is_final and any(batch.is_under_way for batch in status.batches)
    rest = ""
    if is_moving:
        # Of a running batch nobody but the server knows how far it is: it moves, and claims no share.
        still = not animate or is_troubled(status)
        rest = f'<span class="pdb-s-{"still" if still else "live"}"></span>'
    n_batches = len(status.batches)
    return (
        '<div class="pdb-bar" role="progressbar" aria-label="Batches ended" aria-valuemin="0" '
        f'aria-valuemax="{max(1, n_batches)}" aria-valuenow="{status.n_batches_ended}" '
        f'aria-valuetext="{n_rows_succeeded(status)} of {status.n_rows} rows answered">'
        f"{_segments(parts, whole)}{rest}</div>{strip(status)}"
    )


def _bar_of_preparing(status: RunStatus, *, animate: bool) -> str:
    n_done = min(status.n_rows_prepared, status.n_rows)
    share = f"{_segments([('run', n_done)], max(status.n_rows, 1))}"
    live = "" if n_done or not animate else '<span class="pdb-s-live"></span>'
    return (
        '<div class="pdb-bar" role="progressbar" aria-label="Rows prepared" aria-valuemin="0" '
        f'aria-valuemax="{max(1, status.n_rows)}" aria-valuenow="{n_done}">{share}{live}</div>'
    )


def strip(status: RunStatus) -> str:
    """Return a square for each batch; "" where there is one alone."""
    n = len(status.batches)
    if n < 2:
        return ""
    looks = [_look_of(batch) for batch in status.batches[:N_SQUARES]]
    squares = "".join(f'<span class="pdb-q pdb-q-{look}"></span>' for look in looks)
    more = f'<span class="pdb-sub">and {n - N_SQUARES:,} more</span>' if n > N_SQUARES else ""
    tally = dict.fromkeys(_LOOKS, 0)
    for batch in status.batches:
        tally[_look_of(batch)] += 1
    told = ", ".join(f"{count:,} {_LOOKS[look]}" for look, count in tally.items() if count)
    return f'<div class="pdb-strip" role="img" aria-label="{n:,} batches: {told}">{squares}{more}</div>'


_LOOKS = {
    "ok": "answered",
    "some": "answered in part",
    "bad": "failed",
    "off": "canceled",
    "live": "at the server",
    "lost": "looked for",
    "wait": "not sent yet",
}


def _look_of(batch: BatchStatus) -> str:
    if batch.state in ("waiting", "posting"):
        return "wait"
    if batch.state == "unproved":
        return "lost"
    if not batch.has_ended:
        return {"blocked": "bad", "gone": "bad", "canceled": "off", "withdrawn": "off"}.get(batch.state, "live")
    if batch.errored + batch.expired + batch.canceled == 0:
        return "ok"
    if batch.succeeded:
        return "some"
    return "off" if batch.canceled and not batch.errored + batch.expired else "bad"


def times(status: RunStatus) -> str:
    """Return elapsed time, expiry, and polls: the one piece that changes with the clock."""
    spent = duration(elapsed_s(status))
    if status.state == "preparing":
        parts = [preparing_words(status)]
    elif status.is_final:
        until = status.finished_at or status.now
        took, ended = ("took", "ended") if status.finished_at else ("stopped after", "at")
        parts = [f"started {day_and_time(status.started_at)}", f"{took} {spent}", f"{ended} {day_and_time(until)}"]
    else:
        parts = [f"elapsed {spent}"]
        if len(status.batches) > 1:
            parts.append(f"{status.n_batches_ended:,} of {len(status.batches):,} batches ended")
        parts.append(f"last check {clock_time(status.last_poll_at)}" if status.last_poll_at else "not checked yet")
        if status.next_poll_at is not None:
            parts.append(f"next {clock_time(status.next_poll_at)}")
        if status.expires_at is not None:
            parts.append(f"the server gives up {day_words(status.expires_at, status.now)}")
    return '<div class="pdb-times">' + _AND.join(f"<span>{safe(part)}</span>" for part in parts) + "</div>"


def answers(status: RunStatus) -> str:
    """Return a few rows with their answers; for a live panel alone."""
    if not status.answers:
        return ""
    has_prompts = any(row.prompt for row in status.answers)
    prompt = f'<th scope="col" dir="auto">{safe(status.prompt_name or "prompt", 60)}</th>' if has_prompts else ""
    lines = "".join(
        f'<tr><th scope="row" class="pdb-row" dir="auto">{safe(row.label, 60)}</th>'
        + (f'<td class="pdb-wrap" dir="auto">{safe(row.prompt, 120)}</td>' if has_prompts else "")
        + f'<td class="pdb-wrap" dir="auto">{safe(row.output, 120)}</td></tr>'
        for row in status.answers
    )
    return (
        '<table class="pdb-table pdb-answers" aria-label="First answers"><thead><tr><th scope="col">row</th>'
        f'{prompt}<th scope="col">output</th></tr></thead><tbody>{lines}</tbody></table>'
    )


# -------------------------------------------------------------------- what failed, and what to do


def failed_title(status: RunStatus) -> str:
    """Return how many rows failed, and of how many kinds; "" where none did."""
    if not status.n_failed:
        return ""
    n_kinds = len(status.kinds)
    of = f", of {n_kinds} kinds" if n_kinds > 1 else ""
    glyph = _glyph(_CANCELED_ROWS if _all_canceled(status) else _FAILED_ROWS)
    what = "canceled" if _all_canceled(status) else "failed"
    return f"{glyph} <span>{rows(status.n_failed)} {what}{of}</span>"


def _all_canceled(status: RunStatus) -> bool:
    return bool(status.n_failed) and status.counts.get("canceled", 0) >= status.n_failed


def failures(status: RunStatus) -> str:
    """Return the kinds of failure with what helps, and the lines that list and ask again."""
    if not status.n_failed:
        return ""
    shown = status.kinds[:N_KINDS_SHOWN]
    lines = "".join(
        f'<tr><td class="pdb-n" data-label="rows">{kind.n_rows:,}</td>'
        f'<td class="pdb-wrap" data-label="error" dir="auto">{safe(_error_words(kind.status, kind.error), 300)}</td>'
        f'<td data-label="worth asking again">{safe(kind.advice, 60)}</td>'
        f'<td class="pdb-row" data-label="for example" dir="auto">'
        f"{safe(', '.join(kind.examples) + (', …' if kind.n_rows > len(kind.examples) else ''), 200)}</td></tr>"
        for kind in shown
    )
    table = (
        '<table class="pdb-table pdb-kinds" aria-label="Failed rows, by kind"><thead><tr>'
        '<th scope="col" class="pdb-n">rows</th><th scope="col">error</th><th scope="col">worth asking again</th>'
        f'<th scope="col">for example</th></tr></thead><tbody>{lines}</tbody></table>'
    )
    after = []
    if len(status.kinds) > len(shown):
        after.append(f"and {len(status.kinds) - len(shown):,} more kinds")
    if status.retry:
        after.append(f"Ask again: <code>{safe(status.retry, 300)}</code>")
    if status.expression and status.state == "collected":
        after.append(f"All of them: <code>{safe(status.expression, 200)}.failed</code>")
    hint = "".join(f"<div>{part}</div>" for part in after)
    return (table if shown else "") + (f'<div class="pdb-sub pdb-ask">{hint}</div>' if hint else "")


def _error_words(status: str, error: str) -> str:
    kind, _, message = error.partition(": ")
    if not error or error == status:
        return status
    return message if kind == status and message and status != "invalid" else error


# -------------------------------------------------------------------- what only some want to see


def batches(status: RunStatus) -> str:
    """Return the table of batches: changes when a batch has changed."""
    if not status.batches:
        return ""
    shown = _shown(status.batches)
    lines = "".join(_batch_row(number, batch) for number, batch in shown)
    rest = len(status.batches) - len(shown)
    more = f'<div class="pdb-sub">and {rest:,} more batches</div>' if rest else ""
    return (
        '<table class="pdb-table pdb-batches" aria-label="Batches"><thead><tr><th scope="col">batch</th>'
        '<th scope="col">status</th><th scope="col" class="pdb-n">took</th>'
        '<th scope="col" class="pdb-n">succeeded</th><th scope="col" class="pdb-n">errored</th>'
        '<th scope="col" class="pdb-n">expired</th><th scope="col" class="pdb-n">canceled</th>'
        f'<th scope="col" class="pdb-n">waiting</th></tr></thead><tbody>{lines}</tbody></table>{more}'
    )


def _shown(of: tuple[BatchStatus, ...]) -> list[tuple[int, BatchStatus]]:
    """Return the batches that get a line, the unfinished before the finished, in their order."""
    numbered = list(enumerate(of, 1))
    if len(numbered) <= N_BATCHES_SHOWN:
        return numbered
    first = sorted(numbered, key=lambda pair: (pair[1].has_ended, not pair[1].is_under_way, pair[0]))
    return sorted(first[:N_BATCHES_SHOWN])


def _batch_row(number: int, batch: BatchStatus) -> str:
    word = batch_word(batch)
    if batch.batch_id is None:
        name = f'<span class="pdb-dim">batch {number}</span>'
    else:
        name = f"<code>{safe(batch.batch_id, 140)}</code>"
    note = ' <span class="pdb-dim">(of another run)</span>' if batch.reused else ""
    n_waiting = 0 if batch.state in ("blocked", "waiting", "canceled", "withdrawn") else batch.processing
    counts = (
        ("succeeded", batch.succeeded),
        ("errored", batch.errored),
        ("expired", batch.expired),
        ("canceled", batch.canceled),
        ("waiting", n_waiting),
    )
    cells = "".join(f'<td class="pdb-n" data-label="{label}">{_count(label, n)}</td>' for label, n in counts)
    took = duration(batch.took_s) if batch.took_s is not None else '<span class="pdb-0">–</span>'
    return (
        f'<tr><td class="pdb-id">{name}{note}</td>'
        f'<td class="pdb-state">{_glyph(word)} {safe(word.text)}</td>'
        f'<td class="pdb-n" data-label="took">{took}</td>{cells}</tr>'
    )


def _count(label: str, n: int) -> str:
    if not n:
        return '<span class="pdb-0">0</span>'
    return f"<b>{n:,}</b>" if label in ("errored", "expired") else f"{n:,}"


def _is_anthropic(base_url: str) -> bool:
    """Return whether the batch is one that the Console knows: not one of a simulator or a gateway."""
    try:
        host = urlsplit(base_url).hostname or ""
    except ValueError:
        return False
    return host == "anthropic.com" or host.endswith(".anthropic.com")


def foot(status: RunStatus, *, again: bool = True) -> str:
    """Return where the run is kept, and the line that picks it up after a restart, ready to copy."""
    if status.state == "preparing":
        return ""
    lines = [("Run", status.run_id), ("Store", status.store_path)]
    if again and status.reattach:
        lines.insert(0, ("After a restart", status.reattach))
    shown = [f"<div><span>{name}</span> <code>{safe(text, 300)}</code></div>" for name, text in lines if text]
    if _is_anthropic(status.base_url):
        link = f'<a href="{CONSOLE_URL}" target="_blank" rel="noopener noreferrer">Batches in the Console</a>'
        shown.append(f"<div><span>Elsewhere</span> {link}</div>")
    return f'<div class="pdb-foot">{"".join(shown)}</div>' if shown else ""


def as_of(status: RunStatus) -> str:
    """Return what a picture of an unfinished run is, and the line that leads from it to the run."""
    if status.is_final or status.state == "preparing":
        return ""
    on_server = "; what is on the server goes on" if any(batch.batch_id for batch in status.batches) else ""
    line = f" Pick the run up again: <code>{safe(status.reattach, 300)}</code>" if status.reattach else ""
    return f'<div class="pdb-note">A picture as of {safe(day_and_time(status.now))}{on_server}.{line}</div>'


def fold(title: str, body: str, *, is_open: bool, kind: str = "more") -> str:
    """Return `body` under a title that folds it away; "" where there is nothing in it."""
    if not body:
        return ""
    opened = " open" if is_open else ""
    return (
        f'<details class="pdb-fold pdb-of-{kind}"{opened}><summary>{title}</summary>'
        f'<div class="pdb-folded">{body}</div></details>'
    )


MORE = "Batches, store, after a restart"


def account(status: RunStatus) -> str:
    """Return all that stays of a run: one line where it went well, and what is worth a look below it."""
    canceled = _all_canceled(status)
    failed = fold(failed_title(status), failures(status), is_open=not canceled, kind="failed")
    if status.state == "collected":
        return f"{_one_line(status)}{_said_at_last(status)}{failed}"
    more = fold(MORE, batches(status) + foot(status, again=status.is_final), is_open=False)
    body = (as_of(status), said(status), facts(status), bar(status, animate=False), times(status), failed, more)
    return head(status) + "".join(body)


def _said_at_last(status: RunStatus) -> str:
    """Return what a finished run has to say for itself, such as what the server has billed besides."""
    return f'<div class="pdb-say">{safe(status.message, 600)}</div>' if status.message else ""


def _one_line(status: RunStatus) -> str:
    parts = [f"{n_rows_succeeded(status):,} of {status.n_rows:,} answered{_without_answer(status)}"]
    if not status.is_from_store:
        parts.append(safe(duration(elapsed_s(status))))
    discount = {"half of the standard price": "half price"}.get(_discount(status), _discount(status))
    parts.append(_usd(status.cost_usd) + (f" ({discount})" if discount else ""))
    if status.is_from_store:
        parts.append("from the store: nothing was sent, $0.00 paid now")
    elif status.paid_usd is not None and status.cost_usd is not None and status.paid_usd < status.cost_usd:
        parts.append(f"{_usd(status.paid_usd)} paid by this run")
    details = facts(status) + bar(status, animate=False) + times(status) + batches(status) + foot(status)
    return (
        f'<details class="pdb-one"><summary>{_pill(status)}{_AND}{_name(status)}{_AND}'
        f'<span class="pdb-sub">{" · ".join(parts)}</span><span class="pdb-grow"></span>'
        f'<span class="pdb-sub pdb-open">details</span></summary>'
        f'<div class="pdb-folded"><div>{_what(status)}</div>{details}</div></details>'
    )
