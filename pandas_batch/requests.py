"""Rows to requests: every row checked, fingerprinted, and written as the bytes that go on the wire.

Nothing here touches the network. Rows that share all their options form a group; a request of a group is
constant bytes around its prompt, so a row costs one encoding of one string.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .errors import InputError, PromptError, clip
from .fingerprints import FINGERPRINT_BYTES, canonical_json, custom_ids, frame_digest
from .options import Options, is_per_row
from .parameters import check_parameter
from .per_row import column_of, row_name, series_of
from .texts import Texts, is_missing, text_column

if TYPE_CHECKING:
    from .schema import OutputSchema

SLICE_ROWS = 256
MAX_REQUEST_BYTES = 200_000_000
_LONGEST_ESCAPE = 6  # "\u0000" for one byte of text
_MAX_NAMED_ROWS = 5


@dataclass(frozen=True)
class Group:
    """Rows that share every option: one request but for its prompt."""

    params: Mapping[str, Any]
    """The params on the wire, less the prompt's message."""
    earlier: Sequence[Mapping[str, Any]]
    """Messages before the prompt."""
    digest: bytes
    """Key of the fingerprints of its rows."""
    before: bytes
    after: bytes
    """The bytes of a request around the content of its last message."""
    before_messages: bytes
    after_messages: bytes
    """The bytes of a request around its whole list of messages."""

    @property
    def n_constant_bytes(self) -> int:
        """Bytes of a request without its prompt."""
        return len(self.before) + len(self.after)


class RequestPlan:
    """
    The requests of a frame, one per sendable row.

    Attributes
    ----------
    n_rows
        Number of rows of the frame.
    fingerprints
        uint8 (n_rows, 16); zeros where a row is not sent.
    sendable
        bool (n_rows,).
    reasons
        Position to reason, for rows that cannot be sent; a row without a prompt is not in it.
    models
        The distinct models, `model_of_row` has an index into them.
    max_tokens
        int64 (n_rows,).
    text_bytes
        int64 (n_rows,): UTF-8 bytes of everything textual in the row's params.
    unbounded_input
        Whether some input cannot be measured here: a URL, or a file of the Files API.
    schema
        The output schema, or None.
    """

    def __init__(
        self,
        *,
        texts: Texts,
        contents: Mapping[int, Any],
        groups: Sequence[Group],
        group_of_row: np.ndarray,
        sendable: np.ndarray,
        reasons: dict[int, str],
        fingerprints: np.ndarray,
        unbounded_input: bool,
        schema: OutputSchema | None,
    ) -> None:
        self._texts = texts
        self._contents = contents
        self._groups = groups
        self._group_of_row = group_of_row
        self.n_rows = len(sendable)
        self.sendable = sendable
        self.reasons = reasons
        self.fingerprints = fingerprints
        self.unbounded_input = unbounded_input
        self.schema = schema
        models = [str(group.params.get("model", "")) for group in groups]
        self.models = tuple(dict.fromkeys(models))
        code = {model: i for i, model in enumerate(self.models)}
        self.model_of_row = np.array([code[model] for model in models], np.int32)[group_of_row]
        limits = [int(group.params["max_tokens"]) for group in groups]
        self.max_tokens = np.array(limits, np.int64)[group_of_row]
        constant = np.array([group.n_constant_bytes for group in groups], np.int64)[group_of_row]
        self.text_bytes = np.where(sendable, texts.n_bytes() + constant, 0)

    def __repr__(self) -> str:
        return f"RequestPlan({self.n_rows} rows, {int(self.sendable.sum())} sendable, models {', '.join(self.models)})"

    def encode(self, positions: np.ndarray) -> Iterator[list[bytes]]:
        """
        Yield the params of the rows at `positions` as JSON, in slices of at most 256 rows.

        Parameters
        ----------
        positions
            Positions of sendable rows, in the order in which they are wanted.
        """
        positions = np.asarray(positions, np.int64)
        for start in range(0, len(positions), SLICE_ROWS):
            yield self._encode_slice(positions[start : start + SLICE_ROWS])

    def _encode_slice(self, positions: np.ndarray) -> list[bytes]:
        import msgspec

        encode = msgspec.json.Encoder(order="sorted").encode
        groups = self._group_of_row[positions]
        if not self._contents and (groups == groups[0]).all():
            group = self._groups[int(groups[0])]
            before, after = group.before, group.after
            return [b"%b%b%b" % (before, encode(text), after) for text in self._texts.take(positions)]
        made: list[bytes] = [b""] * len(positions)
        is_text = np.array([p not in self._contents for p in positions.tolist()], bool)
        where = np.flatnonzero(is_text)
        for i, text in zip(where.tolist(), self._texts.take(positions[where]), strict=True):
            group = self._groups[int(groups[i])]
            made[i] = group.before + encode(text) + group.after
        for i in np.flatnonzero(~is_text).tolist():
            group = self._groups[int(groups[i])]
            made[i] = self._contents[int(positions[i])].encode(group, encode)
        return made

    def samples_of_shapes(self) -> list[int]:
        """Return one sendable position for each distinct model and set of options."""
        at = np.flatnonzero(self.sendable)
        _, first = np.unique(self._group_of_row[at], return_index=True)
        return sorted(at[first].tolist())


