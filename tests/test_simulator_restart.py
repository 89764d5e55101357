"""The simulator as a program of its own: it survives being killed, and other processes can drive it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from simulator_lab import requests

from pandas_batch import simulator
from pandas_batch.simulator import BadResults, ErrorAnswer, ListLag, LostAnswer, Outage
from pandas_batch.simulator.__main__ import main
from pandas_batch.simulator.plan import from_json, to_json


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run ``python -m pandas_batch.simulator`` and yield the process and its port."""
    command = [sys.executable, "-W", "error", "-m", "pandas_batch.simulator", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found, process.stderr.read() if process.stderr else ""
        yield process, int(found[1])
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def call(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@contextlib.contextmanager
def client_of(port: int) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="key", base_url=f"http://127.0.0.1:{port}", max_retries=0) as client:
        yield client


def test_batches_survive_kill_9(tmp_path):
    """A killed server comes back with every batch, its cancel, its settled results and its clock."""
    with program("--port", "0", "--path", str(tmp_path), "--seconds-per-batch", "1000") as (process, port):
        with client_of(port) as client:
            done = client.messages.batches.create(requests=requests(5, "word " * 100 + "{}", max_tokens=4096))
            call(port, "POST", "/simulator/clock", {"advance_s": 1500})
            first = [row.to_json() for row in client.messages.batches.results(done.id)]
            canceled = client.messages.batches.create(requests=requests(4))
            call(port, "POST", "/simulator/clock", {"advance_s": 500})
            client.messages.batches.cancel(canceled.id)
            large = client.messages.batches.create(requests=requests(50, "x" * 40_000 + "{}", max_tokens=4096))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    with (
        program("--port", str(port), "--path", str(tmp_path), "--seconds-per-batch", "1") as (_, same_port),
        client_of(same_port) as client,
    ):
        assert same_port == port
        assert [batch.id for batch in client.messages.batches.list()] == [large.id, canceled.id, done.id]
        assert [row.to_json() for row in client.messages.batches.results(done.id)] == first
        assert client.messages.batches.retrieve(large.id).processing_status == "in_progress"
        call(port, "POST", "/simulator/clock", {"advance_s": 1100})
        counts = client.messages.batches.retrieve(canceled.id).request_counts
        assert (counts.succeeded, counts.canceled) == (2, 2)
        rows = {row.custom_id: row.result for row in client.messages.batches.results(large.id)}
        assert rows["r49"].message.content[0].text == ("x" * 40_000)[:16384]
        newest = client.messages.batches.create(requests=requests(1))
        assert next(iter(client.messages.batches.list())).id == newest.id


def test_nothing_of_a_create_that_was_cut_off_remains(tmp_path, clock):
    """A body that ends early makes no batch and leaves no file."""
    import socket

    with simulator.serve(path=tmp_path, clock=clock.time_s) as api:
        head = "POST /v1/messages/batches HTTP/1.1\r\nauthorization: Bearer x\r\ncontent-length: 9000000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", api.port)) as sock:
            sock.sendall(head.encode() + b'{"requests":[' + b" " * 3_000_000)
        client = api.client(max_retries=0)
        for fault in (simulator.LostAnswer("reset", committed=False), simulator.ErrorAnswer("create", 529)):
            api.faults.add(fault)
            with pytest.raises(anthropic.APIError):
                client.messages.batches.create(requests=requests(1, "x" * 3_000_000, max_tokens=4096))
        client.models.list()
    (tmp_path / "incoming-1.part").write_bytes(b"left by a server that was killed")
    with simulator.serve(path=tmp_path, clock=clock.time_s) as api:
        assert api.batches == []
    assert list(tmp_path.iterdir()) == []


def test_files_go_with_their_batch_and_with_the_server(tmp_path, clock):
    """Deleting removes the files of a batch; without a path nothing outlives the server."""
    with simulator.serve(path=tmp_path, clock=clock.time_s) as api:
        client = api.client()
        batch = client.messages.batches.create(requests=requests(2))
        clock.advance(3)
        client.messages.batches.retrieve(batch.id)
        assert {path.name.partition(".")[2] for path in tmp_path.iterdir()} == {
            "batch.json",
            "requests.json",
            "results.jsonl",
        }
        client.messages.batches.delete(batch.id)
        assert list(tmp_path.iterdir()) == []
        assert len(api.billed) == 2
    with simulator.serve(clock=clock.time_s) as passing:
        folder = passing._folder
        assert folder.exists()
    assert not folder.exists()


def test_a_restart_in_the_same_process_continues(tmp_path, clock):
    """Sequence, order and ids go on where the last server stopped."""
    seen = []
    for _ in range(3):
        with simulator.serve(path=tmp_path, clock=clock.time_s) as api:
            client = api.client()
            seen.append(client.messages.batches.create(requests=requests(1)).id)
            assert [batch.id for batch in client.messages.batches.list()] == seen[::-1]
    assert len(set(seen)) == 3


