"""Rows to requests: every row checked, fingerprinted, and written as the bytes that go on the wire.

Nothing here touches the network. Rows that share all their options form a group; a request of a group is
constant bytes around its prompt, so a row costs one encoding of one string.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_batch.amounts import file_size
from pandas_batch.custom_ids import FINGERPRINT_BYTES, custom_ids
from pandas_batch.errors import InputError, PromptError, clip

from .certain_refusals import check_request
from .contents import Content, few_shot_messages, read_content
from .fingerprints import fingerprint_json, fingerprint_strings
from .group import Group
from .groups import group_rows, of_rows, rows_by_group
from .options import Options
from .parameters import whole_number
from .per_row import column_of, n_of, row_name, series_of
from .spending import MARK, costs_more_for_place, n_marks_in, open_ended
from .texts import Texts, text_column

if TYPE_CHECKING:
    from .media import Attachment
    from .schema import OutputSchema

# A slice stays within the processor's cache, and its bytes are made once: larger and smaller ones take longer.
SLICE_ROWS = 1024
SLICE_BYTES = 256 * 1024
MAX_REQUEST_BYTES = 200_000_000
_LONGEST_ESCAPE = 6  # "\u0000" for one byte of text
_MAX_NAMED_ROWS = 5
_ROWS_PER_GROUP = 8  # fewer on average, and rows are better hashed one by one
_MANY_ROWS = 4096


@dataclass(frozen=True)
class Slice:
    """The params of some rows as JSON: each is one of `middles` with the same bytes before and after it."""

    before: bytes
    middles: Sequence[bytes]
    after: bytes


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
    wire_bytes
        int64 (n_rows,): bytes of the row's params on the wire, but for the escapes in its prompt.
    media_tokens
        int64 (n_rows,): upper bound of the input tokens of the row's images, as far as it is known from here.
    unbounded_input
        Whether the tokens of some input cannot be bounded from here: a URL, an uploaded file, a PDF.
    schema
        The output schema, or None.
    """

    def __init__(
        self,
        *,
        texts: Texts,
        contents: Mapping[int, Content],
        groups: Sequence[Group],
        group_of_row: np.ndarray,
        sendable: np.ndarray,
        reasons: dict[int, str],
        fingerprints: np.ndarray,
        schema: OutputSchema | None,
        earlier: Sequence[Mapping[str, Any]] = (),
        betas: Sequence[str] = (),
        unchecked: Collection[str] = (),
    ) -> None:
        self._earlier = earlier
        self._betas = betas
        self._unchecked = unchecked
        self._texts = texts
        self._contents = contents
        self._has_content = np.zeros(len(sendable), bool)
        self._has_content[list(contents)] = True
        self._groups = groups
        self._group_of_row = group_of_row
        self.n_rows = len(sendable)
        self.sendable = sendable
        self.reasons = reasons
        self.fingerprints = fingerprints
        self.unbounded_input = any(content.is_unbounded for content in contents.values())
        self.schema = schema
        codes, models = pd.factorize(np.array([str(group.params.get("model", "")) for group in groups], object))
        self.models = tuple(models.tolist())
        self.model_of_row = of_rows(codes.astype(np.int32), group_of_row)
        limits = [int(group.params["max_tokens"]) for group in groups]
        self.max_tokens = of_rows(np.array(limits, np.int64), group_of_row)
        constant = of_rows(np.array([group.n_constant_bytes for group in groups], np.int64), group_of_row)
        self.text_bytes = self.wire_bytes = np.where(sendable, texts.n_bytes() + constant, 0)
        self.media_tokens = np.broadcast_to(np.int64(0), self.n_rows)
        if contents:
            self.wire_bytes, self.media_tokens = self.text_bytes.copy(), self.media_tokens.copy()
        for row, content in contents.items():
            self.text_bytes[row] += content.n_text_bytes
            self.wire_bytes[row] += content.n_wire_bytes
            self.media_tokens[row] = content.max_media_tokens

    def __repr__(self) -> str:
        return f"RequestPlan({self.n_rows} rows, {int(self.sendable.sum())} sendable, models {', '.join(self.models)})"

    def encode(self, positions: np.ndarray) -> Iterator[list[bytes]]:
        """
        Yield the params of the rows at `positions` as JSON, in slices of a few hundred.

        Parameters
        ----------
        positions
            Positions of sendable rows, in the order in which they are wanted.
        """
        for part in self.slices(positions):
            yield [b"%b%b%b" % (part.before, middle, part.after) for middle in part.middles]

    def slices(self, positions: np.ndarray) -> Iterator[Slice]:
        """Yield what `encode` yields, what is equal in all rows of a slice kept apart."""
        positions = np.asarray(positions, np.int64)
        start = 0
        while start < len(positions):
            part = positions[start : start + SLICE_ROWS]
            n_fitting = int(np.searchsorted(np.cumsum(self.wire_bytes[part]), SLICE_BYTES, side="right"))
            part = part[: max(n_fitting, 1)]
            yield self._slice(part)
            start += len(part)

    def _slice(self, positions: np.ndarray) -> Slice:
        codes = self._group_of_row[positions]
        has_content = self._has_content[positions]
        if not has_content.any() and (codes == codes[0]).all():
            group = self._groups[int(codes[0])]
            return Slice(group.before + b'"', self._texts.escaped(positions), b'"' + group.after)
        import msgspec

        encode = msgspec.json.Encoder().encode
        made = []
        for row, code, text in zip(positions.tolist(), codes.tolist(), self._texts_of(positions), strict=True):
            group = self._groups[code]
            content = self._contents.get(row)
            if content is None:
                made.append(b"%b%b%b" % (group.before, encode(text), group.after))
            else:
                made.append(content.encode(group, text))
        return Slice(b"", made, b"")

    def _texts_of(self, positions: np.ndarray) -> list[str | None]:
        """Return the text of each row, None where its content says everything."""
        rows = positions.tolist()
        found: list[str | None] = [None] * len(rows)
        with_text = [i for i, row in enumerate(rows) if (c := self._contents.get(row)) is None or c.value is None]
        for i, text in zip(with_text, self._texts.take(positions[with_text]), strict=True):
            found[i] = text
        return found

    def shared_params(self, position: int) -> Mapping[str, Any]:
        """Return the params of a row less its messages."""
        return self._groups[int(self._group_of_row[position])].params

    def samples_of_shapes(self, *, apart_from_max_tokens: bool = False) -> list[int]:
        """
        Return one sendable position for each distinct model and set of options.

        Parameters
        ----------
        apart_from_max_tokens
            Whether requests that differ in ``max_tokens`` alone are of one shape: their input is the same.
        """
        at = np.flatnonzero(self.sendable)
        of_row = self._group_of_row[at]
        if apart_from_max_tokens:
            of_row = self._input_of_group[of_row]
        _, first = np.unique(of_row, return_index=True)
        return sorted(at[first].tolist())

    @cached_property
    def _input_of_group(self) -> np.ndarray:
        """Number the groups such that those which differ in ``max_tokens`` alone have the same number."""
        if len({group.params["max_tokens"] for group in self._groups}) == 1:
            return np.arange(len(self._groups))
        numbers: dict[bytes, int] = {}
        return np.array([numbers.setdefault(group.input_digest(), len(numbers)) for group in self._groups], np.int64)

    def _groups_at(self, positions: np.ndarray) -> list[Group]:
        return [self._groups[code] for code in np.unique(self._group_of_row[positions]).tolist()]

    def refuse_certain(self, positions: np.ndarray) -> None:
        """
        Refuse requests at `positions` that the API is certain to refuse: for a new call, not for what is stored.

        Raises
        ------
        InputError
            Naming the row, where rows differ.
        """
        codes, first = np.unique(self._group_of_row[positions], return_index=True)
        for code, row in zip(codes.tolist(), positions[first].tolist(), strict=True):
            where = f"In row {row} (counted from 0)" if len(self._groups) > 1 else ""
            self._check(self._groups[code], (), where)
        for row in positions[self._has_content[positions]].tolist():
            content = self._contents[row]
            if content.value is not None and n_marks_in(content.value):
                asked = content.value if content.is_messages else [{"role": "user", "content": content.value}]
                self._check(self._groups[int(self._group_of_row[row])], asked, f"In row {row} (counted from 0)")

    def _check(self, group: Group, messages: Sequence[Mapping[str, Any]], where: str) -> None:
        check_request(
            group.params,
            messages=[*self._earlier, *messages],
            betas=self._betas,
            unchecked=self._unchecked,
            where=where,
        )

    def open_ended(self, positions: np.ndarray) -> list[str]:
        """Say why the cost of the requests at `positions` has no bound, one phrase each; nothing where it has."""
        phrases = [phrase for group in self._groups_at(positions) for phrase in open_ended(group.params)]
        return list(dict.fromkeys(phrases))

    def has_marks(self, positions: np.ndarray, *, beyond_system: bool) -> bool:
        """
        Return whether some request at `positions` has cache marks.

        Parameters
        ----------
        beyond_system
            Whether the one that ``cache_system=True`` sets does not count.
        """
        for group in self._groups_at(positions):
            n_expected = int(beyond_system and bool(group.params.get("system")))
            if group.before_messages.count(MARK) + group.after_messages.count(MARK) > n_expected:
                return True
        rows = positions[self._has_content[positions]].tolist()
        return any(n_marks_in(self._contents[row].value) for row in rows)

    def costs_more_for_place(self, positions: np.ndarray) -> bool:
        """Return whether some request at `positions` asks for a place where tokens cost more."""
        return any(costs_more_for_place(group.params.get("inference_geo")) for group in self._groups_at(positions))


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
    schema = None
    if options.output_schema is not None:
        from .schema import OutputSchema

        schema = OutputSchema.of(options.output_schema)
    groups, group_of_row = group_rows(
        frame, options, schema, base_url=base_url, api_version=api_version, unsent=texts.missing
    )
    missing = texts.missing.copy()
    reasons = dict(texts.reasons)
    contents = _read_contents(texts, missing, reasons)
    _read_attachments(frame, options, missing, reasons, contents)
    _find_too_large(texts, contents, groups, group_of_row, missing, reasons, max_request_bytes)
    _raise_for_rows(frame, options, missing, reasons)
    sendable = ~missing
    sendable[list(reasons)] = False
    contents = {row: content for row, content in contents.items() if sendable[row]}
    return RequestPlan(
        texts=texts,
        contents=contents,
        groups=groups,
        group_of_row=group_of_row,
        sendable=sendable,
        reasons=reasons,
        fingerprints=_fingerprints(texts, contents, groups, group_of_row, sendable),
        schema=schema,
        earlier=few_shot_messages(options.few_shot),
        betas=options.betas,
        # The mark of cache_system=True has to stand in order beside those of tools, whoever gave them.
        unchecked=set(options.extra_params) - ({"tools"} if options.cache_system else set()),
    )


