"""Look before the leap: what would make every row of a batch fail is found in a second, before the first POST.

The server checks params only while a batch is processed, so one wrong shared option costs a whole batch's wait. Two
free endpoints tell most of it at once: the description of the model, and the count of tokens of one request.
"""

from __future__ import annotations

import difflib
import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_batch.amounts import number
from pandas_batch.clock import SYSTEM_CLOCK, Clock
from pandas_batch.errors import InputError, clip, outside_level
from pandas_batch.wire.endpoints import models_flow

from .counting import ask_all, count_requests, look_at, speaks_of_request, status_code_of

if TYPE_CHECKING:
    from pandas_batch.requests.options import Options
    from pandas_batch.requests.plan import RequestPlan
    from pandas_batch.wire.wire import Wire

LIMIT_S = 8.0
"""Seconds for all questions together; what is not answered by then is one warning."""

MAX_SHAPES = 12
"""Requests that are counted, one of each distinct set of options, and no more than this."""

_LONG_OUTPUT_BETA = "output-300k-"
_LONG_OUTPUT_TOKENS = 300_000
_BATCH_LASTS = timedelta(hours=24)
_SOON = timedelta(days=30)


class PreflightWarning(UserWarning):
    """Something could not be checked before sending, or will stop working soon."""


def preflight(plan: RequestPlan, options: Options, wire: Wire, *, clock: Clock = SYSTEM_CLOCK) -> None:
    """
    Ask the server about the models of a plan and about one request of each shape; free, and nothing is sent.

    Parameters
    ----------
    plan
        The requests.
    options
        Their options.
    wire
        Where to ask.
    clock
        Decides what a retirement date means now.

    Raises
    ------
    InputError
        A model is unknown, retired or takes no batches; `max_tokens` is above its limit.
    anthropic.APIStatusError
        The server refused a request (400, 413, 422) or the key (401), with a note.

    Warns
    -----
    PreflightWarning
        Once, for everything that could not be checked, and for models that are retired soon.
    """
    shapes = plan.samples_of_shapes()
    if not shapes:
        return
    until = time.monotonic() + LIMIT_S
    remarks: list[str] = []
    unchecked: list[str] = []
    used = sorted({int(plan.model_of_row[position]) for position in shapes})
    names = [plan.models[code] for code in used]
    answers = ask_all(
        {name: _model_question(wire, name) for name in names},
        limit_s=LIMIT_S / 2,
        go_on=lambda e: _names_model(e, names),
    )
    for code, name in zip(used, names, strict=True):
        answer = answers.get(name)
        if isinstance(answer, Exception):
            _stop_on_model(answer, name, wire)
            unchecked.append(_why(answer, "the model's description"))
        elif answer is None:
            unchecked.append("the model's description was not asked for")
        else:
            remarks += _check_model(answer, code, plan, options, clock.now(), wire)
    unchecked += _count(plan, shapes, options, wire, max(until - time.monotonic(), 1.0))
    if unchecked:
        remarks.append(
            f"Not everything could be checked before sending: {'; '.join(dict.fromkeys(unchecked))}. "
            "The run goes on; preflight=False leaves the check out."
        )
    if remarks:
        warnings.warn(" ".join(remarks), PreflightWarning, stacklevel=outside_level())


def _model_question(wire: Wire, name: str) -> Callable[[], Mapping[str, Any]]:
    return lambda: wire.model(name)


def _check_model(
    model: Mapping[str, Any], code: int, plan: RequestPlan, options: Options, now: datetime, wire: Wire
) -> Iterable[str]:
    """Raise where the model cannot do what is asked of it, and return what to remark. Absent fields say nothing."""
    name = plan.models[code]
    retires_at = _time(model.get("retires_at"))
    if model.get("lifecycle") == "retired":
        when = f" on {retires_at:%Y-%m-%d}" if retires_at else ""
        raise InputError(f"model={clip(repr(name), 60)} was retired{when}.", hint=_another_model(name, wire))
    abilities = model.get("capabilities")
    abilities = abilities if isinstance(abilities, Mapping) else {}
    if _is_unsupported(abilities, "batch"):
        raise InputError(f"model={clip(repr(name), 60)} takes no batches.", hint=_another_model(name, wire))
    if options.output_schema is not None and _is_unsupported(abilities, "structured_outputs"):
        raise InputError(
            f"model={clip(repr(name), 60)} has no structured outputs, which output_schema= needs.",
            hint=_another_model(name, wire),
        )
    limit = model.get("max_tokens")
    if any(beta.startswith(_LONG_OUTPUT_BETA) for beta in options.betas):
        limit = _LONG_OUTPUT_TOKENS
    mine = plan.sendable & (plan.model_of_row == code)
    asked = int(plan.max_tokens[mine].max(initial=0))
    if isinstance(limit, int) and 0 < limit < asked:
        n_rows = int((mine & (plan.max_tokens > limit)).sum())
        raise InputError(
            f"max_tokens={asked} is above the limit of {clip(name, 60)}, {number(limit)} (in {number(n_rows)} rows).",
            hint=f"max_tokens={limit}",
        )
    if retires_at is not None and retires_at - now < _SOON and model.get("lifecycle") != "active":
        late = " A batch may take 24 hours, and would then find it gone." if retires_at - now < _BATCH_LASTS else ""
        return [f"{clip(name, 60)} is to be retired on {retires_at:%Y-%m-%d}.{late}"]
    return []


