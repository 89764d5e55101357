"""Other libraries on the same rows and the same server, each in an environment of its own.

``python -m benchmarks.peers NAME LOAD ROWS URL FOLDER`` asks once with one of them and prints its figures as JSON; it
is run by that library's own Python and imports nothing of this package. ``run_peers`` makes the environments.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

POLL_S = 0.2

# Found to install and run together; curator needs older versions of what the others need.
REQUIREMENTS = {
    "chatlas": ["chatlas[anthropic]==0.23.0", "pandas", "pyarrow"],
    "accrue": ["accrue==1.5.2", "anthropic", "pandas", "pyarrow"],
    "loom-batch": ["loom-batch==0.7.0", "anthropic", "pandas", "pyarrow"],
    "curator": ["bespokelabs-curator==0.1.31", "instructor>=1.10,<1.14", "openai==2.30.0"],
}


def chatlas(prompts: list[str], url: str, folder: Path) -> list[str | None]:
    """Ask with chatlas: a list of prompts, and one file of state."""
    from chatlas import ChatAnthropic, batch_chat_text

    from benchmarks.loads import MAX_TOKENS, MODEL

    chat = ChatAnthropic(model=MODEL, max_tokens=MAX_TOKENS, api_key="none")
    return batch_chat_text(chat, prompts, str(folder / "state.json"))


def accrue(prompts: list[str], url: str, folder: Path) -> list[str | None]:
    """Ask with accrue: a pipeline over a frame, whose answers are fields of JSON."""
    import pandas as pd
    from accrue import EnrichmentConfig, LLMStep, Pipeline
    from accrue.steps.providers.anthropic import AnthropicClient

    # It sends a temperature to older models, which the API has stopped to take.
    client = AnthropicClient(api_key="none")
    step = LLMStep("ask", fields={"answer": "{prompt}"}, model="claude-sonnet-5", client=client, batch=True)
    config = EnrichmentConfig(batch_poll_interval=POLL_S, cache_dir=str(folder), on_error="continue")
    result = Pipeline([step]).run(pd.DataFrame({"prompt": prompts}), config=config)
    return result.data["answer"].tolist()


def loom_batch(prompts: list[str], url: str, folder: Path) -> list[str | None]:
    """Ask with loom-batch: submit, look, fetch."""
    from loom import Loom

    from benchmarks.loads import MAX_TOKENS, MODEL

    job = Loom("anthropic", MODEL, max_tokens=MAX_TOKENS, cache_dir=folder).submit(prompts)
    while not job.is_done:
        time.sleep(POLL_S)
        job.refresh()
    return list(job.fetch().responses.values())


def curator(prompts: list[str], url: str, folder: Path) -> list[str | None]:
    """Ask with curator: a data set in, a data set out."""
    from bespokelabs import curator as library

    from benchmarks.loads import MAX_TOKENS, MODEL

    class Ask(library.LLM):
        def prompt(self, row: dict[str, Any]) -> str:
            return row["prompt"]

        def parse(self, row: dict[str, Any], response: Any) -> dict[str, Any]:
            return {"answer": response}

    llm = Ask(
        model_name=MODEL,
        batch=True,
        backend="anthropic",
        backend_params={"base_url": url, "batch_check_interval": 1, "max_retries": 1},
        generation_params={"max_tokens": MAX_TOKENS},
    )
    made = llm([{"prompt": prompt} for prompt in prompts], working_dir=str(folder))
    return [row["answer"] for row in getattr(made, "dataset", made)]


ASK = {"chatlas": chatlas, "accrue": accrue, "loom-batch": loom_batch, "curator": curator}


def measure(name: str, load: str, n_rows: int, url: str, folder: Path) -> dict[str, Any]:
    from benchmarks.loads import frame
    from benchmarks.variants import give_back_freed_memory, private_mb

    prompts = frame(load, n_rows)["prompt"].tolist()
    (folder / "warm-up").mkdir()
    (folder / "run").mkdir()
    ASK[name](["warm-up"], url, folder / "warm-up")
    give_back_freed_memory()
    begin, before_mb, started_s = time.monotonic(), private_mb(), time.process_time()
    answers = ASK[name](prompts, url, folder / "run")
    return {
        "cpu_s": time.process_time() - started_s,
        "wall_s": time.monotonic() - begin,
        "begin": begin,
        "end": time.monotonic(),
        "before_mb": before_mb,
        "n_rows_back": len(answers),
        "n_answers": sum(isinstance(answer, str) and bool(answer) for answer in answers),
    }


def python_of(name: str, folder: Path) -> Path:
    """Return the Python of a peer's environment, made where there is none."""
    home = folder / name
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--no-compile", *REQUIREMENTS[name]]
        subprocess.run(pip, check=True)
    return python


def run_peer(name: str, load: str, n_rows: int, url: str, environments: Path) -> dict[str, Any]:
    """Return the figures of one run of a peer in a fresh process; ``error`` where it does not run."""
    from benchmarks.whole_run import Watch

    python = python_of(name, environments)
    with tempfile.TemporaryDirectory(prefix="bench-peer-") as folder:
        own = {
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "none",
            "LOOM_HOME": folder,
            "TELEMETRY_ENABLED": "False",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        command = [str(python), "-m", "benchmarks.peers", name, load, str(n_rows), url, folder]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | own, cwd=folder
        ) as process:
            watch = Watch(process.pid)
            told, errors = process.communicate()
    if process.returncode:
        return {"error": errors.strip().splitlines()[-1] if errors.strip() else f"exit {process.returncode}"}
    figures: dict[str, Any] = json.loads(told.splitlines()[-1])
    figures["peak_mb"] = watch.peak_mb(figures["begin"], figures["end"]) - figures["before_mb"]
    return figures


if __name__ == "__main__":
    name, load, n_rows, url, folder = sys.argv[1:]
    print(json.dumps(measure(name, load, int(n_rows), url, Path(folder))))
