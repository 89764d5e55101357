"""Why a run is stopped: who stopped it, in whose words, and what its user can do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pandas_batch.errors import InputError, PandasBatchError, StoreError, UnreadableAnswerError, clip
from pandas_batch.types import Stop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_batch.store import BatchRecord

_N_CHARS = 200
_NOT_TWICE = "what was sent is not paid twice."
_SAME_LINE = f"run the same line again; {_NOT_TWICE}"
_CODE = re.compile(r"Error code: (\d{3})")
_MESSAGE = re.compile(r"""'message': (?:'((?:[^'\\]|\\.)*)|"((?:[^"\\]|\\.)*))""")
_SPEND = re.compile(r"(spend|usage) limit", re.IGNORECASE)

_SPENT = Stop(
    why="the spend limit of your organization is reached",
    advice=f"When the limit is lifted, {_SAME_LINE}",
    where="Raise it: platform.claude.com → Settings → Limits",
)
_BY_CODE = {
    400: Stop(
        why="the API refuses the requests",
        advice="Correct in the call what it says. That makes another run; rows that are answered are not paid again.",
    ),
    401: Stop(
        why="the API does not accept the key",
        advice=f"Set a key of the same workspace (ANTHROPIC_API_KEY, or client=) and {_SAME_LINE}",
        where="Keys: platform.claude.com → Settings → API keys",
    ),
    402: Stop(
        why="the credit of your organization is used up",
        advice=f"When there is credit again, {_SAME_LINE}",
        where="Buy it: platform.claude.com → Settings → Billing",
    ),
    403: Stop(
        why="the API does not let this key do that",
        advice=f"With a key of the same workspace that may, {_SAME_LINE}",
        where="Keys: platform.claude.com → Settings → API keys",
    ),
    404: Stop(
        why="the API does not know what was asked for",
        advice="Correct the model in the call. That makes another run; rows that are answered are not paid again.",
    ),
    413: Stop(why="one request alone is too large", advice="Shorten that row in the call; it makes another run."),
    429: Stop(why="the rate limit of this account is reached", advice=f"A little later, {_SAME_LINE}"),
}
_BY_CODE[422] = _BY_CODE[400]


def stop_of(error: BaseException | None, batches: Sequence[BatchRecord], message: str = "") -> Stop:
    """
    Return why a run cannot go on.

    Parameters
    ----------
    error
        What stopped its engine; None where no engine of this process did, and only the store tells.
    batches
        Of the run.
    message
        What the engine said.
    """
    refused = next((batch.error or "" for batch in batches if batch.state == "refused"), "")
    if error is None:
        return _of_words(refused)
    if isinstance(error, UnreadableAnswerError):
        return Stop(
            why="something that is not the API answers",
            said=clip(error.what, _N_CHARS),
            advice=f"Ask who runs the network, or open the base URL in a browser; then {_SAME_LINE}",
        )
    if isinstance(error, StoreError):
        return Stop(why="the store cannot be used", said=clip(error.what, _N_CHARS), advice=clip(error.hint, _N_CHARS))
    if isinstance(error, PandasBatchError):
        why = "the call cannot go on as it is" if isinstance(error, InputError) else "it cannot go on by itself"
        return Stop(why=why, said=clip(error.what, _N_CHARS), advice=clip(error.hint, _N_CHARS))
    return _of_sdk(error, message)


def _of_sdk(error: Any, message: str) -> Stop:
    from pandas_batch.wire.failures import is_spend_cap

    code = getattr(error, "status_code", None)
    body = getattr(error, "body", None)
    inner = body.get("error") if isinstance(body, dict) else None
    said = inner.get("message") if isinstance(inner, dict) else None
    said = said if isinstance(said, str) else str(error)
    if is_spend_cap(error):
        return _with(_SPENT, said)
    if code in _BY_CODE:
        return _with(_of_code(code, said), said)
    if code is not None:
        return _with(Stop(why=f"the server answered with HTTP {code}", advice=f"A little later, {_SAME_LINE}"), said)
    if type(error).__name__ == "CredentialsError":
        return _with(_BY_CODE[401], said)
    if type(error).__module__.partition(".")[0] == "anthropic":
        stop = Stop(why="the server could not be reached", advice=f"When it can be reached, {_SAME_LINE}")
        return _with(stop, said)
    advice = f"When the cause is gone, {_SAME_LINE}"
    return _with(Stop(why=f"an error in this process ({type(error).__name__})", advice=advice), message)


def _of_words(text: str) -> Stop:
    """Return why the API refused a batch, from what was written down of it."""
    found = _CODE.search(text)
    inner = _MESSAGE.search(text)
    said = (inner.group(1) or inner.group(2) or "") if inner else text
    said = said.replace("\\'", "'").replace('\\"', '"')
    if not text:
        return Stop(why="the API refused a batch", advice=f"When the cause is gone, {_SAME_LINE}")
    if found is None or int(found.group(1)) not in _BY_CODE:
        return _with(Stop(why="the API refused a batch", advice=f"When the cause is gone, {_SAME_LINE}"), said)
    return _with(_of_code(int(found.group(1)), said), said)


def _of_code(code: int, said: str) -> Stop:
    return _SPENT if code in (400, 429) and _SPEND.search(said) else _BY_CODE[code]


def _with(stop: Stop, said: str) -> Stop:
    return Stop(why=stop.why, said=clip(said, _N_CHARS), advice=stop.advice, where=stop.where)
