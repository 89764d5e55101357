"""Mutants of the rooms that hold money: each is a small fault, and the tests of its own module have to see it.

    make mutants                                   # 300 drawn mutants
    python tests/mutants.py --n 60 --seed 2        # fewer, others
    python tests/mutants.py --only 12 40           # some of the 300 once more, by their numbers

Mutants are made by cosmic-ray's operators. A place in the code is drawn first, then one of the mutants there, so that
an operator with many replacements does not fill the sample. Not drawn: annotations, blocks for type checkers alone,
and `is` against `==`, which differ in nothing that these rooms compare. Each mutant is tested by those tests of its
module's files that run its statement (all of them for what runs at import), the quickest first, up to the first
failure; a mutant that makes them hang is killed too. The tree is copied before: nothing is changed in place.

What survives is looked at by hand. What no test can see is told apart as "alike": `frozen=` and `kw_only=` of
a dataclass hold back who writes the code and not the code, `strict=` of a zip says that lists of one length are of one
length, `gc=` and a cache change nothing but the time. These are drawn all the same, so that the sample is the same.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOT_DRAWN = ("VariableReplacer", "VariableInserter", "_Is_Eq", "_IsNot_NotEq", "_Eq_Is", "_NotEq_IsNot")
UNSEEN = {"dataclass": ("frozen", "kw_only"), "zip": ("strict",)}
"""Keywords of calls that change nothing a test can see."""

SLOWEST_S = 90.0
"""A test that takes longer than this, or three times what it took before, hangs."""

TESTS = {
    "engine/posting.py": "posting surplus failures",
    "engine/reconciling.py": "reconciling surplus",
    "engine/collecting.py": "collecting other_accounts",
    "engine/polling.py": "collecting polling other_accounts",
    "engine/room.py": "room",
    "engine/surplus.py": "surplus",
    "engine/gone.py": "collecting other_accounts",
    "store/batches.py": "store store_files store_locks unrecorded",
    "store/runs.py": "store store_files store_labels unrecorded",
    "store/queries.py": "store store_files",
    "results/pricing.py": "pricing answers",
    "results/rates.py": "pricing",
    "results/result_lines.py": "answers",
    "requests/spending.py": "estimate preflight options",
    "requests/fingerprints.py": "fingerprints",
    "requests/certain_refusals.py": "certain_refusals",
    "estimates/bounds.py": "estimate",
    "estimates/bill.py": "estimate preflight",
    "wire/failures.py": "failures wire posting",
}
"""The rooms that hold money, and the test files that are theirs."""


# ---------------------------------------------------------------- drawing


def places(source: str) -> dict[tuple[Any, ...], list[tuple[str, int]]]:
    """Return the mutants (operator, occurrence) of a module, by the place and kind of what they change."""
    import cosmic_ray.plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    shut = list(_untested(ast.parse(source)))
    nodes = list(ast_nodes(get_ast(source)))
    found: dict[tuple[Any, ...], list[tuple[str, int]]] = defaultdict(list)
    for name in sorted(cosmic_ray.plugins.operator_names()):
        if any(part in name for part in NOT_DRAWN):
            continue
        operator = cosmic_ray.plugins.get_operator(name)()
        occurrence = -1
        for node in nodes:
            for start, _ in operator.mutation_positions(node):
                occurrence += 1
                if not any(first <= start < last for first, last in shut):
                    kind = name.split("/")[1].split("_")[0]
                    found[(start, kind)].append((name, occurrence))
    return found


def _untested(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield where annotations and blocks for type checkers alone begin and end."""
    for node in ast.walk(tree):
        shut: list[Any] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            shut = [node.returns]
        elif isinstance(node, ast.arg | ast.AnnAssign):
            shut = [node.annotation]
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            shut = [node]
        for part in shut:
            if part is not None:
                yield (part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)


def mutated(source: str, name: str, occurrence: int) -> str:
    """Return the source with one mutant in it."""
    import cosmic_ray.plugins
    from cosmic_ray.mutating import mutate_code

    code = mutate_code(source, cosmic_ray.plugins.get_operator(name)(), occurrence)
    assert code is not None
    return code


def is_alike(source: str, mutant: str) -> bool:
    """Return whether a mutant differs in nothing but what no test can see."""
    return _plain(source) == _plain(mutant)


