"""Result lines of the API: where each one is in a file, whose it is, and what it says.

Nothing that a server or a broken proxy sends may raise here. A line is read by the typed decoder, which is fast
and strict; what that refuses is read again by hand, field by field; what cannot be read at all is marked as such.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

UNKNOWN = -1
"""A token count that the server did not tell, or that is no count."""

ABSENT = -(2**62)
"""A token count that the server did not speak of: old answers lack some, which are 0 then."""

_MAX_COUNT = 2**63 - 1
_TIERS = (None, "batch", "standard", "priority")
_BLANKS = b" \t\r\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FIND_ID = re.compile(rb'"custom_id"\s*:\s*"([^"\\]{1,256})"')


class Block(msgspec.Struct, gc=False):
    """A content block. The text stays as it came: most texts are never made into a Python string."""

    type: str = ""
    text: msgspec.Raw = msgspec.Raw(b"")


class CacheCreation(msgspec.Struct, gc=False):
    """Cache writes by how long they live."""

    ephemeral_5m_input_tokens: int | None = ABSENT
    ephemeral_1h_input_tokens: int | None = ABSENT


class OutputDetails(msgspec.Struct, gc=False):
    """What of the output was thinking."""

    thinking_tokens: int | None = UNKNOWN


class ServerToolUse(msgspec.Struct, gc=False):
    """Calls of tools that the server ran."""

    web_search_requests: int | None = ABSENT


class Usage(msgspec.Struct, gc=False):
    """Token counts; old recordings lack some, new ones add more."""

    input_tokens: int | None = UNKNOWN
    output_tokens: int | None = UNKNOWN
    cache_read_input_tokens: int | None = ABSENT
    cache_creation_input_tokens: int | None = ABSENT
    cache_creation: CacheCreation | None = None
    output_tokens_details: OutputDetails | None = None
    server_tool_use: ServerToolUse | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    iterations: msgspec.Raw = msgspec.Raw(b"")


class Message(msgspec.Struct, gc=False):
    """An answer."""

    id: str | None = None
    model: str | None = None
    content: list[Block] | None = None
    stop_reason: str | None = None
    usage: Usage | None = None


class Error(msgspec.Struct, gc=False):
    """The inner object of an error, which is nested twice."""

    type: str | None = None
    message: str | None = None


class ErrorResponse(msgspec.Struct, gc=False):
    """The outer object of an error; a gateway may leave it out, and tell type and message right here."""

    error: Error | None = None
    type: str | None = None
    message: str | None = None


class Result(msgspec.Struct, gc=False):
    """What became of a request; ``type`` is whatever word the server used."""

    type: str
    message: Message | None = None
    error: ErrorResponse | None = None


def error_of(result: Result) -> Error | None:
    """Return what a line tells of an error, nested twice as the API does or once."""
    outer = result.error
    if outer is None or outer.error is not None:
        return None if outer is None else outer.error
    kind = None if outer.type == "error" else outer.type
    return Error(type=kind, message=outer.message) if kind or outer.message else None


def has_all_tokens(usage: Usage) -> bool:
    """
    Return whether the tokens of an answer can be summed: none that was sent is unreadable, none is missing.

    Examples
    --------
    >>> has_all_tokens(Usage(input_tokens=1, output_tokens=1)), has_all_tokens(Usage(input_tokens=1))
    (True, False)
    """
    written = usage.cache_creation_input_tokens
    parts = usage.cache_creation
    # Where no total of the cache writes was sent, its parts are as good.
    if (written is None or written == ABSENT) and parts is not None:
        told = (parts.ephemeral_5m_input_tokens, parts.ephemeral_1h_input_tokens)
        if any(_is_count(count) for count in told):
            written = 0 if all(_is_count(count) or count == ABSENT for count in told) else None
    return (
        _is_count(usage.input_tokens)
        and _is_count(usage.output_tokens)
        and all(count == ABSENT or _is_count(count) for count in (usage.cache_read_input_tokens, written))
        and _has_no_other_turns(usage)
    )


def has_whole_bill(usage: Usage) -> bool:
    """Return whether what an answer is billed for can be read off it, its tokens apart."""
    parts, tools = usage.cache_creation, usage.server_tool_use
    counts = [] if parts is None else [parts.ephemeral_5m_input_tokens, parts.ephemeral_1h_input_tokens]
    counts += [] if tools is None else [tools.web_search_requests]
    is_readable = all(count == ABSENT or _is_count(count) for count in counts)
    if parts is not None and all(map(_is_count, (usage.cache_creation_input_tokens, *counts[:2]))):
        # Two prices, and a total that is not their sum: nobody knows which was billed.
        is_readable &= usage.cache_creation_input_tokens == sum(n or 0 for n in counts[:2])
    return is_readable and usage.service_tier in _TIERS


def _is_count(value: int | None) -> bool:
    return value is not None and 0 <= value <= _MAX_COUNT


def _has_no_other_turns(usage: Usage) -> bool:
    """
    Return whether the counts are those of all that was billed.

    Turns of the server besides the answer (compaction, an advisor) are listed in ``iterations``, and are not in the
    counts; what such a turn costs is unknown.
    """
    if not len(usage.iterations):
        return True
    raw = bytes(usage.iterations)
    if raw in (b"null", b"[]"):
        return True
    try:
        turns = json.loads(raw)
    except (ValueError, RecursionError):
        return False
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict) and turn.get("type") == "message" for turn in turns
    ):
        return False
    for name in ("input_tokens", "output_tokens"):
        counts = [turn.get(name) for turn in turns]
        if not all(type(count) is int for count in counts) or sum(counts) != getattr(usage, name):
            return False
    for name in ("cache_read_input_tokens", "cache_creation_input_tokens"):
        counts = [turn[name] or 0 for turn in turns if name in turn]
        is_told = all(type(count) is int for count in counts)
        if counts and not (is_told and sum(counts) == max(getattr(usage, name) or 0, 0)):
            return False
    return True


class Line(msgspec.Struct, gc=False):
    """One line of a results file."""

    custom_id: str
    result: Result


class _IdOnly(msgspec.Struct, gc=False):
    custom_id: str


RESULT_TYPES = frozenset({"succeeded", "errored", "canceled", "expired"})

# A NUL cannot stand in a word of the API, so no server can say these two.
MISSING_TYPE = "\0missing"
INVALID_TYPE = "\0invalid"

MISSING = Line(custom_id="", result=Result(type=MISSING_TYPE))

_decoder = msgspec.json.Decoder(Line)
_id_decoder = msgspec.json.Decoder(_IdOnly)


def invalid_line(reason: str, custom_id: str = "") -> Line:
    """Return the line that stands for one that cannot be read."""
    error = ErrorResponse(error=Error(type="unreadable_answer", message=reason))
    return Line(custom_id=custom_id, result=Result(type=INVALID_TYPE, error=error))


def reason_of(result: Result) -> str:
    """Return why a line cannot be used; an empty string where it can."""
    told = error_of(result) if result.type == INVALID_TYPE else None
    return "" if told is None else told.message or ""


class LineSplitter:
    r"""
    Cut a stream of blocks into lines, whatever its blocks are.

    Only ``\n`` ends a line: U+2028 and its kin are legal inside JSON texts. Blank lines, carriage returns at the
    end and a byte order mark are dropped. The time is linear in the length of a line.

    Examples
    --------
    >>> splitter = LineSplitter()
    >>> [line for block in (b'{"a', b'":1}\r\n\n{"b":', b"2}") for line in splitter.feed(block)]
    [b'{"a":1}']
    >>> list(splitter.rest())
    [b'{"b":2}']
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, block: bytes) -> Iterator[bytes]:
        """Yield the lines that end in `block`."""
        *ended, rest = block.split(b"\n")
        for line in ended:
            self._parts.append(line)
            yield from self.rest()
        self._parts.append(rest)

    def rest(self) -> Iterator[bytes]:
        """Yield what came after the last line end, if it is not blank."""
        line = strip_line(b"".join(self._parts))
        self._parts.clear()
        if line:
            yield line


