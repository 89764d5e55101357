"""Build wheel and sdist as a release does, check them, and use them where nothing else is installed.

python tests/release_check.py            the Python that runs this
python tests/release_check.py --all      and every other from 3.11 on that is at hand

``make release-check`` calls it. What it makes is in ``build/release``, a bill of materials (``sbom.json``) with it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "release"
SMOKE = """
import importlib.metadata, importlib.resources, json, sys
import pandas_batch
from pandas_batch.__main__ import main
assert importlib.metadata.version("pandas-batch") == pandas_batch.__version__
assert importlib.resources.files("pandas_batch").joinpath("py.typed").is_file()
assert "site-packages" in pandas_batch.__file__, pandas_batch.__file__
missing = [name for name in pandas_batch.__all__ if getattr(pandas_batch, name) is None]
assert not missing
sys.exit(main(["demo", "--seconds-per-batch", "0", "--progress", "off"]))
"""
LEAST = ("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "tests/conftest.py", "docs/index.md", "Makefile")


def run(*command: str | Path, **options: object) -> str:
    """Run a command and return what it says; leave with all of it where it fails."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=OUT, **options)  # type: ignore[call-overload]  # any options
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return str(done.stdout)


def tool(name: str) -> Path:
    """Return a program of the environment that runs this."""
    return Path(sys.executable).with_name(name)


def check_contents(wheel: Path, sdist: Path) -> None:
    """Say what is in both, and stop where something is missing, or should not be there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in inside if name.endswith(".dist-info/METADATA"))
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pandas_batch").rglob("*.py")}
    assert modules <= inside, modules - inside
    strange = {name for name in inside if not name.startswith(("pandas_batch/", "pandas_batch-"))}
    assert not strange, strange
    for bound in project["dependencies"]:
        assert re.search(rf"^Requires-Dist: {re.escape(bound.split('>')[0])}\b", metadata, re.MULTILINE), bound
    with tarfile.open(sdist) as archive:
        there = {name.partition("/")[2] for name in archive.getnames()}
    assert not {name for name in LEAST if name not in there}
    assert not {
        name for name in there if "__pycache__" in name or ".pandas_batch/" in name or name.startswith("build/")
    }
    print(f"{wheel.name}: {len(inside)} files, {wheel.stat().st_size:,} bytes")
    print(f"{sdist.name}: {len(there)} files, {sdist.stat().st_size:,} bytes")


def use(wheel: Path, python: Path) -> Path:
    """Install the wheel for `python` where nothing else is, go the whole way there, and return that environment."""
    version = run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    bare = OUT / f"bare-{version}"
    if python == Path(sys.executable):
        venv.create(bare, with_pip=True)
    else:
        run(python, "-m", "venv", bare)
    run(bare / "bin" / "pip", "--quiet", "--disable-pip-version-check", "install", "--no-compile", wheel)
    environment = {
        "PATH": str(bare / "bin"),
        "HOME": str(OUT),
        "PYTHONWARNINGS": "error::DeprecationWarning:pandas_batch",
    }
    said = run(bare / "bin" / "python", "-I", "-c", SMOKE, env=environment)
    run(bare / "bin" / "pandas-batch", "--version", env=environment)
    run(bare / "bin" / "pip", "check")
    print(f"Python {version}: installed and used, {len(said.splitlines())} lines of the demo")
    return bare


def other_pythons() -> list[Path]:
    """Return the other interpreters from 3.11 on that can be started here."""
    names = [f"python3.{minor}" for minor in range(11, 16)]
    found = [Path(path) for name in names if (path := shutil.which(name))]
    found += sorted(Path.home().glob(".pyenv/versions/3.1[1-9].*/bin/python"))
    by_version: dict[str, Path] = {f"3.{sys.version_info.minor}": Path(sys.executable)}
    for path in found:
        told = subprocess.run(
            [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if not told.returncode:
            by_version.setdefault(told.stdout.strip(), path)
    return [path for path in by_version.values() if path != Path(sys.executable)]


def main(arguments: list[str]) -> int:
    """Go through all steps; the first that fails ends it."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    run(sys.executable, "-m", "build", "--outdir", OUT, ROOT)
    (wheel,), (sdist,) = OUT.glob("*.whl"), OUT.glob("*.tar.gz")
    check_contents(wheel, sdist)
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    run(tool("check-wheel-contents"), wheel)
    bare = use(wheel, Path(sys.executable))
    run(tool("cyclonedx-py"), "environment", bare / "bin" / "python", "--output-file", OUT / "sbom.json")
    parts = json.loads((OUT / "sbom.json").read_text(encoding="utf-8"))["components"]
    assert {"pandas-batch", "anthropic", "pandas"} <= {part["name"] for part in parts}
    print(f"sbom.json: {len(parts)} parts")
    if "--all" in arguments:
        for python in other_pythons():
            use(wheel, python)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
