"""Rows from a file, and answers as a file for other programs: whole or not at all, and no text in it is a formula."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from .errors import InputError, clip

FORMATS = (".csv", ".jsonl", ".parquet", ".xlsx")

_MAX_CELL_CHARS = 32_767
"""What a cell of a spreadsheet holds; the libraries that write one cut silently (https://support.microsoft.com/excel)."""

_NOT_WRITTEN = "Nothing was written; the answers are safe in the store."
# What spreadsheets take for the beginning of a formula, or skip before one
# (https://owasp.org/www-community/attacks/CSV_Injection), with the full-width forms that some of them take too.
_BEGINS_A_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def read_frame(path: Path, prompt_col: str | None = None) -> pd.DataFrame:
    r"""
    Return the rows of a ``.csv``, ``.jsonl``, ``.parquet`` or ``.xlsx`` file.

    Parameters
    ----------
    path
        The file; its ending says what it is.
    prompt_col
        A column whose values are texts, whatever they look like (``"007"``).

    Raises
    ------
    InputError
        It is not there, cannot be read, or is of another kind.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "reviews.csv"
    >>> _ = path.write_text("id,review\n1,Lovely.\n2,007\n")
    >>> read_frame(path, "review")["review"].tolist()
    ['Lovely.', '007']
    """
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise InputError(f"{clip(str(path))} has to end in {', '.join(FORMATS)}.")
    texts = None if prompt_col is None else {prompt_col: str}
    try:
        if kind == ".csv":
            return pd.read_csv(path, dtype=texts)
        if kind == ".xlsx":
            return pd.read_excel(path, dtype=texts)
        if kind == ".parquet":
            return pd.read_parquet(path)
        with path.open(encoding="utf-8") as lines:
            return pd.DataFrame([json.loads(line) for line in lines if line.strip()])
    except FileNotFoundError:
        raise InputError(f"There is no file {clip(str(path))}.") from None
    except ImportError as error:
        raise InputError(
            f"{clip(str(path))} cannot be read: {clip(str(error))}", hint='pip install "pandas-batch[excel]"'
        ) from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{clip(str(path))} cannot be read: {clip(str(error)) or type(error).__name__}") from error


def check_target(path: Path) -> None:
    """
    Refuse a file that cannot be written, before anything is waited for.

    Raises
    ------
    InputError
        Its name has no ending that is known, its folder is missing or closed, or it is a folder itself.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"--to {clip(str(path))} has to end in {', '.join(FORMATS)}.",
            _NOT_WRITTEN,
            "pandas-batch collect RUN --to answers.parquet",
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"--to {clip(str(path))}: there is no folder {clip(str(folder))}.", _NOT_WRITTEN)
    if path.is_dir():
        raise InputError(f"--to {clip(str(path))} is a folder.", _NOT_WRITTEN)
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InputError(f"--to {clip(str(path))} may not be written by this user.", _NOT_WRITTEN)


def save(frame: pd.DataFrame, path: Path, *, raw: bool = False) -> None:
    """
    Write a frame with its labels to a file, whole or not at all.

    Parameters
    ----------
    frame
        What to write.
    path
        Its ending says how.
    raw
        Leave texts as they are that a spreadsheet would run as formulas.

    Raises
    ------
    InputError
        It cannot be written; what was there before is kept.
    """
    kind = path.suffix.lower()
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{kind}")
    try:
        if kind == ".xlsx":
            _write_spreadsheet(_flat(frame), part, raw=raw)
        elif kind == ".parquet":
            _without_nests(_uniquely_named(frame)).to_parquet(part)
        elif kind == ".csv":
            flat = _flat(frame)
            # With these line ends (RFC 4180) a lone carriage return in a text is quoted too.
            (flat if raw else _without_formulas(flat)).to_csv(part, index=False, lineterminator="\r\n")
        else:
            _flat(frame).to_json(part, orient="records", lines=True, date_format="iso")
        os.replace(part, path)
    except (OSError, ValueError, TypeError, NotImplementedError, OverflowError, ImportError) as error:
        raise InputError(
            f"{clip(str(path))} could not be written: {clip(str(error)) or type(error).__name__}.", _NOT_WRITTEN
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _label_names(frame: pd.DataFrame) -> list[str]:
    """Return a name for each level of the index that no column and no other level has."""
    taken = {str(name) for name in frame.columns}
    names: list[str] = []
    n_levels = frame.index.nlevels
    for level, given in enumerate(frame.index.names):
        plain = str(given) if given is not None else "index" if n_levels == 1 else f"level_{level}"
        name, number = plain, 1
        while name in taken:
            number += 1
            name = f"{plain}_label" if number == 2 else f"{plain}_label_{number - 1}"
        taken.add(name)
        names.append(name)
    return names


def _uniquely_named(frame: pd.DataFrame) -> pd.DataFrame:
    if frame.index.nlevels == 1 and frame.index.name is None:
        return frame
    names: list[Hashable] = list(_label_names(frame))
    return frame.set_axis(frame.index.set_names(names), axis=0)


def _without_nests(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with JSON in place of lists of dicts: no one type of Parquet fits what tools are called with."""
    made = frame.copy(deep=False)
    for at in range(frame.shape[1]):
        values = frame.iloc[:, at]
        if values.dtype == object and any(_is_nest(value) for value in values):
            texts = [json.dumps(v, ensure_ascii=False) if isinstance(v, list) else v for v in values]
            made.isetitem(at, pd.Series(texts, dtype=object).array)
    return made


def _is_nest(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict | list) for item in value)


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with its labels as its first columns."""
    return frame.set_axis(frame.index.set_names(list[Hashable](_label_names(frame))), axis=0).reset_index()


def _write_spreadsheet(frame: pd.DataFrame, path: Path, *, raw: bool) -> None:
    """Write a spreadsheet in which a text is a text, also where it begins like a formula."""
    made = pd.DataFrame({at: [_cell(value) for value in frame.iloc[:, at]] for at in range(frame.shape[1])})
    made.columns = pd.Index([str(name) for name in frame.columns])
    with pd.ExcelWriter(path, engine="openpyxl") as writer:
        made.to_excel(writer, index=False)
        if not raw:
            for line in next(iter(writer.sheets.values())).iter_rows():
                for cell in line:
                    if cell.data_type == "f":
                        cell.data_type = "s"


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, str) and len(value) > _MAX_CELL_CHARS:
        raise ValueError(f"a text of {len(value):,} characters does not fit a cell ({_MAX_CELL_CHARS:,}); use .parquet")
    return value


def _without_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    columns = [_text(name) for name in frame.columns]
    made = {at: _texts(frame.iloc[:, at]) for at in range(frame.shape[1])}
    written = pd.DataFrame(made, index=frame.index)
    written.columns = pd.Index(columns)
    return written


def _texts(column: pd.Series[Any]) -> pd.Series[Any]:
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return column
    return pd.Series([_text(value) for value in column], index=column.index, dtype=object)


def _text(value: Any) -> Any:
    """
    Return a cell as a spreadsheet shows it: a text that it would run is marked as text.

    Examples
    --------
    >>> _text("=1+1"), _text("2 - 1"), _text(-1)
    ("'=1+1", '2 - 1', -1)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_BEGINS_A_FORMULA) else value
