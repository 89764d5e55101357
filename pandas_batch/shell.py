"""The command line: every operation on a file of rows or on a run of the store, for people and for machines."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import pandas as pd

from . import __version__
from .amounts import usd
from .errors import InputError, PandasBatchError, WaitTimeout, clip
from .saving import check_target, has_labels, read_frame, save
from .shell_lines import in_shell, in_store

if TYPE_CHECKING:
    from pandas_batch.run.run import Run

DONE, IN_WORDS, USAGE, ROWS_FAILED, STILL_RUNNING, INTERRUPTED = 0, 1, 2, 3, 4, 130
"""Exit statuses: all is well; an error was reported; the call is not understood; rows failed, or a bound of ``collect``
is passed; the time is over and the run goes on; Control-C."""

_PROG = "pandas-batch"
_EPILOG = """\b
Exit status: 0 done, 1 an error in words, 2 a call that is not understood,
3 rows failed, 4 still running at the timeout, 130 interrupted.

\b
The key comes from ANTHROPIC_API_KEY. Completion (or zsh_source, fish_source):
eval "$(_PANDAS_BATCH_COMPLETE=bash_source pandas-batch)"
"""

_F = TypeVar("_F", bound=Callable[..., Any])


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command; return its exit status: 0 when all went well, 1 with a message when not, 130 when interrupted.

    Examples
    --------
    >>> main(["runs"])
    There are no runs here yet.
    0
    """
    try:
        return int(commands.main(arguments, prog_name=_PROG, standalone_mode=False, obj=_store_of(arguments)) or DONE)
    except click.UsageError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        error.show()
        return IN_WORDS
    except (click.Abort, KeyboardInterrupt):
        print("Interrupted. What is posted goes on, and nothing is lost.", file=sys.stderr)
        return INTERRUPTED
    except PandasBatchError as error:
        print(in_shell(str(error), _store_of(arguments)), file=sys.stderr)
        return IN_WORDS
    except BrokenPipeError:
        # Whoever read has heard enough (`| head`).
        _drop_stdout()
        return IN_WORDS
    except OSError as error:
        # Of the files of a run the package tells by itself; what is left is a standard output that takes no more.
        print(f"{_PROG}: {clip(str(error))}", file=sys.stderr)
        _drop_stdout()
        return IN_WORDS
    except Exception as error:
        if not type(error).__module__.startswith("anthropic"):
            raise
        # What the server said, and the notes that say where the money is.
        told = [f"{type(error).__name__}: {clip(str(error))}", *getattr(error, "__notes__", ())]
        print(in_shell("\n".join(told), _store_of(arguments)), file=sys.stderr)
        return IN_WORDS


def _store_of(arguments: Sequence[str] | None) -> str | None:
    """Return what a command was given as ``--store``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for at, one in enumerate(given):
        if one.startswith("--store="):
            return one.removeprefix("--store=")
        if one == "--store" and at + 1 < len(given):
            return given[at + 1]
    return None


def _drop_stdout() -> None:
    """Let go of what standard output did not take: Python would complain once more when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ---------------------------------------------------------------- what the commands share


class _Amount(click.FloatRange):
    """A number in a range; NaN, which is neither below nor above any bound, is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def _names_of_runs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from pandas_batch.run.library import listed_runs

    found = listed_runs(context.params.get("store"))
    names = [*found["name"].dropna().unique().tolist(), *found.index.tolist()]
    return [name for name in names if str(name).startswith(incomplete)]


_run = click.argument("run", shell_complete=_names_of_runs)
_file = click.argument("file", type=click.Path(path_type=Path))
_store = click.option("--store", help="Path of the store; left out: the one that a submit here would use.")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, for machines.")
_timeout = click.option("--timeout", type=_Amount(0), help="Seconds to wait; the run goes on after it.")
_to = click.option("--to", type=click.Path(path_type=Path), help="Write to a .csv, .jsonl, .parquet or .xlsx file.")
_raw = click.option("--raw", is_flag=True, help="Leave texts in a .csv or .xlsx as they are, formulas too.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_budget = click.option("--max-cost-usd", type=float, help="Send nothing where it could cost more.")


def _requests(command: _F) -> _F:
    """Add the options that say what is asked of each row of a file."""
    for option in reversed(
        (
            click.option("--prompt-col", help="The column with the prompts."),
            click.option("--prompt", help='A template over columns in its place: "Classify: {title}".'),
            click.option("--system", help="The system prompt."),
            click.option("--model", help="The model; left out: PANDAS_BATCH_MODEL, or Claude Haiku 4.5."),
            click.option("--max-tokens", type=int, help="Most tokens of an answer; left out: 1024."),
            click.option("--name", help="A name for the run, which is a part of what makes it the same run."),
            click.option("--prefix", help="Prefix of the added columns."),
            _budget,
            _store,
        )
    ):
        command = option(command)
    return command


def _options(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _load(run: str, store: str | None) -> Run:
    from pandas_batch.run.library import load

    return load(run, store=store)


def _known(number: float | None) -> float | None:
    return None if number is None or math.isnan(number) else number


def _account(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "name": run.name,
        "status": run.status,
        "counts": run.counts,
        "cost_usd": _known(run.cost_usd),
        "paid_usd": _known(run.paid_usd),
    }


def _print_json(document: Any) -> None:
    click.echo(json.dumps(_plain(document), ensure_ascii=False, allow_nan=False, default=str))


def _plain(value: Any) -> Any:
    """Return a document with null for what is unknown: JSON has no NaN."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is pd.NaT or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value


