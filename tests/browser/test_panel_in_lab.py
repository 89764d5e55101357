"""The panel in a real JupyterLab: alive while Python is busy, canceled by a click, and an account in the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from .driver import LabPage, LabServer

HEAD = "from run_statuses import *\n"
WIDGET = "application/vnd.jupyter.widget-view+json"


def wait_ticks(lab: LabPage, n_seconds: int, timeout_s: float = 60) -> None:
    """Wait until the clock of the first live panel has gone on by this much."""
    seconds = "parseInt(document.querySelector('.pdb-live .pdb-times').innerText.split('elapsed ')[1])"
    lab.page.wait_for_selector(".pdb-live .pdb-times", timeout=60_000)
    before_s = lab.page.evaluate(f"() => {seconds}")
    lab.page.wait_for_function(f"() => {seconds} >= {before_s + n_seconds}", timeout=1000 * timeout_s)


def test_the_panel_is_alive_while_another_cell_is_busy(lab: LabPage) -> None:
    """The clock and the batches move while Python counts sheep in the next cell."""
    sheep = "import os, time\nwhile not os.path.exists('enough'): time.sleep(.1)\nprint('sheep counted')"
    lab.start(HEAD + "run = PlayedRun(seconds=18)", sheep)
    lab.wait_text("0 of 3")
    wait_ticks(lab, 3)
    lab.wait_text(r"399\s+of 1,204", 90)
    assert lab.is_busy()
    (lab.server.root / "enough").touch()
    lab.wait_text("sheep counted")
    assert "reviews" not in lab.outputs()[1]


def test_where_no_click_can_arrive_there_are_words(browser: Any, tmp_path: Path) -> None:
    """Without subshells a blocked kernel hears nothing: the panel says to stop the cell, and what then."""
    settings = {"@jupyterlab/apputils-extension:kernels-settings": {"commsOverSubshells": "disabled"}}
    with LabServer(tmp_path, settings=settings) as server:
        lab = LabPage(server, browser.new_page(viewport={"width": 1200, "height": 1000}))
        lab.start(HEAD + "run = PlayedRun(seconds=90, blocking=True); run.wait()")
        lab.wait_text(r"stop the cell \(■\)", 90)
        assert 'run = pandas_batch.load("run_k3v9m2xq"); run.cancel()' in lab.text()
        assert not lab.page.get_by_role("button", name="Cancel", exact=True).is_visible()
        lab.interrupt()
        lab.page.get_by_role("button", name="Cancel", exact=True).wait_for(timeout=60_000)
        lab.wait_no_text("stop the cell")
        lab.page.close()


def test_an_interrupt_ends_the_wait_and_not_the_run(lab: LabPage) -> None:
    """At once the cell is free; the panel goes on, and can cancel."""
    lab.start(HEAD + "run = PlayedRun(seconds=60, blocking=True); run.wait()")
    lab.wait_text(r"elapsed [2-9] s")
    lab.interrupt()
    assert lab.wait_text("KeyboardInterrupt", 20) < 5
    lab.wait_idle(20)
    wait_ticks(lab, 2)
    lab.click("Cancel")
    lab.click("Confirm cancel", timeout_s=15)
    lab.wait_text(r"\bCanceled\n", 90)


def test_the_panel_survives_a_reload(lab: LabPage) -> None:
    """After the page is loaded anew the panel is alive; a cancel nobody confirms goes back, and the next counts."""
    lab.start(HEAD + "run = PlayedRun(seconds=90)")
    lab.wait_text("In progress")
    lab.save()
    lab.reload()
    wait_ticks(lab, 2)
    assert "A picture as of" not in lab.text()
    lab.click("Cancel")
    lab.page.get_by_role("button", name="Confirm cancel", exact=True).wait_for(timeout=15_000)
    lab.page.get_by_role("button", name="Cancel", exact=True).wait_for(timeout=30_000)
    lab.click("Cancel")
    lab.click("Confirm cancel", timeout_s=15)
    lab.wait_text("Cancel(ing|ed)", 90)


def test_two_views_are_both_alive(lab: LabPage) -> None:
    """A run shown in two cells moves in both, and leaves its account in both."""
    lab.start(HEAD + "run = PlayedRun(seconds=9)", "run.display.show()", "run.display.show(); 1")
    lab.wait_text("In progress")
    wait_ticks(lab, 1)
    clocks = lab.page.evaluate("() => [...document.querySelectorAll('.pdb-live .pdb-times')].map(e => e.innerText)")
    assert len(clocks) == 3
    assert len(set(clocks)) == 1
    lab.wait_text(r"Finished[\s\S]*Finished[\s\S]*Finished", 90)
    lab.wait_account()


def test_a_notebook_without_its_kernel_shows_the_account(lab: LabPage) -> None:
    """Saved, its kernel ended, and opened again: the account is there, no dead widget, and no widget in the file."""
    lab.start(HEAD + "run = PlayedRun(seconds=2); run.wait()")
    lab.wait_text("Finished, some rows failed")
    lab.wait_account()
    lab.wait_idle()
    saved = lab.save()
    assert WIDGET not in json.dumps(saved)
    lab.server.end_kernels()
    lab.open(lab.name)
    lab.wait_text("Finished, some rows failed")
    assert "model not found" not in lab.text()
    assert lab.page.locator(".pdb a").count() == 1


def test_a_kernel_that_is_shut_down_leaves_the_account(lab: LabPage) -> None:
    """A server that culls a kernel in the middle of a run leaves what was known, not a dead widget."""
    lab.start(HEAD + "run = PlayedRun(seconds=90)")
    lab.wait_text("In progress")
    lab.wait_idle()
    lab.server.end_kernels()
    lab.wait_text("A picture as of", 90)
    lab.wait_account()
    assert WIDGET not in json.dumps(lab.save())


def test_a_notebook_saved_in_the_middle_of_a_run_shows_the_account(lab: LabPage, browser: Any, tmp_path: Path) -> None:
    """
    Its kernel restarted from the menu, its page loaded anew, exported, or opened by one who does not trust it: in place
    of the dead panel there is the account, once, with the line that picks the run up.
    """
    lab.start(HEAD + "print('before')\nrun = PlayedRun(seconds=90)\nprint('after')")
    lab.wait_text("In progress")
    lab.wait_idle()
    assert "A picture as of" not in lab.text()
    saved = lab.save()

    def assert_account() -> None:
        lab.wait_text("A picture as of", 90)
        text = lab.text()
        assert "In progress" in text
        assert text.count('run = pandas_batch.load("run_k3v9m2xq")') == 1
        assert "model not found" not in text
        assert not lab.page.get_by_role("button", name="Cancel", exact=True).is_visible()
        assert text.startswith("before")
        assert text.rstrip().endswith("after")

    lab.restart()
    assert_account()
    lab.reload()
    dead = "() => document.querySelector('.jp-Notebook').textContent.includes('model not found')"
    lab.page.wait_for_function(dead, timeout=60_000)
    assert_account()
    assert "In progress" in exported_text(lab.server.root / lab.name, browser, tmp_path)
    saved["cells"][0]["source"] += "  # by somebody else"
    (lab.server.root / "foreign.ipynb").write_text(json.dumps(saved))
    lab.open("foreign.ipynb")
    assert_account()


def exported_text(notebook: Path, browser: Any, tmp_path: Path) -> str:
    """Return what the one account in an HTML export says, read without a network."""
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--output-dir", str(tmp_path), str(notebook)]
    subprocess.run(command, check=True, capture_output=True)
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto((tmp_path / notebook.with_suffix(".html").name).as_uri(), wait_until="domcontentloaded")
    account = page.locator(".pdb")
    assert account.evaluate("e => getComputedStyle(e).borderTopLeftRadius") == "6px"
    text: str = account.inner_text()
    context.close()
    return text


def test_nbconvert_keeps_the_account(lab: LabPage, browser: Any, tmp_path: Path) -> None:
    """An HTML export shows the account offline, with its look."""
    lab.start(HEAD + "run = PlayedRun(seconds=2); run.wait()")
    lab.wait_text("Finished, some rows failed")
    lab.wait_account()
    lab.wait_idle()
    lab.save()
    assert "Finished, some rows failed" in exported_text(lab.server.root / lab.name, browser, tmp_path)
