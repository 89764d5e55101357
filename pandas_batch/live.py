"""``python -m pandas_batch.live``: what only the real API can tell, for somebody with a key and less than a cent.

One batch of two tiny requests is made, watched, read and deleted. What this package assumes about the server is
held against what was seen; the report is Markdown, to be pasted into the documentation.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import amounts
from .clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from pandas_batch.wire.flows import Flow, Reply
    from pandas_batch.wire.wire import Wire

MODEL = "claude-haiku-4-5-20251001"
N_REQUESTS = 2
MAX_TOKENS = 8
INPUT_TOKENS = 20
"""More than the prompt below has."""
SECOND_KEY = "PANDAS_BATCH_SECOND_KEY"
"""Environment variable with a key of another workspace; without it that one question stays open."""
LISTED_WITHIN_S = 60.0
MOST_COST_USD = 0.01

_BATCHES = "/v1/messages/batches"
_GATEWAY_HEADERS = ("via", "cf-ray", "x-cache", "x-amzn-requestid", "server")


@dataclass(frozen=True)
class Finding:
    """
    One question, what this package assumes, and what was seen.

    Attributes
    ----------
    holds
        Whether the assumption holds; None where it could not be settled.
    """

    question: str
    assumption: str
    seen: str
    holds: bool | None

    @property
    def verdict(self) -> str:
        """One word for the table."""
        return {True: "holds", False: "**contradicted**", None: "not settled"}[self.holds]


@dataclass
class Report:
    """What a check has found."""

    base_url: str
    model: str
    began_at: datetime
    findings: list[Finding] = field(default_factory=list)

    @property
    def contradicted(self) -> list[Finding]:
        """The findings that speak against an assumption."""
        return [finding for finding in self.findings if finding.holds is False]

    def markdown(self) -> str:
        """Return the report as it goes into the documentation."""
        lines = [
            f"### Live check of {self.base_url}, {self.began_at:%Y-%m-%d %H:%M} UTC, {self.model}",
            "",
            "| Question | We assume | Seen | Verdict |",
            "|---|---|---|---|",
            *(f"| {f.question} | {f.assumption} | {f.seen} | {f.verdict} |" for f in self.findings),
            "",
        ]
        if self.contradicted:
            lines.append("Contradicted: " + "; ".join(f"{f.assumption} (seen: {f.seen})" for f in self.contradicted))
        else:
            lines.append("No assumption was contradicted.")
        return "\n".join(lines) + "\n"


class LiveCheck:
    """
    The check itself: asks, watches, and writes down.

    Parameters
    ----------
    wire
        The connection; whoever pays.
    other
        A connection with a key of another workspace, or None.
    patience_s
        How long to wait for the batch to end.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        other: Wire | None = None,
        model: str = MODEL,
        clock: Clock = SYSTEM_CLOCK,
        patience_s: float = 3600.0,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._wire = wire
        self._other = other
        self._clock = clock
        self._patience_s = patience_s
        self._say = say
        self.report = Report(wire.base_url, model, clock.now())

    def run(self) -> Report:
        """
        Make the batch, watch it to its end, read and delete it.

        Raises
        ------
        anthropic.APIError
            The batch could not be made, so nothing was settled.
        """
        newest = self._wire.list(limit=1)
        batch_id, created_at = self._create()
        self._say(f"Batch {batch_id} is made; it will be deleted at the end.")
        self._is_it_listed(batch_id)
        self._is_the_date_close(created_at)
        self._across_workspaces(batch_id)
        if self._watch(batch_id):
            self._read(batch_id)
            self._delete(batch_id, [str(batch["id"]) for batch in newest.batches])
        self._gateway()
        return self.report

    def _note(self, question: str, assumption: str, seen: str, holds: bool | None) -> None:
        self.report.findings.append(Finding(question, assumption, seen, holds))
        self._say(f"{question} {seen}")

    def _create(self) -> tuple[str, datetime]:
        from pandas_batch.wire.wire import Body

        from .errors import LostAnswerError

        requests = [
            {
                "custom_id": f"live-check-{number}",
                "params": {
                    "model": self.report.model,
                    "max_tokens": MAX_TOKENS,
                    "messages": [{"role": "user", "content": "Say yes."}],
                },
            }
            for number in range(N_REQUESTS)
        ]
        created = self._wire.create(Body.from_json({"requests": requests}))
        if created.batch is None:
            if created.error is not None and created.outcome != "unknown":
                raise created.error
            raise LostAnswerError(
                "The answer to the create was lost, which settles nothing.",
                f"A batch of {N_REQUESTS} tiny requests may have been made and billed.",
                "Look for custom_ids that begin with live-check-, and try again later.",
                n_requests=N_REQUESTS,
            )
        return str(created.batch["id"]), datetime.fromisoformat(created.batch["created_at"])

    # ---------------------------------------------------------------- the questions

    def _is_it_listed(self, batch_id: str) -> None:
        began_s = self._clock.monotonic_s()
        n_looks = 0
        while (waited_s := self._clock.monotonic_s() - began_s) <= LISTED_WITHIN_S:
            n_looks += 1
            if any(str(batch["id"]) == batch_id for batch in self._wire.list(limit=20).batches):
                seen = "in the first look" if n_looks == 1 else f"after {waited_s:.0f} s and {n_looks} looks"
                self._note("Is a new batch listed at once?", "a new batch is listed at once", seen, n_looks == 1)
                return
            self._clock.wait(1.0)
        seen = f"not within {LISTED_WITHIN_S:.0f} s: give lost_answer_grace more than it takes"
        self._note("Is a new batch listed at once?", "a new batch is listed at once", seen, False)

    def _is_the_date_close(self, created_at: datetime) -> None:
        from pandas_batch.engine.reconciling import CLOCK_MARGIN_S

        question = "How far is the `Date` header from `created_at`?"
        assumption = f"at most {CLOCK_MARGIN_S:.0f} s"
        server_at = self._wire.list(limit=1).server_at
        if server_at is None:
            self._note(question, assumption, "no `Date` header came", False)
            return
        apart_s = abs((server_at - created_at).total_seconds())
        self._note(question, assumption, f"{apart_s:.0f} s", apart_s <= CLOCK_MARGIN_S)

    def _across_workspaces(self, batch_id: str) -> None:
        question = "What does a key of another workspace see?"
        assumption = "HTTP 404 for a batch that is not its own"
        if self._other is None:
            self._note(question, assumption, f"no second key ({SECOND_KEY})", None)
            return
        status = self._status_of(f"{_BATCHES}/{batch_id}", wire=self._other)
        self._note(question, assumption, f"HTTP {status}", status == 404)

    def _watch(self, batch_id: str) -> bool:
        """Wait for the end; note whether the counts moved before it."""
        question, assumption = "Do counts move before the end?", "all requests count as processing until the end"
        began_s = self._clock.monotonic_s()
        moved: dict[str, Any] = {}
        n_looks = 0
        while self._clock.monotonic_s() - began_s < self._patience_s:
            batch = self._wire.retrieve(batch_id).batch
            if batch.get("processing_status") == "ended":
                seen = f"no, in {n_looks} looks" if not moved else f"yes: {moved}"
                # Without a look in between nothing was seen either way.
                self._note(question, assumption, seen, not moved if n_looks else None)
                return True
            n_looks += 1
            counts = batch.get("request_counts") or {}
            if counts.get("processing") != N_REQUESTS:
                moved = dict(counts)
            self._clock.wait(5.0)
        self._note(question, assumption, f"batch {batch_id} has not ended in {self._patience_s:.0f} s", None)
        return False

    def _read(self, batch_id: str) -> None:
        headers = self._wire.drive(_look(f"{_BATCHES}/{batch_id}/results", stream=True)).headers
        encoding = headers.get("content-encoding", "none")
        framing = "chunked" if "chunked" in headers.get("transfer-encoding", "") else "with a length"
        if "content-length" not in headers and framing != "chunked":
            framing = "until the connection closes"
        seen = f"content-encoding {encoding}, {framing}"
        self._note("Are results compressed?", "results come as they are", seen, encoding in ("none", "identity"))
        blocks: list[bytes] = []
        self._wire.results(batch_id, blocks.append)
        n_lines = b"".join(blocks).count(b"\n")
        question = "Does the file hold one line per request, each ended?"
        self._note(question, f"{N_REQUESTS} line ends", f"{n_lines}", n_lines == N_REQUESTS)

    def _delete(self, batch_id: str, older: Sequence[str]) -> None:
        self._wire.delete(batch_id)
        status = self._status_of(f"{_BATCHES}/{batch_id}")
        self._note("What is a deleted batch?", "HTTP 404", f"HTTP {status}", status == 404)
        for name, right in (("after_id", set(older)), ("before_id", set())):
            question = f"What does `{name}` of a deleted batch do?"
            assumption = "an error, or the place where it stood; never the list from its start"
            try:
                page = self._wire.drive(_look(_BATCHES, query={name: batch_id, "limit": 1}))
            except Exception as error:
                self._note(question, assumption, f"HTTP {getattr(error, 'status_code', type(error).__name__)}", True)
                continue
            ids = _ids_of(page)
            first = [str(batch["id"]) for batch in self._wire.list(limit=1).batches]
            seen = f"HTTP {page.status_code}, {len(ids)} batches"
            # Where the newest batch is also the next older one, the two answers cannot be distinguished.
            holds = None if first and first[0] in right else ids != first or not ids
            self._note(question, assumption, seen, holds)

    def _gateway(self) -> None:
        headers = self._wire.drive(_look(_BATCHES, query={"limit": 1})).headers
        present = [name for name in ("date", "request-id", "anthropic-workspace-id") if name in headers]
        between = [f"{name}: {headers[name][:40]}" for name in _GATEWAY_HEADERS if name in headers]
        question = "Which headers come through?"
        seen = ", ".join(present) or "none of them"
        if between:
            seen += f"; in between: {'; '.join(between)}"
        self._note(question, "`date` and `request-id`, always", seen, {"date", "request-id"} <= set(present))

    def _status_of(self, path: str, *, wire: Wire | None = None) -> int | str:
        try:
            return (wire or self._wire).drive(_look(path)).status_code
        except Exception as error:
            return getattr(error, "status_code", None) or type(error).__name__


