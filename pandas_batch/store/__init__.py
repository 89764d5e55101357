"""What is written down before it is spent: the private, durable store of runs, batches, requests and answers."""

from __future__ import annotations

from .locks import Lease
from .records import Account, BatchRecord, NewBatch, RunRecord
from .spools import SpoolWriter, request_lines
from .states import BATCH_STATES, IN_FLIGHT, BatchState
from .store import Store
from .tables import fingerprints_of, requests_table, rows_table

__all__ = [
    "BATCH_STATES",
    "IN_FLIGHT",
    "Account",
    "BatchRecord",
    "BatchState",
    "Lease",
    "NewBatch",
    "RunRecord",
    "SpoolWriter",
    "Store",
    "fingerprints_of",
    "request_lines",
    "requests_table",
    "rows_table",
]
