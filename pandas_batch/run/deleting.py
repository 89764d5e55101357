"""Remove a run, here and on the server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pandas_batch.engine.posting import EngineContext
from pandas_batch.engine.surplus import surplus_of
from pandas_batch.errors import NotEndedError

from .canceling import cancel_run

if TYPE_CHECKING:
    from .driving import DrivenRun

_PATIENCE_S = 60.0
_SILENT_S = 3.0


def delete_run(run: DrivenRun, *, server: bool, force: bool) -> None:
    """Remove `run` and what no other run points at; an unfinished run is canceled first."""
    store = run.store
    shared = {b.key for b in store.batches.of_run(run.id) if set(store.batches.runs_of(b.key)) - {run.id}}
    mine = [batch for batch in store.batches.of_run(run.id) if batch.key not in shared]
    unproved = [batch for batch in mine if batch.candidate_id is not None]
    if unproved and not force:
        raise NotEndedError(
            f"Run {run.id} has a batch ({unproved[0].candidate_id}) that is only believed to be ours.",
            "Nothing was deleted: were it deleted here, nobody would fetch its answers.",
            f"{run.expression}.wait().delete()   # or .delete(force=True)",
        )
    if not run.is_settled():
        cancel_run(run, force=force)
        engine = run.engine
        if engine is not None and not engine.wait(_SILENT_S):
            sys.stderr.write(
                f"Run {run.id} is being canceled: the server lets nothing be deleted before its batches have ended. "
                f"Waiting for that, {_PATIENCE_S:.0f} s at most.\n"
            )
        if engine is not None and not engine.wait(_PATIENCE_S):
            raise NotEndedError(
                f"Run {run.id} is being canceled and has not ended yet; the server lets nothing be deleted before.",
                "Nothing was deleted.",
                f"{run.expression}.wait().delete()",
            )
        if not run.is_settled() and not force:
            # What stopped the run has stopped its cancel too: it goes on at the server, and is billed.
            raise NotEndedError(
                f"Run {run.id} could not be brought to its end: {run.snapshot().message or 'it was stopped.'}",
                "Nothing was deleted.",
                f"{run.expression}.wait().delete()",
            )
    if run.engine is not None:
        run.engine.join(_PATIENCE_S)
    if server:
        mine = [batch for batch in store.batches.of_run(run.id) if batch.key not in shared]
        posted = [batch for batch in mine if batch.batch_id]
        ids = [str(batch.batch_id) for batch in posted] + [batch.batch_id for batch in surplus_of(mine, run.id)]
        wire = run.wire()
        place = EngineContext(store=store, wire=wire, clock=run.clock)
        # Elsewhere they would seem to be deleted already, and stay where they are.
        workspace_id = wire.list(limit=1).workspace_id if ids else None
        for batch in posted:
            place.check_server(batch)
            place.check_workspace(batch, workspace_id)
        for batch_id in ids:
            _delete_on_server(wire, batch_id)
    store.runs.delete(run.id)


def _delete_on_server(wire: object, batch_id: str) -> None:
    from pandas_batch.wire.failures import is_not_found
    from pandas_batch.wire.wire import Wire

    if not isinstance(wire, Wire):
        raise TypeError("a batch is deleted through a Wire")
    try:
        wire.delete(batch_id)
    except Exception as error:
        if not is_not_found(error):
            raise
