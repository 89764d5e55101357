"""axe-core finds nothing to mend in what a notebook shows: live panels and accounts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pandas_batch.display.account import static_html
from tests.panel_states import panel_states

from .axe import ALL_ELSE, CONTRAST, violations
from .driver import LabPage, LabServer
from .test_panel_looks import LIVE, THEMES

pytest.importorskip("axe_playwright_python")
WIDTHS = (320, 600, 1400)
GROUNDS = {"light": "#fff;color:#222", "dark": "#1e1e1e;color:#d4d4d4"}
OF_EACH_KIND = ("preparing", "running", "spent", "some failed", "canceled", "good")
LIVE_ONES = ("preparing", "running", "canceling", "spent", "some failed")

# The panels stay what JupyterLab drew, in its theme; the rest of it would be looked through with each of them, and its
# body has no height, which to axe is a page on which nothing can be seen.
ALONE = """() => { const place = document.createElement('div');
    place.className = 'jp-OutputArea-output';
    place.style.background = 'var(--jp-layout-color0)';
    place.append(...document.querySelectorAll('.pdb-live'));
    document.body.replaceChildren(place);
    document.body.style.cssText += ';overflow:visible;height:auto'; }"""


@pytest.fixture(scope="module")
def plain(browser: Any) -> Iterator[Any]:
    """A page without anybody's style sheet."""
    page = browser.new_page()
    yield page
    page.close()


@pytest.fixture(scope="module")
def live(lab_server: LabServer, browser: Any) -> Iterator[LabPage]:
    """Live panels in JupyterLab."""
    lab = LabPage(lab_server, browser.new_page(viewport={"width": 1400, "height": 1400}))
    lab.start(LIVE.replace("NAMES", repr(LIVE_ONES)))
    lab.wait_text("all shown", 120)
    lab.page.wait_for_function("() => document.querySelectorAll('.pdb-live').length === 5")
    lab.page.evaluate(ALONE)
    yield lab
    lab.close()


def show(page: Any, parts: list[str], ground: str, width: int) -> None:
    """Show parts of HTML on a page of this ground and width; "forced" is the high contrast of a system."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(forced_colors="active" if ground == "forced" else "none")
    body = "".join(f'<div class="ours">{part}</div>' for part in parts)
    style = f"background:{GROUNDS[ground]}" if ground in GROUNDS else ""
    page.set_content(f"<!doctype html><body style='margin:8px;{style}'>{body}")


def test_what_is_planted_is_found(plain: Any) -> None:
    """A text too faint, a button without a name, and a table that only a mouse can scroll are each found."""
    line = "color:color-mix(in srgb,currentColor 40%,transparent)"
    wide = (
        "<div style='width:9em;overflow-x:auto'><table><tr><th scope='row'>a</th><td>"
        + "x" * 80
        + "</td></table></div>"
    )
    show(plain, [f"<p style='{line}'>faint</p>", "<button></button>", wide], "light", 600)
    assert [said.split(":")[0] for said in violations(plain, ".ours", CONTRAST)] == ["color-contrast"]
    found = {said.split(":")[0] for said in violations(plain, ".ours", ALL_ELSE)}
    assert found == {"button-name", "scrollable-region-focusable"}


@pytest.mark.parametrize("width", WIDTHS)
def test_accounts_of_all_states(plain: Any, width: int) -> None:
    """Whatever a run has come to, its account has no violation; of each kind its colors can be told apart."""
    states = panel_states()
    show(plain, [static_html(status) for status in states.values()], "light", width)
    assert violations(plain, ".ours", ALL_ELSE) == []
    for ground in (*GROUNDS, "forced"):
        show(plain, [static_html(states[name]) for name in OF_EACH_KIND], ground, width)
        assert violations(plain, ".ours", CONTRAST) == [], ground


@pytest.mark.parametrize("theme", THEMES)
def test_live_panels(live: LabPage, theme: str) -> None:
    """The panel of widgets has no violation in JupyterLab's themes, at any width."""
    live.theme(theme)
    for width in WIDTHS:
        live.page.set_viewport_size({"width": width, "height": 1400})
        live.page.wait_for_timeout(400)
        assert violations(live.page, ".pdb-live", CONTRAST) == [], width
        if theme == THEMES[0]:
            assert violations(live.page, ".pdb-live", ALL_ELSE) == [], width