def preview_requests(plan: RequestPlan, n: int = 3) -> list[dict[str, Any]]:
    """Return the first `n` requests as they would go on the wire, under a custom_id of no batch."""
    import msgspec

    try:
        n = whole_number(n, "n", at_least=0)
    except InputError as error:
        raise InputError(error.what, error.state, 'df.claude_batch.preview("column", n=3)') from None
    at = np.flatnonzero(plan.sendable)[:n]
    plan.refuse_certain(at)
    ids = custom_ids("preview00000", plan.fingerprints[at], np.zeros(len(at), np.uint16)).tolist()
    bodies = [body for part in plan.encode(at) for body in part]
    return [
        {"custom_id": custom_id.decode("ascii"), "params": msgspec.json.decode(body)}
        for custom_id, body in zip(ids, bodies, strict=True)
    ]


def _texts_of(frame: pd.DataFrame, options: Options) -> Texts:
    if options.prompt is not None:
        if isinstance(options.prompt, str):
            from .templates import parse_template

            return parse_template(options.prompt, frame.columns, frame.index.names).texts(frame)
        return text_column(series_of(options.prompt, frame, "prompt"))
    if options.prompt_col is None:
        raise InputError(
            "Neither prompt_col= nor prompt= says where the prompts are.", hint=_hint_of_prompt(frame, options)
        )
    return text_column(column_of(frame, options.prompt_col, "prompt_col"))