def iter_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    r"""
    Split a stream of bytes into lines, as `LineSplitter` does.

    Examples
    --------
    >>> list(iter_lines([b'{"a', b'":1}\r\n\n{"b":', b'2}']))
    [b'{"a":1}', b'{"b":2}']
    """
    splitter = LineSplitter()
    for block in blocks:
        yield from splitter.feed(block)
    yield from splitter.rest()


def strip_line(line: bytes) -> bytes:
    """Return `line` without what may stand around its JSON."""
    return line.strip(_BLANKS).removeprefix(_BYTE_ORDER_MARK).strip(_BLANKS)


def id_of(line: bytes) -> str | None:
    """Return the custom_id of a line, also of a broken one; None where there is none to be found."""
    try:
        return _id_decoder.decode(line).custom_id
    except (ValueError, RecursionError):
        found = _FIND_ID.search(line)
        return found[1].decode("utf-8", "replace") if found else None


def read_lines(lines: Sequence[memoryview | bytes]) -> list[Line]:
    """Read lines, one `Line` for each; all at once where all are well, one by one where not."""
    try:
        read = _decoder.decode_lines(b"\n".join(lines))
        if len(read) == len(lines):
            return [
                line
                if line.result.type == "succeeded" and line.result.message and line.result.message.content is not None
                else _sound_or_invalid(line)
                for line in read
            ]
    except (ValueError, RecursionError):
        pass
    return [read_line(bytes(line)) for line in lines]


def read_line(line: bytes) -> Line:
    r"""
    Read one line; what cannot be read comes back as an `invalid_line`.

    Examples
    --------
    >>> read_line(b'{"custom_id":"a","result":{"type":"expired"}}').result.type
    'expired'
    >>> reason_of(read_line(b'{"custom_id":"a","result":{"type":"expi').result)
    'the line is not JSON'
    """
    line = strip_line(line)
    try:
        return _sound_or_invalid(_decoder.decode(line))
    except (ValueError, RecursionError):
        pass
    try:
        value = json.loads(line.decode("utf-8", "replace"), strict=False, parse_int=_int_of)
    except RecursionError:
        return invalid_line("the line is nested too deeply", id_of(line) or "")
    except ValueError:
        return invalid_line("the line is not JSON", id_of(line) or "")
    picked = _line_of(value)
    return picked if picked.result.type == INVALID_TYPE else _sound_or_invalid(picked)


