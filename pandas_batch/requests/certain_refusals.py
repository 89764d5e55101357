"""What the API is certain to refuse about the params of one request, reported before anything is sent.

The API looks at params when a batch is processed: a mistake that all rows share would come to light a day later, one
row at a time. Only what no model and no beta takes is refused here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pandas_batch.errors import InputError

from .plain_values import quoted, shown

MIN_THINKING_TOKENS = 1024
"""The smallest budget for thinking (https://platform.claude.com/docs/en/build-with-claude/extended-thinking)."""

MAX_MARKS = 4
"""Cache marks that a request may have (https://platform.claude.com/docs/en/build-with-claude/prompt-caching)."""

_LIVES = ("5m", "1h")
INTERLEAVED = "interleaved-thinking-"


def check_request(
    params: Mapping[str, Any],
    *,
    messages: Sequence[Mapping[str, Any]] = (),
    betas: Iterable[str] = (),
    unchecked: Iterable[str] = (),
    where: str = "",
) -> None:
    """
    Refuse a request that the API is certain to refuse.

    Parameters
    ----------
    params
        Its params; their ``messages`` are not looked at.
    messages
        Its messages, as far as they may have cache marks.
    betas
        The beta headers it goes out with.
    unchecked
        Names of the params that the caller wants sent unchecked.
    where
        Which request, for the message.

    Raises
    ------
    InputError
        Saying what, and what to type.

    Examples
    --------
    >>> check_request({"max_tokens": 2048, "thinking": {"type": "enabled", "budget_tokens": 1024}})
    """
    passed_on = frozenset(unchecked)
    checked = {name: value for name, value in params.items() if name not in passed_on}
    try:
        _check_stop_sequences(checked.get("stop_sequences"))
        _check_thinking(checked, betas)
        _check_tools(checked, has_other_tools="tools" in passed_on)
        _check_marks(checked, messages)
    except InputError as error:
        if not where:
            raise
        raise InputError(f"{where}: {error.what}", error.state, error.hint) from None


def _check_stop_sequences(sequences: Any) -> None:
    for sequence in sequences if isinstance(sequences, list | tuple) else ():
        if isinstance(sequence, str) and not sequence.strip():
            what = "an empty text" if not sequence else f"{sequence!r}" if len(sequence) < 20 else "nothing but blanks"
            raise InputError(
                f"stop_sequences holds {what}; the API refuses sequences without a letter or a sign in them.",
                hint='stop_sequences=["END"]   # ask for that word in the prompt',
            )


def _check_thinking(params: Mapping[str, Any], betas: Iterable[str]) -> None:
    thinking = params.get("thinking")
    if not isinstance(thinking, Mapping) or thinking.get("type") != "enabled":
        return
    budget, max_tokens = thinking.get("budget_tokens"), params.get("max_tokens")
    if not isinstance(budget, int) or isinstance(budget, bool):
        return
    if budget < MIN_THINKING_TOKENS:
        raise InputError(
            f"thinking['budget_tokens'] is {budget}; the API takes {MIN_THINKING_TOKENS} and more.",
            hint=_thinking_line(MIN_THINKING_TOKENS),
        )
    # Between calls of tools thinking may go on: the budget is then that of all turns together.
    is_of_all_turns = bool(params.get("tools")) and any(beta.startswith(INTERLEAVED) for beta in betas)
    if isinstance(max_tokens, int) and budget >= max_tokens and not is_of_all_turns:
        raise InputError(
            f"thinking['budget_tokens'] is {budget}, which leaves nothing of max_tokens={max_tokens} for the answer: "
            "the API refuses a budget that is not below max_tokens.",
            hint=_thinking_line(budget),
        )


def _thinking_line(budget: int) -> str:
    return f'thinking={{"type": "enabled", "budget_tokens": {budget}}}, max_tokens={budget + 1024}'


def _check_tools(params: Mapping[str, Any], *, has_other_tools: bool) -> None:
    tools = params.get("tools") or []
    if not isinstance(tools, list):
        return
    names = [tool.get("name") for tool in tools if isinstance(tool, Mapping)]
    known = [name for name in names if isinstance(name, str)]
    twice = next((name for i, name in enumerate(known) if name in known[:i]), None)
    if twice is not None:
        raise InputError(f"tools has two tools of the name {_shown(twice)}.", hint="give each tool a name of its own")
    choice = params.get("tool_choice")
    if not isinstance(choice, Mapping) or choice.get("type") not in ("any", "tool") or has_other_tools:
        return
    if not tools:
        raise InputError(
            f"tool_choice is of type {choice['type']!r}, and there are no tools.",
            hint='tools=[{"name": "...", "input_schema": {...}}]',
        )
    wanted = choice.get("name")
    # A set of tools (of an MCP server) brings names that are not known here.
    if choice["type"] == "tool" and isinstance(wanted, str) and len(known) == len(tools) and wanted not in known:
        raise InputError(
            f"tool_choice names {_shown(wanted)}, which is none of the tools ({', '.join(map(_shown, known[:8]))}).",
            hint=f'tool_choice={{"type": "tool", "name": {_shown(known[0])}}}',
        )
    thinking = params.get("thinking")
    if isinstance(thinking, Mapping) and thinking.get("type") == "enabled":
        raise InputError(
            "thinking with a budget and a tool_choice that forces a tool: the API takes one of them.",
            hint='tool_choice={"type": "auto"}',
        )


def _shown(text: str) -> str:
    return quoted(text, 40)


def _check_marks(params: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> None:
    marks = list(_marks_of(params, messages))
    for where, mark in marks:
        life = mark.get("ttl", "5m")
        if life not in _LIVES and life is not None:
            raise InputError(
                f"{where} has a cache mark with a ttl of {shown(life)}; the API knows '5m' and '1h'.",
                hint='"cache_control": {"type": "ephemeral", "ttl": "1h"}',
            )
    if len(marks) > MAX_MARKS:
        raise InputError(
            f"The request has {len(marks)} cache marks ({', '.join(where for where, _ in marks[:6])}); "
            f"the API takes {MAX_MARKS}.",
            hint="leave out the earlier ones: a mark holds for all that stands before it, too",
        )
    short = ""
    for where, mark in marks:
        if (mark.get("ttl") or "5m") == "5m":
            short = where
        elif short:
            raise InputError(
                f"{where} has a cache mark of an hour after one of five minutes ({short}): the API refuses that order "
                "(tools, then system, then messages).",
                hint='"cache_control": {"type": "ephemeral", "ttl": "1h"}   # in your own marks: batches take longer '
                "than five minutes\nleave cache_system=True out   # and mark the system prompt yourself",
            )


def _marks_of(
    params: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the cache marks of a request in the order in which its parts are cached, and where each stands."""
    for name in ("tools", "system"):
        value = params.get(name)
        for i, block in enumerate(value if isinstance(value, list | tuple) else ()):
            if isinstance(block, Mapping) and isinstance(mark := block.get("cache_control"), Mapping):
                yield f"{name}[{i}]", mark
    for message in messages:
        for mark in _marks_in(message.get("content")):
            yield "the prompt" if message.get("role") == "user" else "an earlier answer", mark
    if isinstance(mark := params.get("cache_control"), Mapping):
        yield "cache_control=", mark


def _marks_in(content: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the marks of content blocks, those of what a block holds before its own."""
    if not isinstance(content, list | tuple):
        return
    for block in content:
        if isinstance(block, Mapping):
            yield from _marks_in(block.get("content"))
            if isinstance(mark := block.get("cache_control"), Mapping):
                yield mark
