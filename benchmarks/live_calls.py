"""Rows asked live: what `trial` and `finish_now` take beside the model. ``python -m benchmarks.live_calls [ROWS]``.

The server is another process and answers each message after a second.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

_SERVER = """
import sys
from pandas_batch import simulator
with simulator.serve(seconds_per_batch=3600, seconds_to_cancel=0, seconds_per_message=float(sys.argv[1])) as api:
    print(api.base_url, flush=True)
    sys.stdin.read()
"""


@contextmanager
def serving_live(seconds_per_message: float) -> Iterator[str]:
    """Serve in a process of its own; yield its address."""
    command = [sys.executable, "-c", _SERVER, str(seconds_per_message)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def main() -> None:
    import anthropic
    import pandas as pd

    import pandas_batch  # noqa: F401 - registers the accessor

    n_rows = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with serving_live(1.0) as url, tempfile.TemporaryDirectory() as folder:
        client = anthropic.Anthropic(api_key="none", base_url=url)
        frame = pd.DataFrame({"prompt": [f"row {number} " + "of some length " * 20 for number in range(n_rows)]})
        given = {"client": client, "store": folder, "progress": "off", "preflight": False}
        for what in ("the first trial of 5 in a process", "a trial of 5"):
            began_s = time.monotonic()
            out = frame.claude_batch.trial("prompt", n=5, system=what, **given)
            print(f"{what}: {time.monotonic() - began_s:.2f} s, the slowest answer alone takes 1.00 s", flush=True)
            assert out["status"].tolist() == ["succeeded"] * 5
        run = frame.claude_batch.start("prompt", **given)
        run.wait_submitted()
        before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        out = run.finish_now()
        elapsed_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
        assert out["status"].tolist() == ["succeeded"] * n_rows
        more_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mb
        print(
            f"{n_rows} rows by finish_now: {elapsed_s:.1f} s elapsed, {cpu_s:.2f} s CPU, {more_mb:.0f} MB more",
            flush=True,
        )


if __name__ == "__main__":
    main()