def plan_requests(
    frame: pd.DataFrame,
    options: Options,
    *,
    base_url: str,
    api_version: str,
    max_request_bytes: int = MAX_REQUEST_BYTES,
) -> RequestPlan:
    """
    Check every row of `frame` and return its requests; nothing is sent.

    Parameters
    ----------
    frame
        The rows.
    options
        What to ask of them.
    base_url, api_version
        Where the requests will go and the API version they speak: parts of their fingerprints.
    max_request_bytes
        Largest request that can be sent.

    Raises
    ------
    PromptError
        Rows are missing a prompt (with ``on_missing="raise"``) or hold one that cannot be sent.
    InputError
        The options do not fit the frame.
    """
    texts = _texts_of(frame, options)
    contents: dict[int, Any] = {}
    reasons = dict(texts.reasons)
    groups, group_of_row = _groups(frame, options, base_url=base_url, api_version=api_version)
    for position in texts.structured:
        reasons[position] = "the prompt is a list, not text"
    sendable = ~texts.missing
    sendable[list(reasons)] = False
    _find_too_large(texts, groups, group_of_row, sendable, reasons, max_request_bytes)
    sendable[list(reasons)] = False
    _raise_for_rows(frame, options, texts.missing & ~np.isin(np.arange(len(frame)), list(reasons)), reasons)
    fingerprints = np.zeros((len(frame), FINGERPRINT_BYTES), np.uint8)
    for code, at in rows_by_group(np.flatnonzero(sendable), group_of_row):
        fingerprints[at] = texts.fingerprints(groups[code].digest, at)
    return RequestPlan(
        texts=texts,
        contents=contents,
        groups=groups,
        group_of_row=group_of_row,
        sendable=sendable,
        reasons=reasons,
        fingerprints=fingerprints,
        unbounded_input=False,
        schema=None,
    )