def _plain(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            unseen = UNSEEN.get(ast.unparse(node.func), ())
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in unseen]
        elif isinstance(node, ast.ClassDef):
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "gc"]
        elif isinstance(node, ast.FunctionDef):
            node.decorator_list = [one for one in node.decorator_list if not ast.unparse(one).startswith("lru_cache")]
    return ast.dump(tree)


def draw(n: int, seed: int, rooms: list[str]) -> list[tuple[str, str, str]]:
    """Return (room, operator, mutated source) of `n` drawn mutants."""
    dice = random.Random(seed)
    sources = {room: (ROOT / "pandas_batch" / room).read_text(encoding="utf-8") for room in rooms}
    everywhere = [(room, place, mutants) for room in rooms for place, mutants in sorted(places(sources[room]).items())]
    drawn = []
    for room, _, mutants in dice.sample(everywhere, min(n, len(everywhere))):
        name, occurrence = dice.choice(mutants)
        drawn.append((room, name, mutated(sources[room], name, occurrence)))
    return drawn


# ---------------------------------------------------------------- which tests run which lines


class Watching:
    """A plugin of pytest: notes how long each test takes, and which lines of the package it runs."""

    def __init__(self, coverage: Any) -> None:
        self.coverage, self.took_s = coverage, defaultdict(float)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" and report.passed:
            self.took_s[report.nodeid] += report.duration


def watch(files: list[str], target: str) -> None:
    """Run test files once, in this process, and write what they run to `target`."""
    import coverage
    import pytest

    measured = coverage.Coverage(data_file=None, source=["pandas_batch"], config_file=False)
    measured.start()
    watching = Watching(measured)
    code = pytest.main(["-q", "-p", "no:cacheprovider", *files], plugins=[watching])
    measured.stop()
    data = measured.get_data()
    lines = {}
    for room in TESTS:
        path = next((path for path in data.measured_files() if path.endswith(f"pandas_batch/{room}")), None)
        by_line = {} if path is None else data.contexts_by_lineno(path)
        lines[room] = {line: [test for test in tests if test in watching.took_s] for line, tests in by_line.items()}
    Path(target).write_text(json.dumps({"code": int(code), "took_s": watching.took_s, "lines": lines}))


def tests_of(room: str, source: str, mutant: str, watched: dict[str, Any]) -> list[str]:
    """Return the tests that run the statement that a mutant changes, the quickest first; else those of its files."""
    before, after = source.splitlines(), mutant.splitlines()
    opcodes = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    at = next(first for tag, first, *_ in opcodes if tag != "equal") + 1
    first, last = _statement(ast.parse(source), at)
    lines = watched["lines"][room]
    of_line = {test for line in range(first, last + 1) for test in lines.get(str(line), [])}
    prefixes = tuple(f"tests/test_{name}.py::" for name in TESTS[room].split())
    own = {test for test in of_line if test.startswith(prefixes)}
    if not own and not _is_in_function(ast.parse(source), at):
        own = {test for test in watched["took_s"] if test.startswith(prefixes)}
    return sorted(own, key=lambda test: watched["took_s"][test])


def _statement(tree: ast.AST, line: int) -> tuple[int, int]:
    """Return the first and last line of the smallest statement at a line; of one with a body, of its head alone."""
    best = (line, line)
    size = 10**9
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
            last = max(last, node.lineno)
            if line <= last and last - node.lineno < size:
                best, size = (node.lineno, last), last - node.lineno
    return best


def _is_in_function(tree: ast.AST, line: int) -> bool:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return any(function.body[0].lineno <= line <= (function.end_lineno or 0) for function in functions)


# ---------------------------------------------------------------- running


