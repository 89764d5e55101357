"""``python -m pandas_batch.simulator``: the server as a program of its own."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from .server import serve


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m pandas_batch.simulator", description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0: any free port (printed)")
    parser.add_argument("--path", help="folder that keeps the batches over a restart")
    parser.add_argument("--seconds-per-batch", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--answer", help="the text of every answer; left out, the prompt comes back")
    chosen = parser.parse_args(arguments)
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    with serve(
        chosen.answer,
        port=chosen.port,
        path=chosen.path,
        seconds_per_batch=chosen.seconds_per_batch,
        seed=chosen.seed,
    ) as api:
        print(f"Serving the Message Batches API on {api.base_url}", flush=True)
        print(f"  export ANTHROPIC_BASE_URL={api.base_url} ANTHROPIC_API_KEY=simulator", flush=True)
        done.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