def test_other_processes_drive_it_over_http(api, client, clock):
    """Faults, decoys, the clock, bills and the log of requests are open to another process on this machine."""
    port = api.port
    status, fault = call(
        port, "POST", "/simulator/faults", {"fault": "ErrorAnswer", "endpoint": "create", "status": 529}
    )
    assert (status, fault["status"], len(api.faults)) == (200, 529, 1)
    with pytest.raises(anthropic.OverloadedError):
        client.with_options(max_retries=0).messages.batches.create(requests=requests(1))
    assert call(port, "GET", "/simulator/faults")[1][0]["hits"] == 1
    assert call(port, "DELETE", "/simulator/faults") == (200, [])
    batch = client.messages.batches.create(requests=requests(2))
    decoy = call(port, "POST", "/simulator/decoys", {"n_requests": 3})[1]["id"]
    before = call(port, "GET", "/simulator/clock")[1]["now_s"]
    assert call(port, "POST", "/simulator/clock", {"advance_s": 100})[1]["now_s"] == pytest.approx(before + 100)
    shown = {one["id"]: one for one in call(port, "GET", "/simulator/batches")[1]}
    assert shown[batch.id]["custom_ids"] == ["r0", "r1"]
    assert (shown[decoy]["decoy"], shown[decoy]["phase"]) == (True, "ended")
    bills = call(port, "GET", "/simulator/bills")[1]
    assert {row["batch_id"] for row in bills["rows"]} == {batch.id}
    assert bills["total_usd"] == str(api.billed_usd)
    assert call(port, "GET", "/simulator/requests")[1][-1]["path"] == "/simulator/requests"


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/simulator/faults", {"fault": "Nothing"}, {}, 400),
        ("POST", "/simulator/faults", {"fault": "ErrorAnswer", "endpoint": "creat", "status": 500}, {}, 400),
        ("POST", "/simulator/clock", {}, {}, 400),
        ("POST", "/simulator/nothing", {}, {}, 404),
        ("GET", "/simulator/faults", None, {"host": "evil.example:80"}, 403),
        ("GET", "/simulator/faults", None, {"origin": "https://evil.example"}, 403),
    ],
)
def test_wrong_calls_are_refused(api, method, path, body, headers, status):
    """What is not understood is refused, and so is what a page in a browser could send."""
    assert call(api.port, method, path, body, **headers)[0] == status


@pytest.mark.parametrize(
    "fault",
    [
        ErrorAnswer("create", 529, times=2, retry_after="3"),
        LostAnswer("redirect_307", location="http://127.0.0.1:9/"),
        Outage(5.0, how=503),
        ListLag(3),
        simulator.ForeignResultsUrl("http://127.0.0.1:9"),
        simulator.RowFault("expired", share=0.5, marker="x"),
        BadResults("cut", at_byte=-5, polite=True),
    ],
)
def test_a_fault_survives_its_form_as_json(fault):
    """Another process can set what this one can."""
    assert from_json(json.loads(json.dumps(to_json(fault)))) == fault


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"fault": "Nonsense"}, "fault: must be one of"),
        ({"fault": "ListLag", "seconds": 1, "minutes": 2}, "minutes: no such field of ListLag"),
        ({"fault": "ListLag"}, "missing 1 required positional argument: 'seconds'"),
    ],
)
def test_a_fault_in_wrong_json_is_refused(data, message):
    """What cannot be understood is refused with a reason."""
    with pytest.raises(ValueError, match=message):
        from_json(data)


def test_the_program_ends_at_a_signal_and_says_where_it_serves():
    """It prints its address and the lines to type, and an interrupt ends it cleanly, without a warning."""
    with program("--port", "0", "--answer", "yes", "--seconds-per-batch", "0") as (process, port):
        with client_of(port) as client:
            batch = client.messages.batches.create(requests=requests(1))
            (row,) = client.messages.batches.results(batch.id)
            assert row.result.message.content[0].text == "yes"
        assert process.stdout is not None
        assert f"ANTHROPIC_BASE_URL=http://127.0.0.1:{port}" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert err == ""


def test_help_is_given(capsys):
    """``--help`` tells the options."""
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "--path" in capsys.readouterr().out


def test_the_simulator_imports_nothing_of_ours():
    """A misunderstanding of the API cannot be mirrored: no module of the simulator imports the package around it."""
    folder = Path(simulator.__file__).parent
    for path in folder.glob("*.py"):
        for line in path.read_text().splitlines():
            found = re.match(r"\s*(?:from|import)\s+(pandas_batch(?!\.simulator)|\.\.)", line)
            # The docstrings show users how to import the simulator itself.
            assert not found or line.strip() == "from pandas_batch import simulator", f"{path.name}: {line}"
