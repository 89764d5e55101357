"""``python -m pandas_batch demo``: the whole way on real rows, offline, in a minute.

The rows are the Python distributions of this very environment, to be sorted by topic. The official SDK sends them
over HTTP to the simulator, which stands in for the API and looks the topics up in a list of words.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import pydoc
import sys
import tempfile
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from pandas_batch.amounts import usd

N_ROWS_MIN = 120
ERRORED, EXPIRED = "tqdm", "pandas"
"""The rows that go wrong in the demo; both are required by this package, so they are always there."""

PROMPT = "Name: {name}\nVersion: {version}\nLicense: {license}\nSummary: {summary}"
SYSTEM = "You sort Python packages. Answer with one topic: {topics}, or other."

# The first topic one of whose words stands in the summary.
_WORDS = {
    "notebooks": "jupyter ipython notebook kernel widget",
    "testing": "test pytest mock coverage lint debug profil trace",
    "packaging": "packag install build wheel pip metadata version import",
    "security": "crypto secur certificate password hash secret ssl tls",
    "web": "http web url socket html xml server client rfc internet mail browser api",
    "data": "data array numer math statistic table column json csv sql random decimal",
    "text": "text string unicode regular pars token format markup syntax template yaml encod",
    "concurrency": "async thread process concurren event queue schedul",
    "time": "time date calendar clock zone",
    "system": "system file path terminal shell os platform directory archive compress command console",
    "language": "class type object decorator annotation abstract iter function code",
}
TOPICS = (*_WORDS, "other")


def demo_frame(n_rows_min: int = N_ROWS_MIN) -> pd.DataFrame:
    """
    Return the distributions installed here, one per row: ``name``, ``version``, ``license``, ``summary``.

    Where they are few, modules of the standard library (in alphabetical order) make up the number.

    Examples
    --------
    >>> frame = demo_frame()
    >>> len(frame) >= 100, frame["name"].is_unique
    (True, True)
    """
    rows = {row["name"]: row for row in _distributions()}
    modules = _standard_modules()
    while len(rows) < n_rows_min:
        row = next(modules, None)
        if row is None:
            break
        rows.setdefault(row["name"], row)
    columns = ["name", "version", "license", "summary"]
    return pd.DataFrame(list(rows.values()), columns=columns).astype("string")


def _distributions() -> list[dict[str, str | None]]:
    found: dict[str, dict[str, str | None]] = {}
    for distribution in importlib.metadata.distributions():
        # Read with get(): the backport of importlib.metadata, once imported, raises where a field is missing.
        about: Any = distribution.metadata
        # A folder left behind by an interrupted installation has no metadata.
        name = about.get("Name") if about is not None else None
        if name:
            # What stands first on the path is what would be imported.
            found.setdefault(
                name.lower().replace("_", "-"),
                {
                    "name": name,
                    "version": about.get("Version"),
                    "license": _license(about),
                    "summary": _line(about.get("Summary")),
                },
            )
    return [found[key] for key in sorted(found)]


def _license(about: Any) -> str:
    if about.get("License-Expression"):
        return str(about.get("License-Expression"))
    for classifier in about.get_all("Classifier") or ():
        if classifier.startswith("License :: "):
            return str(classifier.rsplit(" :: ", 1)[-1])
    text = _line(about.get("License"))
    return text if text and len(text) < 60 else "not stated"


def _line(text: str | None) -> str | None:
    words = " ".join((text or "").split())
    return words if words and words != "UNKNOWN" else None


def _standard_modules() -> Iterator[dict[str, str | None]]:
    for name in sorted(sys.stdlib_module_names):
        if name.startswith("_"):
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            continue
        # Read, not imported: some modules do things when they are imported.
        with tokenize.open(spec.origin) as source:
            summary = _line(pydoc.source_synopsis(source))
        yield {"name": name, "version": platform.python_version(), "license": "PSF-2.0", "summary": summary}


def look_up_topic(params: dict[str, Any]) -> str:
    r"""
    Return the topic of the package that a request describes: the simulator's stand-in for a model.

    Examples
    --------
    >>> look_up_topic({"messages": [{"role": "user", "content": "Name: x\nSummary: An HTTP client"}]})
    'web'
    """
    summary = str(params["messages"][-1]["content"]).rpartition("Summary: ")[2].lower()
    words = summary.replace("-", " ").replace("/", " ").split()
    for topic, stems in _WORDS.items():
        if any(word.startswith(stem) for stem in stems.split() for word in words):
            return topic
    return "other"


def run_demo(
    seconds_per_batch: float = 3.0, progress: str = "text", say: Callable[[str], None] = print
) -> pd.DataFrame:
    """
    Send the frame, show what comes back and what it cost, then ask again for the rows that failed.

    Parameters
    ----------
    seconds_per_batch
        How long the simulator takes for a batch.
    progress
        As in ``df.claude_batch.submit``.
    say
        Takes each line of the account.

    Returns
    -------
    DataFrame
        The frame after the second try.
    """
    from . import simulator

    frame = demo_frame()
    faults: list[simulator.Fault] = [
        simulator.RowFault("overloaded", where=_asks_about(ERRORED)),
        simulator.RowFault("expired", where=_asks_about(EXPIRED)),
    ]
    with (
        tempfile.TemporaryDirectory(prefix="pandas-batch-demo-") as folder,
        simulator.serve(look_up_topic, seconds_per_batch=seconds_per_batch, faults=faults) as api,
        api.client() as client,
    ):
        say(f"A simulated Message Batches API listens on {api.base_url}: no key, no internet, no bill.")
        say("The official anthropic SDK is the client; the answers come from a list of words, not from a model.\n")
        say(f"1. The rows: {len(frame)} Python packages of this environment\n")
        say(f"{_table(frame.head(4))}\n...\n")
        options: dict[str, Any] = {
            "prompt": PROMPT,
            "system": SYSTEM.format(topics=", ".join(_WORDS)),
            "max_tokens": 16,
            "name": "demo",
            "client": client,
            "store": str(Path(folder) / "store"),
            "poll_interval": 0.5,
        }
        say("2. What it would cost at most, before anything is sent\n")
        say(f"{frame.claude_batch.estimate(**options)}\n")
        say("3. Sent, waited for, merged\n")
        out: pd.DataFrame = frame.claude_batch.submit(**options, progress=progress)
        shown = ["name", "output", "status", "tokens", "cost_usd", "error"]
        failed = out["error"].notna()
        first = out.index < 6
        say(f"\n{_table(out.loc[first | failed, shown])}\n...\n")
        say(f"   Rows by status: {_counts(out['status'])}")
        say(f"   Rows by topic:  {_counts(out['output'].dropna())}\n")
        _say_bill(say, str(options["store"]))
        say("5. The same line again: the same run comes back, nothing is sent, nothing is paid\n")
        n_created = api.calls("create")
        again: pd.DataFrame = frame.claude_batch.submit(**options, progress="off")
        say(f"   equal frames: {again.equals(out)}, batches posted: {api.calls('create') - n_created}\n")
        say("6. The server has recovered; only the rows that failed are asked again\n")
        api.faults.clear()
        final = _retry(frame, options)
        say(f"{_table(final.loc[failed, shown])}\n")
        say(f"   Rows by status: {_counts(final['status'])}\n")
    say(_WITH_A_KEY)
    return final


def _retry(frame: pd.DataFrame, options: dict[str, Any]) -> pd.DataFrame:
    attached = {name: options[name] for name in ("client", "store", "poll_interval")}
    retried = frame.claude_batch.attach("demo", **attached, progress="off").retry_failed()
    final: pd.DataFrame = retried.result()
    return final


def _asks_about(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda params: str(params["messages"][-1]["content"]).startswith(f"Name: {name}\n")


def _table(frame: pd.DataFrame) -> str:
    return frame.to_string(max_colwidth=44)


def _counts(values: pd.Series) -> str:
    return ", ".join(f"{name} {number}" for name, number in values.value_counts(sort=True).items())


def _say_bill(say: Callable[[str], None], store: str) -> None:
    from pandas_batch.run.library import load

    status = load("demo", store=store).snapshot()
    say("4. The bill, had this been the real API\n")
    for words, amount in (("as a batch", status.paid_usd), ("without batching", status.cost_usd_standard)):
        say(f"   {words:<20}{usd(amount):>12}")
    say("")


_WITH_A_KEY = """\
With a real key the code is the same, without client=:

    export ANTHROPIC_API_KEY=sk-ant-...

    import pandas as pd, pandas_batch
    df = pd.read_csv("reviews.csv")
    df.claude_batch.estimate("review", system="Answer with one word: positive, negative or mixed.")
    out = df.claude_batch.submit("review", system="Answer with one word: positive, negative or mixed.")

Most batches end within an hour, all of them within 24. Come back with the same line at any time."""
