"""The panel can be read: in every theme, at every width, without motion, and with texts that want to be code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .driver import LabPage, LabServer
from .test_panel_in_lab import wait_ticks

SHOWN = (
    "from run_statuses import *\n"
    "from pandas_batch.display.panel import Panel\n"
    "from pandas_batch.display.display import Actions\n"
    "from pandas_batch.display.account import static_html\n"
    "from IPython.display import HTML, display\n"
    "panels = []\n"
    "for n in (-1, 1, 3):\n"
    "    panel = Panel(Actions(print, print, print, print)); panel.update(run_status(n))\n"
    "    panels.append(panel); display(panel)\n"
    "    display(HTML(static_html(run_status(n))))\n"
    "print('all shown')"
)
THEMES = ("JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast")

CLIPPED = """() => [...document.querySelectorAll('.pdb, .pdb table')]
    .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.className + ' ' + e.scrollWidth + '>' + e.clientWidth)"""

# Each color is painted over the background below it, so that what is compared is what is seen.
LOW_CONTRAST = """() => {
    const context = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d',
        {willReadFrequently: true});
    const paint = colors => { context.fillStyle = '#fff'; context.fillRect(0, 0, 1, 1);
        for (const c of colors) { context.fillStyle = c; context.fillRect(0, 0, 1, 1); }
        return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3); };
    const luminance = rgb => rgb.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const low = [];
    for (const panel of document.querySelectorAll('.pdb')) {
        const walker = document.createTreeWalker(panel, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const element = walker.currentNode.parentElement;
            if (!walker.currentNode.data.trim() || !element.getClientRects().length) continue;
            if (element.closest('style, .pdb-quiet, .pdb-glyph, :disabled')) continue;
            const below = [];
            for (let e = element; e; e = e.parentElement) below.unshift(getComputedStyle(e).backgroundColor);
            const [a, b] = [luminance(paint([...below, getComputedStyle(element).color])), luminance(paint(below))];
            const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
            if (ratio < 4.5) low.push(walker.currentNode.data.trim() + ' ' + ratio.toFixed(2));
        }
    }
    return low; }"""


@pytest.fixture(scope="module")
def page_of_panels(lab_server: LabServer, browser: Any) -> Iterator[LabPage]:
    lab = LabPage(lab_server, browser.new_page())
    lab.start(SHOWN)
    lab.wait_text("all shown", 120)  # many panels, on a machine that may be busy
    lab.command("application:toggle-left-area")
    lab.page.wait_for_function("() => document.querySelectorAll('.pdb').length === 6")
    yield lab
    lab.close()


@pytest.fixture
def shown(page_of_panels: LabPage) -> LabPage:
    """Live panels and accounts of a waiting, a running and a finished run; one page for all who only look."""
    page_of_panels.page.set_viewport_size({"width": 1200, "height": 1400})
    return page_of_panels


@pytest.mark.parametrize("theme", THEMES)
def test_in_every_theme_and_width_nothing_is_clipped_and_all_can_be_read(shown: LabPage, theme: str) -> None:
    """From a phone's width to a wide screen: no text out of sight, and each at least 4.5 to 1 against its ground."""
    shown.theme(theme)
    for width in (320, 480, 800, 1200, 1800):
        shown.page.set_viewport_size({"width": width, "height": 1400})
        shown.page.wait_for_timeout(400)
        assert shown.page.evaluate(CLIPPED) == [], width
    assert shown.page.evaluate(LOW_CONTRAST) == []


def test_the_account_takes_the_place_of_the_panel_without_a_jump(shown: LabPage) -> None:
    """Every line and every cell of a finished run is in the account where it was in the panel, at any width."""
    places = """() => [...document.querySelectorAll('.pdb')].slice(-2).map(panel => {
        const from = panel.getBoundingClientRect();
        return [panel, ...panel.querySelectorAll('[class^=pdb-], tr, td, summary')].filter(e => e.checkVisibility())
            .filter(e => !e.closest('.pdb-quiet'))
            .map(e => [e, e.getBoundingClientRect()])
            .map(([e, at]) => [e !== panel && e.className, at.x - from.x, at.y - from.y, at.width, at.height]); })"""
    for width in (480, 1200):
        shown.page.set_viewport_size({"width": width, "height": 1400})
        shown.page.wait_for_timeout(400)
        panel, account = shown.page.evaluate(places)
        assert len(panel) > 20
        assert panel == account


