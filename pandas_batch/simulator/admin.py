"""``/simulator/...``: the same handles as in Python, for a test that drives the server from another process.

==========  =================== ====================================================================================
method      path                does
==========  =================== ====================================================================================
GET         /simulator/faults   lists the faults in force, with how often they struck
POST        /simulator/faults   adds one: ``{"fault": "ErrorAnswer", "endpoint": "create", "status": 529}``
DELETE      /simulator/faults   takes all out
GET         /simulator/batches  lists every batch, decoys too, with its custom_ids
POST        /simulator/decoys   adds one: ``{"n_requests": 5, "at": 1790000000.0}``
GET         /simulator/bills    what was billed, row by row, and the sum in USD
GET         /simulator/requests what was asked, in order
GET, POST   /simulator/clock    tells the server's time; ``{"advance_s": 3600}`` moves it
==========  =================== ====================================================================================
"""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from .batches import Batch
from .http import Request, Response
from .plan import FaultPlan, from_json, to_json
from .rendering import Bill
from .service import json_response

__all__ = ["answer_admin"]


class Driven(Protocol):
    """The handles of a simulator that another process may use."""

    requests: list[Any]

    @property
    def faults(self) -> FaultPlan: ...
    @property
    def batches(self) -> list[Batch]: ...
    @property
    def billed(self) -> list[Bill]: ...
    @property
    def billed_usd(self) -> Decimal: ...
    def add_decoy(self, n_requests: int, at: float | None = None, *, workspace_id: str | None = None) -> str: ...
    def now_s(self) -> float: ...
    def advance(self, seconds: float) -> None: ...


_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def answer_admin(simulator: Driven, request: Request) -> Response:
    """Return the answer to a call of the simulator's own."""
    # A page in a browser can be made to call any port of this machine; it cannot choose this header.
    if request.headers.get("host", "").rpartition(":")[0] not in _LOOPBACK or "origin" in request.headers:
        return json_response({"error": "loopback only"}, 403)
    try:
        return json_response(_do(simulator, request.method, request.path.removeprefix("/simulator/"), request))
    except KeyError:
        return json_response({"error": "no such call; see pandas_batch.simulator.admin"}, 404)
    except (ValueError, TypeError, msgspec.DecodeError) as error:
        return json_response({"error": str(error)}, 400)


def _do(simulator: Driven, method: str, name: str, request: Request) -> Any:
    data = msgspec.json.decode(request.body.view()) if request.body.n_bytes else {}
    call = f"{method} {name}"
    if call == "POST faults":
        return to_json(simulator.faults.add(from_json(data)))
    if call == "GET faults":
        return [to_json(fault) for fault in simulator.faults]
    if call == "DELETE faults":
        simulator.faults.clear()
        return []
    if call == "GET batches":
        return [
            {**asdict(batch.facts), "phase": batch.phase(simulator.now_s()), "custom_ids": batch.custom_ids}
            for batch in simulator.batches
        ]
    if call == "POST decoys":
        return {"id": simulator.add_decoy(**data)}
    if call == "GET bills":
        return {"rows": [asdict(bill) for bill in simulator.billed], "total_usd": str(simulator.billed_usd)}
    if call == "GET requests":
        return [asdict(one) for one in simulator.requests]
    if call == "POST clock":
        if "advance_s" not in data:
            raise ValueError("advance_s: Field required")
        simulator.advance(float(data["advance_s"]))
        return {"now_s": simulator.now_s()}
    if call == "GET clock":
        return {"now_s": simulator.now_s()}
    raise KeyError(call)
