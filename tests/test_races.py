"""Several kernels on one store: one of them pays, all get the answers, and a dead one holds nobody up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_jobs import Job, answer, expected, prompts
from crash_lab import Lab, Verdict, judge, laboratory, n_paid_twice

from pandas_batch import simulator
from pandas_batch.simulator.faults import LostAnswer

N_RACERS = 8
N_ROWS = 7
"""Two batches."""
N_RACES = int(os.environ.get("PANDAS_BATCH_RACES", "200"))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with laboratory() as opened:
        yield opened


def told_by(job: Job) -> dict:
    """Return what a process of the laboratory got."""
    told = json.loads(Path(job.out).read_text())
    told.pop("ended_s")
    return told


def race(lab: Lab, folder: Path, seed: int, *, step: int = 0, lost: bool = False, planted: str | None = None) -> int:
    """Let eight processes submit at one instant, frames `step` rows apart; return how many answers were paid twice."""
    folder.mkdir()
    with simulator.serve(answer=answer, seconds_per_batch=5, seed=seed) as api:
        if lost:
            api.faults.add(LostAnswer("reset", committed=seed % 2 == 0, times=2))
        jobs = [
            Job(
                store=str(folder / "store"),
                base_url=api.base_url,
                out=str(folder / f"out{i}.json"),
                seed=seed,
                n_rows=N_ROWS,
                first_row=step * (i % 4),
                planted=planted,
            )
            for i in range(N_RACERS)
        ]
        ended = lab.do_all(jobs)
        assert [end["code"] for end in ended] == [0] * N_RACERS
        for job in jobs:
            assert told_by(job)["output"] == [expected(prompt) for prompt in prompts(job)]
        frames = {job.first_row: told_by(job) for job in jobs}
        is_same = all(told_by(job) == frames[job.first_row] for job in jobs)
        assert is_same or planted, "two kernels got different frames"
        return n_paid_twice(api)


def test_eight_processes_pay_once(lab, tmp_path):
    """Of eight processes that submit the same line at one instant one pays, and all get equal frames of one run.

    The answers to the first creates are lost besides.
    """
    assert race(lab, tmp_path / "race", 2, lost=True) == 0


def test_overlapping_frames_pay_each_request_once(lab, tmp_path):
    """Different frames that share rows, submitted at one instant by eight processes, pay each distinct row once."""
    assert race(lab, tmp_path / "race", 3, step=3) == 0


def test_a_race_without_the_lock_is_seen_to_pay_twice(lab, tmp_path):
    """A planted bug, planning without the lock that others respect, is caught by the race."""
    assert any(race(lab, tmp_path / f"race{i}", 4 + i, planted="no lock while planning") for i in range(5))


@pytest.mark.full
def test_many_races(lab, tmp_path, capsys):
    """The figure: races of eight processes, same and overlapping frames, with and without lost answers."""
    n_twice = sum(
        race(lab, tmp_path / f"race{i}", 100 + i, step=(0, 3, 5)[i % 3], lost=i % 2 == 1) for i in range(N_RACES)
    )
    assert n_twice == 0
    with capsys.disabled():
        print(f"\n{N_RACES} races of {N_RACERS} processes: {n_twice} answers paid twice, every frame right")


@pytest.mark.parametrize("point", ["posting recorded", "results downloaded"])
def test_a_second_kernel_takes_over_from_a_dead_one(lab, tmp_path, point):
    """A kernel that comes while another drives waits for it, and drives on when that one is killed."""
    with simulator.serve(answer=answer, seconds_per_batch=5) as api:
        common = {"store": str(tmp_path / "store"), "base_url": api.base_url}
        second = Job(**common, out=str(tmp_path / "second.json"), begin_with=str(tmp_path / "first.json.held"))
        first = Job(**common, out=str(tmp_path / "first.json"), hold_at=point, until_file=f"{second.out}.attached")
        ended = lab.do_all([first, second])
        assert [end["killed"] for end in ended] == [True, False]
        died_s = json.loads(Path(first.out).read_text())["died_s"]
        assert json.loads(Path(second.out).read_text())["ended_s"] > died_s, "it did not wait for the first"
        assert judge(second, api, Verdict()).is_clean
