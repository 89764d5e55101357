"""The rows of a trial, one under the other: prompt beside answer, tokens and cost, and what all rows would cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from pandas_batch.amounts import number, usd
from pandas_batch.errors import clip

_NO_MATH = "mathjax_ignore tex2jax_ignore"
_MOST_CHARS = 2_000
_CELL = "text-align:left;vertical-align:top;padding:.4em .8em .4em 0;border-top:1px solid rgba(128,128,128,.3)"
_TEXT = "white-space:pre-wrap;overflow-wrap:anywhere;max-width:36em"
_ASIDE = "opacity:.75;white-space:nowrap"


@dataclass(frozen=True, kw_only=True)
class TriedRow:
    """
    One row of a trial.

    Attributes
    ----------
    label
        Of the row.
    prompt, answer
        What was asked, and what came; the reason where nothing did.
    is_answered
        Whether `answer` is one.
    tokens, cost_usd
        Of the answer; None where unknown.
    """

    label: str
    prompt: str
    answer: str
    is_answered: bool
    tokens: int | None
    cost_usd: float | None


def trial_html(rows: Sequence[TriedRow], said: str) -> str:
    """
    Return the rows as one piece of HTML; every text is escaped.

    Examples
    --------
    >>> row = TriedRow(label="a", prompt="<b>", answer="x", is_answered=True, tokens=3, cost_usd=0.01)
    >>> "<b>" in trial_html([row], "said")
    False
    """
    lines = "".join(
        f'<tr style="background:none"><th scope="row" style="{_CELL};font-weight:600">{escape(row.label)}</th>'
        f'<td style="{_CELL}"><div style="{_TEXT}">{escape(_cut(row.prompt))}</div></td>'
        f'<td style="{_CELL}"><div style="{_TEXT}{"" if row.is_answered else ";opacity:.75;font-style:italic"}">'
        f"{escape(_cut(row.answer))}</div></td>"
        f'<td style="{_CELL};{_ASIDE}">{escape(_figures(row))}</td></tr>'
        for row in rows
    )
    return (
        f'<div class="{_NO_MATH}"><table style="border-collapse:collapse;margin:.25em 0"><tbody>{lines}</tbody></table>'
        f'<div style="margin:.25em 0">{escape(said)}</div></div>'
    )


def trial_text(rows: Sequence[TriedRow], said: str) -> str:
    """Return the same as plain text."""
    parts = []
    for row in rows:
        parts += [f"{clip(row.label, 60)}  ({_figures(row)})", _indented("> ", row.prompt), _indented("  ", row.answer)]
    return "\n".join([*parts, said])


def _figures(row: TriedRow) -> str:
    tokens = "tokens unknown" if row.tokens is None else f"{number(row.tokens)} tokens"
    return f"{tokens}, {usd(row.cost_usd)}" if row.is_answered else "no answer"


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else text[: _MOST_CHARS - 1] + "…"


def _indented(before: str, text: str) -> str:
    return "\n".join(before + clip(line, _MOST_CHARS) for line in _cut(text).splitlines() or [""])