def nurse() -> None:
    """Import what is not ours once, then run tests in forked children: a list of tests per line, an answer per line."""
    import anthropic
    import hypothesis
    import pandas
    import pyarrow
    import pytest

    del anthropic, hypothesis, pandas, pyarrow
    for line in sys.stdin:
        asked = json.loads(line)
        began_s = time.monotonic()
        child = os.fork()
        if not child:
            os.setsid()
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
            # What was imported before is not rewritten: that matters to nobody here.
            quiet = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
            os._exit(int(pytest.main([*quiet, *asked["tests"]])))
        code = None
        while code is None and time.monotonic() - began_s < asked["limit_s"]:
            ended, status = os.waitpid(child, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if ended else time.sleep(0.02)
        if code is None:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
        print(json.dumps({"code": code, "took_s": time.monotonic() - began_s}), flush=True)


def copied() -> Path:
    """Return a copy of what the tests need."""
    folder = Path(tempfile.mkdtemp(prefix="mutants-"))
    kept = shutil.ignore_patterns("__pycache__", "golden_big")
    for name in ("pandas_batch", "tests", "benchmarks", "notebooks"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=kept)
    for file in [*ROOT.glob("*.md"), *ROOT.glob("*.toml"), ROOT / "Makefile", ROOT / "LICENSE"]:
        shutil.copy(file, folder)
    return folder


def main() -> int:
    """Draw, test, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="leave out the mutants before this one")
    parser.add_argument("--last", type=int, default=10**9, help="leave out this mutant and those after it")
    parser.add_argument("--only", type=int, nargs="+", default=[], help="run these of the drawn mutants alone")
    parser.add_argument("--rooms", nargs="*", default=list(TESTS))
    parser.add_argument("--python", default=sys.executable, help="the Python that runs the tests")
    parser.add_argument("--watched", default="", help="where to keep which tests run which lines")
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="stop after this long")
    parser.add_argument("--watch", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--nurse", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.nurse:
        nurse()
        return 0
    if given.watch:
        watch(given.watch[1:], given.watch[0])
        return 0
    began_s = time.monotonic()
    drawn = draw(given.n, given.seed, given.rooms)
    folder = copied()
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": ""}
    start = {"cwd": folder, "env": environment, "text": True}
    program = str(folder / "tests" / "mutants.py")
    try:
        target = Path(given.watched or folder / "watched.json").absolute()
        if not target.exists():
            names = dict.fromkeys(name for room in given.rooms for name in TESTS[room].split())
            files = [f"tests/test_{name}.py" for name in names]
            subprocess.run([given.python, program, "--watch", str(target), *files], check=True, **start)
        watched = json.loads(target.read_text())
        nursery = subprocess.Popen(
            [given.python, program, "--nurse"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **start
        )
        assert nursery.stdin is not None
        assert nursery.stdout is not None

        def tested(tests: list[str]) -> dict[str, Any]:
            limit_s = SLOWEST_S + 3 * sum(watched["took_s"][test] for test in tests)
            nursery.stdin.write(json.dumps({"tests": tests, "limit_s": limit_s}) + "\n")
            nursery.stdin.flush()
            answer: dict[str, Any] = json.loads(nursery.stdout.readline())  # whatever is no 0: one without import, too
            return answer

        quick = sorted(watched["took_s"], key=lambda test: watched["took_s"][test])[:100]
        assert tested(quick)["code"] == 0, "tests fail without any mutant"
        survived, alike = [], []
        n_run = 0
        for number, (room, operator, mutant) in enumerate(drawn):
            if not given.first <= number < given.last or (given.only and number not in given.only):
                continue
            if time.monotonic() - began_s > given.limit_s:
                print(f"{len(drawn) - number} mutants were not run: the time was over.")
                break
            source = (ROOT / "pandas_batch" / room).read_text(encoding="utf-8")
            tests = tests_of(room, source, mutant, watched)
            answer: dict[str, Any] = {"code": 0, "took_s": 0.0}
            if tests:
                (folder / "pandas_batch" / room).write_text(mutant, encoding="utf-8")
                # A second is what a clock of whole seconds may hide from Python's cache of compiled files.
                cache = folder / "pandas_batch" / Path(room).parent / "__pycache__"
                shutil.rmtree(cache, ignore_errors=True)
                answer = tested(tests)
                (folder / "pandas_batch" / room).write_text(source, encoding="utf-8")
                shutil.rmtree(cache, ignore_errors=True)
            n_run += 1
            word = "SURVIVED" if answer["code"] == 0 else "killed"
            print(f"{number:4} {word:8} {answer['took_s']:6.1f} s {len(tests):4} tests  {room} {operator}", flush=True)
            if word == "SURVIVED":
                changed = list(difflib.unified_diff(source.splitlines(), mutant.splitlines(), lineterm="", n=0))[2:]
                print("\n".join(f"          {line}" for line in changed), flush=True)
                (alike if is_alike(source, mutant) else survived).append(number)
        nursery.stdin.close()
        nursery.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    n_killed = n_run - len(survived) - len(alike)
    print(
        f"{n_run} mutants (seed {given.seed}) in {time.monotonic() - began_s:.0f} s: {n_killed} killed "
        f"({n_killed / max(n_run, 1):.1%}); survivors {survived}, and alike {alike}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