def test_plain_html_fits_on_any_ground(browser: Any) -> None:
    """Outside of Jupyter the account takes its colors from the text around it, at 320, 800 and 1,200 pixels."""
    from pandas_batch.display.account import static_html
    from tests.panel_states import panel_states

    body = "".join(map(static_html, panel_states().values()))
    for ground in ("#fff;color:#222", "#1e1e1e;color:#d4d4d4", "#000;color:#fff"):
        for width in (320, 800, 1200):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.set_content(f"<!doctype html><body style='margin:8px;background:{ground}'>{body}")
            assert page.evaluate(CLIPPED) == []
            assert page.evaluate("() => document.documentElement.scrollWidth") <= width
            assert page.evaluate(LOW_CONTRAST) == []
            page.close()


def test_motion_goes_on_while_the_clock_ticks_and_stops_where_it_is_not_wanted(lab: LabPage) -> None:
    """A tick does not start an animation anew; with reduced motion there is none."""
    lab.start("from run_statuses import *\nrun = PlayedRun(seconds=90)")
    lab.wait_text(r"In progress[\s\S]*elapsed [1-9] s")
    at = "() => document.getAnimations().filter(a => a.animationName === 'pdb-go').map(a => a.currentTime)"
    before = lab.page.evaluate(at)
    wait_ticks(lab, 3)
    after = lab.page.evaluate(at)
    assert len(before) == len(after) == 1
    assert all(b > a + 1500 for a, b in zip(before, after, strict=True))
    lab.page.emulate_media(reduced_motion="reduce")
    assert lab.page.evaluate(at) == []


def test_the_keyboard_reaches_the_buttons(shown: LabPage) -> None:
    """Enter presses, and Tab goes back from Cancel to Finish now, and to Check now."""
    shown.page.get_by_role("button", name="Cancel", exact=True).first.focus()
    shown.page.keyboard.press("Enter")
    shown.page.get_by_role("button", name="Confirm cancel", exact=True).wait_for(timeout=15_000)
    for name in ("Finish now", "Check now"):
        shown.page.keyboard.press("Shift+Tab")
        assert shown.page.evaluate("() => document.activeElement.innerText") == name


def test_a_screen_reader_finds_what_it_needs(shown: LabPage) -> None:
    """The state is a live region; the bar says what it measures, and squares and tables what they are."""
    panel = shown.page.locator(".pdb-live").nth(1)
    assert panel.get_by_role("status").inner_text().strip() == "In progress. 30 % of the batches have ended."
    bars = panel.get_by_role("progressbar")
    assert [bars.nth(i).get_attribute("aria-valuenow") for i in range(bars.count())] == ["1"]
    assert panel.get_by_role("img", name="3 batches: 1 answered in part, 2 at the server").count() == 1
    assert panel.get_by_role("table", name="Failed rows, by kind").count() == 1


def test_fifty_attacks_run_nothing(lab: LabPage) -> None:
    """In a trusted notebook, in the live panel and in the account, a text stays a text."""
    lab.start(
        "from run_statuses import *\n"
        "from pandas_batch.display.panel import Panel\n"
        "from pandas_batch.display.display import Actions\n"
        "from pandas_batch.display.account import static_html\n"
        "from IPython.display import HTML, display\n"
        "import ipywidgets, time\n"
        "statuses = [with_everywhere(attack, n) for n, attack in zip([1, 3] * len(ATTACKS), ATTACKS)]\n"
        "panels = []\n"
        "for at, status in enumerate(statuses):\n"
        "    panels.append(Panel(Actions(print, print, print, print), blocking=True)); panels[-1].update(status)\n"
        "    if at % 13 == 12: time.sleep(3)  # Jupyter drops what comes faster than 3,000 messages in three seconds\n"
        "display(ipywidgets.VBox([panel.box for panel in panels]))\n"
        "display(HTML(''.join(map(static_html, statuses))))\n"
        "print('all', len(ATTACKS), 'shown')"
    )
    lab.wait_text(r"all 5\d shown", 120)
    lab.page.wait_for_function("() => document.querySelectorAll('.pdb').length >= 100", timeout=120_000)
    for link in lab.page.locator(".pdb a").all():
        assert link.get_attribute("href") == "https://platform.claude.com/workspaces/default/batches"
    lab.page.evaluate("() => document.querySelectorAll('.pdb *').forEach(e => e.dispatchEvent(new Event('mouseover')))")
    lab.page.wait_for_timeout(2000)
    assert lab.page.evaluate("() => window.pdbHit === undefined")
    assert lab.dialogs == []
    foreign = "document.querySelectorAll('.pdb :is(script, img, iframe, svg, math, mjx-container, form, input)')"
    assert lab.page.evaluate(f"() => {foreign}.length") == 0
    assert lab.page.evaluate("() => getComputedStyle(document.querySelector('.pdb')).display") != "none"


