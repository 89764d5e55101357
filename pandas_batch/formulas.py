"""Texts that a spreadsheet would run: marked where a file is written, and known without the mark where it is read."""

from __future__ import annotations

import re
from typing import Any

# What spreadsheets take for the beginning of a formula, or skip before one
# (https://owasp.org/www-community/attacks/CSV_Injection), with the full-width forms that some of them take too.
_BEGINS = tuple("=+-@\t\r\n＝＋－＠")
_NEGATIVE_NUMBER = re.compile(r"-[0-9]+([.,][0-9]+)?([eE][+-]?[0-9]+)?")


def is_formula(value: Any) -> bool:
    """
    Return whether a spreadsheet would run a cell.

    Examples
    --------
    >>> is_formula("=1+1"), is_formula("2 - 1"), is_formula("-1"), is_formula("'=1+1")
    (True, False, False, False)
    """
    return isinstance(value, str) and value.startswith(_BEGINS) and not _NEGATIVE_NUMBER.fullmatch(value)


def marked(value: Any) -> Any:
    """
    Return a cell as a spreadsheet shows it: a text that it would run is marked as text, and so is one that looks so.

    Examples
    --------
    >>> marked("=1+1"), marked("2 - 1"), marked("-1"), marked("-1+1"), marked("'=1+1")
    ("'=1+1", '2 - 1', '-1', "'-1+1", "''=1+1")
    """
    return f"'{value}" if isinstance(value, str) and is_formula(value.lstrip("'")) else value


def without_mark(value: Any) -> Any:
    """
    Return the text that `marked` has marked.

    Examples
    --------
    >>> without_mark("'=1+1"), without_mark("'tis"), without_mark("'-1")
    ('=1+1', "'tis", "'-1")
    """
    is_marked = isinstance(value, str) and value.startswith("'") and marked(value[1:]) == value
    return value[1:] if is_marked else value
