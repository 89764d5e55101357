"""What axe-core has to say about parts of a page, in words; the rest of the page is not looked at."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

_QUICKLY = {"resultTypes": ["violations"], "preload": False}
CONTRAST = {**_QUICKLY, "runOnly": ["color-contrast"]}
# No rule is left out. Those about a page as a whole (its title, its language, its landmarks) are for whoever makes the
# page: axe itself passes over them where it is given parts of one. How large a target is it looks at only when asked.
ALL_ELSE = {**_QUICKLY, "rules": {"color-contrast": {"enabled": False}, "target-size": {"enabled": True}}}
"""Contrast is looked at apart: the time it takes grows faster than what there is to look at."""

_RUN = """([selector, options]) => axe.run(selector, options).then(found => ({
    said: found.violations.flatMap(rule => rule.nodes.map(
        node => `${rule.id}: ${node.html.slice(0, 160)} ${node.failureSummary.replace(/\\s+/g, ' ')}`)),
    passed: found.passes.map(rule => rule.id),
    broken: found.incomplete.filter(rule => !rule.nodes.length).map(rule => rule.id)}))"""


@cache
def _script() -> str:
    spec = importlib.util.find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("axe-playwright-python is not installed")
    return Path(spec.origin).with_name("axe.min.js").read_text(encoding="utf-8")


def violations(page: Any, selector: str, rules: dict[str, Any]) -> list[str]:
    """Return the violations in the parts of a page that `selector` names, with all unfolded that can be."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(_script())
    page.evaluate("s => document.querySelectorAll(s + ' details').forEach(fold => { fold.open = true })", selector)
    found = page.evaluate(_RUN, [selector, rules])
    # Rules that found nothing to look at, or broke, as those of old versions do on colors of today, would pass as kept.
    looked_at = {"color-contrast"} if rules == CONTRAST else {"td-headers-attr"}
    assert found["broken"] == []
    assert looked_at <= {*found["passed"], *(said.split(":")[0] for said in found["said"])}
    said: list[str] = found["said"]
    return said
