"""The columns that are added to a frame: one entry each, read by everything that knows of columns.

A new column is an entry here and, where none of the makers in `run/joining.py` makes it, a maker of its name there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["text", "Int64", "float64", "boolean", "object"]
"""``"text"`` is the dtype that pandas gives texts by itself, ``"object"`` a column of lists."""


@dataclass(frozen=True)
class Column:
    """
    One column of a result.

    Attributes
    ----------
    name
        Without any prefix.
    line
        What it holds, in one line.
    dtype
        Its dtype, with one answer per row.
    made_as
        The maker in ``run/joining.py``.
    choice
        The least that has to be asked for to get it: ``columns="core"``, ``columns="all"``, or its name.
    is_borne_once
        Whether only the first of the rows bears it that share a request.
    """

    name: str
    line: str
    dtype: Dtype
    made_as: str
    choice: Literal["core", "all", "named"] = "all"
    is_borne_once: bool = False


COLUMNS = (
    Column("output", "all text blocks of the answer, joined", "text", "stored text", "core"),
    Column("status", "what became of the row", "text", "status", "core"),
    Column("stop_reason", "why the model stopped", "text", "stored text", "core"),
    Column("input_tokens", "input tokens outside the prompt cache", "Int64", "stored count", "core", True),
    Column("output_tokens", "output tokens, thinking included", "Int64", "stored count", "core", True),
    Column("tokens", "input, cache and output tokens together", "Int64", "tokens", "core", True),
    Column("cost_usd", "what the answer cost when it was bought", "float64", "cost", "core", True),
    Column("error", "why there is no usable answer", "text", "error", "core"),
    Column("cache_read_tokens", "input tokens read from the prompt cache", "Int64", "stored count", is_borne_once=True),
    Column("cache_write_tokens", "input tokens written to that cache", "Int64", "stored count", is_borne_once=True),
    Column("thinking_tokens", "output tokens spent on thinking", "Int64", "stored count", is_borne_once=True),
    Column("model", "the model that answered", "text", "stored text"),
    Column("reused", "whether the answer was bought by another run", "boolean", "reused"),
    Column("custom_id", "the id of the request in its batch", "text", "custom_id"),
    Column("batch_id", "the batch that the request was in", "text", "batch_id"),
    Column("message_id", "the id of the answer", "text", "stored text"),
    Column("thinking", "what the model thought, where the API tells it", "text", "content text", "named"),
    Column("tool_calls", 'calls of your tools: a list of {"id", "name", "input"}', "object", "content list", "named"),
    Column("citations", "all citations of the text, a list", "object", "content list", "named"),
    Column("content", "the content blocks of the answer, as they came", "object", "content list", "named"),
)
COLUMN = {column.name: column for column in COLUMNS}

CORE_COLUMNS = tuple(column.name for column in COLUMNS if column.choice == "core")
ALL_COLUMNS = tuple(column.name for column in COLUMNS if column.choice != "named")
BORNE_ONCE = frozenset(column.name for column in COLUMNS if column.is_borne_once)


def names_of_choice(columns: str | tuple[str, ...]) -> tuple[str, ...]:
    """
    Return the names that a checked ``columns=`` stands for.

    Examples
    --------
    >>> names_of_choice(("output",)), names_of_choice("core") == CORE_COLUMNS
    (('output',), True)
    """
    if isinstance(columns, str):
        return ALL_COLUMNS if columns == "all" else CORE_COLUMNS
    return columns


def names_made_as(*makers: str) -> frozenset[str]:
    """
    Return the names of the columns that some makers make.

    Examples
    --------
    >>> sorted(names_made_as("tokens", "cost"))
    ['cost_usd', 'tokens']
    """
    return frozenset(column.name for column in COLUMNS if column.made_as in makers)
