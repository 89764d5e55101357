"""Real runs in a real JupyterLab: the engine, the store and the simulator under the panel that a user sees."""

from __future__ import annotations

import json
import os
import re

import pytest

from .driver import LabPage, kernel_version

HEAD = """import os, tempfile, pandas as pd, pandas_batch
from pandas_batch import simulator
os.environ["PANDAS_BATCH_HOME"] = tempfile.mkdtemp()
api = simulator.serve(seconds_per_batch={seconds}, seconds_to_cancel=4)
df = pd.DataFrame({{"review": [f"review {{i}}" for i in range(30)]}})
ask = dict(client=api.client(), name="reviews", poll_interval=0.5)
"""
# ipykernel 6 handles no message at all while a cell runs, an awaiting one included.
needs_subshells = pytest.mark.skipif(kernel_version() < (7,), reason="the kernel has no subshells")


@needs_subshells
def test_start_stays_live_and_cancels_by_clicks(lab: LabPage) -> None:
    """`start` returns at once, its panel moves under a busy cell, and two clicks cancel it on the server."""
    lab.start(
        HEAD.format(seconds=600),
        "run = df.claude_batch.start('review', **ask)",
        "import os, time\nwhile not os.path.exists('heard'): time.sleep(.1)\nprint('busy cell over')",
        "out = run.result(); print('cancels', api.calls('cancel'), out['status'].value_counts().to_dict())",
    )
    lab.wait_text(r"In progress[\s\S]*elapsed [2-9] s")
    assert lab.is_busy()
    (lab.server.root / "heard").touch()
    lab.wait_text("busy cell over")
    lab.click("Cancel")
    lab.click("Confirm cancel", timeout_s=15)
    assert lab.page.get_by_role("button", name="Canceling…", exact=True).is_disabled(timeout=15_000)
    lab.wait_text(r"cancels 1 \{.*'canceled'", 90)
    assert "Canceled" in lab.outputs()[1]
    lab.wait_account()


@needs_subshells
@pytest.mark.parametrize(
    "call", ["out = df.claude_batch.submit('review', **ask)", "out = await df.claude_batch.asubmit('review', **ask)"]
)
def test_a_waiting_cell_can_be_canceled_from(lab: LabPage, call: str) -> None:
    """Under `submit` as under `await` the buttons stay, without words in their place, and reach the run."""
    lab.start(HEAD.format(seconds=600), f"{call}; print(out['status'].value_counts().to_dict())")
    lab.wait_text(r"elapsed ([6-9]|\d\d) s")
    assert lab.is_busy()
    assert "stop the cell" not in lab.text()
    lab.click("Check now")
    lab.click("Cancel")
    lab.click("Confirm cancel", timeout_s=15)
    lab.wait_text(r"\{.*'canceled'", 90)


@needs_subshells
def test_a_waiting_cell_can_be_finished_from(lab: LabPage) -> None:
    """Under `submit` the button shows the price; confirmed, the cell returns every answer, asked now."""
    lab.start(
        HEAD.format(seconds=80_000) + "api.seconds_per_message = 0.5\n",
        "out = df.claude_batch.submit('review', **ask); print(out['status'].value_counts().to_dict())",
    )
    lab.wait_text(r"elapsed [2-9] s")
    lab.click("Finish now", timeout_s=30)
    lab.wait_text(r"at most 30 rows are asked now through the Messages API, at the standard price: at most \$0\.\d+")
    if picture := os.environ.get("PANDAS_BATCH_PICTURES"):
        lab.page.screenshot(path=f"{picture}/finish.png")
    lab.page.get_by_role("button", name=re.compile(r"Confirm: at most \$0\.\d+")).click(timeout=15_000)
    lab.wait_text(r"\{'succeeded': 30\}", 90)
    lab.wait_account()


