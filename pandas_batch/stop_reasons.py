"""The reasons for which a model stops: whether the answer is whole then, whether it is billed, and what to advise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StopReason:
    """
    One value of ``stop_reason`` (https://platform.claude.com/docs/en/api/handling-stop-reasons).

    Attributes
    ----------
    name
        As the API writes it.
    is_cut
        Whether the answer is not a whole one.
    is_billed_empty
        Whether an answer without any content is billed all the same.
    of_rows
        What is said of the rows that it befell; "" where nothing is.
    of_answer
        Why the answer does not fit a schema.
    needs_room
        Whether the same request with more ``max_tokens`` may be answered whole.
    advice
        What to ask instead, where the same request would be cut again; "" where there is nothing to say.
    """

    name: str
    is_cut: bool = False
    is_billed_empty: bool = True
    of_rows: str = ""
    of_answer: str = ""
    needs_room: bool = False
    advice: str = ""


PAUSED = "pause_turn"
"""The stop reason of an answer that the server's tools have interrupted, and that goes on when it is sent back."""

STOP_REASONS = (
    StopReason("end_turn"),
    StopReason("stop_sequence"),
    StopReason("tool_use"),
    StopReason(
        "max_tokens",
        is_cut=True,
        of_rows="were cut at max_tokens",
        of_answer="the answer was cut at max_tokens",
        needs_room=True,
    ),
    StopReason(
        "refusal",
        is_cut=True,
        is_billed_empty=False,
        of_rows="were refused by the model",
        of_answer="the model refused to answer",
    ),
    StopReason(
        PAUSED,
        is_cut=True,
        of_rows="paused before they were finished",
        of_answer="the model paused before it had answered",
    ),
    StopReason(
        "model_context_window_exceeded",
        is_cut=True,
        of_rows="filled the model's context window",
        of_answer="the answer was cut at the end of the context window",
        advice="A shorter prompt leaves the answer more room.",
    ),
)

CUT = tuple(reason.name for reason in STOP_REASONS if reason.is_cut)
"""Stop reasons of a succeeded row whose answer is not a whole one."""
FREE_IF_EMPTY = tuple(reason.name for reason in STOP_REASONS if not reason.is_billed_empty)
"""Stop reasons of an answer that costs nothing where it has no content."""
WHY_MISFIT = {reason.name: reason.of_answer for reason in STOP_REASONS if reason.of_answer}
"""Why an answer does not fit a schema, by its stop reason."""
