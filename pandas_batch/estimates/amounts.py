"""How amounts are shown: dollars, tokens, and small tables of them, as text and as HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

UNKNOWN = "unknown"

Row = tuple[str, str] | tuple[str, str, str]
"""Label, value, and perhaps a remark."""

# MathJax would set what stands between two dollar signs as a formula.
_NO_MATH = "mathjax_ignore tex2jax_ignore"
# Inherited colors and no borders: readable on a light and on a dark theme alike.
_TABLE_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.25em 0"
_CELL_STYLE = "padding:.15em .75em .15em 0;text-align:left;border:0"
_NUMBER_STYLE = "padding:.15em .75em .15em 0;text-align:right;border:0"
_REMARK_STYLE = "padding:.15em 0;text-align:left;border:0;opacity:.75"


def money(usd: float | None) -> str:
    """
    Show US dollars with at least two decimals, and with three digits where the amount is small.

    Examples
    --------
    >>> money(1234.5), money(0.25), money(0.012345), money(0.0000042)
    ('$1,234.50', '$0.25', '$0.0123', '$0.0000042')
    >>> money(0.0), money(None), money(float("inf"))
    ('$0.00', 'unknown', 'unknown')
    """
    if usd is None or not math.isfinite(usd):
        return UNKNOWN
    if usd == 0 or abs(usd) >= 0.1:
        return f"{'-' if usd < 0 else ''}${abs(usd):,.2f}"
    n_decimals = min(2 - math.floor(math.log10(abs(usd))), 12)
    whole, _, decimals = f"{abs(usd):.{n_decimals}f}".partition(".")
    decimals = decimals.rstrip("0").ljust(2, "0")
    return f"{'-' if usd < 0 else ''}${whole}.{decimals}"


def number(value: float | None) -> str:
    """
    Show a whole number with separators.

    Examples
    --------
    >>> number(1234567.2), number(None)
    ('1,234,567', 'unknown')
    """
    return UNKNOWN if value is None or not math.isfinite(value) else f"{round(value):,}"


def percent(share: float | None) -> str:
    """
    Show a share of 1 as a percentage.

    Examples
    --------
    >>> percent(0.123), percent(None)
    ('12.3 %', 'unknown')
    """
    return UNKNOWN if share is None or not math.isfinite(share) else f"{share * 100:.1f} %"


def file_size(n_bytes: float) -> str:
    """
    Show a number of bytes.

    Examples
    --------
    >>> file_size(812), file_size(5_300_000)
    ('812 B', '5.3 MB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes:.0f} B"


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
