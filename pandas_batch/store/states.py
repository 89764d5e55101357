"""The states of a batch, and which may follow which: the one table that all of the package goes by.

`Batches.transition` refuses every step that is not in it. What moves a batch is the engine (`pandas_batch.engine`), but
for ``withdrawn``, which a cancel sets in the database itself, and ``unknown`` again, which a batch becomes whose id
proved to be another's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Literal, get_args

BatchState = Literal[
    "intent", "posting", "unknown", "refused", "bound", "ended", "collected", "gone", "split", "withdrawn", "live"
]

BATCH_STATES: tuple[BatchState, ...] = get_args(BatchState)

MEANINGS: Mapping[BatchState, str] = MappingProxyType(
    {
        "intent": "recorded here, not posted",
        "posting": "a create is under way, or was when the process ended",
        "unknown": "the answer to the create was lost: the batch is looked for on the server",
        "refused": "the API would not take it; the same line tries again",
        "bound": "the server's id is known; the server works on it",
        "ended": "the server has finished; its results are being fetched",
        "collected": "its answers are here",
        "gone": "the server no longer has it, as far as is known",
        "split": "replaced by smaller batches, as it was too large",
        "withdrawn": "canceled before it was posted; it never will be",
        "live": "no batch of the server: its requests are asked one by one through the Messages API",
    }
)

TRANSITIONS: Mapping[BatchState, Mapping[BatchState, str]] = MappingProxyType(
    {
        "intent": {
            "posting": "its turn has come",
            "unknown": "recorded by an earlier process, which may have posted it",
            "bound": "the looked-for batch is found after all",
            "withdrawn": "canceled",
        },
        "posting": {
            "bound": "the create answered with an id, or the batch was found",
            "ended": "the create answered that it has ended already",
            "unknown": "no answer, or none of the API's own",
            "intent": "the API asked to come again later",
            "refused": "the API's own error object says no",
            "split": "the API found it too large",
        },
        "unknown": {
            "bound": "found on the server",
            "ended": "the create answered after all, and says that it has ended",
            "intent": "looked for in vain during the grace: posted again",
            "split": "looked for in vain, and something found it too large",
        },
        "refused": {
            "intent": "the user has come back",
            "bound": "the looked-for batch is found after all",
            "withdrawn": "canceled",
        },
        "bound": {
            "bound": "polled",
            "ended": "the server says so",
            "gone": "archived, or neither retrieve nor list knows it",
            "unknown": "its id proved to be another batch's",
        },
        "ended": {
            "collected": "results are fetched, decoded and reconciled",
            "bound": "the results are not to be had yet: polled again",
            "gone": "archived, or neither retrieve nor list knows it",
            "unknown": "its id proved to be another batch's",
        },
        "collected": {
            "ended": "answers and raw results are damaged: fetched again",
        },
        "gone": {
            "gone": "looked at anew in vain",
            "bound": "there after all",
        },
        "split": {},
        "withdrawn": {},
        "live": {
            "collected": "nobody asks any more; what came is decoded",
        },
    }
)
"""From each state, those that may follow, and why a batch moves there."""

RECORDED: frozenset[BatchState] = frozenset({"intent", "refused"})
"""The server certainly has no such batch of ours, unless an earlier process posted it."""

UNDECIDED: frozenset[BatchState] = frozenset({"posting", "unknown"})
"""Nobody knows whether the server has it."""

TO_SEND: frozenset[BatchState] = frozenset({"intent", *UNDECIDED})
"""This process has still to get it to the server."""

WITHOUT_ID: frozenset[BatchState] = RECORDED | UNDECIDED
"""The server's id is not known."""

AT_THE_SERVER: frozenset[BatchState] = frozenset({"bound", "ended"})
"""The server has it, and its answers are not here yet."""

IN_FLIGHT: frozenset[BatchState] = TO_SEND | AT_THE_SERVER
"""Its answers may still come, without anybody doing anything about it."""

CANCELABLE: frozenset[BatchState] = IN_FLIGHT | {"live"}
"""A cancel marks it: it is not posted from then on, and nothing more of it is asked live."""

SETTLED: frozenset[BatchState] = frozenset({"collected", "gone", "split", "withdrawn"})
"""Nothing is left to do."""


def check_transition(expect: Collection[str], to: str) -> None:
    """
    Refuse a step between states that the table does not have.

    Raises
    ------
    ValueError
        `to` does not follow one of the states `expect`; this is a mistake of ours, never of a user.

    Examples
    --------
    >>> check_transition({"bound"}, "ended")
    >>> check_transition({"withdrawn"}, "posting")
    Traceback (most recent call last):
        ...
    ValueError: a batch does not go from 'withdrawn' to 'posting'
    """
    for state in sorted(expect):
        if state not in BATCH_STATES or to not in TRANSITIONS[state]:
            raise ValueError(f"a batch does not go from {state!r} to {to!r}")


def drawn() -> str:
    """
    Return the table as a diagram in Mermaid's notation, as ``ARCHITECTURE.md`` shows it.

    Examples
    --------
    >>> drawn().splitlines()[1]
    '    [*] --> intent: recorded'
    """
    lines = ["stateDiagram-v2", "    [*] --> intent: recorded", "    [*] --> live: recorded, to be asked one by one"]
    for state, following in TRANSITIONS.items():
        lines += [f"    {state} --> {to}: {why}" for to, why in following.items() if to != state]
        if not following:
            lines.append(f"    {state} --> [*]")
    return "\n".join(lines)
