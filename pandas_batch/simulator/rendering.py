"""Settling a batch: what each of its rows came to, written once as the lines of its results."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from .batches import Batch
from .blobs import BlobWriter
from .faults import RowFault
from .models import find_model
from .plain_rows import PlainRows
from .replies import Answer, OncePerRow, make_message, message_id, seeded
from .tokens import CacheUse, PromptCache, count_input_tokens
from .validation import ApiError, check_params, invalid

__all__ = ["Bill", "LiveMessage", "answer_live", "bill_of", "bills_of", "settle"]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_BLOCK_LINES = 256
_ID_BITS = 88

_ROW_ERRORS = {
    "errored": ("invalid_request_error", "messages: the simulator was asked to refuse this row"),
    "overloaded": ("overloaded_error", "Overloaded"),
    "api_error": ("api_error", "Internal server error"),
}


def settle(batch: Batch, *, answer: Answer, cache: PromptCache, faults: list[RowFault], seed: int, spool: Path) -> None:
    """
    Decide every row of a batch that has ended, and write its results.

    Parameters
    ----------
    batch
        The batch; its results and counts are set.
    answer
        Where the texts come from.
    cache
        The prompt cache, which rows read and write in the order in which they are processed.
    faults
        The row faults that strike this batch.
    seed
        Decides the order of the results and every other chance.
    spool
        A file for the results where they are many.
    """
    facts = batch.facts
    rng = seeded(seed, facts.sequence)
    order = list(range(facts.n_requests))
    # Rows are processed, and come back, in no order that the requests would tell.
    rng.shuffle(order)
    items = batch.items()
    pick = _picker(faults, facts.n_requests, f"{seed}/{facts.sequence}")
    n_processed = batch.n_processed()
    unprocessed = _encode({"type": "expired" if facts.cancel_at is None else "canceled"})
    seconds_per_row = facts.seconds / facts.n_requests
    counts = dict.fromkeys(("succeeded", "errored", "canceled", "expired"), 0)
    once = OncePerRow(answer) if callable(answer) else None
    spoken: Answer = once or answer
    plain = PlainRows(spoken, facts.api_version)
    writer = BlobWriter(spool)
    lines: list[bytes] = []
    for turn, position in enumerate(order):
        item = items[position]
        draw = rng.getrandbits(_ID_BITS)
        if turn >= n_processed:
            kind, result = ("expired" if facts.cancel_at is None else "canceled"), unprocessed
        else:
            if once is not None:
                once.next_row()
            fault = pick(position, item.params) if pick else None
            short = plain.result(item.params, draw) if fault is None else None
            if short is not None:
                kind, result = "succeeded", short
            else:
                at_s = facts.created_at + turn * seconds_per_row
                row = _Row(item.params, spoken, cache, facts.api_version, facts.betas, at_s, draw)
                kind, result = row.result(fault)
        counts[kind] += 1
        lines.append(b'{"custom_id":"%b","result":%b}\n' % (item.custom_id.encode("ascii"), result))
        if len(lines) == _BLOCK_LINES:
            writer.write(b"".join(lines))
            lines.clear()
    writer.write(b"".join(lines))
    batch.results = writer.finish()
    facts.counts = counts


def _picker(faults: list[RowFault], n_rows: int, seed: str) -> Callable[[int, msgspec.Raw], RowFault | None] | None:
    """Return a function that says which fault, if any, strikes a row."""
    if not faults:
        return None
    drawn = []
    for number, fault in enumerate(faults):
        rng = seeded(seed, number)
        drawn.append([True] * n_rows if fault.share >= 1 else [rng.random() < fault.share for _ in range(n_rows)])

    def pick(position: int, params: msgspec.Raw) -> RowFault | None:
        for fault, struck in zip(faults, drawn, strict=True):
            if not struck[position]:
                continue
            if fault.marker is not None and not _holds(bytes(params), fault.marker):
                continue
            if fault.where is not None and not fault.where(_decode(params)):
                continue
            return fault
        return None

    return pick


def _holds(params: bytes, marker: str) -> bool:
    """Say whether the text stands in the JSON, whichever way the client escapes its strings."""
    wanted = _encode(marker)[1:-1]
    return wanted in params or (b"\\u" in params and wanted in _encode(_decode(params)))


@dataclass(slots=True)
class _Row:
    """One row while it is processed."""

    params: msgspec.Raw
    answer: Answer
    cache: PromptCache
    api_version: str
    betas: list[str]
    at_s: float
    draw: int

    def result(self, fault: RowFault | None) -> tuple[str, bytes]:
        """Return the type of its result and the result as JSON."""
        if fault is not None:
            if fault.outcome in ("expired", "canceled"):
                return fault.outcome, _encode({"type": fault.outcome})
            if fault.outcome in _ROW_ERRORS:
                kind, text = _ROW_ERRORS[fault.outcome]
                return self._errored(ApiError(fault.kind or kind, fault.message or text), worker=True)
        try:
            params = _decode(self.params)
            model = check_params(params, version=self.api_version, betas=self.betas)
            n_tokens = 0
            if b'"cache_control"' in memoryview(self.params).tobytes():
                use = self.cache.use(params, model, self.at_s)
                n_tokens = use.uncached + use.read + use.written_5m + use.written_1h
            else:
                n_tokens = count_input_tokens(params, model)
                use = CacheUse(n_tokens)
            if n_tokens > model.max_input_tokens:
                raise ApiError(
                    "invalid_request_error",
                    f"prompt is too long: {n_tokens} tokens > {model.max_input_tokens} maximum",
                )
            _check_downloads(params)
            message = make_message(self.answer, params, model, use, self.draw)
        except ApiError as error:
            return self._errored(error, worker=error.message.startswith("Unable to download"))
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
            # Something of the wrong shape deep inside; the real server names the field, here the kind has to do.
            return self._errored(invalid(f"params: Input should be valid ({type(error).__name__})"), worker=False)
        if fault is not None:
            _spoil(message, fault.outcome, params["max_tokens"])
        return "succeeded", _encode({"type": "succeeded", "message": message})

    def _errored(self, error: ApiError, *, worker: bool) -> tuple[str, bytes]:
        inner = {"details": {"error_visibility": "user_facing"}, "type": error.kind, "message": error.message}
        request_id = message_id(self.draw, "workerreq_01") if worker else None
        return "errored", _encode(
            {"type": "errored", "error": {"type": "error", "error": inner, "request_id": request_id}}
        )


def _check_downloads(params: dict[str, Any]) -> None:
    """Refuse addresses that can never be fetched; others are taken as fetched, for there is no network here."""
    for message in params["messages"]:
        content = message["content"]
        for block in content if isinstance(content, list) else ():
            source = block.get("source") if block["type"] in ("image", "document") else None
            if isinstance(source, dict) and source.get("type") == "url" and ".invalid/" in str(source.get("url")) + "/":
                raise ApiError(
                    "invalid_request_error", "Unable to download the file. Please verify the URL and try again."
                )


def _spoil(message: dict[str, Any], outcome: str, max_tokens: int) -> None:
    """Turn a good message into one of those that succeed and are still not an answer."""
    texts = [block for block in message["content"] if block.get("type") == "text"]
    text = texts[0]["text"] if texts else ""
    usage = message["usage"]
    if outcome in ("refused", "refused_early"):
        message["stop_reason"] = "refusal"
        message["stop_details"] = {"type": "refusal", "category": None, "explanation": None}
        message["content"] = (
            [{"type": "text", "text": text[: len(text) // 2 + 1]}] if outcome == "refused" and text else []
        )
        usage["output_tokens"] = max(1, usage["output_tokens"] // 2) if message["content"] else 0
    elif outcome == "truncated":
        message["stop_reason"] = "max_tokens"
        message["content"] = [{"type": "text", "text": text[: len(text) // 2 + 1]}]
        usage["output_tokens"] = max_tokens
    elif outcome == "paused":
        message["stop_reason"] = "pause_turn"
        # The loop of a server's tool was interrupted: its last call waits to be sent back.
        call = {"type": "server_tool_use", "id": f"srvtoolu_{message['id'][-24:]}", "name": "web_search"}
        message["content"] = [*message["content"], call | {"input": {"query": "more"}}]
    elif outcome == "invalid_json":
        message["content"] = [{"type": "text", "text": '{"broken": '}]
    elif outcome == "no_text":
        message["content"] = []


# ---- what it cost


@dataclass(frozen=True, slots=True)
class Bill:
    """
    What one answer was billed.

    Attributes
    ----------
    batch_id, custom_id
        The row of a batch; both are empty for a message that was asked live.
    model
        Its model.
    usage
        The ``usage`` of its message.
    cost_usd
        By the simulator's own price list, with the discount of batches for their rows; a `decimal.Decimal`.
    is_live
        Whether it was asked through the Messages API, at the standard price.
    """

    batch_id: str
    custom_id: str
    model: str
    usage: dict[str, Any]
    cost_usd: Any
    is_live: bool = False


def bills_of(batch: Batch) -> Iterator[Bill]:
    """Yield one bill for each succeeded row; a refusal before any output is free and has none."""
    for line in batch.result_lines():
        row = _decode(line)
        if row["result"]["type"] != "succeeded":
            continue
        bill = bill_of(row["result"]["message"], batch.id, row["custom_id"])
        if bill is not None:
            yield bill


def bill_of(message: dict[str, Any], batch_id: str = "", custom_id: str = "") -> Bill | None:
    """Return the bill of one message, of a batch or (without one) asked live; None where it is free."""
    model = find_model(message["model"])
    if model is None or (message["stop_reason"] == "refusal" and not message["content"]):
        return None
    is_live = not batch_id
    cost_usd = model.cost_usd(message["usage"], batch=not is_live)
    return Bill(batch_id, custom_id, model.id, message["usage"], cost_usd, is_live)


# ---- one message, asked live


@dataclass(frozen=True, slots=True)
class LiveMessage:
    """
    One request of the Messages API that was answered.

    Attributes
    ----------
    params
        As asked.
    message
        The answer; empty where the request was refused.
    error
        ``(type, message)`` where it was refused; None otherwise.
    at_s
        When it was heard, by the server's clock, in Unix seconds.
    """

    params: dict[str, Any]
    message: dict[str, Any]
    error: tuple[str, str] | None
    at_s: float


def answer_live(
    params: Any,
    *,
    answer: Answer,
    cache: PromptCache,
    faults: list[RowFault],
    api_version: str,
    betas: Collection[str],
    at_s: float,
    seed: str,
) -> dict[str, Any]:
    """
    Return the message that answers a request of the Messages API, by the rules of a row of a batch.

    Raises
    ------
    ApiError
        Where the request is refused, at once.
    """
    model = check_params(params, version=api_version, betas=betas, batch=False)
    if params.get("stream"):
        raise invalid("stream: the simulator does not stream")
    pick = _picker(faults, 1, seed)
    fault = pick(0, msgspec.Raw(_encode(params))) if pick else None
    if fault is not None and fault.outcome in _ROW_ERRORS:
        kind, text = _ROW_ERRORS[fault.outcome]
        raise ApiError(fault.kind or kind, fault.message or text)
    use = cache.use(params, model, at_s)
    _check_downloads(params)
    message = make_message(answer, params, model, use, seeded(seed).getrandbits(_ID_BITS), service_tier="standard")
    if fault is not None:
        _spoil(message, fault.outcome, params["max_tokens"])
    return message
