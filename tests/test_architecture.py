"""The folders of the package, which may import from which, and what may stand in none of them."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pandas_batch"


# From the front down to the ground: a file may import from its own folder and from those after it, never from one
# before it, be it inside a function or for a type checker alone. A new file needs no entry.
FOLDERS = ("run", "engine", "client", "estimates", "display", "store", "wire", "requests", "results")
FRONT = (
    "__init__",
    "__main__",
    "accessor",
    "call_options",
    "completion",
    "dask",
    "demo",
    "live",
    "magics",
    "saving",
    "shell",
)
"""The files beside the folders that may enter all of them; the other files beside them are the ground of all."""
LAYERS = ("front", *FOLDERS, "ground", "simulator")

# The third-party libraries that a folder knows: what a library changes, changes there.
LIBRARIES = {
    "front": "click dask IPython numpy pandas",
    "run": "numpy pandas pyarrow msgspec matplotlib IPython nest_asyncio2",
    "engine": "numpy pyarrow msgspec",
    "client": "",
    "estimates": "numpy pandas msgspec",
    "display": "ipywidgets IPython comm tqdm",
    "store": "numpy pandas pyarrow pytz",
    "wire": "anthropic httpx2",
    "requests": "numpy pandas pyarrow msgspec anthropic pydantic pydantic_core",
    "results": "msgspec numpy pyarrow genai_prices",
    "ground": "numpy",
    "simulator": "msgspec anthropic httpx2",
}


@dataclass(frozen=True)
class Import:
    """One import of a module: from which, at which line, of which, and whether the module is ours."""

    path: Path
    line: int
    module: str
    target: str

    @property
    def is_ours(self) -> bool:
        return self.target.partition(".")[0] == "pandas_batch"

    @property
    def library(self) -> str:
        return self.target.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.path.relative_to(PACKAGE.parent)}:{self.line} imports {self.target}"


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {module_of(path): path for path in FILES}


def layer_of(module: str) -> str:
    """Return the layer of one of our modules: its folder, or that of the files beside the folders."""
    _, *rest = module.split(".")
    if rest and (PACKAGE / rest[0]).is_dir():
        return rest[0]
    return "front" if not rest or rest[0] in FRONT else "ground"


def imports_of(path: Path) -> Iterator[Import]:
    """Yield every import of a file, wherever in it they stand."""
    module = module_of(path)
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            whole = ".".join([*base, *(node.module.split(".") if node.module else [])])
            # `from . import store` names the module in its second half.
            targets = [f"{whole}.{alias.name}" if f"{whole}.{alias.name}" in MODULES else whole for alias in node.names]
        else:
            continue
        yield from (Import(path, node.lineno, module, target) for target in targets)


IMPORTS = [found for path in FILES for found in imports_of(path)]
OURS = [found for found in IMPORTS if found.is_ours and found.target != found.module]


def test_every_folder_has_its_place() -> None:
    """The tuple above names every folder; a new one is put where it belongs before anything is built on it."""
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == {*FOLDERS, "simulator"}


def test_imports_go_one_way() -> None:
    """No file imports from a folder above its own."""
    wrong = [
        str(found)
        for found in OURS
        if found.target != "pandas_batch"
        and LAYERS.index(layer_of(found.target)) < LAYERS.index(layer_of(found.module))
    ]
    assert wrong == []


def test_there_is_no_ring() -> None:
    """Files import each other in no ring, not even later or for a type checker."""
    graph: dict[str, set[str]] = {}
    for found in OURS:
        # Every module stands below the package that it is in.
        if found.target != "pandas_batch":
            graph.setdefault(found.module, set()).add(found.target)
    graphlib.TopologicalSorter(graph).prepare()


def test_the_simulator_stands_alone() -> None:
    """The server shares no line with its clients, so that a misunderstanding cannot be mirrored on both sides."""
    assert [
        str(found) for found in OURS if {layer_of(found.module), layer_of(found.target)} == {"simulator", "ground"}
    ] == []
    assert [
        str(found) for found in OURS if layer_of(found.module) == "simulator" and layer_of(found.target) != "simulator"
    ] == []


def test_each_library_is_known_in_few_folders() -> None:
    """A file imports only the third-party libraries of its folder."""
    wrong = [
        str(found)
        for found in IMPORTS
        if not found.is_ours
        and found.library not in {*sys.stdlib_module_names, "_typeshed"}
        and found.library not in LIBRARIES[layer_of(found.module)].split()
    ]
    assert wrong == []
    assert {layer_of(found.module) for found in IMPORTS if found.library == "sqlite3"} == {"store"}


def test_importing_the_package_loads_little() -> None:
    """`import pandas_batch` costs no SDK, no widgets, no prices and no database: those come at first use."""
    heavy = (
        "anthropic httpx2 ipywidgets IPython tqdm genai_prices msgspec pydantic sqlite3 matplotlib dask nest_asyncio2"
    )
    program = (
        "import sys, pandas\n"
        "before = set(sys.modules)\n"
        "import pandas_batch\n"
        "new = set(sys.modules) - before\n"
        f"print(*sorted(new & set({heavy.split()!r})))\n"
        "print(*sorted(name for name in new if name.startswith('pandas_batch')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded, ours = done.stdout.splitlines()
    assert loaded == ""
    assert ours.split() == [
        "pandas_batch",
        "pandas_batch.accessor",
        "pandas_batch.call_arguments",
        "pandas_batch.call_options",
        "pandas_batch.errors",
        "pandas_batch.exiting",
        "pandas_batch.types",
    ]


def test_importing_twice_is_silent() -> None:
    """A second import, as autoreload makes it, registers the accessor again without a warning."""
    program = "import pandas_batch, importlib; importlib.reload(pandas_batch)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_stands_in_no_file(path: Path) -> None:
    """No assert (gone under -O), no note to do something later, no bare except, no name that says nothing."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type is None]
    assert not [word for word in ("TODO", "FIXME", "XXX", "cancelled", "pypi.org") if word in text]
    assert path.stem not in ("utils", "helpers", "core", "base", "manager", "common", "misc")
    if any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(tree)):
        assert "from __future__ import annotations" in text


def test_lines_of_results_are_split_at_newlines_only() -> None:
    """`splitlines` also splits at U+2028 and friends, which may stand inside a line of JSON."""
    for path in FILES:
        if layer_of(module_of(path)) in ("results", "wire", "client"):
            called = [
                node.lineno
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Attribute) and node.attr == "splitlines"
            ]
            assert called == [], path.name


def test_what_a_block_of_an_answer_is_stands_in_one_table() -> None:
    """Whoever reads answers asks `content_blocks.py` which blocks are text, so that a new kind is an entry there."""
    for folder in ("run", "engine", "client", "results"):
        for path in (PACKAGE / folder).glob("*.py"):
            assert not re.search(r"""(\.type|"type"\)?\]?) [!=]= "text\"""", path.read_text(encoding="utf-8")), path
