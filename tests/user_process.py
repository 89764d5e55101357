"""Processes of users whose disk is full or closed, for real.

``python user_process.py`` is a fork server: for each line that it reads, a job as JSON, it forks a child (imports are
paid once). The child submits the same rows twice, the second time with what was in the way taken away, and prints
what came of each.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import traceback
from typing import Any

import anthropic
import crash_jobs
import pandas as pd

from pandas_batch import failpoints
from pandas_batch.errors import StoreError


def limit_files(n_bytes: int) -> None:
    """Let no file grow beyond `n_bytes`: to a program that is a full disk (EFBIG in place of ENOSPC)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def submit(job: dict[str, Any]) -> dict[str, Any]:
    """Run the one line of the user, and return what it gave or said."""
    frame = pd.DataFrame({"prompt": [f"p{i} {'x' * job['n_bytes_each']}" for i in range(job["n_rows"])]})
    client = anthropic.Anthropic(api_key="user", base_url=job["base_url"])
    options = {"client": client, "store": job["store"], "progress": "off", "preflight": False, "poll_interval": 0.01}
    try:
        out = frame.claude_batch.submit("prompt", **options)
    except StoreError as error:
        return {"error": str(error), "notes": getattr(error, "__notes__", [])}
    return {"statuses": out["status"].tolist()}


def do(job: dict[str, Any]) -> None:
    """Submit, and submit again."""
    if job["uid"] is not None:
        os.setuid(job["uid"])
    if job["limit_at"] is not None:
        failpoints.on_reached = lambda point: limit_files(job["limit"]) if point == job["limit_at"] else None
    elif job["limit"] is not None:
        limit_files(job["limit"])
    told = [submit(job)]
    failpoints.on_reached = None
    limit_files(resource.RLIM_INFINITY)
    for path in job["remove"]:
        os.unlink(path)
    told.append(submit(job))
    os.write(1, json.dumps(told).encode() + b"\n")


def main() -> None:
    """Fork a child for each job."""
    for name in crash_jobs.PRELOADED:
        importlib.import_module(name)  # also because what is imported later may lie where another user may not read
    for line in sys.stdin:
        child = os.fork()
        if not child:
            try:
                do(json.loads(line))
            except BaseException:
                os.write(1, json.dumps({"raised": traceback.format_exc()}).encode() + b"\n")
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
