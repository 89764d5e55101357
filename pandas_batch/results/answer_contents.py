"""The content blocks of answers, read from raw result lines: what the output does not hold.

Only who asks for it pays the time: the lines are read again, and only those of the rows that are wanted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from pandas_batch.content_blocks import TEXT_BLOCKS, TOOL_CALL_BLOCKS

from .result_file import Source, locate, mapped
from .result_lines import strip_line, without_surrogates

_MAX_DIGITS = 4300  # more of them Python does not convert, and no tool call has them


def read_contents(
    source: Source,
    positions: Sequence[int],
    *,
    prefix: bytes,
    n_requests: int,
    custom_ids: Sequence[bytes] | np.ndarray | None = None,
) -> list[list[Any] | None]:
    """
    Return the content blocks of some requests of a batch; None where there are none, or none that can be read.

    Nothing that the lines hold raises.

    Parameters
    ----------
    source, prefix, n_requests, custom_ids
        As in `pandas_batch.results.answers.decode_results`.
    positions
        The positions wanted, in any order and as often as wanted: each comes as objects of its own.
    """
    with mapped(source) as data:
        found = locate(data, prefix=prefix, n_requests=n_requests, custom_ids=custom_ids)
        made: list[list[Any] | None] = []
        for position in positions:
            begin, end = int(found.starts[position]), int(found.ends[position])
            line = found.chosen_lines.get(position) or (bytes(data[begin:end]) if begin >= 0 else b"")
            made.append(content_of(line))
    return made


def content_of(line: bytes) -> list[Any] | None:
    """
    Return the content blocks of a result line as they came; None where there are none that can be read.

    Examples
    --------
    >>> content_of(b'{"result":{"message":{"content":[{"type":"text","text":"Hi"}]}}}')
    [{'type': 'text', 'text': 'Hi'}]
    >>> content_of(b'{"result":{"type":"expi') is None
    True
    """
    line = strip_line(line)
    try:
        try:
            value = msgspec.json.decode(line)
        except ValueError:
            value = _plain(json.loads(line.decode("utf-8", "replace"), strict=False, parse_int=_int_of))
    except (ValueError, RecursionError):
        return None
    for name in ("result", "message", "content"):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, list) else None


def _int_of(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


def _plain(value: Any) -> Any:
    """Return decoded JSON without lone surrogates."""
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(name): _plain(item) for name, item in value.items()}
    return value


def _blocks(content: Sequence[Any]) -> list[dict[str, Any]]:
    return [block for block in content if isinstance(block, dict)]


def _is_any(block: Mapping[str, Any], kinds: frozenset[str]) -> bool:
    kind = block.get("type")
    return isinstance(kind, str) and kind in kinds


def texts_of(content: Sequence[Any]) -> list[Any]:
    """
    Return the text of each text block, as it came.

    Examples
    --------
    >>> texts_of([{"type": "text", "text": "Yes."}, {"type": "tool_use", "name": "look"}])
    ['Yes.']
    """
    return [block.get("text") for block in _blocks(content) if _is_any(block, TEXT_BLOCKS)]


def thinking_of(content: Sequence[Any]) -> str | None:
    """
    Return what was thought, the blocks apart by an empty line; None where nothing of it is shown.

    Examples
    --------
    >>> thinking_of([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Yes."}])
    'Hm.'
    """
    texts = [block.get("thinking") for block in _blocks(content) if block.get("type") == "thinking"]
    told = [text for text in texts if isinstance(text, str) and text]
    return "\n\n".join(told) if told else None


def tool_calls_of(content: Sequence[Any]) -> list[dict[str, Any]] | None:
    """
    Return the calls of the user's tools; None where there is none.

    Examples
    --------
    >>> tool_calls_of([{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"city": "Rome"}}])
    [{'id': 'toolu_1', 'name': 'look', 'input': {'city': 'Rome'}}]
    """
    calls = [block for block in _blocks(content) if _is_any(block, TOOL_CALL_BLOCKS)]
    return [{name: call.get(name) for name in ("id", "name", "input")} for call in calls] or None


def citations_of(content: Sequence[Any]) -> list[Any] | None:
    """
    Return the citations of all text blocks, as they came; None where there is none.

    Examples
    --------
    >>> citations_of([{"type": "text", "text": "Yes.", "citations": [{"cited_text": "It is."}]}])
    [{'cited_text': 'It is.'}]
    """
    told = [block.get("citations") for block in _blocks(content) if _is_any(block, TEXT_BLOCKS)]
    return [one for citations in told if isinstance(citations, list) for one in citations] or None


PICK: Mapping[str, Callable[[Sequence[Any]], Any]] = MappingProxyType(
    {"thinking": thinking_of, "tool_calls": tool_calls_of, "citations": citations_of, "content": list}
)
"""What a column takes of the content blocks of an answer."""