def test_stop_ends_the_wait_and_the_same_line_goes_on(lab: LabPage) -> None:
    """The stop button returns within a second with the way on; the run stays live, and the same line brings it home."""
    line = "out = df.claude_batch.submit('review', **ask)"
    # The third cell does not run at first: an interrupt takes back what waits behind it.
    lab.start(HEAD.format(seconds=600), line, "import threading; threading.Timer(2, api.advance, [600]).start()")
    lab.wait_text(r"elapsed [2-4] s")
    lab.interrupt()
    lab.wait_text("KeyboardInterrupt", 10)  # how soon, test_interrupts.py measures
    lab.wait_text("1 of 1 batches is posted and goes on")
    lab.wait_idle(5)
    lab.run_cell(2)
    lab.run_cell(1)
    lab.wait_text(r"30\s+of 30", 90)
    lab.wait_idle(20)


def test_run_all_twice_pays_once(lab: LabPage) -> None:
    """Restart-and-run-all brings the answers back from the store; the account names the run, nothing is paid."""
    cells = (
        HEAD.format(seconds=1),
        "out = df.claude_batch.submit('review', **ask)",
        "again = df.claude_batch.submit('review', **ask)\n"
        "print('equal', again.equals(out), 'creates', api.calls('create'))",
        "pandas_batch.load('reviews')",
    )
    lab.start(*cells)
    lab.wait_text("equal True creates 1", 90)
    lab.wait_idle(20)
    assert "Finished" in lab.outputs()[3]
    saved = json.dumps(lab.save())
    assert "vnd.jupyter.widget-view" not in saved
    assert "review 17" not in saved, "no prompt and no answer stands in the panel"


def test_failed_rows_are_shown_escaped(lab: LabPage) -> None:
    """The first failed rows stand in the panel with label, type and message, as text and never as markup."""
    attack = "<img src=x onerror=window.__pwn=1>"
    lab.start(
        HEAD.format(seconds=1)
        + "from pandas_batch.simulator.faults import RowFault\n"
        + f"api.faults.add(RowFault('errored', marker='review 3', message={attack!r}))\n"
        + f"df.index = [{attack!r}] * 30\n",
        "out = df.claude_batch.submit('review', **ask)",
    )
    lab.wait_text("1 row failed", 90)
    assert attack in lab.text()
    assert lab.page.evaluate("() => window.__pwn") is None


def test_a_stopped_run_says_who_stopped_it_and_what_runs_can_be_canceled(lab: LabPage) -> None:
    """A spend limit in the middle of posting: the server's words, what is out there, and a Cancel that reaches it."""
    lab.start(
        HEAD.format(seconds=600)
        + "from pandas_batch.run import recording\nrecording.MAX_BATCH_REQUESTS = 10\n"
        + "api.faults.add(simulator.spend_cap(skip=1))\n",
        "run = df.claude_batch.start('review', **ask)",
        "print('canceled rows', run.wait().counts.get('canceled'))",
    )
    lab.wait_text("Stopped: the spend limit of your organization is reached", 90)
    lab.wait_text(r"1 of 3 batches is on the server and goes on \(billed at most \$0\.\d+\)\. 2 were refused")
    assert "You have reached your API usage limits." in lab.outputs()[1]
    lab.click("Cancel")
    lab.click("Confirm cancel", timeout_s=15)
    lab.page.get_by_role("button", name="Cancel", exact=True).wait_for(state="hidden", timeout=60_000)
    lab.wait_text(r"Canceled\s+reviews", 90)


def test_a_call_is_seen_while_its_rows_are_prepared(lab: LabPage) -> None:
    """The cell says that it prepares before any row is read, and what it showed becomes the panel of the run."""
    lab.start(
        HEAD.format(seconds=600)
        + "from pandas_batch.requests import plan\nread = plan.plan_requests\n"
        + "def slow(*args, **kwargs):\n    import time, os\n    while not os.path.exists('seen'): time.sleep(.05)\n"
        + "    return read(*args, **kwargs)\nplan.plan_requests = slow\n",
        "run = df.claude_batch.start('review', **ask)",
    )
    lab.wait_text(r"Preparing[\s\S]*reading 30 rows, \d s", 90)
    (lab.server.root / "seen").touch()
    lab.wait_text(r"In progress[\s\S]*elapsed \d+ s", 90)
    assert "Preparing" not in lab.text()
    assert lab.page.locator(".pdb-live").count() == 1
