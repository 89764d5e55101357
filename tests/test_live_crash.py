"""Trials and finishes that are killed and begun again: no answer that had come is lost, the bill is the server's.

A request under way when its process is killed is asked again, and billed again: sixteen at most for each kill.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from crash_jobs import Job, answer, expected, prompts
from crash_lab import Lab, laboratory

from pandas_batch import failpoints, simulator
from pandas_batch.engine.asking import N_AT_ONCE

N_RANDOM_KILLS = int(os.environ.get("PANDAS_BATCH_KILLS", "100"))
N_ROWS = 40
MAX_TRIES = 40
OF_EACH_ROW = failpoints.LIVE_POINTS[:3]
"""The instants that every row meets; a batch is settled once."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with laboratory() as opened:
        yield opened


@dataclass
class Found:
    """What came of one job in the end."""

    n_kills: int
    n_asked_again: int


def tokens_of(usage: dict[str, Any]) -> tuple[int, int]:
    return usage["input_tokens"], usage["output_tokens"]


def killed_and_begun_again(
    lab: Lab, folder: Path, call: str, seed: int, *, n_kills: int = 0, point: str | None = None, nth: int = 1
) -> Found:
    """Kill a call as told, make it again until it is through, and hold what it gives against the server."""
    chance = random.Random(seed)
    n_killed = 0
    with simulator.serve(answer=answer, seconds_per_batch=1000, seconds_per_message=0.03, seed=seed) as api:
        out = folder / f"out{seed}.json"
        job = Job(str(folder / f"store{seed}"), api.base_url, str(out), seed=seed, n_rows=N_ROWS, call=call)
        job.point, job.nth = point, nth
        for attempt in range(MAX_TRIES):
            # From before anything is asked to after everything has come.
            job.kill_after_s = chance.uniform(0.0, 0.6) if attempt < n_kills else None
            ended = lab.do(job)
            n_killed += ended["killed"]
            job.point = None
            if ended["code"] == 0:
                break
            assert ended["killed"], ended
        told = json.loads(out.read_text())
        assert told["status"] == ["succeeded"] * N_ROWS
        assert told["output"] == [expected(prompt) for prompt in prompts(job)]
        asked = Counter(one.params["messages"][0]["content"] for one in api.messages)
        again_usd = n_again = 0.0
        price_of = {tokens_of(bill.usage): bill.cost_usd for bill in api.billed if bill.is_live}
        for one in api.messages:
            prompt = one.params["messages"][0]["content"]
            if asked[prompt] > 1:
                asked[prompt] -= 1
                n_again += 1
                again_usd += float(price_of[tokens_of(one.message["usage"])])
        assert n_again <= n_killed * N_AT_ONCE
        assert told["cost_usd"] == pytest.approx(float(api.billed_usd) - again_usd, abs=1e-7)
        if call == "trial":
            assert api.batches == []
    return Found(n_killed, int(n_again))


@pytest.mark.parametrize("call", ["trial", "finish"])
@pytest.mark.parametrize(("point", "nth"), [*((p, 1) for p in failpoints.LIVE_POINTS), *((p, 20) for p in OF_EACH_ROW)])
def test_kill_at_every_point(lab, tmp_path, call, point, nth):
    """A kill at any named instant of the asking loses nothing that had come."""
    found = killed_and_begun_again(lab, tmp_path, call, 1, point=point, nth=nth)
    assert found.n_kills == 1, "the point was never reached"
    if point not in OF_EACH_ROW:
        assert found.n_asked_again == 0


@pytest.mark.parametrize("call", ["trial", "finish"])
def test_kill_at_random_instants(lab, tmp_path, call):
    """The same at random instants, three times in a row."""
    for seed in range(100, 105):
        killed_and_begun_again(lab, tmp_path, call, seed, n_kills=3)


@pytest.mark.full
@pytest.mark.parametrize("call", ["trial", "finish"])
def test_kill_at_many_random_instants(lab, tmp_path, capsys, call):
    """At least a hundred kills of each: 0 answers lost, at most those under way asked again."""
    n_kills = n_again = 0
    seed = 10_000
    while n_kills < N_RANDOM_KILLS:
        found = killed_and_begun_again(lab, tmp_path, call, seed, n_kills=4)
        n_kills += found.n_kills
        n_again += found.n_asked_again
        seed += 1
    with capsys.disabled():
        print(f"\n{call}: {n_kills} kills, 0 answers lost, {n_again} requests under way asked again")


def test_two_processes_at_once_ask_no_row_twice(lab, tmp_path):
    """Trials of the same rows in three processes: each row is asked, and billed, once."""
    with simulator.serve(answer=answer, seconds_per_message=0.03) as api:
        jobs = [
            Job(str(tmp_path / "store"), api.base_url, str(tmp_path / f"out{n}.json"), n_rows=N_ROWS, call="trial")
            for n in range(3)
        ]
        assert [ended["code"] for ended in lab.do_all(jobs)] == [0, 0, 0]
        assert len(api.billed) == N_ROWS - 1  # two rows are one request