def _tell(run: Run, as_json: bool) -> None:
    if as_json:
        _print_json(_account(run))
    else:
        counts = ", ".join(f"{number:,} {status}" for status, number in run.counts.items())
        click.echo(f"{run.id}: {counts}; paid {usd(run.paid_usd)}")


def _may_ask() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _wait(run: Run, timeout: float | None, store: str | None = None, *, until_sent: bool = False) -> int:
    """Wait for a run; return `STILL_RUNNING` where the time was over before."""
    try:
        run.wait_submitted(timeout) if until_sent else run.wait(timeout)
    except WaitTimeout as late:
        # Nothing is said of what the process goes on with: it ends here.
        print(f"{late.what}\n    {_PROG} watch {run.id}{in_store(store)}", file=sys.stderr)
        return STILL_RUNNING
    return DONE


def _write(run: Run, to: Path | None, raw: bool, labels: bool = True) -> None:
    if to is not None:
        save(run.result(), to, raw=raw, labels=labels)
        print(f"written to {to}", file=sys.stderr)


def _status_of(run: Run) -> int:
    return ROWS_FAILED if len(run.failed) else DONE


@contextlib.contextmanager
def _warnings_in_words(store: str | None) -> Iterator[None]:
    """Print warnings as sentences: at a prompt of a shell, the line of our code that gave them says nothing."""
    import warnings

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(in_shell(str(message), store), file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


# ---------------------------------------------------------------- the commands


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=_PROG)
@click.pass_context
def commands(context: click.Context) -> None:
    """Ask Claude about every row of a file at half price, and look after what was asked, from any shell."""
    context.with_resource(_warnings_in_words(context.obj))


@commands.command(short_help="What a submit of FILE would cost at most.")
@_file
@_requests
@_json
def estimate(file: Path, as_json: bool, **given: Any) -> int:
    """Say what a submit would send and cost at most. Nothing is spent."""
    made = read_frame(file).claude_batch.estimate(**_options(**given))
    if as_json:
        _print_json(dataclasses.asdict(made))
    else:
        click.echo(str(made))
    return DONE


@commands.command(short_help="Ask Claude about every row of FILE.")
@_file
@_requests
@_timeout
@click.option("--no-wait", is_flag=True, help="Return when every batch has its id.")
@_to
@_raw
@_json
def submit(
    file: Path, timeout: float | None, no_wait: bool, to: Path | None, raw: bool, as_json: bool, **given: Any
) -> int:
    """Ask Claude about every row of FILE (csv, jsonl, parquet, xlsx) and wait. The same line again is the same run."""
    if to is not None:
        if no_wait:
            raise click.UsageError("--no-wait has no answers to write; use: pandas-batch collect RUN --to FILE")
        check_target(to, file)
    frame = read_frame(file)
    run = frame.claude_batch.start(**_options(**given))
    if no_wait:
        code = _wait(run, timeout, given["store"], until_sent=True)
        _tell(run, as_json)
        return code
    code = _wait(run, timeout, given["store"])
    _tell(run, as_json)
    if code == DONE:
        _write(run, to, raw, has_labels(frame))
    return code or _status_of(run)