def _is_sound(result: Result) -> bool:
    if result.type == "succeeded":
        return result.message is not None and result.message.content is not None
    return result.type in RESULT_TYPES


def _sound_or_invalid(line: Line) -> Line:
    result = line.result
    if _is_sound(result):
        return line
    if result.type == "succeeded":
        return invalid_line("the result has no message content", line.custom_id)
    return invalid_line(f"the result is of an unknown type, {result.type[:40]!r}", line.custom_id)


def _int_of(digits: str) -> int:
    # Python refuses to convert more than 4,300 digits; no count of tokens has more than 19.
    return int(digits) if len(digits) <= 19 else UNKNOWN


def _line_of(value: Any) -> Line:
    """Pick what is usable out of decoded JSON of any shape."""
    line = _dict(value)
    custom_id = _text(line.get("custom_id"))
    if custom_id is None:
        return invalid_line("the line has no custom_id")
    result = line.get("result")
    if not isinstance(result, dict):
        return invalid_line("the line has no result", custom_id)
    kind = result.get("type")
    if not isinstance(kind, str) or kind == INVALID_TYPE:
        return invalid_line("the result has no type", custom_id)
    message = result.get("message")
    return Line(
        custom_id=custom_id,
        result=Result(
            type=_text(kind) or "",
            message=_message_of(message) if isinstance(message, dict) else None,
            error=_error_of(result.get("error")),
        ),
    )


def _error_of(told: Any) -> ErrorResponse:
    """Return what is said of an error, however deep it stands, or as a text alone."""
    if isinstance(told, str):
        return ErrorResponse(message=_text(told))
    outer = _dict(told)
    inner = outer.get("error")
    if isinstance(inner, str):
        return ErrorResponse(error=Error(message=_text(inner)))
    error = inner if isinstance(inner, dict) else None
    return ErrorResponse(
        error=None if error is None else Error(type=_text(error.get("type")), message=_text(error.get("message"))),
        type=_text(outer.get("type")),
        message=_text(outer.get("message")),
    )


def _message_of(message: dict[str, Any]) -> Message:
    usage = _dict(message.get("usage"))
    content = message.get("content")
    return Message(
        id=_text(message.get("id")),
        model=_text(message.get("model")),
        content=[_block_of(_dict(block)) for block in content] if isinstance(content, list) else None,
        stop_reason=_text(message.get("stop_reason")),
        usage=usage_of(usage),
    )


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """Pick the counts out of a usage of any shape; what is no count is `UNKNOWN`."""
    created, absent_part = _parts_of(usage.get("cache_creation"))
    tools, absent_call = _parts_of(usage.get("server_tool_use"))
    return Usage(
        input_tokens=_count(usage.get("input_tokens")),
        output_tokens=_count(usage.get("output_tokens")),
        cache_read_input_tokens=_count(usage.get("cache_read_input_tokens", ABSENT)),
        cache_creation_input_tokens=_count(usage.get("cache_creation_input_tokens", ABSENT)),
        cache_creation=CacheCreation(
            ephemeral_5m_input_tokens=_count(created.get("ephemeral_5m_input_tokens", absent_part)),
            ephemeral_1h_input_tokens=_count(created.get("ephemeral_1h_input_tokens", absent_part)),
        ),
        output_tokens_details=OutputDetails(
            thinking_tokens=_count(_dict(usage.get("output_tokens_details")).get("thinking_tokens"))
        ),
        server_tool_use=ServerToolUse(web_search_requests=_count(tools.get("web_search_requests", absent_call))),
        service_tier=None if (tier := usage.get("service_tier")) is None else _text(tier) or "",
        inference_geo=_text(usage.get("inference_geo")),
        iterations=msgspec.Raw(json.dumps(usage.get("iterations")).encode()),
    )


def _block_of(block: dict[str, Any]) -> Block:
    text = _text(block.get("text"))
    return Block(
        type=_text(block.get("type")) or "",
        text=msgspec.Raw(b"" if text is None else msgspec.json.encode(text)),
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _parts_of(value: Any) -> tuple[dict[str, Any], int]:
    """Return the parts of a count, and what one of them is that is not told: where there are no parts, not known."""
    return _dict(value), ABSENT if value is None or isinstance(value, dict) else UNKNOWN


def _text(value: Any) -> str | None:
    return without_surrogates(value) if isinstance(value, str) else None


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        return UNKNOWN
    return value if value == ABSENT or 0 <= value <= _MAX_COUNT else UNKNOWN


def without_surrogates(text: str) -> str:
    r"""
    Return `text` with U+FFFD for each lone surrogate, which neither pandas nor a file can hold.

    Examples
    --------
    >>> without_surrogates("a\ud83d") == "a\ufffd"
    True
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