def _hint_of_prompt(frame: pd.DataFrame, options: Options) -> str:
    attached = {"images_col": options.images_col, "documents_col": options.documents_col}
    also = "".join(f", {option}={label!r}" for option, label in attached.items() if label is not None)
    for name in frame.columns:
        column = frame[name]
        # The name of a file is no prompt.
        is_attached = any(label is not None and name == label for label in attached.values())
        if not is_attached and isinstance(column, pd.Series) and pd.api.types.is_string_dtype(column.dtype):
            return f"df.claude_batch.submit({name!r}{also})"
    return f'df.claude_batch.submit("column of prompts"{also})'


def _read_contents(texts: Texts, missing: np.ndarray, reasons: dict[int, str]) -> dict[int, Content]:
    """Read the rows that hold lists in place of text, adding to `missing` and `reasons`."""
    contents: dict[int, Content] = {}
    for row, value in texts.structured.items():
        try:
            content = read_content(value)
        except InputError as error:
            reasons[row] = error.what.rstrip(".")
            continue
        if content is None:
            missing[row] = True
        else:
            contents[row] = content
    return contents


def _read_attachments(
    frame: pd.DataFrame,
    options: Options,
    missing: np.ndarray,
    reasons: dict[int, str],
    contents: dict[int, Content],
) -> None:
    """Put the images and documents of each row before its prompt, adding to `reasons`."""
    labels = {"images_col": options.images_col, "documents_col": options.documents_col}
    if all(label is None for label in labels.values()):
        return
    from .media import MediaReader, Unsendable, check_together

    cells = []
    for column, label in labels.items():
        if label is not None:
            cells.append((label, MediaReader(column), column_of(frame, label, column).tolist()))
    for row in np.flatnonzero(~missing).tolist():
        if row in reasons:
            continue
        attachments: list[Attachment] = []
        where = ""
        try:
            for label, reader, values in cells:
                # The prompt of the row is fine: it is this column that is to be looked at.
                where = f"in {_column_name(label)}, "
                attachments += reader.read_cell(values[row])
            where = ""
            check_together(attachments)
        except Unsendable as error:
            reasons[row] = f"{where}{error}"
            continue
        if attachments:
            before = contents.get(row, Content())
            contents[row] = Content(before.value, before.is_messages, tuple(attachments))


