"""Rows from a file, and answers as a file for other programs: whole or not at all, and no text in it is a formula."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from .errors import NOTHING_SENT, InputError, clip
from .formulas import is_formula, marked, without_mark

FORMATS = (".csv", ".jsonl", ".parquet", ".xlsx")

_MAX_CELL_CHARS = 32_767
"""What a cell of a spreadsheet holds; the libraries that write one cut silently (https://support.microsoft.com/excel)."""

_NOT_WRITTEN = "Nothing was written; the answers are safe in the store."
# XML has no way to write them, and so no spreadsheet has (https://www.w3.org/TR/xml/#charsets).
_FITS_NO_CELL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def read_frame(path: Path) -> pd.DataFrame:
    r"""
    Return the rows of a ``.csv``, ``.jsonl``, ``.parquet`` or ``.xlsx`` file.

    A cell of a ``.csv`` or ``.xlsx`` file is the text that stands there (``"007"``, ``"NA"``); an empty one is missing.
    The mark that `save` puts before a text that a spreadsheet would run is no part of it, in a file of answers; in any
    other an apostrophe is one.

    Parameters
    ----------
    path
        The file; its ending says what it is.

    Raises
    ------
    InputError
        It is not there, cannot be read, or is of another kind.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "reviews.csv"
    >>> _ = path.write_text("id,review\n007,Lovely.\n8,NA\n9,\n")
    >>> read_frame(path)["id"].tolist(), read_frame(path)["review"].tolist()
    (['007', '8', '9'], ['Lovely.', 'NA', nan])
    """
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise InputError(f"{clip(str(path))} has to end in {', '.join(FORMATS)}.")
    try:
        if kind == ".csv":
            read = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
            return read.rename(columns=without_mark).map(without_mark) if _is_marked(read) else read
        if kind == ".xlsx":
            return pd.read_excel(path, dtype=str, keep_default_na=False, na_values=[""])
        if kind == ".parquet":
            return pd.read_parquet(path)
        with path.open(encoding="utf-8") as lines:
            return pd.DataFrame([_object(line, number) for number, line in enumerate(lines, 1) if line.strip()])
    except FileNotFoundError:
        raise InputError(f"There is no file {clip(str(path))}.") from None
    except ImportError as error:
        raise InputError(
            f"{clip(str(path))} cannot be read: {clip(str(error))}", hint='pip install "pandas-batch[excel]"'
        ) from error
    except RecursionError:
        raise InputError(f"{clip(str(path))} cannot be read: a value of it is nested too deep.") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{clip(str(path))} cannot be read: {clip(str(error)) or type(error).__name__}") from error


def _object(line: str, number: int) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f'line {number:,} is no object, like {{"review": "Lovely."}}.')
    return row


def has_labels(frame: pd.DataFrame) -> bool:
    """
    Return whether the index says more than the place of a row: a file without it would have lost something.

    Examples
    --------
    >>> has_labels(pd.DataFrame({"a": [1, 2]})), has_labels(pd.DataFrame({"a": [1, 2]}, index=["x", "y"]))
    (False, True)
    """
    return not (isinstance(frame.index, pd.RangeIndex) and frame.index.equals(pd.RangeIndex(len(frame))))


def check_target(path: Path, source: Path | None = None, *, is_sent: bool = False) -> None:
    """
    Refuse a file that cannot be written, before anything is sent or waited for.

    Parameters
    ----------
    path
        The file to write.
    source
        The file that the rows come from, which is never written over.
    is_sent
        The answers are asked for already, and in the store.

    Raises
    ------
    InputError
        Its name has no ending that is known, its folder is missing or closed, or it is a folder itself, or `source`.
    """
    state = _NOT_WRITTEN if is_sent else NOTHING_SENT
    shown = f"--to {clip(str(path))}"
    if path.suffix.lower() not in FORMATS:
        hint = "pandas-batch collect RUN --to answers.parquet" if is_sent else "--to answers.parquet"
        raise InputError(f"{shown} has to end in {', '.join(FORMATS)}.", state, hint)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{shown}: there is no folder {clip(str(folder))}.", state)
    if path.is_dir():
        raise InputError(f"{shown} is a folder.", state)
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise InputError(
            f"{shown} is the file that the rows come from.", state, f"--to {clip(path.stem)}.answers{path.suffix}"
        )
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InputError(f"{shown} may not be written by this user.", state)


def save(frame: pd.DataFrame, path: Path, *, raw: bool = False, labels: bool = True) -> None:
    """
    Write a frame to a file, whole or not at all.

    Parameters
    ----------
    frame
        What to write.
    path
        Its ending says how.
    raw
        Leave texts as they are that a spreadsheet would run as formulas.
    labels
        Write the index as well, as the first columns.

    Raises
    ------
    InputError
        It cannot be written; what was there before is kept.
    """
    kind = path.suffix.lower()
    if not labels:
        frame = frame.reset_index(drop=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{kind}")
    try:
        if kind == ".xlsx":
            _write_spreadsheet(_flat(frame, labels), part, raw=raw)
        elif kind == ".parquet":
            _without_nests(_uniquely_named(frame)).to_parquet(part)
        elif kind == ".csv":
            flat = _flat(frame, labels)
            # With these line ends (RFC 4180) a lone carriage return in a text is quoted too.
            (flat if raw else _without_formulas(flat)).to_csv(part, index=False, lineterminator="\r\n")
        else:
            _flat(frame, labels).to_json(part, orient="records", lines=True, date_format="iso")
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


def _flat(frame: pd.DataFrame, labels: bool) -> pd.DataFrame:
    """Return the frame with its labels, where they are asked for, as its first columns."""
    if not labels:
        return frame
    return frame.set_axis(frame.index.set_names(list[Hashable](_label_names(frame))), axis=0).reset_index()


def _write_spreadsheet(frame: pd.DataFrame, path: Path, *, raw: bool) -> None:
    """Write a spreadsheet in which a text is a text, also where it begins like a formula."""
    made = pd.DataFrame({at: [_cell(value) for value in frame.iloc[:, at]] for at in range(frame.shape[1])})
    made.columns = pd.Index([_cell(str(name)) for name in frame.columns])
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
    if isinstance(value, str) and (found := _FITS_NO_CELL.search(value)):
        raise ValueError(f"a text with the control character {found.group()!a} fits no cell; use .parquet")
    if isinstance(value, str) and len(value) > _MAX_CELL_CHARS:
        raise ValueError(f"a text of {len(value):,} characters does not fit a cell ({_MAX_CELL_CHARS:,}); use .parquet")
    return value


def _without_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    columns = [marked(name) for name in frame.columns]
    made = {at: _texts(frame.iloc[:, at]) for at in range(frame.shape[1])}
    written = pd.DataFrame(made, index=frame.index)
    written.columns = pd.Index(columns)
    return written


def _texts(column: pd.Series[Any]) -> pd.Series[Any]:
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return column
    return pd.Series([marked(value) for value in column], index=column.index, dtype=object)


def _is_marked(frame: pd.DataFrame) -> bool:
    """Return whether `save` has written these cells, not raw: answers, and nothing that a spreadsheet would run."""
    prefixes = [str(name).removesuffix("status") for name in frame.columns if str(name).endswith("status")]
    if not any(f"{prefix}output" in frame.columns for prefix in prefixes):
        return False
    return not any(is_formula(value) for at in range(frame.shape[1]) for value in frame.iloc[:, at])
