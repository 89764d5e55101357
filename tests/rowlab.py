"""A frame whose rows meet every outcome that a row can have, and the faults that bring them about."""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
import pytest

from pandas_batch import simulator
from pandas_batch.clock import Clock
from pandas_batch.run.run import Run
from pandas_batch.run.starting import parse, start_run
from pandas_batch.simulator.faults import BadResults, RowFault

OUTCOMES = ("succeeded", "errored", "overloaded", "expired", "canceled", "refused", "truncated", "no_text")
"""What becomes of a prompt that names it; ``None`` and a blank prompt are skipped besides."""


cut_on_purpose = pytest.mark.filterwarnings("ignore:Run run_:UserWarning")
"""For tests in which rows are cut or refused: a run warns about them, which another test looks at."""


def all_outcomes(n_each: int = 2) -> pd.DataFrame:
    """Return a frame with duplicate labels, extra columns, and rows of every outcome in a mixed order."""
    prompts: list[str | None] = [f"please be {outcome} #{i}" for i in range(n_each) for outcome in OUTCOMES]
    prompts += [None, "   ", "please be succeeded #0"]
    labels = [f"r{i % 7}" for i in range(len(prompts))]
    return pd.DataFrame({"n": range(len(prompts)), "prompt": prompts}, index=pd.Index(labels, name="label"))


def plan_outcomes(api: simulator.Simulator) -> None:
    """Make the simulator give each row the outcome that its prompt names."""
    for outcome in OUTCOMES[1:]:
        api.faults.add(RowFault(outcome, marker=f"please be {outcome}"))


def lose_rows(api: simulator.Simulator, n_rows: int) -> None:
    """Make every download lack some rows, politely."""
    api.faults.add(BadResults("missing", n_rows=n_rows, times=None))


def ask(frame: pd.DataFrame, api: simulator.Simulator, clock: Clock, prompt_col: str = "prompt", **options: Any) -> Run:
    """Start a run on the test's clock."""
    given = {"client": api.client(), "progress": "off", "preflight": False, **options}
    return start_run(frame, parse(given, None if "prompt" in options else prompt_col), blocking=True, clock=clock)


def until(run: Run, state: str, patience_s: float = 20.0) -> None:
    """Return when `run` is in `state`; time is real, and short: the test's clock is held meanwhile."""
    deadline_s = time.monotonic() + patience_s
    while run.status != state:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{run!r} is not {state}")
        time.sleep(0.002)


def until_batches(run: Run, *states: str, patience_s: float = 20.0) -> None:
    """Return when the batches of `run` are in `states`; time is real, and short: the test's clock is held."""
    deadline_s = time.monotonic() + patience_s
    while sorted(batch.state for batch in run.store.batches.of_run(run.id)) != sorted(states):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{run!r} has no batches {states}")
        time.sleep(0.002)
