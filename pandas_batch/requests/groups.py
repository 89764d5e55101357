"""Rows that share every option, as one request but for its prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_batch.errors import InputError

from .contents import few_shot_messages
from .fingerprints import canonical_json, frame_digest
from .group import Group
from .options import Options, is_per_row
from .parameters import check_parameter
from .per_row import row_name, series_of
from .texts import is_missing

if TYPE_CHECKING:
    from .schema import OutputSchema

_CACHE_CONTROL = {"type": "ephemeral", "ttl": "1h"}


def group_rows(
    frame: pd.DataFrame,
    options: Options,
    schema: OutputSchema | None,
    *,
    base_url: str,
    api_version: str,
    unsent: np.ndarray,
) -> tuple[list[Group], np.ndarray]:
    """
    Return the groups of a frame's rows, and each row's index into them.

    Where a row is not sent (`unsent`: bool per row), an option computed from its missing prompt may have no value.

    Raises
    ------
    InputError
        A value of a per-row option is not what the option takes; the message names the row.
    """
    given = {"model": options.model, "max_tokens": options.max_tokens, "system": options.system, **options.params}
    constant = {name: value for name, value in given.items() if not is_per_row(value)}
    columns: list[tuple[str, list[Any], np.ndarray]] = []
    codes: np.ndarray | None = None
    for name, value in given.items():
        if is_per_row(value):
            distinct, of_row = _distinct_values(
                name, series_of(value, frame, name), frame.index, unsent, beta=bool(options.betas)
            )
            columns.append((name, distinct, of_row))
            codes = of_row if codes is None else codes * len(distinct) + of_row
            _, codes = np.unique(codes, return_inverse=True)
    if codes is None:
        first, group_of_row = np.zeros(min(len(frame), 1), np.int64), np.broadcast_to(np.int64(0), len(frame))
    else:
        _, first, group_of_row = np.unique(codes, return_index=True, return_inverse=True)
    earlier = few_shot_messages(options.few_shot)
    digest = partial(
        digest_of,
        earlier=earlier,
        schema_text=None if schema is None else schema.text,
        betas=options.betas,
        base_url=base_url,
        api_version=api_version,
    )
    groups = []
    for row in first.tolist():
        params = constant | {name: distinct[int(of_row[row])] for name, distinct, of_row in columns}
        params |= options.extra_params
        if options.cache_system:
            params["system"] = cached_system(params.get("system"))
        groups.append(_group(params, earlier, schema, digest))
    return groups, group_of_row


def of_rows(values: np.ndarray, group_of_row: np.ndarray) -> np.ndarray:
    """Return the value of each row's group; where all rows are alike, one that takes no memory for each."""
    if len(values) == 1:
        return np.broadcast_to(values[0], len(group_of_row))
    picked: np.ndarray = values[group_of_row]
    return picked


