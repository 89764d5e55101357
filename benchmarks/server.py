"""The simulator in a process of its own, so that its work is nobody else's: ``python -m benchmarks.server LOAD``."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.loads import EXPIRES, FAILS, answers


@contextmanager
def serving(load: str, seconds_per_batch: float = 0) -> Iterator[str]:
    """Give the base URL of a server that answers with the texts of `load`."""
    command = [sys.executable, "-m", "benchmarks.server", load, str(seconds_per_batch)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait()


def _wants_json(params: dict[str, Any]) -> bool:
    # Some libraries ask for fields, in a format or in words.
    return "output_config" in params or "JSON" in str(params.get("system"))


def main() -> None:
    from pandas_batch import simulator

    texts = answers(sys.argv[1])

    def answer(params: dict[str, Any]) -> str:
        content = params["messages"][-1]["content"]
        prompt = content if isinstance(content, str) else "".join(block.get("text", "") for block in content)
        text = texts[zlib.crc32(prompt.encode()) % len(texts)]
        return json.dumps({"answer": text}, ensure_ascii=False) if _wants_json(params) else text

    with simulator.serve(answer=answer, seconds_per_batch=float(sys.argv[2])) as api:
        api.faults.add(simulator.RowFault("errored", marker=FAILS))
        api.faults.add(simulator.RowFault("expired", marker=EXPIRES))
        print(api.base_url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
