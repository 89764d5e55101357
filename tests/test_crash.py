"""Runs that are killed and begun again: nothing lost, nothing paid twice, nothing taken from others.

The short form runs with the usual tests; ``make test-full`` runs the figures of RELIABILITY.md. Each harness is
first shown to catch a planted bug.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_jobs import BATCH_SIZES, Job, answer
from crash_lab import Lab, Verdict, add_random_faults, judge, laboratory

from pandas_batch import failpoints, simulator
from pandas_batch.simulator.faults import BadResults, LostAnswer

N_RANDOM_KILLS = int(os.environ.get("PANDAS_BATCH_KILLS", "300"))
MAX_TRIES = 40


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with laboratory() as opened:
        yield opened


def trial(
    lab: Lab,
    folder: Path,
    seed: int,
    *,
    point: str | None = None,
    nth: int = 1,
    n_random_kills: int = 0,
    faults: bool = False,
    planted: str | None = None,
    fault: object = None,
    decoys: bool = False,
) -> Verdict:
    """Begin a run, kill it as told, begin it again until it is through, and judge what came of it."""
    chance = random.Random(seed)
    verdict = Verdict()
    with simulator.serve(answer=answer, seconds_per_batch=5, seed=seed) as api:
        if faults:
            add_random_faults(api, chance, api.now_s())
        if fault is not None:
            api.faults.add(fault)
        if decoys:
            # One for each size: batches are posted side by side, so any of them may be the one that is lost. After the
            # newest batch that the run sees before its POST, however long it takes to come so far.
            for n_requests in BATCH_SIZES:
                api.add_decoy(n_requests, at=api.now_s() + 60)
        job = Job(
            store=str(folder / f"store{seed}"),
            base_url=api.base_url,
            out=str(folder / f"out{seed}.json"),
            seed=seed,
            planted=planted,
        )
        job.point, job.nth = point, nth
        for attempt in range(MAX_TRIES):
            job.kill_after_s = chance.uniform(0.0, 0.35) if attempt < n_random_kills else None
            ended = lab.do(job)
            verdict.n_tries += 1
            verdict.n_kills += ended["killed"]
            job.point = None
            if ended["code"] == 0 and Path(job.out).exists():
                return judge(job, api, verdict)
            if not ended["killed"] and attempt > n_random_kills:
                verdict.notes.append(f"ended with {ended['code']}")
    raise AssertionError(f"seed {seed} did not end in {MAX_TRIES} tries: {verdict}")


@pytest.mark.parametrize("point", failpoints.POINTS)
def test_kill_at_every_point(lab, tmp_path, point):
    """A kill -9 at any named instant costs nothing: the same line brings every answer home, paid once."""
    is_of_loss = point in ("loss recorded", "owner proved")
    fault = LostAnswer("reset", committed=True) if is_of_loss else None
    verdict = trial(lab, tmp_path, 1, point=point, fault=fault)
    assert verdict.is_clean, verdict
    assert verdict.n_kills == 1, "the point was never reached"


@pytest.mark.full
@pytest.mark.parametrize("nth", [2, 3])
@pytest.mark.parametrize("how", ["reset", "html", "cut"])
@pytest.mark.parametrize("point", failpoints.POINTS)
def test_kill_at_every_point_with_lost_answers(lab, tmp_path, point, how, nth):
    """The same at the second and third time a point is reached, with every create answer lost at first."""
    verdict = trial(lab, tmp_path, 7 * nth, point=point, nth=nth, fault=LostAnswer(how, committed=True, times=3))
    assert verdict.is_clean, verdict


def test_kill_at_random_instants(lab, tmp_path):
    """Kills at random instants, with lost answers, cut results and decoys of the same size: nothing is lost."""
    for seed in range(100, 108):
        verdict = trial(lab, tmp_path, seed, n_random_kills=3, faults=True)
        assert verdict.is_clean, (seed, verdict)


@pytest.mark.full
def test_kill_at_many_random_instants(lab, tmp_path, capsys):
    """The figure of RELIABILITY.md: at least 300 kills at random instants, 0 lost, 0 paid twice, 0 wrongly adopted."""
    n_kills = n_trials = 0
    seed = 10_000
    while n_kills < N_RANDOM_KILLS:
        verdict = trial(lab, tmp_path, seed, n_random_kills=4, faults=True)
        assert verdict.is_clean, (seed, verdict)
        n_kills += verdict.n_kills
        n_trials += 1
        seed += 1
    with capsys.disabled():
        print(f"\n{n_trials} runs, {n_kills} kills: 0 rows lost, 0 paid twice, 0 wrongly adopted")


def test_the_laboratory_catches_a_post_before_its_record(lab, tmp_path):
    """A planted bug, recording a POST only after its answer, is seen to pay twice."""
    verdict = trial(lab, tmp_path, 2, point="create answered", planted="save after the post")
    assert verdict.n_requests_paid_twice > 0


def test_the_laboratory_catches_a_missing_grace(lab, tmp_path):
    """A planted bug, no grace for a late commit, is seen to pay twice."""
    late = LostAnswer("reset", committed=True, late_s=60.0)
    verdict = trial(lab, tmp_path, 3, planted="no grace", fault=late)
    assert verdict.n_requests_paid_twice > 0
    assert trial(lab, tmp_path, 4, fault=LostAnswer("reset", committed=True, late_s=60.0)).is_clean


def test_the_laboratory_catches_an_adoption_without_proof(lab, tmp_path):
    """A planted bug, taking any batch of the right size for the lost one, is seen to adopt a stranger's."""
    lost = LostAnswer("reset", committed=False)
    verdict = trial(lab, tmp_path, 8, planted="adopt without proof", fault=lost, decoys=True)
    assert verdict.n_wrongly_adopted > 0
    lost = LostAnswer("reset", committed=False)
    assert trial(lab, tmp_path, 9, fault=lost, decoys=True).is_clean


def test_the_laboratory_catches_trust_in_short_files(lab, tmp_path):
    """A planted bug, believing a download that ended early, is seen to lose rows."""
    cut = BadResults("missing", n_rows=2)
    assert trial(lab, tmp_path, 5, planted="trust short files", fault=cut).n_rows_lost > 0
    assert trial(lab, tmp_path, 6, fault=BadResults("missing", n_rows=2)).is_clean
