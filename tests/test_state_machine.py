"""Everything that may happen to runs, in any order: after every step the money is right and no answer is misplaced.

200 steps with the usual tests, 5,000 and more with ``make test-full``. The machine is first shown to catch planted
bugs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import planted_bugs
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from machine_lab import Runs

from pandas_batch.engine import reconciling
from pandas_batch.engine.engine import Engine
from pandas_batch.run.target_frame import TargetFrame
from pandas_batch.store.batches import Batches

N_FULL_STEPS = int(os.environ.get("PANDAS_BATCH_STEPS", "5000"))


def steps(n_examples: int, n_steps: int) -> settings:
    return settings(
        max_examples=n_examples,
        stateful_step_count=n_steps,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),  # a step asks a server and writes to a disk: no example is small
        report_multiple_bugs=False,
    )


def take_steps(n_steps: int, *, n_each: int) -> int:
    """Let machines take at least `n_steps`; return how many they took."""
    Runs.n_steps = 0
    run_state_machine_as_test(Runs, settings=steps(-(-n_steps * 5 // (n_each * 4)), n_each))
    assert Runs.n_steps >= n_steps
    return Runs.n_steps


# -------------------------------------------------------------------- planted bugs


def _save_after_the_post(patch: pytest.MonkeyPatch) -> None:
    """Record a POST only after its answer."""
    patch.setattr(Batches, "transition", Batches.transition)
    patch.setattr(Batches, "was_recorded_here", Batches.was_recorded_here)
    planted_bugs.PLANTED["save after the post"]()


def _no_grace(patch: pytest.MonkeyPatch) -> None:
    """Post again as soon as the list does not show the batch."""
    patch.setattr(reconciling, "MIN_EMPTY_SCANS", 1)
    patch.setattr(reconciling.Reconciler, "__init__", reconciling.Reconciler.__init__)
    planted_bugs.PLANTED["no grace"]()


def _forget_what_is_there(patch: pytest.MonkeyPatch) -> None:
    """Send every row of an extended or edited frame, answered or not."""
    honest = Batches.find_answers

    def find_answers(self: Batches, *args: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
        keys, positions = honest(self, *args, **options)
        return np.full_like(keys, -1), positions

    patch.setattr(Batches, "find_answers", find_answers)


def _merge_by_position(patch: pytest.MonkeyPatch) -> None:
    """Give the n-th row of an edited frame the n-th answer."""
    honest = TargetFrame.__init__

    def bind(self: TargetFrame, frame: Any, request_of_row: np.ndarray | None = None, *rest: Any) -> None:
        if request_of_row is not None:
            n_requests = int(request_of_row.max(initial=0)) + 1
            in_order = (np.arange(len(request_of_row)) % n_requests).astype(np.int32)
            request_of_row = np.where(request_of_row < 0, request_of_row, in_order)
        honest(self, frame, request_of_row, *rest)

    patch.setattr(TargetFrame, "__init__", bind)


def _forget_cancels(patch: pytest.MonkeyPatch) -> None:
    """Say that a cancel is on its way, and do nothing."""

    def do_nothing(self: Engine, *, force: bool) -> None:
        self._cancel_due_s = float("inf")

    patch.setattr(Engine, "_cancel_batches", do_nothing)


PAID = {"nothing is paid twice", "what runs say they paid is what was billed"}
PLANTED: dict[Callable[[pytest.MonkeyPatch], None], set[str]] = {
    _save_after_the_post: PAID,
    _no_grace: PAID,
    _forget_what_is_there: PAID,
    _merge_by_position: {"an answer stands beside its own prompt"},
    _forget_cancels: {"a cancel is meant"},
}


SLOW = {_no_grace}
"""Bugs that only a rare order of steps brings to light."""


@pytest.mark.parametrize(
    "plant",
    [pytest.param(plant, marks=pytest.mark.full if plant in SLOW else ()) for plant in PLANTED],
    ids=lambda plant: plant.__name__.strip("_"),
)
def test_the_machine_catches_a_planted_bug(plant, monkeypatch, capsys):
    """Each planted bug is seen to break the law that it should break, and the search ends with it."""
    plant(monkeypatch)
    Runs.broken.clear()
    # What is raised is the broken law, or Hypothesis' word that the second time the same steps went another way.
    with pytest.raises(BaseException) as raised:
        run_state_machine_as_test(Runs, settings=steps(300, 25))
    assert not isinstance(raised.value, KeyboardInterrupt)
    assert set(Runs.broken) & PLANTED[plant], (Runs.broken, raised.value)
    capsys.readouterr()


def test_200_steps():
    """Whatever happens in which order, money and answers are right after every step."""
    take_steps(200, n_each=25)


@pytest.mark.full
def test_5000_steps(capsys):
    """The figure of RELIABILITY.md."""
    began_s = time.monotonic()
    n_steps = take_steps(N_FULL_STEPS, n_each=40)
    with capsys.disabled():
        print(f"\n{n_steps:,} steps in {time.monotonic() - began_s:.0f} s: nothing lost, misplaced or paid twice")
