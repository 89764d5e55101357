"""Small tables of amounts, as text and as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

Row = tuple[str, str] | tuple[str, str, str]
"""Label, value, and perhaps a remark."""

# MathJax would set what stands between two dollar signs as a formula.
_NO_MATH = "mathjax_ignore tex2jax_ignore"
# Inherited colors, and the frame of the panel: readable on a light and on a dark theme alike.
_LINE = "rgba(128,128,128,.3)"
_FRAME_STYLE = (
    f"display:inline-block;border:1px solid {_LINE};border-radius:6px;padding:10px 16px;margin:2px 0;max-width:1080px;"
    "box-sizing:border-box;font:13px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif"
)
_TABLE_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.35em 0 0"
_CELL = "padding:2px 14px 2px 0;border:0;font-size:12.5px"
_CELL_STYLE = f"{_CELL};text-align:left;opacity:.75"
_NUMBER_STYLE = f"{_CELL};text-align:right;font-weight:600"
_NOTE_STYLE = "opacity:.75;max-width:60em;font-size:12px;margin-top:4px"
_REMARK_STYLE = f"{_CELL};text-align:left;opacity:.75"


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
        f'<tr style="background:none;border-top:1px solid {_LINE}">'
        f'<th scope="row" style="{_CELL_STYLE};font-weight:normal">{escape(label)}</th>'
        f'<td style="{_NUMBER_STYLE}">{escape(value)}</td><td style="{_REMARK_STYLE}">{escape(remark)}</td></tr>'
        for label, value, remark in ((*row, "")[:3] for row in rows)
    )
    footer = "".join(f'<div style="{_NOTE_STYLE}">{escape(note)}</div>' for note in notes)
    return (
        f'<div class="{_NO_MATH}" style="{_FRAME_STYLE}">'
        f'<div style="font-weight:600;font-size:14px">{escape(title)}</div>'
        f'<table style="{_TABLE_STYLE}"><tbody>{body}</tbody></table>{footer}</div>'
    )
