"""The site: `make docs` builds it into build/docs, offline, and a warning is an error."""

from __future__ import annotations

import re
from typing import Any

import pandas_batch

project = "pandas-batch"
author = "the pandas-batch project"
copyright = "the pandas-batch project, Apache-2.0"
version = release = pandas_batch.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
suppress_warnings = [
    "myst.header",
    "ref.python",
]  # an attribute of two classes is a link to neither
exclude_patterns: list[str] = []

default_role = "code"  # a docstring's `name` is code, whether it is on a page or not
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # they stand in the signature of whoever reads the source; the sections say it in words
autodoc_class_signature = "mixed"
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "pandas-batch"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"


def as_shown(_app: Any, _page: str, source: list[str]) -> None:
    """Name the file of a block that has one; what is done before a block is tested is a comment already."""
    source[0] = re.sub(
        r"^```(?:cron$|python$(?=\n%%))", "```text", source[0], flags=re.MULTILINE
    )
    source[0] = re.sub(
        r"^```(\w+) title=\"(.*?)\"",
        r"```{code-block} \1\n:caption: \2",
        source[0],
        flags=re.MULTILINE,
    )


def options_as_list(
    _app: Any, _what: str, name: str, _obj: Any, _options: Any, lines: list[str]
) -> None:
    """Tell the options of a call as a list, once: `submit` has it, the other calls point to it."""
    if "**options" not in lines:
        return
    start = lines.index("**options") + 1
    end = next(
        (
            at
            for at, line in enumerate(lines[start:], start)
            if line and not line.startswith(" ")
        ),
        len(lines),
    )
    told = ["    The same as those of `submit`.", ""]
    if name.endswith("Frame.submit"):
        told = []
        for line in map(str.strip, filter(None, lines[start:end])):
            option = re.match(r"(\w+=.*?): ", line)
            told += (
                [f"    * ``{option[1]}``: {line[option.end() :]}"]
                if option
                else ["", f"    {line}", ""]
            )
        told.append("")
    lines[start:end] = told


def names_together(
    _app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]
) -> None:
    """Keep names that share a description together: a space in them would read as a type before a name."""
    for at, line in enumerate(lines):
        if re.fullmatch(r"\w+(, \w+)+", line):
            lines[at] = line.replace(", ", ",")


def without_clocks(
    _app: Any,
    _what: str,
    _name: str,
    _obj: Any,
    _options: Any,
    signature: str,
    returned: str,
) -> Any:
    """Leave out the parameter that only tests give: it prints as nothing that anybody types."""
    return re.sub(
        r"(?:, \*)?, clock=<[^>]*>", "", signature or ""
    ) or signature, returned


def setup(app: Any) -> None:
    """Let Sphinx call what is above."""
    app.connect("source-read", as_shown)
    app.connect("autodoc-process-signature", without_clocks)
    # Before the sections are read.
    app.connect("autodoc-process-docstring", options_as_list, priority=400)
    app.connect("autodoc-process-docstring", names_together, priority=400)
