"""The kinds of content blocks of an answer, and which column of a result holds what of them."""

from __future__ import annotations

from collections.abc import Iterable

TEXT_BLOCKS = frozenset({"text"})
"""Blocks whose ``text`` is joined to the output."""
THINKING_BLOCKS = frozenset({"thinking", "redacted_thinking"})
"""Blocks of what the model thought before it answered."""
TOOL_CALL_BLOCKS = frozenset({"tool_use"})
"""Calls of the user's own tools, which wait for the user."""

# What the server's own tools have found stands in the text of the answer.
_READ_BY_THE_MODEL = frozenset(
    {
        "server_tool_use",
        "mcp_tool_use",
        "mcp_tool_result",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "tool_search_tool_result",
    }
)


def column_beside_output(kinds: Iterable[str], *, has_text: bool) -> str | None:
    """
    Return the column to ask for where the output does not hold an answer; None where it does.

    Parameters
    ----------
    kinds
        The types of the answer's content blocks.
    has_text
        Whether its output is more than nothing.

    Examples
    --------
    >>> column_beside_output(["thinking", "tool_use"], has_text=False)
    'tool_calls'
    >>> column_beside_output(["server_tool_use", "web_search_tool_result", "text"], has_text=True) is None
    True
    >>> column_beside_output(["text", "container_upload"], has_text=True)
    'content'
    """
    others = {*kinds} - TEXT_BLOCKS
    if others & TOOL_CALL_BLOCKS:
        return "tool_calls"
    others -= THINKING_BLOCKS
    if others - _READ_BY_THE_MODEL or (others and not has_text):
        return "content"
    return "thinking" if {*kinds} & THINKING_BLOCKS and not has_text else None