@commands.command(name="runs", short_help="List the runs of the store.")
@_store
@_json
def list_runs(store: str | None, as_json: bool) -> int:
    """List the runs of the store, newest first; nothing is asked of the server."""
    from pandas_batch.run.library import runs

    found = runs(store)
    if as_json:
        _print_json([{"id": name, **row} for name, row in zip(found.index, found.to_dict("records"), strict=True)])
    elif found.empty:
        click.echo("There are no runs here yet.")
    else:
        found["created_at"] = found["created_at"].map(lambda at: f"{at:%Y-%m-%d %H:%M} UTC")
        found["name"] = found["name"].fillna("")
        for column in ("cost_usd", "paid_usd"):
            found[column] = found[column].map(lambda amount: usd(None if amount != amount else amount))
        click.echo(found.drop(columns=["base_url", "parent"]).to_string())
    return DONE


@commands.command(short_help="Where RUN stands, as the store knows it.")
@_run
@_store
@_json
def show(run: str, store: str | None, as_json: bool) -> int:
    """Show where RUN (an id or a name) stands, as far as the store knows; nothing is asked of the server."""
    found = _load(run, store)
    if as_json:
        _tell(found, as_json)
    else:
        from pandas_batch.display.account import text_account

        click.echo(text_account(found.snapshot()))
    return DONE


@commands.command(short_help="Follow RUN until it has ended.")
@_run
@_store
@_timeout
@_json
def watch(run: str, store: str | None, timeout: float | None, as_json: bool) -> int:
    """Show how RUN goes on until it has ended, also one that a notebook started; Control-C leaves it alone."""
    found = _load(run, store)
    code = _wait(found, timeout, store)
    _tell(found, as_json)
    return code or _status_of(found)


@commands.command(short_help="Cancel the batches of RUN.")
@_run
@_store
@_yes
@_json
def cancel(run: str, store: str | None, yes: bool, as_json: bool) -> int:
    """Cancel the batches of RUN; answers that are there already are kept, and billed."""
    found = _load(run, store)
    if not yes and _may_ask():
        click.confirm(f"Cancel run {found.id}?", abort=True, err=True)
    told = found.cancel()
    print(told, file=sys.stderr) if as_json else click.echo(told)
    if as_json:
        _tell(found, as_json)
    return DONE


