"""What the tests of the simulator ask, and how: requests, raw HTTP, and batches that are settled without a server."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import msgspec

from pandas_batch import simulator
from pandas_batch.simulator.batches import Batch, BatchFacts
from pandas_batch.simulator.blobs import Blob
from pandas_batch.simulator.rendering import settle
from pandas_batch.simulator.tokens import PromptCache

HAIKU = "claude-haiku-4-5-20251001"
VERSION = "2026-10-21"
HEADERS = {"authorization": "Bearer key", "anthropic-version": VERSION, "content-type": "application/json"}
DAY_S = 86400.0
N_ROWS = 6
OBJECT = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}, "score": {"type": "number"}},
    "required": ["mood", "score"],
    "additionalProperties": False,
}
"""A schema with a choice and a number."""


def params(prompt: object = "Hi", **changes: Any) -> dict[str, Any]:
    return {"model": HAIKU, "max_tokens": 64, "messages": [{"role": "user", "content": prompt}], **changes}


def request(custom_id: str, prompt: object = "Hi", **changes: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "params": params(prompt, **changes)}


def requests(n: int = N_ROWS, prompt: str = "prompt {}", **changes: Any) -> list[Any]:
    """Return requests whose prompts have their number in place of the braces."""
    return [request(f"r{number}", prompt.format(number), **changes) for number in range(n)]


class Answer:
    """One raw HTTP answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    api: simulator.Simulator, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> Answer:
    """Send one request as bytes, without the SDK."""
    connection = http.client.HTTPConnection("127.0.0.1", api.port)
    try:
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, content, HEADERS if headers is None else headers)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def settled(
    rows: dict[str, Any], answer: Any = None, *, faults: Any = (), version: str = VERSION, **facts: Any
) -> tuple[dict[str, dict[str, Any]], Batch]:
    """Settle a batch of params by custom_id without a server; return its results by custom_id, and the batch."""
    body = msgspec.json.encode({"requests": [{"custom_id": key, "params": value} for key, value in rows.items()]})
    known = BatchFacts("msgbatch_1", 1, len(rows), 0.0, "w", version, [], facts.pop("seconds", 0.0), 1.0, 0.0, **facts)
    batch = Batch(known, Blob(body))
    settle(batch, answer=answer, cache=PromptCache(), faults=list(faults), seed=0, spool=Path("unused"))
    lines = [json.loads(line) for line in batch.result_lines()]
    return {line["custom_id"]: line["result"] for line in lines}, batch


def result_of(value: Any, answer: Any = None, **options: Any) -> dict[str, Any]:
    """Return the result of a batch of one row."""
    return settled({"a": value}, answer, **options)[0]["a"]


def text(result: dict[str, Any]) -> str:
    """Return the text of a result's message."""
    return "".join(block.get("text", "") for block in result["message"]["content"])