def _find_too_large(
    texts: Texts,
    contents: Mapping[int, Content],
    groups: Sequence[Group],
    group_of_row: np.ndarray,
    missing: np.ndarray,
    reasons: dict[int, str],
    max_request_bytes: int,
) -> None:
    import msgspec

    rest = of_rows(np.array([group.n_constant_bytes for group in groups], np.int64), group_of_row)
    if contents:
        rest = rest.copy()
    for row, content in contents.items():
        rest[row] += content.n_wire_bytes
    n_text_bytes = texts.n_bytes()
    longest = n_text_bytes * _LONGEST_ESCAPE + len('""') + rest
    for row in np.flatnonzero(~missing & (longest > max_request_bytes)).tolist():
        if row in reasons:
            continue
        n_bytes = int(rest[row])
        if n_text_bytes[row]:
            n_bytes += len(msgspec.json.encode(texts.take(np.array([row]))[0]))
        if n_bytes > max_request_bytes:
            reasons[row] = too_large(n_bytes, max_request_bytes)


def _fingerprints(
    texts: Texts,
    contents: Mapping[int, Content],
    groups: Sequence[Group],
    group_of_row: np.ndarray,
    sendable: np.ndarray,
) -> np.ndarray:
    made = np.zeros((len(sendable), FINGERPRINT_BYTES), np.uint8)
    only_text = sendable.copy()
    only_text[list(contents)] = False
    rows = np.flatnonzero(only_text)
    if len(groups) * _ROWS_PER_GROUP < len(rows) or len(groups) == 1:
        for code, of_group in rows_by_group(rows, group_of_row):
            made[of_group] = texts.fingerprints(groups[code].digest, of_group)
    else:
        for start in range(0, len(rows), _MANY_ROWS):
            part = rows[start : start + _MANY_ROWS]
            for row, code, text in zip(part.tolist(), group_of_row[part].tolist(), texts.take(part), strict=True):
                made[row] = fingerprint_strings(groups[code].digest, [text.encode("utf-8")])[0]
    for row, content in contents.items():
        own = texts.take(np.array([row]))[0] if content.value is None else None
        digest = groups[int(group_of_row[row])].digest
        made[row] = np.frombuffer(fingerprint_json(digest, content.fingerprint_content(own)), np.uint8)
    return made


def too_large(n_bytes: int, max_bytes: int) -> str:
    """Say that a request is too large."""
    return f"the request has {file_size(n_bytes)}, a request may have {file_size(max_bytes)}"


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
    source = f" of {_column_name(options.prompt_col)}" if options.prompt_col is not None else " of prompt="
    if any(reason.startswith("in column ") for reason in reasons):
        source = ""
    named = "; ".join(
        f"{row_name(frame.index, i)}: {reason}" for i, reason in zip(at[:_MAX_NAMED_ROWS], reasons, strict=False)
    )
    more = f"; and {len(at) - _MAX_NAMED_ROWS} more (all in .rows)" if len(at) > _MAX_NAMED_ROWS else ""
    hint = f"{way_out}  # leaves these rows out"
    if any("not text" in reason for reason in reasons) and options.prompt_col is not None:
        column = clip(repr(options.prompt_col), 60)
        hint = f'df.astype({{{column}: "string"}})  # makes them text\n{hint}'
    if any("neither a content block" in reason for reason in reasons) and options.prompt_col is not None:
        column = clip(repr(options.prompt_col), 60)
        hint = (
            f'df[{column}].map(json.dumps), or .map(", ".join)  # a list as one text\n'
            f"df.explode({column})  # a row for each item\n{hint}"
        )
    rows = pd.DataFrame({"position": at, "reason": reasons}, index=frame.index.take(at))
    n_rows = f"{len(at):,} of {n_of(len(frame), 'row')}"
    raise PromptError(f"{n_rows}{source} {what}: {named}{more}.", hint=hint, rows=rows)


def _column_name(label: Hashable) -> str:
    return f"column {clip(repr(label), 60)}"
