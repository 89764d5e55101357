"""``python -m pandas_batch``: a demonstration, the runs of a store, and the way home for their answers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .amounts import usd
from .errors import InputError, PandasBatchError, WaitTimeout, clip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pandas_batch", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo | runs | collect")

    demo = commands.add_parser("demo", help="the whole way on real rows: offline, without a key, in a minute")
    demo.add_argument("--seconds-per-batch", type=float, default=3.0, help="how long the simulated batch takes")
    demo.add_argument("--progress", choices=("auto", "text", "off"), default="text")

    runs = commands.add_parser("runs", help="list the runs of a store, newest first; asks nothing of the server")
    collect = commands.add_parser(
        "collect",
        help="wait for the answers of unfinished runs and save them in the store",
        description="Wait for the answers of unfinished runs and save them in the store; send on what a kill or a "
        "refusal had stopped. The key comes from the environment.",
    )
    collect.add_argument("run", nargs="*", help="id or name; left out: every run that is not home yet")
    collect.add_argument("--timeout", type=float, help="seconds to wait; the runs go on after it")
    collect.add_argument("--to", type=Path, help="write the answers of the one run to a .csv, .jsonl or .parquet file")
    collect.add_argument(
        "--raw", action="store_true", help="leave texts in a .csv as they are, also those that a spreadsheet would run"
    )
    for command in (runs, collect):
        command.add_argument("--store", help="path of the store; left out: the one that a submit here would use")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command; return its exit status: 0 when all went well, 1 with a message when not, 130 when interrupted.

    Examples
    --------
    >>> main(["runs"])
    There are no runs here yet.
    0
    """
    chosen = _parser().parse_args(arguments)
    try:
        if chosen.command == "demo":
            return _demo(chosen)
        return _runs(chosen) if chosen.command == "runs" else _collect(chosen)
    except PandasBatchError as error:
        print(error, file=sys.stderr)
        return 1
    except Exception as error:
        if not type(error).__module__.startswith("anthropic"):
            raise
        # What the server said, and the notes that say where the money is.
        told = [f"{type(error).__name__}: {clip(str(error))}", *getattr(error, "__notes__", ())]
        print("\n".join(told), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. What is posted goes on, and nothing is lost.", file=sys.stderr)
        return 130


def _demo(chosen: argparse.Namespace) -> int:
    from .demo import run_demo

    # Flushed line by line: the progress goes to stderr, and has to stand where it belongs.
    out = run_demo(chosen.seconds_per_batch, chosen.progress, say=lambda line: print(line, flush=True))
    return 0 if out["error"].isna().all() else 1


def _runs(chosen: argparse.Namespace) -> int:
    from pandas_batch.run.library import runs

    found = runs(chosen.store)
    if found.empty:
        print("There are no runs here yet.")
        return 0
    found["created_at"] = found["created_at"].map(lambda at: f"{at:%Y-%m-%d %H:%M} UTC")
    found["name"] = found["name"].fillna("")
    print(found.drop(columns=["base_url", "parent"]).to_string())
    return 0


def _collect(chosen: argparse.Namespace) -> int:
    from pandas_batch.run.library import load, runs

    from .saving import check_target, save

    if chosen.to is not None:
        if len(chosen.run) != 1:
            raise InputError(
                f"--to {clip(str(chosen.to))} takes the answers of one run; {len(chosen.run)} are named.",
                hint="python -m pandas_batch collect RUN --to answers.parquet",
            )
        check_target(chosen.to)
    listed = runs(chosen.store)
    wanted = chosen.run or listed.index[listed["status"] != "collected"].tolist()
    if not wanted:
        print("Every run is home.")
    n_late = 0
    for name in wanted:
        run = load(name, store=chosen.store)
        try:
            run.wait(chosen.timeout)
        except WaitTimeout as late:
            print(late.what)
            n_late += 1
            continue
        counts = ", ".join(f"{number:,} {status}" for status, number in run.counts.items())
        print(f"{run.id}: {counts}; paid {usd(run.paid_usd)}")
        if chosen.to is not None:
            save(run.result(), chosen.to, raw=chosen.raw)
            print(f"written to {chosen.to}")
    return 1 if n_late else 0


if __name__ == "__main__":
    sys.exit(main())
