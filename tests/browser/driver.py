"""A real JupyterLab in headless Chromium, as a person would use it: open, run, click, interrupt, reload, look."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
KERNEL = "pandas-batch-test"

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_NOTEBOOK = """[...window.jupyterapp.shell.widgets('main')].find(w => w.context && w.content && w.content.widgets)"""


def find_browser() -> str | None:
    """Return the path of a Chromium; the environment variable CHROME wins."""
    named = os.environ.get("CHROME")
    return named or next((path for name in _BROWSERS if (path := shutil.which(name))), None)


def kernel_python() -> str:
    """Return the interpreter of the kernels; `PANDAS_BATCH_TEST_PYTHON` names another one."""
    return os.environ.get("PANDAS_BATCH_TEST_PYTHON", sys.executable)


def kernel_version() -> tuple[int, ...]:
    """Return the version of ipykernel that the kernels have; empty where there is none."""
    code = "import ipykernel; print(*ipykernel.version_info[:3])"
    said = subprocess.run([kernel_python(), "-c", code], capture_output=True, text=True, check=False)
    return tuple(int(part) for part in said.stdout.split())


def notebook(*cells: str) -> dict[str, Any]:
    """Return a notebook with these code cells."""
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": KERNEL, "display_name": KERNEL, "language": "python"}},
        "cells": [
            {
                "cell_type": "code",
                "id": f"cell-{i}",
                "metadata": {"trusted": True},
                "source": source,
                "outputs": [],
                "execution_count": None,
            }
            for i, source in enumerate(cells)
        ],
    }


class LabServer:
    """
    One Jupyter server with directories of its own; ends its own process and its kernels, and no other.

    `PANDAS_BATCH_TEST_PYTHON` names the interpreter of the kernels, so that the same tests run on several
    versions of ipykernel.
    """

    def __init__(self, home: Path, *, settings: dict[str, Any] | None = None) -> None:
        self.home = home
        self.root = home / "notebooks"
        self.token = secrets.token_hex(16)
        self._settings = settings or {}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> LabServer:
        self.root.mkdir(parents=True, exist_ok=True)
        self._write_kernelspec()
        quiet = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
        for plugin, values in ({"@jupyterlab/apputils-extension:notification": quiet} | self._settings).items():
            package, name = plugin.split(":")
            path = self.home / "settings" / package / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        self._log = (self.home / "server.log").open("w")
        command = [sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", "--ip=127.0.0.1"]
        command += [f"--port={self.port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}"]
        command += [f"--ServerApp.root_dir={self.root}", "--LabApp.expose_app_in_browser=True"]
        command += ["--LabApp.news_url=None", "--LabApp.collaborative=False", "--ServerApp.terminals_enabled=False"]
        self._process = subprocess.Popen(
            command, cwd=self.root, env=self._environment(), stdout=self._log, stderr=self._log, start_new_session=True
        )
        deadline_s = time.monotonic() + 90
        while time.monotonic() < deadline_s and self._process.poll() is None:
            with contextlib.suppress(OSError):
                self.call("api")
                return self
            time.sleep(0.2)
        self.__exit__()
        raise RuntimeError(f"JupyterLab did not start; its log is {self._log.name}")

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self.end_kernels()
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(15)
        self._log.close()

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANTHROPIC_", "PANDAS_BATCH_", "JUPYTER"))}
        return kept | {
            "HOME": str(self.home),
            "PANDAS_BATCH_HOME": str(self.home / "store"),
            "JUPYTER_CONFIG_DIR": str(self.home / "config"),
            "JUPYTER_DATA_DIR": str(self.home / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.home / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(self.home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(self.home / "workspaces"),
            "IPYTHONDIR": str(self.home / "ipython"),
            "PYTHONUNBUFFERED": "1",
        }

    def _write_kernelspec(self) -> None:
        path = self.home / "data" / "kernels" / KERNEL / "kernel.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        spec = {
            "argv": [kernel_python(), "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": KERNEL,
            "language": "python",
            # A kernel takes the package from this checkout, and the statuses of `run_statuses` from the tests.
            "env": {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])},
        }
        path.write_text(json.dumps(spec))

    def call(self, path: str, method: str = "GET") -> Any:
        """Call the server's REST API; return what it says."""
        request = urllib.request.Request(
            f"{self.url}/{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def end_kernels(self, *names: str) -> None:
        """Shut down the kernels of these notebooks, or every kernel of this server, and with them their sessions."""
        for session in self.call("api/sessions"):
            if not names or session["path"] in names:
                with contextlib.suppress(OSError):
                    self.call(f"api/kernels/{session['kernel']['id']}", "DELETE")

    def kill_kernels(self) -> None:
        """End every kernel of this server as a crash would, without giving it time to say anything."""
        children = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(self._process.pid)], capture_output=True, text=True, check=True
        ).stdout
        for line in children.splitlines():
            pid, _, command = line.strip().partition(" ")
            if "ipykernel_launcher" in command:
                os.kill(int(pid), signal.SIGKILL)


