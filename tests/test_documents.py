"""What is written is true: every example of the README, of the docstrings and of the notebooks runs, offline."""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anthropic
import genai_prices
import pandas as pd
import pytest

import pandas_batch
from pandas_batch import simulator
from pandas_batch.results.pricing import rates as rates_of

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/pandas-batch/pandas-batch"
RAW = "https://raw.githubusercontent.com/pandas-batch/pandas-batch"
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def section(title: str) -> str:
    """Return the text under a heading of the README."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f"the README has no section {title!r}"
    return found[1]


def first_cells(text: str) -> list[str]:
    """Return the first cell of each row of the tables in `text`."""
    return [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]


def names_in(cells: list[str]) -> set[str]:
    """Return the bare names written as code in `cells`."""
    return {name for cell in cells for name in re.findall(r"`([A-Za-z_]\w*)`", cell)}


@pytest.fixture
def running_api(quick_looks: None) -> Iterator[simulator.Simulator]:
    """A server whose batches end at once, by the clock on the wall."""
    with simulator.serve(seconds_per_batch=0) as api:
        yield api


@pytest.fixture
def client(running_api: simulator.Simulator) -> Iterator[anthropic.Anthropic]:
    """The official SDK, talking to that server."""
    with running_api.client() as made:
        yield made


# ---------------------------------------------------------------- README


def test_the_readme_runs_from_top_to_bottom(
    running_api: simulator.Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python of the README is run as one session, with a key in the environment and nothing else prepared."""
    pd.DataFrame(
        {
            "title": ["Kettle", "Lamp", "Chair", "Kettle"],
            "review": ["It boils fast.", "It broke after a day.", "Comfortable, but heavy.", "It boils fast."],
            "lang": ["en", "en", "fr", "en"],
        }
    ).to_csv(tmp_path / "reviews.csv", index=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PANDAS_BATCH_HOME")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", running_api.base_url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "simulator")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    blocks = list(re.finditer(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
    assert len(blocks) >= 3
    for block in blocks:
        # Where the block stands in the README is where a traceback points.
        source = "\n" * README[: block.start(1)].count("\n") + block[1]
        code = compile(source, str(ROOT / "README.md"), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, namespace)
        if inspect.iscoroutine(result):
            asyncio.run(result)
    assert namespace["out"]["status"].isin(["succeeded", "errored"]).all()
    assert list(namespace["few"]["status"]) == ["succeeded"] * len(namespace["few"])
    assert (tmp_path / ".pandas_batch").is_dir()
    assert running_api.calls("create") > 0


def test_the_first_screen_of_the_readme_is_code() -> None:
    """A reader sees ten lines of code or fewer before anything else is explained, and then the two commands."""
    first = re.search(r"```(\w+)\n(.*?)```", README, re.DOTALL)
    assert first is not None
    assert first[1] == "python"
    assert len([line for line in first[2].splitlines() if line.strip()]) <= 10
    second = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)[1]
    assert [line.split("#")[0].split() for line in second[1].splitlines()] == [
        ["$", "make", "demo"],
        ["$", "make", "test"],
    ]


def test_the_costs_in_the_readme_are_those_of_today() -> None:
    """Every amount in the table of costs is what the price list says now, standard and in a batch."""
    rows = re.findall(
        r"^\| ([\d,]+) input(?: tokens)?(?: and ([\d,]+) output)?.*?\| \$(.+?) \| \$(.+?) \| \$(.+?) \|",
        section("What it costs"),
        re.MULTILINE,
    )
    assert len(rows) == 3
    for n_input, n_output, *amounts in rows:
        tokens = [1000 * int(text.replace(",", "") or 0) for text in (n_input, n_output)]
        usage = genai_prices.Usage(input_tokens=tokens[0], output_tokens=tokens[1])
        price = genai_prices.calc_price(usage, model_ref="claude-haiku-4-5", provider_id="anthropic")
        standard = price.total_price
        rates = rates_of("claude-haiku-4-5")
        assert rates is not None
        batch = (rates.batch[0].input * tokens[0] + rates.batch[0].output * tokens[1]) / 1_000_000
        assert [f"{standard:.2f}", f"{batch:.2f}", f"{standard - batch:.2f}"] == amounts


def test_every_command_in_the_readme_exists() -> None:
    """Each make target and each subcommand that is named can be called; each link leads to a file."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^\$ |`)make ([a-z-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in set(re.findall(r"`(tests/\w+\.py)`", README)):
        assert (ROOT / path).exists(), path


def test_every_link_of_the_readme_works_on_a_package_index() -> None:
    """Links and pictures are absolute, and what they lead to in this project is there, at its heading too."""
    links = re.findall(r"\]\((.+?)\)", README)
    assert len(links) > 20
    for link in links:
        assert link.startswith("https://"), link
        path = re.sub(rf"^{re.escape(REPOSITORY)}/(?:blob|tree)/main/|^{re.escape(RAW)}/main/", "", link)
        path, _, anchor = path.partition("#")
        assert (ROOT / path).exists(), link
        headings = re.findall(r"^#+ (.+)", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}, link


# ---------------------------------------------------------------- docstrings


def modules() -> list[str]:
    """Return the names of all modules of the package."""
    walked = pkgutil.walk_packages(pandas_batch.__path__, "pandas_batch.")
    return ["pandas_batch", *(found.name for found in walked if not found.name.endswith("__main__"))]


def examples_of(module: ModuleType) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__)
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", [*modules(), "pandas_batch.__main__"])
def test_examples_in_docstrings_are_true(
    name: str, client: anthropic.Anthropic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each example, run with ``pd``, ``pandas_batch`` and a ``client`` of the simulator, prints what it says."""
    monkeypatch.chdir(tmp_path)
    # Some examples start a server of their own, whose batches take 2 s by the clock on the wall.
    monkeypatch.setitem(simulator.Simulator.__init__.__kwdefaults__, "seconds_per_batch", 0.0)
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    report: list[str] = []
    for number, test in enumerate(examples_of(module)):
        # Each example has a store of its own, as each reader has.
        monkeypatch.setenv("PANDAS_BATCH_HOME", str(tmp_path / f"store-{number}"))
        test.globs.update({"pd": pd, "pandas_batch": pandas_batch, "client": client})
        runner = doctest.DocTestRunner(optionflags=flags)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            runner.run(test, out=report.append)
    assert not report, "".join(report)


# ---------------------------------------------------------------- notebooks


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_give_what_they_show(path: Path, tmp_path: Path) -> None:
    """A notebook, run anew from top to bottom, gives the outputs that are saved in it."""
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "--nbval-cell-timeout", "120"]
    command += ["--nbval-sanitize-with", str(ROOT / "tests" / "sanitize.cfg")]
    command += ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "kernel_sockets"]
    command += ["--confcutdir", str(ROOT / "notebooks"), str(path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PANDAS_BATCH"))}
    environment |= {
        "PYTEST_DEBUG_TEMPROOT": str(tmp_path),
        "HOME": str(tmp_path),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_notebooks_are_here() -> None:
    """All notebooks are executed above, end in a table or figure, and hold no key and no path of any machine."""
    assert [path.stem for path in NOTEBOOKS] == [
        "01_quickstart",
        "02_after_a_restart",
        "03_bulk_documents",
        "04_prompt_ab",
        "05_nightly_evaluation",
        "06_cost_regression_gate",
        "07_beyond_memory",
    ]
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        assert "sk-ant-" not in text.replace("sk-ant-...", "")
        assert not re.search(r"/(home|root|Users|work)/", text)