def _is_unsupported(abilities: Mapping[str, Any], name: str) -> bool:
    ability = abilities.get(name)
    return isinstance(ability, Mapping) and ability.get("supported") is False


def _time(text: Any) -> datetime | None:
    try:
        time_ = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return time_ if time_.tzinfo else time_.replace(tzinfo=UTC)


def _stop_on_model(error: Exception, name: str, wire: Wire) -> None:
    """Raise where `error` says that there is no such model, or that the key is wrong; return otherwise."""
    if _names_model(error, [name]):
        raise InputError(f"There is no model {clip(repr(name), 60)}.", hint=_another_model(name, wire)) from error
    if status_code_of(error) == 401:
        _note(error, "The credentials were refused.")
        raise error


def _names_model(error: Exception, names: Iterable[str]) -> bool:
    """Return whether a 404 is about one of the models: an endpoint that is absent answers 404 as well."""
    if status_code_of(error) != 404:
        return False
    body = getattr(error, "body", None)
    told = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(told, Mapping) or told.get("type") != "not_found_error":
        return False
    message = str(told.get("message", ""))
    return any(name in message for name in names)


def _another_model(name: str, wire: Wire) -> str:
    """Return the line to type instead: the closest of the models that this key may use."""
    offered = ask_all({"models": lambda: wire.drive(models_flow())}, limit_s=LIMIT_S / 4).get("models")
    known = {_spelt(model): model for model in reversed(offered) if model != name} if isinstance(offered, list) else {}
    close = [known[spelt] for spelt in difflib.get_close_matches(_spelt(name), known, n=3, cutoff=0.5)]
    if not close:
        return "client.models.list() tells which models your key may use"
    return f"model={close[0]!r}" + (f"  # or {', '.join(map(repr, close[1:]))}" if close[1:] else "")


def _spelt(model: str) -> str:
    """Return a model's name as it compares: people write dots, and leave the date out."""
    return re.sub(r"-\d{8}$", "", model.lower().replace(".", "-"))


def _count(plan: RequestPlan, shapes: list[int], options: Options, wire: Wire, limit_s: float) -> list[str]:
    """Have one request of each shape counted; raise where the server refuses it, return what stayed unchecked."""
    some = np.array(shapes[:: -(-len(shapes) // MAX_SHAPES)], np.int64)
    seen = look_at(plan, some)
    positions = seen.positions[seen.is_countable].tolist()
    if not positions:
        return []
    counts = count_requests(plan, positions, wire, betas=options.betas, limit_s=limit_s)
    for position, error in sorted(counts.errors.items()):
        name = plan.models[int(plan.model_of_row[position])]
        if speaks_of_request(error):
            _note(
                error,
                f"The server refused the request of row {position} (counted from 0) when it was asked to count it.",
            )
            raise error
        _stop_on_model(error, name, wire)
    if counts.errors:
        return [_why(next(iter(counts.errors.values())), "the token count")]
    return ["the token count was not answered in time"] if counts.n_unanswered else []


def _note(error: Exception, what: str) -> None:
    error.add_note(f"{what} Nothing was sent, nothing was billed.\n    preflight=False sends without this check")


def _why(error: Exception, what: str) -> str:
    code = status_code_of(error)
    if code == 404:
        return f"{what} is not offered here (HTTP 404)"
    if code == 429:
        return f"{what} is rate-limited now (HTTP 429)"
    if code is not None:
        return f"{what} cannot be had (HTTP {code})"
    return f"{what} cannot be had ({type(error).__name__})"
