"""The commands: a demonstration that shows all outcomes, the list of runs, and the way home for answers."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from warm_python import command as warm

from pandas_batch import simulator
from pandas_batch.__main__ import main
from pandas_batch.demo import ERRORED, EXPIRED, TOPICS, demo_frame, look_up_topic, run_demo


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[simulator.Simulator]:
    """A server that the environment names, as for somebody who has a key, and a store of one's own."""
    api = simulator.serve(answer="fine", seconds_per_batch=0)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", api.base_url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "simulator")
    monkeypatch.setenv("PANDAS_BATCH_HOME", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    yield api
    api.close()


def start_unfinished(api: simulator.Simulator, name: str) -> None:
    """Leave a run behind that is posted and not home: its process was killed."""
    api.seconds_per_batch = 3600
    program = (
        "import os, pandas as pd, pandas_batch\n"
        "df = pd.DataFrame({'q': ['one', 'two', None]}, index=['a', 'b', 'c'])\n"
        f"run = df.claude_batch.start('q', name={name!r}, progress='off', preflight=False, poll_interval=0.1)\n"
        "while run.status != 'in_progress': pass\n"
        "os._exit(9)\n"
    )
    done = subprocess.run(warm("-c", program), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 9, done.stderr


# ---------------------------------------------------------------- demo


def test_the_demo_shows_every_outcome_and_the_bill(capfd: pytest.CaptureFixture[str]) -> None:
    """One row errs, one expires, both come home at the second try; the first line's answers are not paid again."""
    lines: list[str] = []
    out = run_demo(seconds_per_batch=0, progress="text", say=lines.append)
    text = "\n".join(lines)
    assert len(out) >= 100
    assert set(out["status"]) <= {"succeeded", "skipped"}
    assert out["error"].isna().all()
    assert set(out["output"].dropna()) <= set(TOPICS)
    # A package without a summary is skipped, and counted between the two.
    assert re.search(r"Rows by status: succeeded \d+, expired 1,( skipped \d+,)? errored 1$", text, re.MULTILINE)
    assert "overloaded_error" in text
    assert "equal frames: True, batches posted: 0" in text
    assert "ANTHROPIC_API_KEY" in text
    amounts = [float(line.rpartition("$")[2]) for line in lines if line.startswith(("   as a batch", "   without"))]
    assert amounts[0] == pytest.approx(amounts[1] / 2, rel=0.01)
    assert amounts[0] > 0
    assert "1/1 batches" in capfd.readouterr().err


def test_the_demo_is_a_command(tmp_path: Path) -> None:
    """`python -m pandas_batch demo` needs no key, leaves nothing behind, and says so by its exit status."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC")}
    command = [sys.executable, "-m", "pandas_batch", "demo", "--seconds-per-batch", "0", "--progress", "off"]
    environment |= {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    del environment["PANDAS_BATCH_HOME"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "4. The bill" in done.stdout
    assert [path.name for path in tmp_path.iterdir() if "pandas" in path.name] == []


def test_the_demo_frame_is_made_of_what_is_installed() -> None:
    """Every row is a real package, once; where few are installed, the standard library makes up the number."""
    frame = demo_frame()
    assert {ERRORED, EXPIRED, "anthropic", "pandas-batch"} <= set(frame["name"])
    assert frame["name"].is_unique
    assert frame["version"].notna().all()
    more = demo_frame(len(frame) + 50)
    assert len(more) == len(frame) + 50
    assert more.iloc[: len(frame)].equals(frame) or len(frame) == 120
    assert (more["license"] == "PSF-2.0").sum() >= 50
    assert more.equals(demo_frame(len(frame) + 50))


def test_the_demo_frame_needs_no_field_of_the_metadata() -> None:
    """The backport of `importlib.metadata`, which other packages import, raises where a field is missing: no matter."""
    program = (
        "import contextlib\n"
        "with contextlib.suppress(ImportError):\n"  # newer Pythons need no backport
        "    import importlib_metadata\n"
        "from pandas_batch.demo import demo_frame\n"
        "print(len(demo_frame()))\n"
    )
    done = subprocess.run(warm("-c", program), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 100


def test_a_topic_is_looked_up_in_the_summary_alone() -> None:
    """Name and license do not decide; what fits nothing is `other`."""
    for text, topic in (
        ("Name: http\nVersion: 1\nLicense: web\nSummary: Draws circles", "other"),
        ("Name: x\nVersion: 1\nLicense: MIT\nSummary: A testing framework", "testing"),
        ("Name: x\nVersion: 1\nLicense: MIT\nSummary: JSON for everybody", "data"),
    ):
        assert look_up_topic({"messages": [{"role": "user", "content": text}]}) == topic


# ---------------------------------------------------------------- runs, collect


def test_an_empty_store_has_no_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Asking for runs makes no store and is no error; there is nothing to collect either."""
    assert main(["runs"]) == 0
    assert main(["collect"]) == 0
    assert capsys.readouterr().out == "There are no runs here yet.\nEvery run is collected.\n"
    assert not Path(os.environ["PANDAS_BATCH_HOME"]).exists()


def test_collect_brings_home_what_a_killed_process_left(
    shell: simulator.Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`runs` shows the run under way, `collect` waits for it, and nothing is posted or paid twice."""
    start_unfinished(shell, "left behind")
    assert main(["runs"]) == 0
    shown = capsys.readouterr().out
    assert "left behind" in shown
    assert "in_progress" in shown

    assert main(["collect", "--timeout", "0.1"]) == 4
    assert "has not ended within timeout" in capsys.readouterr().err

    shell.advance(3601)
    assert main(["collect", "left behind", "--to", str(tmp_path / "out.csv")]) == 0
    told = capsys.readouterr().out
    assert "2 succeeded, 1 skipped" in told
    assert shell.calls("create") == 1
    answers = pd.read_csv(tmp_path / "out.csv", index_col=0)
    assert answers.index.tolist() == ["a", "b", "c"]
    assert answers["status"].tolist() == ["succeeded", "succeeded", "skipped"]

    assert main(["collect"]) == 0
    assert capsys.readouterr().out == "Every run is collected.\n"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".xlsx"])
def test_answers_are_written_in_four_forms(shell: simulator.Simulator, tmp_path: Path, suffix: str) -> None:
    """A finished run is written out without a key: labels and answers, in the order of the rows."""
    df = pd.DataFrame({"q": ["one", "two"]}, index=pd.Index(["b", "a"], name="id"))
    df.claude_batch.submit("q", name="written", progress="off", preflight=False, poll_interval=0.05)
    os.environ.pop("ANTHROPIC_API_KEY")
    path = tmp_path / f"out{suffix}"
    assert main(["collect", "written", "--to", str(path)]) == 0
    if suffix == ".csv":
        back = pd.read_csv(path).set_index("id")
    elif suffix == ".xlsx":
        back = pd.read_excel(path).set_index("id")
    elif suffix == ".jsonl":
        back = pd.read_json(path, lines=True).set_index("id")
    else:
        back = pd.read_parquet(path)
    assert back.index.tolist() == ["b", "a"]
    assert back["output"].tolist() == ["fine", "fine"]


def test_mistakes_are_told_in_words(
    shell: simulator.Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown run, and a file of a form that is not known, end with a message and status 1, not a traceback."""
    df = pd.DataFrame({"q": ["one"]})
    df.claude_batch.submit("q", name="tickets", progress="off", preflight=False, poll_interval=0.05)
    assert main(["collect", "tikets"]) == 1
    assert "tickets" in capsys.readouterr().err
    for arguments in (["tickets", "--to", "out.xls"], ["--to", "out.csv"], ["a", "b", "--to", "out.csv"]):
        assert main(["collect", *arguments]) == 1
        assert "pandas-batch collect RUN --to answers.parquet" in capsys.readouterr().err
    assert main(["nonsense"]) == 2


def test_an_interrupt_is_no_traceback(
    shell: simulator.Simulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control-C ends the waiting with status 130; the run goes on."""
    import pandas_batch.run.driving

    start_unfinished(shell, "waited for")

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pandas_batch.run.driving.Engine, "wait", interrupt)
    assert main(["collect"]) == 130
    assert "What is posted goes on" in capsys.readouterr().err
    assert main(["runs"]) == 0
    assert "in_progress" in capsys.readouterr().out


# ---------------------------------------------------------------- what is written


FORMULAS = ["=1+1", "+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "＝1"]


def done_run(api: simulator.Simulator, frame: pd.DataFrame, name: str) -> None:
    api.seconds_per_batch = 0
    frame.claude_batch.submit("q", name=name, progress="off", preflight=False, poll_interval=0.05)


def test_no_text_in_a_csv_is_a_formula(shell: simulator.Simulator, tmp_path: Path) -> None:
    """Cells, labels and headers that a spreadsheet would run arrive as text, numbers as numbers; `--raw` leaves all."""
    shell.answer = lambda params: FORMULAS[int(params["messages"][-1]["content"])]
    frame = pd.DataFrame({"q": [str(n) for n in range(len(FORMULAS))]}, index=pd.Index(FORMULAS, name="=id"))
    done_run(shell, frame, "r")
    assert main(["collect", "r", "--to", str(tmp_path / "out.csv")]) == 0
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    assert header[0] == "'=id"
    assert [row[0] for row in rows] == ["'" + text for text in FORMULAS]
    assert [row[header.index("output")] for row in rows] == ["'" + text for text in FORMULAS]
    assert all(float(row[header.index("cost_usd")]) > 0 for row in rows)
    assert main(["collect", "r", "--to", str(tmp_path / "raw.csv"), "--raw"]) == 0
    raw = pd.read_csv(tmp_path / "raw.csv", index_col=0)
    assert raw["output"].tolist()[:4] == FORMULAS[:4]


@pytest.mark.filterwarnings("ignore:The index is named:UserWarning")  # test_templates.py looks at it
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "CSV"])
@pytest.mark.parametrize(
    "index",
    [
        pd.Index(["a", "b"]),
        pd.Index([1, 2], name="output"),
        pd.Index([1, "b"], name="status"),
        pd.MultiIndex.from_tuples([("x", 1), ("y", 2)], names=["l", "l"]),
        pd.MultiIndex.from_tuples([("x", 1), ("y", 2)], names=["output", None]),
        pd.Index([1, 1], name=7),
    ],
)
def test_answers_are_written_or_it_is_said_why_not(
    shell: simulator.Simulator, tmp_path: Path, index: pd.Index, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the labels are called: the file holds all answers, or two lines say why there is none."""
    done_run(shell, pd.DataFrame({"q": ["one", "two"]}, index=index), "r")
    target = tmp_path / f"out.{kind}"
    code = main(["collect", "r", "--to", str(target)])
    told = capsys.readouterr()
    if code == 0:
        reader = {"csv": pd.read_csv, "jsonl": lambda path: pd.read_json(path, lines=True)}
        back = reader.get(kind.lower(), pd.read_parquet)(target)
        assert back["output"].tolist() == ["fine", "fine"]
    else:
        assert kind == "parquet"
        assert len(told.err.splitlines()) <= 2
        assert not target.exists()
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_a_place_that_cannot_be_written_is_told_before_anything_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No folder, a folder in the file's place, an ending that says nothing: one or two lines and 1."""
    (tmp_path / "folder.csv").mkdir()
    for place in ("none/out.csv", "folder.csv", "out.doc", "out"):
        assert main(["collect", "r", "--to", str(tmp_path / place)]) == 1
        told = capsys.readouterr().err
        assert place.partition(".")[0] in told
        assert "Nothing was written" in told


def test_what_the_server_says_to_a_command_is_no_traceback(
    shell: simulator.Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error of the SDK that ends a command is its words and where the money is."""
    start_unfinished(shell, "left behind")
    shell.faults.add(simulator.ErrorAnswer("retrieve", 401, times=None))
    assert main(["collect", "left behind"]) == 1
    told = capsys.readouterr().err
    assert "401" in told
    assert "1 of 1 batches is on the server" in told