def rows_by_group(rows: np.ndarray, group_of_row: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each group that has some of `rows`, and those rows in ascending order."""
    if not len(rows):
        return
    by_group = rows[np.argsort(group_of_row[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(group_of_row[by_group])) + 1
    for part in np.split(by_group, starts):
        yield int(group_of_row[part[0]]), part


def cached_system(system: str | Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """
    Return a system prompt whose end is marked for prompt caching, for an hour as batches want it.

    A mark that is there already stays as it is.

    Examples
    --------
    >>> cached_system("Be brief.")[0]["cache_control"]
    {'type': 'ephemeral', 'ttl': '1h'}
    """
    if not system:
        return None
    blocks: list[dict[str, Any]]
    blocks = [{"type": "text", "text": system}] if isinstance(system, str) else [dict(block) for block in system]
    if not isinstance(blocks[-1].get("cache_control"), Mapping):
        blocks[-1] = {**blocks[-1], "cache_control": dict(_CACHE_CONTROL)}
    return blocks


def _distinct_values(
    name: str, values: pd.Series, index: pd.Index, unsent: np.ndarray, *, beta: bool
) -> tuple[list[Any], np.ndarray]:
    """Return the distinct checked values of a per-row option, and each row's index into them."""
    by_canonical: dict[bytes, int] = {}
    by_value: dict[Any, int] = {}
    distinct: list[Any] = []
    codes = np.zeros(len(values), np.int64)
    may_lack = unsent if not unsent.all() else np.zeros(len(values), bool)
    for row, value in enumerate(values.tolist()):
        key = (type(value), value) if isinstance(value, str | int) else None
        code = by_value.get(key) if key is not None else None
        if code is None:
            if may_lack[row] and not isinstance(value, Mapping | list | tuple | np.ndarray) and is_missing(value):
                continue  # the group of any row will do: nothing of it is sent
            try:
                checked = _checked_value(name, value, beta=beta)
            except InputError as error:
                raise InputError(f"In {row_name(index, row)}: {error.what}", error.state, error.hint) from None
            code = by_canonical.setdefault(canonical_json(checked), len(distinct))
            if code == len(distinct):
                distinct.append(checked)
            if key is not None:
                by_value[key] = code
        codes[row] = code
    return distinct, codes


def _checked_value(name: str, value: Any, *, beta: bool) -> Any:
    is_container = isinstance(value, Mapping | list | tuple | np.ndarray)
    if not is_container and is_missing(value):
        if name == "system":
            return None
        raise InputError(f"{name} has no value.", hint=f"{name}=series.fillna(...)")
    return check_parameter(name, value, beta=beta)


def _group(
    params: Mapping[str, Any],
    earlier: Sequence[Mapping[str, Any]],
    schema: OutputSchema | None,
    digest: Callable[[Mapping[str, Any]], bytes],
) -> Group:
    import msgspec

    on_wire = {name: value for name, value in params.items() if value is not None}
    if schema is not None:
        config = dict(on_wire.get("output_config") or {})
        if config.get("format") is not None:
            raise InputError(
                "output_schema= and output_config['format'] both say what the answer looks like.",
                hint="leave one of them out",
            )
        on_wire["output_config"] = config | schema.output_config()
    # Only the top level is sorted: models write the fields of a schema in the order in which they stand.
    encode = msgspec.json.encode
    names = sorted(on_wire)
    ahead = b"".join(b"%b:%b," % (encode(name), encode(on_wire[name])) for name in names if name < "messages")
    behind = b"".join(b",%b:%b" % (encode(name), encode(on_wire[name])) for name in names if name > "messages")
    examples = b"".join(encode(message) + b"," for message in earlier)
    return Group(
        params=on_wire,
        digest=digest(on_wire),
        before=b'{%b"messages":[%b{"content":' % (ahead, examples),
        after=b',"role":"user"}]%b}' % behind,
        before_messages=b'{%b"messages":[%b' % (ahead, examples),
        after_messages=b"]%b}" % behind,
    )


def digest_of(
    on_wire: Mapping[str, Any],
    earlier: Sequence[Mapping[str, Any]],
    *,
    schema_text: str | None,
    betas: Sequence[str],
    base_url: str,
    api_version: str,
) -> bytes:
    """
    Return the key of the fingerprints of requests that share everything but their prompts.

    Parameters
    ----------
    on_wire
        Their params, less the messages.
    earlier
        The messages before the prompt.
    schema_text
        The output schema as the user gave it: the SDK's transformation, which is on the wire, may change with its
        version, what was asked for does not.
    betas, base_url, api_version
        As in `frame_digest`.
    """
    in_fingerprint = {**on_wire, "messages": [*earlier, {"role": "user"}]}
    if schema_text is not None:
        config = {name: value for name, value in on_wire["output_config"].items() if name != "format"}
        in_fingerprint["output_config"] = config | {"schema": schema_text}
    return frame_digest(in_fingerprint, betas=betas, api_version=api_version, base_url=base_url)
