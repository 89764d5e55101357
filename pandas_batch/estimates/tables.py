"""Small tables of amounts, as text and as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

Row = tuple[str, str] | tuple[str, str, str]
"""Label, value, and perhaps a remark."""

# MathJax would set what stands between two dollar signs as a formula.
_NO_MATH = "mathjax_ignore tex2jax_ignore"
# Inherited colors and no borders: readable on a light and on a dark theme alike.
_TABLE_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.25em 0"
_CELL_STYLE = "padding:.15em .75em .15em 0;text-align:left;border:0"
_NUMBER_STYLE = "padding:.15em .75em .15em 0;text-align:right;border:0"
_REMARK_STYLE = "padding:.15em 0;text-align:left;border:0;opacity:.75"


def text_table(title: str, rows: Iterable[Row], notes: Sequence[str] = ()) -> str:
    """
    Lay rows out as aligned text.

    Examples
    --------
    >>> print(text_table("Bill", [("rows", "3"), ("cost", "$0.10", "at most")], ["an estimate"]))
    Bill
      rows      3
      cost  $0.10  at most
      an estimate
    """
    cells = [(*row, "")[:3] for row in rows]
    n_label = max((len(label) for label, _, _ in cells), default=0)
    n_value = max((len(value) for _, value, _ in cells), default=0)
    lines = [f"  {label:<{n_label}}  {value:>{n_value}}  {remark}".rstrip() for label, value, remark in cells]
    return "\n".join([title, *lines, *(f"  {note}" for note in notes)])


def html_table(title: str, rows: Iterable[Row], notes: Sequence[str] = ()) -> str:
    """
    Lay rows out as an HTML table; every text is escaped.

    Examples
    --------
    >>> "&lt;b&gt;" in html_table("<b>", [("rows", "3")])
    True
    """
    body = "".join(
        f'<tr style="background:none"><th scope="row" style="{_CELL_STYLE};font-weight:normal">{escape(label)}</th>'
        f'<td style="{_NUMBER_STYLE}">{escape(value)}</td><td style="{_REMARK_STYLE}">{escape(remark)}</td></tr>'
        for label, value, remark in ((*row, "")[:3] for row in rows)
    )
    footer = "".join(f'<div style="opacity:.75;max-width:60em">{escape(note)}</div>' for note in notes)
    return (
        f'<div class="{_NO_MATH}"><div style="font-weight:600">{escape(title)}</div>'
        f'<table style="{_TABLE_STYLE}"><tbody>{body}</tbody></table>{footer}</div>'
    )
