"""The rooms of the package, who may enter which, and what may stand in none of them."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pandas_batch"


@dataclass(frozen=True)
class Room:
    """Files that belong together, and the third-party libraries that are known in there."""

    files: str
    libraries: str = ""


# From the ground up: a file may import from its own room and from those above it in this table, at any time, also
# inside a function. What only a type checker reads is free.
ROOMS = {
    "simulator": Room("simulator", "msgspec anthropic httpx2"),
    "ground": Room("errors exiting clock server_values types failpoints amounts"),
    "lines": Room("result_lines", "msgspec"),
    "prices": Room("rates pricing", "genai_prices numpy pyarrow"),
    "answers": Room("answer_texts result_file answer_columns answers", "msgspec numpy pyarrow"),
    "wire": Room(
        "body flows failures sending connections clients drivers endpoints downloads wire",
        "anthropic httpx2",
    ),
    "parameters": Room("keys names_elsewhere parameters sdk_types certain_refusals spending", "numpy anthropic"),
    "client": Room("bodies parts jobs client"),
    "requests": Room(
        "option_checks options per_row text_dtype texts fingerprints templates contents media media_types json_schema "
        "schema groups changes plan",
        "numpy pandas pyarrow msgspec anthropic pydantic pydantic_core",
    ),
    "store": Room("store", "numpy pandas pyarrow pytz"),
    "estimate": Room(
        "tables forecast bounds bill counting summing retry_bill estimate preflight", "numpy pandas msgspec"
    ),
    "display": Room(
        "wording stylesheet fragments account pace clicks panel notebook_display progress",
        "ipywidgets IPython comm tqdm",
    ),
    "comparing": Room("comparison comparing", "numpy pandas"),
    "nesting": Room("nesting", "nest_asyncio2"),
    "runs": Room(
        "row_status stretches gathering asking_again rebuilding merge agreeing bound status last_words side_by_side "
        "summary memory turns spooling posting reconciling surplus collecting gone compacting steps engine preparing "
        "driving waiting retrying "
        "deleting run",
        "numpy pandas pyarrow msgspec matplotlib IPython",
    ),
    "front": Room("submitted_rows starting recovering library accessor", "numpy pandas"),
    "dask": Room("dask", "dask numpy pandas"),
    "shell": Room("saving demo live __main__ __init__", "pandas"),
}
ORDER = list(ROOMS)
ROOM_OF = {file: name for name, room in ROOMS.items() for file in room.files.split()}

# Two halves of one subject, of which one asks for the other when it is first needed.
PAIRS = {("parameters", "sdk_types"), ("progress", "notebook_display")}


@dataclass(frozen=True)
class Import:
    """One import statement: who imports what, and whether it waits for a call."""

    path: Path
    line: int
    file: str
    target: str
    is_ours: bool
    is_lazy: bool

    def __str__(self) -> str:
        return f"{self.path.relative_to(PACKAGE.parent)}:{self.line} imports {self.target}"


def file_of(path: Path) -> str:
    """Return the name by which the table knows a file: the simulator and the store stand for all that is in them."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if parts[0] in WHOLE else path.stem


def target_of(module: list[str]) -> str:
    """Return the name by which the table knows a module that is imported."""
    if module[0] != "pandas_batch" or len(module) == 1:
        return module[0]
    return module[2] if module[1] in FOLDERS and len(module) > 2 else module[1]


def imports_of(path: Path) -> Iterator[Import]:
    """Yield what a file imports when it runs."""
    package = ["pandas_batch", *path.relative_to(PACKAGE).parts[:-1]]

    def modules(node: ast.Import | ast.ImportFrom) -> Iterator[list[str]]:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
            return
        base = package[: len(package) - node.level + 1] if node.level else []
        module = [*base, *(node.module.split(".") if node.module else [])]
        # `from . import store` and `from pandas_batch.running import engine` name the file in the second half.
        names_files = module == ["pandas_batch"] or (len(module) == 2 and module[1] in FOLDERS)
        yield from ([*module, alias.name] for alias in node.names) if names_files else [module]

    def walk(node: ast.AST, is_lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import | ast.ImportFrom):
                for module in modules(child):
                    is_ours = module[0] == "pandas_batch"
                    yield Import(path, child.lineno, file_of(path), target_of(module), is_ours, is_lazy)
            yield from walk(child, is_lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    return walk(ast.parse(path.read_text(encoding="utf-8")), False)


WHOLE = ("simulator", "store")
FOLDERS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - set(WHOLE)
FILES = sorted(PACKAGE.rglob("*.py"))
IMPORTS = [found for path in FILES for found in imports_of(path)]


def test_every_file_has_a_room() -> None:
    """The table above names every file; a new one is put where it belongs before anything is built on it."""
    assert {file_of(path) for path in FILES} <= set(ROOM_OF)


def test_imports_go_one_way() -> None:
    """No file imports from a room below its own, not even inside a function."""
    wrong = [
        str(found)
        for found in IMPORTS
        if found.is_ours
        and found.target in ROOM_OF
        and found.file not in ("__init__", found.target)
        and ORDER.index(ROOM_OF[found.target]) > ORDER.index(ROOM_OF[found.file])
    ]
    assert wrong == []


def test_there_is_no_ring_of_files() -> None:
    """Inside a room too, imports form no ring; the pairs that are named may ask each other later."""
    graph: dict[str, set[str]] = {}
    for found in IMPORTS:
        if found.is_ours and found.target in ROOM_OF and found.target != found.file:
            pair = {(found.file, found.target), (found.target, found.file)}
            if not (found.is_lazy and pair & PAIRS):
                graph.setdefault(found.file, set()).add(found.target)
    graphlib.TopologicalSorter(graph).prepare()


def test_there_is_no_ring_of_folders() -> None:
    """Folders too are entered one way: what a folder needs stands in others that do not need it."""
    folder_of = {path.stem: path.parent.name for path in FILES if path.parent.name in FOLDERS}
    folder_of |= {name: name for name in WHOLE}
    graph: dict[str, set[str]] = {}
    for found in IMPORTS:
        here, there = folder_of.get(found.file), folder_of.get(found.target) if found.is_ours else None
        if here is not None and there is not None and here != there:
            graph.setdefault(here, set()).add(there)
    graphlib.TopologicalSorter(graph).prepare()


def test_the_simulator_stands_alone() -> None:
    """The server shares no line with its clients, so that a misunderstanding cannot be mirrored on both sides."""
    ours = [str(found) for found in IMPORTS if found.file == "simulator" and found.is_ours]
    assert [text for text in ours if not text.endswith("imports simulator")] == []


def test_each_library_is_known_in_few_rooms() -> None:
    """A file imports only the third-party libraries of its room: what a library changes, changes there."""
    wrong = [
        str(found)
        for found in IMPORTS
        if not found.is_ours
        and found.target not in sys.stdlib_module_names
        and found.target not in ROOMS[ROOM_OF[found.file]].libraries.split()
    ]
    assert wrong == []
    assert {found.file for found in IMPORTS if found.target == "sqlite3"} == {"store"}


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
    rooms = ("answers", "wire", "client")
    for path in FILES:
        if ROOM_OF[file_of(path)] in rooms:
            called = [
                node.lineno
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Attribute) and node.attr == "splitlines"
            ]
            assert called == [], path.name
