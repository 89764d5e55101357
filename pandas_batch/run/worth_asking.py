"""Which requests of a run are worth asking again, as they are or with something changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pandas_batch.results.row_status import CODE, FAILED, is_any
from pandas_batch.stop_reasons import CUT

if TYPE_CHECKING:
    from .run_answers import RunAnswers

TRANSIENT_ERRORS = frozenset({"api_error", "overloaded_error", "rate_limit_error", "timeout_error"})
"""Errors of a row after which the same request may well succeed
(https://platform.claude.com/docs/en/api/errors)."""

_ALWAYS = ("expired", "canceled", "missing", "paused")


def worth_asking(answers: RunAnswers, errors: str) -> np.ndarray:
    """
    Return for each request whether it is worth asking again.

    Parameters
    ----------
    answers
        Of the run.
    errors
        ``"transient"``: those that may well succeed as they are; ``"all"``: every one without a whole, usable answer.
    """
    codes = answers.codes_of_requests()
    if errors == "all":
        cut = np.zeros(len(codes), dtype=bool)
        for reason in CUT:
            cut |= answers.requests_with("stop_reason", reason)
        failed: np.ndarray = is_any(codes, FAILED) | (cut & (codes == CODE["succeeded"]))
        return failed
    worth = is_any(codes, _ALWAYS)
    is_error = codes == CODE["errored"]
    if is_error.any():
        for kind in TRANSIENT_ERRORS:
            worth |= answers.requests_with("error_type", kind) & is_error
    return worth


_WAYS = {
    "invalid_request_error": "no: change the prompt",
    "not_found_error": "no: change the model",
    "authentication_error": "no: use another key",
    "permission_error": "no: ask for access",
    "billing_error": "no: buy credit first",
    "request_too_large": "no: shorten the prompt",
}


def advice_on(status: str, error: str) -> str:
    """
    Return whether asking again helps a row that failed so: ``yes``, or ``no: `` and what would.

    Examples
    --------
    >>> advice_on("expired", "expired: the batch ended after 24 hours"), advice_on("errored", "overloaded_error: x")
    ('yes', 'yes')
    >>> advice_on("errored", "invalid_request_error: x"), advice_on("skipped", "not a text")
    ('no: change the prompt', 'no: correct the row')
    """
    kind = error.partition(":")[0]
    if status in _ALWAYS or (status == "errored" and kind in TRANSIENT_ERRORS):
        return "yes"
    if status == "skipped":
        return "no: correct the row"
    if status == "invalid":
        return "no: raise max_tokens" if "max_tokens" in error else "no: change prompt or schema"
    return _WAYS.get(kind, "no: change what is asked")


def retry_line(answers: RunAnswers, run: str) -> str:
    """
    Return the line that asks again for what failed; "" where that would ask for nothing.

    Parameters
    ----------
    answers
        Of the run.
    run
        The expression that gives the run.
    """
    if not is_any(answers.codes_of_requests(), FAILED).any():
        return ""
    if worth_asking(answers, "transient").any():
        return f"{run}.retry_failed()"
    return f'{run}.retry_failed(errors="all")   # as they are these would fail again: with another prompt or limit'
