"""Small tables of amounts, as text and as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

Row = tuple[str, str] | tuple[str, str, str]
"""Label, value, and perhaps a remark."""

# MathJax would set what stands between two dollar signs as a formula.
_NO_MATH = "mathjax_ignore tex2jax_ignore"
# The card of a run's account, written out: a table needs a few of its rules, and not its style sheet. Lines are of the
# text's own color, thinned: readable on a light and on a dark theme alike.
_LINE = "1px solid color-mix(in srgb,currentColor 15%,transparent)"
_CARD = (
    "box-sizing:border-box;width:fit-content;max-width:min(100%,1080px);overflow-x:auto;"
    f"border:{_LINE};border-radius:6px;padding:14px 18px;margin:2px 0;text-align:left;"
    "color:var(--jp-ui-font-color1,var(--vscode-editor-foreground,inherit));font-variant-numeric:tabular-nums;"
    'font:13px/1.5 var(--jp-ui-font-family,system-ui,-apple-system,"Segoe UI",Roboto,sans-serif)'
)
_TITLE = "font-size:16px;font-weight:600;overflow-wrap:anywhere;margin-bottom:6px"
_TABLE = "border-collapse:collapse;border:0;margin:0;font-size:12.5px;color:inherit"
_CELL = "padding:2px 24px 2px 0;border:0;background:none;vertical-align:baseline"
_LABEL = f"{_CELL};text-align:left;font-weight:400;white-space:nowrap"
_TEXT = f"{_CELL};text-align:left"
_NUMBER = f"{_CELL};text-align:right;white-space:nowrap"
_REMARK = f"{_CELL};text-align:left;opacity:.75"
_NOTE = "font-size:12.5px;opacity:.75;max-width:60em;margin-top:6px"


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


def html_table(title: str, rows: Iterable[Row], notes: Sequence[str] = (), *, numbers: bool = True) -> str:
    """
    Lay rows out as an HTML table in a card like a run's account; every text is escaped.

    Parameters
    ----------
    title
        What stands above.
    rows
        Labels, values and remarks.
    notes
        What stands below.
    numbers
        Whether the values are numbers, which stand one below the other by their last digits.

    Examples
    --------
    >>> "&lt;b&gt;" in html_table("<b>", [("rows", "3")])
    True
    """
    value_style = _NUMBER if numbers else _TEXT
    cells = [(*row, "")[:3] for row in rows]
    has_remarks = any(remark for _, _, remark in cells)
    body = "".join(
        f'<tr style="background:none"><th scope="row" style="{_LABEL}">{escape(label)}</th>'
        f'<td style="{value_style}">{escape(value)}</td>'
        f"{f'<td style={_quoted(_REMARK)}>{escape(remark)}</td>' if has_remarks else ''}</tr>"
        for label, value, remark in cells
    )
    footer = "".join(f'<div style="{_NOTE}">{escape(note)}</div>' for note in notes)
    return (
        f'<div class="{_NO_MATH}" style={_quoted(_CARD)}><div style="{_TITLE}">{escape(title)}</div>'
        f'<table style="{_TABLE}"><tbody>{body}</tbody></table>{footer}</div>'
    )


def _quoted(style: str) -> str:
    return f'"{escape(style)}"'
