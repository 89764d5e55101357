"""The command line as processes: every verb, every exit status, for people and for machines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from warm_python import command as warm

from pandas_batch import simulator
from pandas_batch.saving import read_frame
from pandas_batch.shell import commands, main

ROWS = pd.DataFrame({"id": [7, 8, 9], "review": ["Lovely.", "It broke.", None]})


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[simulator.Simulator]:
    """A server that the environment names, a store of one's own, and a file of rows."""
    with simulator.serve(answer="fine", seconds_per_batch=0) as api:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.base_url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "simulator")
        monkeypatch.setenv("PANDAS_BATCH_HOME", str(tmp_path / "store"))
        monkeypatch.chdir(tmp_path)
        ROWS.to_csv("reviews.csv", index=False)
        yield api


def cold(*arguments: str) -> list[str]:
    """Return the command line of a process that begins as the user's does."""
    return [sys.executable, *arguments]


def process(
    *arguments: str, start: Callable[..., list[str]] = warm, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command as a shell would, with nothing at its standard input."""
    return subprocess.run(
        start("-m", "pandas_batch", *arguments),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
        env=os.environ | environment,
    )


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


SUBMIT = ("submit", "reviews.csv", "--prompt-col", "review")


def test_a_file_becomes_a_file_with_answers_and_the_same_line_pays_once(shell: simulator.Simulator) -> None:
    """`submit FILE --to FILE` is the whole way; run again it sends nothing."""
    for start in (cold, warm):
        done = process(*SUBMIT, "--name", "r", "--to", "out.csv", start=start)
        assert done.returncode == 0, done.stderr
        assert "2 succeeded, 1 skipped" in done.stdout
    out = pd.read_csv("out.csv")
    assert out["output"].tolist()[:2] == ["fine", "fine"]
    assert out["status"].tolist() == ["succeeded", "succeeded", "skipped"]
    assert (shell.calls("create"), len(shell.billed)) == (1, 2)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "xlsx"])
def test_rows_come_from_four_kinds_of_files(
    shell: simulator.Simulator, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows of a file are the same requests, whatever it is written in: they are paid once."""
    frame = ROWS.assign(review=["007", "8", None])
    writers = {
        "csv": lambda path: frame.to_csv(path, index=False),
        "jsonl": lambda path: frame.to_json(path, orient="records", lines=True),
        "parquet": frame.to_parquet,
        "xlsx": lambda path: frame.to_excel(path, index=False),
    }
    writers[kind](f"rows.{kind}")
    frame.to_parquet("first.parquet")
    assert main(["submit", "first.parquet", "--prompt-col", "review"]) == 0
    assert main(["submit", f"rows.{kind}", "--prompt-col", "review"]) == 0
    assert shell.calls("create") == 1


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_a_cell_is_the_text_that_stands_there(shell: simulator.Simulator, kind: str) -> None:
    """Leading zeros, "NA", "None" and whole numbers beside gaps come out as they went in, and no column is added."""
    rows = [["007", "5", "NA"], ["-8", None, "None"], ["1.50", "6", None]]
    frame = pd.DataFrame(rows, columns=["id", "stars", "review"])
    frame.to_csv("rows.csv", index=False)
    frame.to_excel("rows.xlsx", index=False)
    shell.answer = lambda params: str(params["messages"][-1]["content"])
    assert main(["submit", f"rows.{kind}", "--prompt-col", "review", "--to", f"out.{kind}"]) == 0
    reader: Any = {"csv": pd.read_csv, "xlsx": pd.read_excel}[kind]
    out = reader(f"out.{kind}", dtype=str, keep_default_na=False)
    assert out.columns[:3].tolist() == ["id", "stars", "review"]
    assert "index" not in out
    assert out[["id", "stars", "review"]].to_numpy().tolist() == frame.fillna("").to_numpy().tolist()
    assert out["output"].tolist() == ["NA", "None", ""]


def test_numbers_of_a_spreadsheet_are_read_as_it_shows_them(tmp_path: Path) -> None:
    """A whole number beside a gap is `7` and not `7.0`; an empty cell is missing."""
    pd.DataFrame({"n": [7, None], "x": [1.5, 2], "t": ["a", None]}).to_excel(tmp_path / "n.xlsx", index=False)
    read = read_frame(tmp_path / "n.xlsx")
    assert read["n"].tolist()[:1] + read["x"].tolist() == ["7", "1.5", "2"]
    assert read[["n", "t"]].isna().iloc[1].tolist() == [True, True]


def test_the_labels_of_a_file_are_kept(shell: simulator.Simulator) -> None:
    """A .parquet file with an index of its own has it in the output too."""
    ROWS.set_index("id").to_parquet("labeled.parquet")
    assert main(["submit", "labeled.parquet", "--prompt-col", "review", "--to", "out.csv"]) == 0
    assert pd.read_csv("out.csv")["id"].tolist() == [7, 8, 9]


def test_what_is_unknown_is_null(shell: simulator.Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` is JSON by its standard, which has no NaN, also for a run that has no name."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    shell.seconds_per_batch = 3600
    assert main([*SUBMIT, "--no-wait"]) == 0
    capsys.readouterr()
    assert main(["runs", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert listed["name"] is None


def test_the_timeout_of_a_submit_tells_what_to_type(
    shell: simulator.Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process ends at its timeout: it promises nothing, and names the line that goes on."""
    shell.seconds_per_batch = 3600
    code, told = main([*SUBMIT, "--timeout", "0.2"]), capsys.readouterr().err
    assert code == 4
    assert "This process" not in told
    assert "pandas-batch watch " in told.splitlines()[-1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_standard_output_is_one_line(
    shell: simulator.Simulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the output takes no more, a line says so, and the status is 1."""
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["runs"]) == 1
    assert "No space left" in capsys.readouterr().err


def test_an_answer_that_fits_no_cell_is_told(shell: simulator.Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    """A spreadsheet cannot hold control characters: nothing is written, and the format that can is named."""
    shell.answer = "a\x0bb"
    assert main([*SUBMIT, "--to", "out.xlsx"]) == 1
    told = capsys.readouterr().err
    assert ".parquet" in told
    assert "Traceback" not in told
    assert not Path("out.xlsx").exists()


def test_an_estimate_spends_nothing_and_is_one_document(
    shell: simulator.Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """`estimate --json` has the fields of `Estimate`; no batch is made."""
    code, told = document(capsys, "estimate", *SUBMIT[1:], "--max-tokens", "16")
    assert code == 0
    assert (told["rows"], told["requests"]) == (3, 2)
    assert 0 < told["cost_usd_min"] < told["cost_usd_max"] == pytest.approx(told["cost_usd_standard"] / 2)
    assert main(["estimate", *SUBMIT[1:], "--max-tokens", "16"]) == 0
    assert "$" in capsys.readouterr().out
    assert shell.calls("create") == 0


def test_every_verb_of_a_run_is_one_document(shell: simulator.Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints one object with id, name, status, counts, cost and what was paid, and nothing besides."""
    code, submitted = document(capsys, *SUBMIT, "--name", "r")
    assert code == 0
    assert set(submitted) == {"id", "name", "status", "counts", "cost_usd", "paid_usd"}
    assert submitted["counts"] == {"succeeded": 2, "skipped": 1}
    for verb in ("show", "watch", "collect"):
        assert document(capsys, verb, "r") == (0, submitted)
    code, listed = document(capsys, "runs")
    assert code == 0
    assert [row["id"] for row in listed] == [submitted["id"]]
    code, told = document(capsys, "delete", "r", "--yes")
    assert (code, told["status"], told["id"]) == (0, "deleted", submitted["id"])
    assert document(capsys, "runs") == (0, [])


def test_rows_that_failed_are_status_3_and_retried(
    shell: simulator.Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failed row ends `submit`, `watch` and `collect` with 3; `retry` asks again for it alone."""
    shell.faults.add(simulator.RowFault("overloaded", marker="broke", times=1))
    assert main([*SUBMIT, "--name", "r"]) == 3
    assert main(["watch", "r"]) == 3
    assert main(["collect", "r", "--max-failed", "0.3"]) == 3
    assert "1 of 3 rows failed, 30.00% are allowed" in capsys.readouterr().err
    assert main(["collect", "r", "--max-failed", "0.5"]) == 0
    assert main(["collect", "r", "--max-failed", "0.5", "--max-cost", "0.0"]) == 3
    assert "$0.00 are allowed" in capsys.readouterr().err
    assert main(["retry", "r", "--to", "out.jsonl"]) == 0
    assert pd.read_json("out.jsonl", lines=True)["status"].tolist() == ["succeeded", "succeeded", "skipped"]
    assert [len(batch.custom_ids) for batch in shell.batches] == [1, 2]


def test_a_run_is_left_at_the_timeout_watched_and_canceled(
    shell: simulator.Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """4 where the time is over and the run goes on; a shell cancels what another process has started."""
    shell.seconds_per_batch = 3600
    no_wait = process(*SUBMIT, "--name", "r", "--no-wait")
    assert (no_wait.returncode, shell.calls("create")) == (0, 1), no_wait.stderr
    late = process("watch", "r", "--timeout", "0.2")
    assert late.returncode == 4
    assert "has not ended within timeout" in late.stderr
    canceled = process("cancel", "r")
    assert canceled.returncode == 0
    assert "1 of 1 batches is being canceled" in canceled.stdout
    # What was just said is not taken back at the end of the process.
    assert "go on there" not in canceled.stderr
    assert "goes on there" not in canceled.stderr
    shell.advance(3600)
    code, told = document(capsys, "collect", "r")
    assert (code, told["counts"]) == (3, {"canceled": 2, "skipped": 1})


def test_deleting_needs_a_word_where_nobody_can_be_asked(
    shell: simulator.Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal `delete` asks nobody and deletes nothing; the line that does is told."""
    assert main([*SUBMIT, "--name", "r"]) == 0
    refused = process("delete", "r")
    assert refused.returncode == 1
    assert "Nothing was deleted." in refused.stderr
    assert "--yes" in refused.stderr
    assert main(["show", "r"]) == 0
    assert process("delete", "r", "--yes").returncode == 0
    assert main(["show", "r"]) == 1


def test_a_lost_store_is_recovered_from_the_file(
    shell: simulator.Simulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`recover FILE` with the options of the submit brings the answers into another store; nothing is paid."""
    assert main([*SUBMIT, "--system", "Be brief."]) == 0
    monkeypatch.setenv("PANDAS_BATCH_HOME", str(tmp_path / "other"))
    capsys.readouterr()
    code, told = document(capsys, "recover", *SUBMIT[1:], "--system", "Be brief.", "--to", "back.parquet")
    assert (code, told["counts"], told["paid_usd"]) == (0, {"succeeded": 2, "skipped": 1}, 0.0)
    assert pd.read_parquet("back.parquet")["output"].tolist()[:2] == ["fine", "fine"]
    assert shell.calls("create") == 1


def test_killed_while_it_waits_the_same_line_goes_on(shell: simulator.Simulator, tmp_path: Path) -> None:
    """`kill -9` of a submit loses nothing: the same line brings the answers home, and they are paid once."""
    shell.seconds_per_batch = 3600
    killed = subprocess.Popen(cold("-m", "pandas_batch", *SUBMIT), stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 60
    while shell.calls("create") == 0 and time.monotonic() < deadline_s:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(20) == -signal.SIGKILL
    shell.advance(3601)
    done = process(*SUBMIT)
    assert done.returncode == 0, done.stderr
    assert (shell.calls("create"), len(shell.billed)) == (1, 2)


def test_two_at_once_pay_once(shell: simulator.Simulator) -> None:
    """The same line in two shells at the same instant is one run and one batch."""
    both = [
        subprocess.Popen(warm("-m", "pandas_batch", *SUBMIT), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [one.communicate(timeout=120) for one in both]
    assert [one.returncode for one in both] == [0, 0], outputs
    assert (shell.calls("create"), len(shell.billed)) == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["submit", "none.csv", "--prompt-col", "review"], 1, "There is no file none.csv"),
        (["submit", "reviews.txt", "--prompt-col", "review"], 1, "has to end in"),
        (["submit", "reviews.csv", "--prompt-col", "reveiw"], 1, "review"),
        (["submit", "reviews.csv"], 1, "prompt"),
        (["submit", "broken.parquet", "--prompt-col", "review"], 1, "cannot be read"),
        (["submit", "broken.xlsx", "--prompt-col", "review"], 1, "cannot be read"),
        ([*SUBMIT, "--max-cost-usd", "0.0000001"], 1, "Nothing was sent"),
        ([*SUBMIT, "--no-wait", "--to", "out.csv"], 2, "collect RUN --to FILE"),
        ([*SUBMIT, "--to", "nowhere/out.csv"], 1, "Nothing was sent"),
        ([*SUBMIT, "--to", "out.doc"], 1, "Nothing was sent"),
        ([*SUBMIT, "--to", "reviews.csv"], 1, "Nothing was sent"),
        ([*SUBMIT, "--to", "link.csv"], 1, "is the file that the rows come from"),
        ([*SUBMIT, "--timeout", "-1"], 2, "timeout"),
        (["submit", "scalar.jsonl", "--prompt-col", "review"], 1, "line 2 is no object"),
        (["submit", "deep.jsonl", "--prompt-col", "review"], 1, "nested too deep"),
        ([*SUBMIT, "--max-tokens", "many"], 2, "many"),
        (["show", "nothing"], 1, "nothing"),
        (["watch", "nothing"], 1, "nothing"),
        (["cancel", "nothing"], 1, "nothing"),
        (["retry", "nothing"], 1, "nothing"),
        (["delete", "nothing", "--yes"], 1, "nothing"),
        (["collect", "nothing", "--max-failed", "2"], 2, "max-failed"),
        (["collect", "nothing", "--max-failed", "nan"], 2, "max-failed"),
        (["collect", "nothing", "--max-cost", "nan"], 2, "max-cost"),
        (["collect", "nothing", "--max-cost", "-1"], 2, "max-cost"),
        (["collekt"], 2, "collekt"),
    ],
)
def test_mistakes_are_words_and_a_status(
    shell: simulator.Simulator, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    """Wrong files, columns, runs and options end with a few lines, and nothing was sent."""
    for name in ("broken.parquet", "broken.xlsx", "reviews.txt"):
        Path(name).write_bytes(b"nothing of the kind")
    Path("link.csv").symlink_to("reviews.csv")
    Path("scalar.jsonl").write_text('{"review": "Lovely."}\n3\n')
    Path("deep.jsonl").write_text('{"review": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    assert main(arguments) == code
    told = capsys.readouterr()
    assert words in told.err
    assert len(told.err.splitlines()) <= 6
    assert told.out == ""
    assert shell.calls("create") == 0


def test_without_a_key_the_variable_is_named(shell: simulator.Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, and a wrong one: words and status 1; reading what is home needs none."""
    assert process(*SUBMIT, "--name", "r").returncode == 0
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert process("collect", "r", "--to", "out.csv").returncode == 0
    missing = process("submit", "reviews.csv", "--prompt", "{id}?")
    assert missing.returncode == 1
    assert "ANTHROPIC_API_KEY" in missing.stderr
    shell.faults.add(simulator.ErrorAnswer("*", 401, times=None))
    wrong = process("submit", "reviews.csv", "--prompt", "{id}?", ANTHROPIC_API_KEY="sk-ant-wrong-key")
    assert wrong.returncode == 1
    assert "401" in wrong.stderr
    assert "sk-ant-wrong-key" not in wrong.stdout + wrong.stderr


def test_a_spreadsheet_holds_texts_and_no_formulas(shell: simulator.Simulator) -> None:
    """An answer that begins like a formula is a text in a cell; `--raw` writes what it would be otherwise."""
    import openpyxl

    shell.answer = "=1+1"
    assert main([*SUBMIT, "--to", "out.xlsx"]) == 0
    assert main([*SUBMIT, "--to", "raw.xlsx", "--raw"]) == 0
    kinds = {}
    for name in ("out", "raw"):
        sheet = openpyxl.load_workbook(f"{name}.xlsx").active
        header = [cell.value for cell in sheet[1]]
        kinds[name] = sheet.cell(2, header.index("output") + 1)
    assert (kinds["out"].value, kinds["out"].data_type) == ("=1+1", "s")
    assert kinds["raw"].data_type == "f"


def test_a_text_that_no_cell_holds_is_refused_and_not_cut(
    shell: simulator.Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """A spreadsheet cannot hold 32,768 characters in a cell: nothing is written, and the format that can is named."""
    shell.answer = "x" * 32_768
    assert main([*SUBMIT, "--max-tokens", "32000", "--to", "out.xlsx"]) == 1
    assert ".parquet" in capsys.readouterr().err
    assert not Path("out.xlsx").exists()


def test_the_names_of_runs_complete(shell: simulator.Simulator) -> None:
    """The completion of a shell offers the names and ids of the runs in the store."""
    assert main([*SUBMIT, "--name", "tickets"]) == 0
    done = process(_PANDAS_BATCH_COMPLETE="bash_complete", COMP_WORDS="pandas-batch show tick", COMP_CWORD="2")
    assert "tickets" in done.stdout


def test_the_version_and_every_verb_say_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` is one line; each verb of the contract has a help that begins with a sentence."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("pandas-batch, version ")
    verbs = "estimate submit runs show watch cancel retry collect recover delete demo"
    assert set(commands.commands) == set(verbs.split())
    for verb in verbs.split():
        assert main([verb, "--help"]) == 0
        assert "Usage: pandas-batch" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["show", "watch", "cancel", "retry", "collect"])
def test_whoever_looks_for_a_run_makes_no_store(
    shell: simulator.Simulator, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped folder is told, and is not there afterwards."""
    folder = tmp_path / "mistyped"
    code = main([verb, "review-1", "--store", str(folder), *(["--to", "x.csv"] if verb == "collect" else [])])
    assert code == 1
    assert "there is no store at" in capsys.readouterr().err
    assert not folder.exists()
