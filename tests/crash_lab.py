"""A laboratory for crashes: runs that are killed with SIGKILL at named points or random instants, and begun again.

It stands in the test's process, beside the simulator: a fork server that does jobs (`crash_jobs`), faults for the
server, and a judge of what came of it all.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import crash_jobs
from crash_jobs import BATCH_SIZES, N_ROWS, Job, expected, prompts
from warm_python import command as warm


class Lab:
    """A fork server and what it is asked to do."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            warm(crash_jobs.__file__),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
        )
        if self._read() != "ready":
            raise RuntimeError("the fork server did not start")

    def _read(self) -> str:
        if self._process.stdout is None:
            raise RuntimeError("the fork server has no output")
        return self._process.stdout.readline().strip()

    def do(self, job: Job) -> dict[str, Any]:
        """Do one job and return how it ended."""
        return self.do_all([job])[0]

    def do_all(self, jobs: list[Job]) -> list[dict[str, Any]]:
        """Do jobs at the same time, a process each, and return how they ended."""
        if self._process.stdin is None:
            raise RuntimeError("the fork server has no input")
        self._process.stdin.write(json.dumps([asdict(job) for job in jobs]) + "\n")
        self._process.stdin.flush()
        ended: list[dict[str, Any]] = json.loads(self._read())
        return ended

    def close(self) -> None:
        """End the fork server."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(20)
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def laboratory() -> Iterator[Lab]:
    """Open a `Lab`."""
    lab = Lab()
    try:
        yield lab
    finally:
        lab.close()


@dataclass
class Verdict:
    """What was found after a job had been finished at last."""

    n_rows_lost: int = 0
    n_rows_misplaced: int = 0
    n_requests_paid_twice: int = 0
    n_wrongly_adopted: int = 0
    n_kills: int = 0
    n_tries: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, misplaced, paid twice or taken from others."""
        return not (self.n_rows_lost or self.n_rows_misplaced or self.n_requests_paid_twice or self.n_wrongly_adopted)


def judge(job: Job, api: Any, verdict: Verdict) -> Verdict:
    """Compare what the user got with what the server did."""
    told = json.loads(Path(job.out).read_text())
    for prompt, status, text in zip(prompts(job), told["status"], told["output"], strict=True):
        verdict.n_rows_lost += status != "succeeded"
        verdict.n_rows_misplaced += status == "succeeded" and text != expected(prompt)
    verdict.n_requests_paid_twice += n_paid_twice(api)
    verdict.n_wrongly_adopted += n_wrongly_adopted(job, api)
    return verdict


def n_wrongly_adopted(job: Job, api: Any) -> int:
    """Return how many batches of the store are bound to one on the server that does not hold their requests."""
    from pandas_batch.store import Store
    from pandas_batch.store import store as store_room

    store = Store.open(job.store)
    nonces = {
        batch.batch_id: batch.nonce
        for run in store.runs.all()
        for batch in store.batches.of_run(run.id)
        if batch.batch_id is not None
    }
    store_room._instances.pop(store.path, None)
    store._opened.database.close()
    ids = {batch.id: [json.loads(line)["custom_id"] for line in batch.result_lines()] for batch in api.batches}
    return sum(
        not all(custom_id.startswith(f"pb1_{nonce}_") for custom_id in ids[batch_id])
        for batch_id, nonce in nonces.items()
    )


def n_paid_twice(api: Any) -> int:
    """Return how many answers were bought that had been bought before."""
    api.advance(2 * 3600)  # what the server commits late is there by now, and has ended
    asked: Counter[str] = Counter()
    for batch in api.batches:
        for line in batch.result_lines():
            custom_id = json.loads(line)["custom_id"]
            if custom_id.startswith("pb1_"):
                asked[custom_id[23:]] += 1
    return sum(n - 1 for n in asked.values())


LOSSES = ("reset", "close", "cut", "html", "empty_object", "bad_json", "redirect_302", "redirect_307")


def add_random_faults(api: Any, chance: random.Random, now_s: float) -> None:
    """Make the server do one or two of its worst: lose creates, commit late, cut results, show decoys."""
    from pandas_batch.simulator.faults import BadResults, ErrorAnswer, ListLag, LostAnswer

    for _ in range(chance.randint(1, 2)):
        kind = chance.randrange(6)
        if kind <= 2:
            committed = chance.random() < 0.7
            late_s = chance.choice([0.0, 0.0, 30.0, 300.0]) if committed else 0.0
            api.faults.add(
                LostAnswer(chance.choice(LOSSES), committed=committed, late_s=late_s, skip=chance.randrange(3))
            )
        elif kind == 3:
            api.faults.add(ErrorAnswer("create", chance.choice([408, 409, 500, 529]), committed=chance.random() < 0.5))
        elif kind == 4:
            api.faults.add(BadResults("cut", at_byte=chance.randrange(1, 1500), polite=chance.random() < 0.7))
        else:
            api.faults.add(ListLag(seconds=chance.choice([5.0, 120.0])))
    for _ in range(chance.randint(0, 3)):
        api.add_decoy(chance.choice([*BATCH_SIZES, N_ROWS]), at=now_s + chance.uniform(-60, 0))
