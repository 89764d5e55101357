"""How amounts are spelled: dollars, counts, shares, sizes, times. Only here: the same amount reads alike everywhere."""

from __future__ import annotations

import math

UNKNOWN = "unknown"


def usd(amount: float | None) -> str:
    """
    Show US dollars with at least two decimals, and with three digits where the amount is small.

    Examples
    --------
    >>> usd(1234.5), usd(0.25), usd(0.012345), usd(0.0000042)
    ('$1,234.50', '$0.25', '$0.0123', '$0.0000042')
    >>> usd(0.0), usd(None), usd(float("inf"))
    ('$0.00', 'unknown', 'unknown')
    """
    if amount is None or not math.isfinite(amount):
        return UNKNOWN
    if amount == 0 or abs(amount) >= 0.1:
        return f"{'-' if amount < 0 else ''}${abs(amount):,.2f}"
    if abs(amount) < 1e-9:
        return "< $0.000000001"
    n_decimals = 2 - math.floor(math.log10(abs(amount)))
    whole, _, decimals = f"{abs(amount):.{n_decimals}f}".partition(".")
    decimals = decimals.rstrip("0").ljust(2, "0")
    return f"{'-' if amount < 0 else ''}${whole}.{decimals}"


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


def duration(seconds: float) -> str:
    """
    Return a length of time, coarser as it grows: a text that does not change is not sent again.

    Examples
    --------
    >>> [duration(s) for s in (0.4, 42, 63, 200, 754, 11_100, 86_400)]
    ['0 s', '42 s', '1 min 00 s', '3 min 20 s', '12 min', '3 h 05 min', '24 h 00 min']
    """
    whole_s = max(0, int(seconds))
    if whole_s < 60:
        return f"{whole_s} s"
    if whole_s < 600:
        minutes, rest_s = divmod(whole_s, 60)
        return f"{minutes} min {rest_s - rest_s % 5:02d} s"
    minutes = whole_s // 60
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def about(seconds: float) -> str:
    """
    Return a length of time that is not known exactly.

    Examples
    --------
    >>> [about(s) for s in (20, 80, 1_490, 5_300, 90_000)]
    ['under a minute', 'about 1 min', 'about 25 min', 'about 1 h 30 min', 'about 25 h']
    """
    if seconds < 60:
        return "under a minute"
    if seconds < 3_600:
        return f"about {round(seconds / 60)} min"
    minutes = 5 * round(seconds / 300)
    hours, rest = divmod(minutes, 60)
    return f"about {hours} h {rest:02d} min" if rest and hours < 10 else f"about {round(minutes / 60)} h"


def span(low_s: float, high_s: float) -> str:
    """
    Return the range of two lengths of time, in the unit of the longer one.

    Examples
    --------
    >>> span(540, 1020), span(2, 2.4), span(40, 700), span(4_000, 9_000)
    ('9 to 17 min', '2 s', '40 s to 11 min', '1.1 to 2.5 h')
    """
    if high_s < 60:
        low, high, unit = f"{low_s:.0f}", f"{high_s:.0f}", "s"
    elif low_s < 60:
        return f"{low_s:.0f} s to {duration(high_s)}"
    elif high_s < 3_600:
        low, high, unit = f"{low_s / 60:.0f}", f"{high_s / 60:.0f}", "min"
    elif low_s < 3_600:
        return f"{low_s / 60:.0f} min to {high_s / 3_600:.1f} h"
    else:
        low, high, unit = f"{low_s / 3_600:.1f}", f"{high_s / 3_600:.1f}", "h"
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def short(n: float | None) -> str:
    """
    Return a large number in a few characters.

    Examples
    --------
    >>> [short(n) for n in (None, 0, 812, 2_400, 17_210, 1_204_000, 3.2e9)]
    ['unknown', '0', '812', '2.4k', '17k', '1.2M', '3.2G']
    """
    if n is None or not math.isfinite(n):
        return UNKNOWN
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= 0.9995 * size:
            return f"{n / size:.1f}{unit}" if n < 9.95 * size else f"{n / size:.0f}{unit}"
    return f"{n:.0f}"


def rows(n: int) -> str:
    """
    Return a number of rows.

    Examples
    --------
    >>> rows(1), rows(1200)
    ('1 row', '1,200 rows')
    """
    return "1 row" if n == 1 else f"{n:,} rows"


def whole_percent(part: float, whole: float) -> str:
    r"""
    Return a share in whole percent.

    Examples
    --------
    >>> whole_percent(1, 3)
    '33\xa0%'
    """
    return f"{100 * part / whole:.0f}\N{NO-BREAK SPACE}%" if whole else "0\N{NO-BREAK SPACE}%"