class LabPage:
    """One browser page on a server: what a person does, and what a person sees."""

    def __init__(self, server: LabServer, page: Any) -> None:
        self.server = server
        self.page = page
        self.dialogs: list[str] = []
        self.names: set[str] = set()
        page.on("dialog", self._on_dialog)

    def _on_dialog(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.accept()

    # ---------------------------------------------------------------- going somewhere

    def write(self, *cells: str, name: str | None = None) -> str:
        """Write a notebook with these cells; return its name."""
        name = name or f"n{secrets.token_hex(4)}.ipynb"
        (self.server.root / name).write_text(json.dumps(notebook(*cells)))
        return name

    def open(self, name: str) -> None:
        """Load JupyterLab anew with this notebook, in a workspace of its own, and wait for its kernel."""
        self.name = name
        self.names.add(name)
        workspace = f"w{secrets.token_hex(3)}"
        self.page.goto(f"{self.server.url}/lab/workspaces/{workspace}/tree/{name}?token={self.server.token}")
        self._wait_ready()

    def start(self, *cells: str) -> None:
        """Write a notebook with these cells, open it (in the JupyterLab that is there already), and run all of them."""
        name = self.write(*cells)
        if self.page.url.startswith(self.server.url):
            self.name = name
            self.names.add(name)
            self.command("docmanager:open", {"path": name}, wait=True)
            self._wait_ready()
        else:
            self.open(name)
        self.run_all()

    def reload(self) -> None:
        """Load the page anew."""
        self.page.reload()
        self._wait_ready()

    def _wait_ready(self) -> None:
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
        self.page.wait_for_function(
            f"""() => {{ const p = window.jupyterapp && {_NOTEBOOK};
            const k = p && p.context.sessionContext.session && p.context.sessionContext.session.kernel;
            return k && k.connectionStatus === 'connected' && (k.status === 'idle' || k.status === 'busy'); }}""",
            timeout=90_000,
        )

    # ---------------------------------------------------------------- doing something

    def command(self, name: str, args: dict[str, Any] | None = None, *, wait: bool = False) -> None:
        """Run a command of JupyterLab, as its menus do: when it is enabled, for some that is a while after a load."""
        given = f"{json.dumps(name)}, {json.dumps(args or {})}"
        self.page.wait_for_function(f"() => window.jupyterapp.commands.isEnabled({given})", timeout=30_000)
        call = f"window.jupyterapp.commands.execute({given})"
        self.page.evaluate(f"() => {call}.then(() => null)" if wait else f"() => {{ {call}.catch(() => 0); return 0 }}")

    def run_all(self) -> None:
        """Run > Run All Cells."""
        self.command("notebook:run-all-cells")

    def run_cell(self, index: int) -> None:
        """Select a cell and run it."""
        self.page.evaluate(
            f"() => {{ const p = {_NOTEBOOK}; p.content.activeCellIndex = {index}; p.content.deselectAll(); }}"
        )
        self.command("notebook:run-cell")

    def interrupt(self) -> None:
        """Kernel > Interrupt Kernel."""
        self.command("kernelmenu:interrupt")

    def restart(self) -> None:
        """Kernel > Restart Kernel, and yes; wait for the new kernel."""
        self.command("kernelmenu:restart")
        self.page.locator(".jp-Dialog .jp-mod-accept").click()
        self.page.wait_for_selector(".jp-Dialog", state="detached")
        self._wait_ready()

    def save(self) -> dict[str, Any]:
        """Save the notebook; return what is in the file."""
        self.command("docmanager:save", wait=True)
        saved: dict[str, Any] = json.loads((self.server.root / self.name).read_text())
        return saved

    def theme(self, name: str) -> None:
        """Change the theme, such as ``JupyterLab Dark``."""
        self.command("apputils:change-theme", {"theme": name}, wait=True)
        self.page.wait_for_function(f"() => document.body.dataset.jpThemeName === {json.dumps(name)}", timeout=15_000)

    def click(self, label: str, *, nth: int = 0, timeout_s: float = 10.0) -> None:
        """Click the button with exactly this name."""
        button = self.page.get_by_role("button", name=label, exact=True).nth(nth)
        button.click(timeout=1000 * timeout_s)

    # ---------------------------------------------------------------- seeing something

    def is_busy(self) -> bool:
        """Return whether a cell is running or waits to run; the kernel's own status also counts its subshells."""
        prompts = "[...document.querySelectorAll('.jp-InputPrompt')].some(e => e.innerText.includes('*'))"
        return bool(self.page.evaluate(f"() => {prompts}"))

    def wait_idle(self, timeout_s: float = 60.0) -> None:
        """Wait until no cell runs."""
        deadline_s = time.monotonic() + timeout_s
        while self.is_busy():
            if time.monotonic() > deadline_s:
                raise TimeoutError("a cell is still running")
            self.page.wait_for_timeout(50)

    def outputs(self) -> list[str]:
        """Return the visible text of each cell's outputs."""
        texts: list[str] = self.page.evaluate(
            "() => [...document.querySelectorAll('.jp-CodeCell')].map(c => "
            "[...c.querySelectorAll('.jp-OutputArea-output')].filter(e => e.getClientRects().length)"
            ".map(e => e.innerText).join('\\n'))"
        )
        return texts

    def text(self) -> str:
        """Return the visible text of all outputs."""
        return "\n".join(self.outputs())

    def wait_text(self, pattern: str, timeout_s: float = 60.0) -> float:
        """Wait until the outputs match `pattern`; return after how many seconds they did."""
        started_s = time.monotonic()
        while True:
            text = self.text()
            if re.search(pattern, text):
                return time.monotonic() - started_s
            if time.monotonic() - started_s > timeout_s:
                prompts = self.page.locator(".jp-InputPrompt").all_inner_texts()
                raise TimeoutError(
                    f"{pattern!r} is not in the outputs after {timeout_s:g} s; cells {prompts}; {text[-1500:]}"
                )
            self.page.wait_for_timeout(50)

    def wait_no_text(self, words: str, timeout_s: float = 60.0) -> None:
        """Wait until the outputs have these words no more."""
        self.wait_text(rf"\A(?![\s\S]*{re.escape(words)})", timeout_s)

    def close(self) -> None:
        """Close the page; its kernels end, those of other pages live on."""
        self.page.close()
        self.server.end_kernels(*self.names)

    def clear(self) -> None:
        """Close the notebooks without saving; their kernels end, and JupyterLab is there for the next."""
        self.page.remove_listener("dialog", self._on_dialog)
        self.page.evaluate("() => [...window.jupyterapp.shell.widgets('main')].forEach(w => w.dispose())")
        self.page.wait_for_selector(".jp-Notebook", state="detached")
        self.server.end_kernels(*self.names)

    def wait_account(self, timeout_s: float = 20.0) -> None:
        """Wait until no panel is live any more: the account is drawn before the panel goes."""
        self.page.wait_for_function("() => !document.querySelector('.pdb-live')", timeout=1000 * timeout_s)

    def shot(self, path: str | Path) -> None:
        """Take a picture of the window."""
        self.page.screenshot(path=str(path))