def _look(path: str, *, query: Mapping[str, Any] | None = None, stream: bool = False) -> Flow[Reply]:
    """GET a path and return the reply, headers and all."""
    from pandas_batch.wire.flows import Call

    reply: Reply = yield Call(method="GET", path=path, query=query or {}, stream=stream)
    return reply


def _ids_of(reply: Reply) -> list[str]:
    import json

    return [str(batch["id"]) for batch in json.loads(reply.content).get("data", [])]


def most_cost_usd(model: str) -> float | None:
    """
    Return what the check can cost at most, in USD; None where the price of the model is not known.

    Examples
    --------
    >>> 0 < most_cost_usd(MODEL) < MOST_COST_USD
    True
    """
    from pandas_batch.results.rates import rates

    known = rates(model)
    if known is None:
        return None
    per_request = INPUT_TOKENS * known.batch[0].input + MAX_TOKENS * known.batch[0].output
    return float(N_REQUESTS * per_request) / 1e6


def main(arguments: Sequence[str] | None = None, *, clock: Clock = SYSTEM_CLOCK) -> int:
    """Ask, check, and print the report; return 1 where an assumption is contradicted, 2 where nothing was done."""
    parser = argparse.ArgumentParser(prog="python -m pandas_batch.live", description="Check the real API (paid).")
    parser.add_argument("--yes", action="store_true", help="spend without asking")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="SECONDS", help="how long to wait for the end")
    given = parser.parse_args(arguments)
    most_usd = most_cost_usd(given.model)
    if most_usd is None or most_usd > MOST_COST_USD:
        _tell(
            f"{given.model} has no known price, or more than {amounts.usd(MOST_COST_USD)} would be spent. "
            "Nothing was sent."
        )
        return 2
    if not given.yes and not _agrees(
        f"One batch of {N_REQUESTS} tiny requests, {amounts.usd(most_usd)} at most. Go on? [y/N] "
    ):
        _tell("Nothing was sent, nothing was billed.")
        return 2
    return _check(given.model, given.timeout, clock)


def _check(model: str, patience_s: float, clock: Clock) -> int:
    from contextlib import ExitStack

    from pandas_batch.wire.wire import Wire

    from .errors import PandasBatchError

    with ExitStack() as opened:
        try:
            wire = opened.enter_context(Wire(clock=clock))
            second_key = os.environ.get(SECOND_KEY)
            other = opened.enter_context(Wire(api_key=second_key, clock=clock)) if second_key else None
        except PandasBatchError as error:
            _tell(str(error))
            return 2
        check = LiveCheck(wire, other=other, model=model, clock=clock, patience_s=patience_s, say=_tell)
        report = check.run()
    sys.stdout.write("\n" + report.markdown())
    return 1 if report.contradicted else 0


def _agrees(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
