"""A Message Batches API on loopback: the real SDK is the client, nothing is paid, and anything can be made to fail.

It serves README, notebooks, tests and benchmarks of this package offline, and tests of anybody's own batch pipeline::

    from pandas_batch import simulator

    with simulator.serve(answer=lambda params: "positive", seconds_per_batch=2) as api:
        client = api.client()
        api.faults.add(simulator.ErrorAnswer("create", 529))

``python -m pandas_batch.simulator --port 8765 --path DIR`` serves other programs. It is written on plain sockets from
the standard library (see `pandas_batch.simulator.http` for why) and imports nothing else of this package, so that a
misunderstanding of the API cannot stand on both sides of the wire.
"""

from __future__ import annotations

from .batches import Batch
from .faults import (
    BadResults,
    Delay,
    ErrorAnswer,
    Fault,
    ForeignResultsUrl,
    ListLag,
    LostAnswer,
    Outage,
    RowFault,
    revoked_key,
    spend_cap,
)
from .plan import FaultPlan
from .rendering import Bill, LiveMessage
from .replies import Reply
from .server import LoggedRequest, Simulator, serve

__all__ = [
    "BadResults",
    "Batch",
    "Bill",
    "Delay",
    "ErrorAnswer",
    "Fault",
    "FaultPlan",
    "ForeignResultsUrl",
    "ListLag",
    "LiveMessage",
    "LoggedRequest",
    "LostAnswer",
    "Outage",
    "Reply",
    "RowFault",
    "Simulator",
    "revoked_key",
    "serve",
    "spend_cap",
]