LIVE = """
from panel_states import panel_states
from pandas_batch.display.panel import Panel
from pandas_batch.display.display import Actions
from IPython.display import display
states = panel_states()
panels = {}
for name in NAMES:
    panels[name] = Panel(Actions(print, print, print, print)); panels[name].update(states[name]); display(panels[name])
print('all', 'shown')
"""


def test_a_panel_is_no_taller_than_it_has_to_be(lab: LabPage) -> None:
    """At 1,080 pixels one batch takes 260 of height, one that ended well a line, a hundred with 300 failures 520."""
    most = {"one": 260, "one at the end": 60, "good": 60, "from the store": 60, "many": 520, "many failed": 520}
    most |= {"preparing": 260, "running": 520, "spent": 260}
    lab.start(LIVE.replace("NAMES", repr(tuple(most))))
    lab.wait_text("all shown", 120)  # many panels, on a machine that may be busy
    heights = """() => [...document.querySelectorAll('.pdb-live')].map(e => { e.style.width = '1080px';
        return e.getBoundingClientRect().height; })"""
    found = dict(zip(most, lab.page.evaluate(heights), strict=True))
    assert {name: height for name, height in found.items() if not 30 < height <= most[name]} == {}


def test_nothing_unfolds_or_loses_the_focus_and_the_live_region_stays(lab: LabPage) -> None:
    """What a person folded stays folded, the focus stays, and the node that is read out is the same, as batches end."""
    lab.start(
        LIVE.replace("NAMES", "('running',)"),
        "from dataclasses import replace\n"
        "last = replace(states['running'], n_failed=15, n_rows_answered=960, answers=states['running'].answers[:2],\n"
        "    kinds=(replace(states['running'].kinds[0], n_rows=13), states['running'].kinds[1]),\n"
        "    batches=(*states['running'].batches[:3], replace(states['running'].batches[0]),\n"
        "             states['running'].batches[4]))\n"
        "import os, time\n"
        "while not os.path.exists('folded'): time.sleep(.05)\n"
        "panels['running'].update(last)",
    )
    lab.wait_text("all shown", 120)  # many panels, on a machine that may be busy
    folds = lab.page.locator(".pdb-live details.pdb-fold")
    assert folds.evaluate_all("all => all.map(e => e.open)") == [True, True, False]
    height = "() => document.querySelector('.pdb-live').getBoundingClientRect().height"
    assert lab.page.get_by_text("The kettle boils").is_visible()
    folds.nth(0).locator("summary").click()
    folds.nth(1).locator("summary").click()
    folds.nth(2).locator("summary").click()
    assert not lab.page.get_by_text("The kettle boils").is_visible()
    assert not lab.page.get_by_text("Overloaded").is_visible()
    folds.nth(1).locator("summary").focus()
    before = lab.page.evaluate(height)
    lab.page.evaluate("() => { window.pdbWas = document.querySelector('.pdb-live [role=status]') }")
    (lab.server.root / "folded").touch()
    lab.wait_text("15 rows failed")
    assert folds.evaluate_all("all => all.map(e => e.open)") == [False, False, True]
    assert lab.page.evaluate("() => document.activeElement.tagName + document.activeElement.innerText") == (
        "SUMMARYFailed rows"
    )
    assert lab.page.evaluate("() => document.querySelector('.pdb-live [role=status]') === window.pdbWas")
    assert lab.page.evaluate("() => window.pdbWas.innerText").strip() == (
        "In progress. 80 % of the batches have ended."
    )
    assert lab.page.evaluate(height) == before
