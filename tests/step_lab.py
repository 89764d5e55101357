"""A run that is recorded and that no engine drives: a test takes the steps of its batches itself, one by one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from store_lab import BASE_URL

from pandas_batch import simulator
from pandas_batch.clock import Clock
from pandas_batch.engine.posting import EngineContext
from pandas_batch.store import Store
from pandas_batch.wire.wire import Wire


def place_at(folder: Path, api: simulator.Simulator, clock: Clock, *, grace_s: float = 600.0, **calls: Any) -> Any:
    """
    Return where the steps are taken: a store in `folder`, and `api` under the address of the store's batches.

    Parameters
    ----------
    **calls
        What answers in place of the server, by the name of the call.
    """
    real = Wire(api.client(max_retries=0))
    names = ("list", "retrieve", "results", "create", "drive")
    wire: Any = SimpleNamespace(base_url=BASE_URL, **{name: getattr(real, name) for name in names} | calls)
    return EngineContext(
        store=Store.open(folder / "steps"),
        wire=wire,
        clock=clock,
        lost_answer_grace_s=grace_s,
    )