def rows_by_group(rows: np.ndarray, group_of_row: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each group that has some of `rows`, and those rows in ascending order."""
    if not len(rows):
        return
    by_group = rows[np.argsort(group_of_row[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(group_of_row[by_group])) + 1
    for part in np.split(by_group, starts):
        yield int(group_of_row[part[0]]), part


def preview_requests(plan: RequestPlan, n: int = 3) -> list[dict[str, Any]]:
    """Return the first `n` requests as they would go on the wire, under a custom_id of no batch."""
    import msgspec

    at = np.flatnonzero(plan.sendable)[: max(n, 0)]
    ids = custom_ids("preview00000", plan.fingerprints[at], np.zeros(len(at), np.uint16))
    bodies = [body for part in plan.encode(at) for body in part]
    return [
        {"custom_id": custom_id.decode("ascii"), "params": msgspec.json.decode(body)}
        for custom_id, body in zip(ids, bodies, strict=True)
    ]


def _texts_of(frame: pd.DataFrame, options: Options) -> Texts:
    if options.prompt is not None:
        if isinstance(options.prompt, str):
            from .templates import parse_template

            return parse_template(options.prompt, frame.columns).texts(frame)
        return text_column(series_of(options.prompt, frame, "prompt"))
    if options.prompt_col is None:
        raise InputError("Neither prompt_col= nor prompt= says where the prompts are.", hint=_hint_of_prompt(frame))
    return text_column(column_of(frame, options.prompt_col, "prompt_col"))


def _hint_of_prompt(frame: pd.DataFrame) -> str:
    for name in frame.columns:
        column = frame[name]
        if isinstance(column, pd.Series) and pd.api.types.is_string_dtype(column.dtype):
            return f"df.claude_batch.submit({name!r})"
    return 'df.claude_batch.submit("column of prompts")'


def _groups(
    frame: pd.DataFrame, options: Options, *, base_url: str, api_version: str
) -> tuple[list[Group], np.ndarray]:
    given = {"model": options.model, "max_tokens": options.max_tokens, "system": options.system, **options.params}
    constant = {name: value for name, value in given.items() if not is_per_row(value) and value is not None}
    codes = np.zeros(len(frame), np.int64)
    columns: list[tuple[str, list[Any], np.ndarray]] = []
    for name, value in given.items():
        if is_per_row(value):
            distinct, column_codes = _distinct_values(name, series_of(value, frame, name), frame.index)
            columns.append((name, distinct, column_codes))
            codes = codes * len(distinct) + column_codes
            _, codes = np.unique(codes, return_inverse=True)
    _, first, group_of_row = np.unique(codes, return_index=True, return_inverse=True)
    if not len(frame):
        first = np.zeros(0 if columns else 1, np.int64)
    groups = []
    for row in first.tolist():
        params = constant | {name: distinct[int(of_row[row])] for name, distinct, of_row in columns}
        params = {name: value for name, value in params.items() if value is not None}
        groups.append(make_group(params | dict(options.extra_params), (), options.betas, base_url, api_version))
    return groups, group_of_row.astype(np.int64)


def _distinct_values(name: str, values: pd.Series, index: pd.Index) -> tuple[list[Any], np.ndarray]:
    """Return the distinct checked values of a per-row option and each row's index into them."""
    distinct: dict[bytes, int] = {}
    made: list[Any] = []
    codes = np.empty(len(values), np.int64)
    seen: dict[Any, int] = {}
    for row, value in enumerate(values.tolist()):
        key = value if isinstance(value, str | int) else None
        code = seen.get(key) if key is not None else None
        if code is None:
            try:
                if (
                    not isinstance(value, Mapping | list | tuple | np.ndarray)
                    and is_missing(value)
                    and name != "system"
                ):
                    raise InputError(f"{name} has no value.", hint=f"{name}=series.fillna(...)")
                checked = check_parameter(name, None if name == "system" and is_missing(value) else value)
            except InputError as error:
                what = f"In {row_name(index, row)}: {error.what}"
                raise InputError(what, error.state, error.hint) from None
            canonical = canonical_json(checked)
            code = distinct.setdefault(canonical, len(made))
            if code == len(made):
                made.append(checked)
            if key is not None:
                seen[key] = code
        codes[row] = code
    return made, codes


def make_group(
    params: Mapping[str, Any],
    earlier: Sequence[Mapping[str, Any]],
    betas: Sequence[str],
    base_url: str,
    api_version: str,
    for_fingerprint: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> Group:
    """Return the group of rows whose requests have these params, after the `earlier` messages."""
    import msgspec

    encode = msgspec.json.Encoder(order="sorted").encode
    fields = {name: encode(value) for name, value in params.items()}
    ahead = b"".join(b"%b:%b," % (encode(name), fields[name]) for name in sorted(fields) if name < "messages")
    behind = b"".join(b",%b:%b" % (encode(name), fields[name]) for name in sorted(fields) if name > "messages")
    examples = b"".join(encode(message) + b"," for message in earlier)
    shared = dict(for_fingerprint(params)) | {"messages": [*earlier, {"role": "user"}]}
    return Group(
        params=params,
        earlier=earlier,
        digest=frame_digest(shared, betas=betas, api_version=api_version, base_url=base_url),
        before=b'{%b"messages":[%b{"content":' % (ahead, examples),
        after=b',"role":"user"}]%b}' % behind,
        before_messages=b'{%b"messages":[%b' % (ahead, examples),
        after_messages=b"]%b}" % behind,
    )


def _find_too_large(
    texts: Texts,
    groups: Sequence[Group],
    group_of_row: np.ndarray,
    sendable: np.ndarray,
    reasons: dict[int, str],
    max_request_bytes: int,
) -> None:
    import msgspec

    constant = np.array([group.n_constant_bytes for group in groups], np.int64)[group_of_row]
    n_bytes = texts.n_bytes()
    for row in np.flatnonzero(sendable & (n_bytes * _LONGEST_ESCAPE + constant > max_request_bytes)).tolist():
        n = int(constant[row]) + len(msgspec.json.encode(texts.take(np.array([row]))[0]))
        if n > max_request_bytes:
            reasons[row] = too_large(n, max_request_bytes)


def too_large(n_bytes: int, max_bytes: int) -> str:
    """Say that a request is too large."""
    return f"the request has {n_bytes / 1e6:,.1f} MB, a request may have {max_bytes / 1e6:,.1f} MB"


def _raise_for_rows(frame: pd.DataFrame, options: Options, missing: np.ndarray, reasons: Mapping[int, str]) -> None:
    if options.on_unsendable == "raise" and reasons:
        at = sorted(reasons)
        _raise_prompt_error(frame, options, at, [reasons[i] for i in at], "cannot be sent", 'on_unsendable="skip"')
    if options.on_missing == "raise" and missing.any():
        at = np.flatnonzero(missing).tolist()
        _raise_prompt_error(frame, options, at, ["no prompt"] * len(at), "have no prompt", 'on_missing="skip"')


def _raise_prompt_error(
    frame: pd.DataFrame, options: Options, at: list[int], reasons: list[str], what: str, way_out: str
) -> None:
    source = f"column {clip(repr(options.prompt_col), 60)}" if options.prompt_col is not None else "prompt="
    named = "; ".join(
        f"{row_name(frame.index, i)}: {reason}" for i, reason in zip(at[:_MAX_NAMED_ROWS], reasons, strict=False)
    )
    more = f"; and {len(at) - _MAX_NAMED_ROWS} more (all in .rows)" if len(at) > _MAX_NAMED_ROWS else ""
    hint = f"{way_out} leaves these rows out"
    if any("not text" in reason for reason in reasons) and options.prompt_col is not None:
        column = clip(repr(options.prompt_col), 60)
        hint = f'df.assign(**{{{column}: df[{column}].astype("string")}}) makes them text; {hint}'
    rows = pd.DataFrame({"position": at, "reason": reasons}, index=frame.index.take(at))
    n_rows = f"{len(at)} of {len(frame)} rows"
    raise PromptError(f"{n_rows} of {source} {what}: {named}{more}.", hint=hint, rows=rows)
