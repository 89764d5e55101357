"""What the calls of a run are given: checked before anything of the run changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pandas_batch.errors import InputError, clip
from pandas_batch.requests.option_checks import check_yes_or_no
from pandas_batch.requests.options import check_option
from pandas_batch.requests.plain_values import shown

RUN_IS_AS_IT_WAS = "The run is as it was: this call has sent, canceled and written nothing."
_YES_OR_NO = {
    "partial": "run.result(partial=True)",
    "force": "run.cancel(force=True)",
    "server": "run.delete(server=True)",
}


def check_value(name: str, value: Any) -> Any:
    """
    Return what a call of a run was given, as `check_option` does; None stays None where it is no yes or no.

    Raises
    ------
    InputError
        It is not what the call takes.
    """
    try:
        if name in _YES_OR_NO:
            return check_yes_or_no(value, name)
        return None if value is None else check_option(name, value)
    except InputError as error:
        raise InputError(error.what, RUN_IS_AS_IT_WAS, error.hint or _YES_OR_NO.get(name, "")) from None


def check_file(path: Any, line: str) -> Path:
    """
    Return the path of a file that is to be written.

    Parameters
    ----------
    path
        What was given.
    line
        What to type in its place.

    Raises
    ------
    InputError
        It is no path that a file can have, its folder is not there, or it is a folder itself.
    """
    if not isinstance(path, str | os.PathLike) or not str(path).strip() or isinstance(os.fspath(path), bytes):
        raise InputError(f"path is {shown(path)}; it has to be the path of a file.", RUN_IS_AS_IT_WAS, line)
    try:
        target = Path(path).expanduser()
        if "\0" in str(target):
            raise ValueError("it has a zero byte")
        is_folder, has_folder = target.is_dir(), target.parent.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        # Too long, a zero byte in it, the home of nobody, a folder that may not be looked into.
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{clip(str(path), 120)} cannot be written: {clip(why, 120)}", RUN_IS_AS_IT_WAS, line
        ) from None
    if is_folder:
        raise InputError(f"{clip(str(path), 120)} is a folder.", RUN_IS_AS_IT_WAS, line)
    if not has_folder:
        folder = clip(str(target.absolute().parent), 120)
        raise InputError(
            f"{clip(str(path), 120)}: there is no folder {folder}.",
            RUN_IS_AS_IT_WAS,
            f"import os; os.makedirs({folder!r})   # or another path",
        )
    return target
