"""The same panel on the notebook kernels that people have: `make kernels` runs the browser tests on each of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .driver import REPOSITORY

VERSIONS = ("6.31.0", "7.0.1", "7.2.0", "7.3.0")
"""Versions of ipykernel beside the newest; each handles a click and a thread's output in a way of its own."""

HERE = Path(__file__).parent
WITH_CERTIFICATES = dict(os.environ)
"""The environment as it was found: a test's own trusts nobody, and pip has to."""


def kernel_of(version: str) -> Path:
    """Return the interpreter of a kept virtual environment with this kernel; make it where there is none."""
    home = REPOSITORY / ".kernels" / version
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (home / ".made").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        install = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-compile"]
        install += ["--editable", str(REPOSITORY), f"ipykernel=={version}"]
        subprocess.run(install, check=True, env=WITH_CERTIFICATES)
        (home / ".made").touch()
    return python


@pytest.mark.kernels
@pytest.mark.parametrize("version", VERSIONS)
def test_the_browser_tests_pass_on(version: str) -> None:
    """Every law of the panel holds on this kernel, as far as the kernel can hear a click at all."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", str(HERE)]
    env = os.environ | {"PANDAS_BATCH_TEST_PYTHON": str(kernel_of(version)), "PANDAS_BATCH_REQUIRE_ALL": ""}
    env = {name: value for name, value in env.items() if not name.startswith("PYTEST_")}
    run = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False)
    print(f"ipykernel {version}: {run.stdout}")  # shown by -rP: which tests ran, and which cannot on this kernel
    assert run.returncode == 0, f"on ipykernel {version}:\n{run.stdout[-12_000:]}{run.stderr[-2_000:]}"
