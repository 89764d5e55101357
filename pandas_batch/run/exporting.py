"""The answers of a run for other programs: as an Arrow table, and as the lines that the server sent."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandas_batch.engine.rebuilding import raw_blocks
from pandas_batch.errors import InputError, NotEndedError, clip

from .call_values import RUN_IS_AS_IT_WAS, check_file

if TYPE_CHECKING:
    import pyarrow as pa

    from .driving import DrivenRun


def arrow_table(columns: Mapping[str, Any], *, of_lists: Collection[str]) -> pa.Table:
    """Return columns as an Arrow table; those `of_lists` as JSON: no type fits what different tools are called with."""
    import pyarrow as pa

    made = {name: _to_json_texts(values) if name in of_lists else values for name, values in columns.items()}
    return pa.table(
        {
            name: values.__arrow_array__() if hasattr(values, "__arrow_array__") else pa.array(values)
            for name, values in made.items()
        }
    )


def write_raw_lines(run: DrivenRun, path: str | Path) -> Path:
    """Write the raw result lines of a run to a file, whole or not at all; see `pandas_batch.run.run.Run.to_jsonl`."""
    line = f'{run.expression}.to_jsonl("results.jsonl")'
    target = check_file(path, line)
    if not run.is_settled():
        raise NotEndedError(
            f"Run {run.id} has not ended; its raw results are not all here.",
            "Nothing was written.",
            f"{run.expression}.wait().to_jsonl({str(path)!r})",
        )
    # Under a name of its own length: that of the file may be as long as names may be.
    part = target.with_name(f".{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as out:
            for batch in run.batch_records():
                if batch.state == "collected":
                    last = b"\n"
                    for block in raw_blocks(run.store, batch):
                        out.write(block)
                        last = block
                    if not last.endswith(b"\n"):
                        out.write(b"\n")
        part.replace(target)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InputError(
            f"{clip(str(path), 120)} cannot be written: {clip(why, 120)}", RUN_IS_AS_IT_WAS, line
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return target


def _to_json_texts(values: Any) -> list[str | None]:
    return [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