@commands.command(short_help="Ask again for what failed in RUN.")
@_run
@_store
@_budget
@_timeout
@_to
@_raw
@_json
def retry(
    run: str, store: str | None, max_cost_usd: float | None, timeout: float | None, to: Path | None, raw: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Ask again for the rows of RUN that failed and are worth it, and wait; the answers that came stay."""
    if to is not None:
        check_target(to)
    again = _load(run, store).retry_failed(max_cost_usd=max_cost_usd)
    code = _wait(again, timeout, store)
    _tell(again, as_json)
    if code == DONE:
        _write(again, to, raw)
    return code or _status_of(again)


@commands.command(short_help="Fetch answers, save and write them.")
@click.argument("run", nargs=-1, shell_complete=_names_of_runs)
@_store
@_timeout
@_to
@_raw
@click.option("--max-failed", type=_Amount(0, 1), help="Share of the rows that may fail (status 3 beyond).")
@click.option("--max-cost", "--max-cost-usd", "max_cost", type=_Amount(0), help="US dollars it may have cost (else 3).")
@_json
def collect(
    run: tuple[str, ...], store: str | None, timeout: float | None, to: Path | None, raw: bool,
    max_failed: float | None, max_cost: float | None, as_json: bool,
) -> int:  # fmt: skip
    """Wait for the answers of RUN, or of every run that is not collected, and save them in the store, or to a file."""
    from pandas_batch.run.library import runs

    if to is not None:
        if len(run) != 1:
            raise InputError(
                f"--to {clip(str(to))} takes the answers of one run; {len(run)} are named.",
                hint="pandas-batch collect RUN --to answers.parquet",
            )
        check_target(to, is_sent=True)
    listed = runs(store)
    wanted = list(run) or listed.index[listed["status"] != "collected"].tolist()
    if not wanted and not as_json:
        click.echo("Every run is collected.")
    codes: list[int] = []
    found: list[Run] = []
    for name in wanted:
        one = _load(name, store)
        found.append(one)
        codes.append(_wait(one, timeout, store))
        if not as_json:
            _tell(one, as_json)
        if codes[-1] == DONE:
            _write(one, to, raw)
            codes[-1] = _beyond(one, max_failed, max_cost, store)
    if as_json:
        accounts = [_account(one) for one in found]
        _print_json(accounts[0] if len(run) == 1 else accounts)
    return max(codes, default=DONE)


def _beyond(run: Run, max_failed: float | None, max_cost: float | None, store: str | None) -> int:
    """Return `ROWS_FAILED`, in words, where more rows failed, or the answers cost more, than they may."""
    n_rows, n_failed = sum(run.counts.values()), len(run.failed)
    code = DONE
    if n_failed > (max_failed or 0.0) * n_rows:
        allowed = f", {max_failed:.2%} are allowed" if max_failed is not None else ""
        again = f"{_PROG} retry {run.id}{in_store(store)}"
        print(f"{run.id}: {n_failed:,} of {n_rows:,} rows failed{allowed}. {again}", file=sys.stderr)
        code = ROWS_FAILED
    cost_usd = _known(run.cost_usd)
    if max_cost is not None and (cost_usd is None or cost_usd > max_cost):
        print(f"{run.id}: cost {usd(cost_usd)}, {usd(max_cost)} are allowed.", file=sys.stderr)
        code = ROWS_FAILED
    return code


@commands.command(short_help="Fetch answers again when the store is lost.")
@_file
@_requests
@_timeout
@_to
@_raw
@_json
def recover(file: Path, timeout: float | None, to: Path | None, raw: bool, as_json: bool, **given: Any) -> int:
    """Fetch answers again when the store is lost: with FILE and the options of the submit that asked for them."""
    from pandas_batch.run.library import recover as recover_run

    if to is not None:
        check_target(to, file)
    if timeout is not None:
        given["timeout"] = timeout
    prefix = given["prefix"] or ""
    frame = read_frame(file)
    out = recover_run(frame, **_options(**given))
    counts = {str(status): int(number) for status, number in out[f"{prefix}status"].value_counts().items()}
    cost_usd = _known(float(out[f"{prefix}cost_usd"].sum(skipna=False)))
    if as_json:
        account = {"id": None, "name": given["name"], "status": "recovered", "counts": counts}
        _print_json(account | {"cost_usd": cost_usd, "paid_usd": 0.0})
    else:
        told = ", ".join(f"{number:,} {status}" for status, number in counts.items())
        click.echo(f"{told}; cost {usd(cost_usd)}, paid before. The same submit pays only for the rest.")
    if to is not None:
        save(out, to, raw=raw, labels=has_labels(frame))
        print(f"written to {to}", file=sys.stderr)
    return DONE if set(counts) <= {"succeeded", "skipped"} else ROWS_FAILED


@commands.command(short_help="Remove RUN from the store.")
@_run
@_store
@_yes
@click.option("--server", is_flag=True, help="Delete its batches on the server as well.")
@_json
def delete(run: str, store: str | None, yes: bool, server: bool, as_json: bool) -> int:
    """Remove RUN from the store, with every answer that no other run points at."""
    found = _load(run, store)
    account = _account(found)
    if not yes:
        if not _may_ask():
            raise InputError(
                f"Run {found.id} would be deleted for good; its answers cost {usd(found.paid_usd)}.",
                "Nothing was deleted.",
                f"{_PROG} delete {found.id}{in_store(store)} --yes",
            )
        click.confirm(f"Delete run {found.id} and its answers for good?", abort=True, err=True)
    found.delete(server=server)
    if as_json:
        _print_json(account | {"status": "deleted"})
    else:
        click.echo(f"Run {found.id} is deleted.")
    return DONE


@commands.command(short_help="The whole way, offline, in a minute.")
@click.option("--seconds-per-batch", type=_Amount(0), default=3.0, show_default=True, help="How long the batch takes.")
@click.option("--progress", type=click.Choice(["auto", "text", "off"]), default="text", show_default=True)
def demo(seconds_per_batch: float, progress: str) -> int:
    """Show the whole way on real rows: offline, without a key, in a minute."""
    from .demo import run_demo

    # Flushed line by line: the progress goes to stderr, and has to stand where it belongs.
    out = run_demo(seconds_per_batch, progress, say=lambda line: print(line, flush=True))
    return DONE if out["error"].isna().all() else IN_WORDS
