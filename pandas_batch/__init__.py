"""
Ask Claude about every row of a DataFrame, at half price, through the Message Batches API.

Importing this package registers ``df.claude_batch`` and ``series.claude_batch``; everything else loads at first
use.

Examples
--------
>>> df = pd.DataFrame({"review": ["Lovely.", "It broke."]})
>>> out = df.claude_batch.submit("review", system="positive or negative?", client=client, progress="off")
>>> out["status"].tolist()
['succeeded', 'succeeded']
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import exiting  # noqa: F401 - what a script leaves to the end of its process comes after what we leave to it
from .accessor import frame, register
from .errors import (
    BatchTooLargeError,
    BudgetError,
    ColumnNotFoundError,
    FrameMismatchError,
    InputError,
    LostAnswerError,
    NotEndedError,
    PandasBatchError,
    PromptError,
    ResultsGoneError,
    RunNotFoundError,
    StoreError,
    UnknownOptionError,
    UnreadableAnswerError,
    WaitTimeout,
    WorseRunError,
)
from .types import BatchJob, BatchRequest, BatchResult, Prompt, RunStatus

if TYPE_CHECKING:
    from pandas_batch.client.client import AsyncBatchClient, BatchClient, arun_prompts, run_prompts
    from pandas_batch.estimates.estimate import Estimate
    from pandas_batch.requests.media import upload_files
    from pandas_batch.results.price_list import update_prices
    from pandas_batch.run.comparison import Comparison
    from pandas_batch.run.library import compare_runs, load, recover, runs
    from pandas_batch.run.run import Run

    from . import simulator

__version__ = "0.1.0"

_LAZY = {
    "AsyncBatchClient": "client.client",
    "BatchClient": "client.client",
    "Comparison": "run.comparison",
    "Estimate": "estimates.estimate",
    "Run": "run.run",
    "arun_prompts": "client.client",
    "compare_runs": "run.library",
    "load": "run.library",
    "recover": "run.library",
    "run_prompts": "client.client",
    "runs": "run.library",
    "simulator": "",
    "update_prices": "results.price_list",
    "upload_files": "requests.media",
}

__all__ = [
    "AsyncBatchClient",
    "BatchClient",
    "BatchJob",
    "BatchRequest",
    "BatchResult",
    "BatchTooLargeError",
    "BudgetError",
    "ColumnNotFoundError",
    "Comparison",
    "Estimate",
    "FrameMismatchError",
    "InputError",
    "LostAnswerError",
    "NotEndedError",
    "PandasBatchError",
    "Prompt",
    "PromptError",
    "ResultsGoneError",
    "Run",
    "RunNotFoundError",
    "RunStatus",
    "StoreError",
    "UnknownOptionError",
    "UnreadableAnswerError",
    "WaitTimeout",
    "WorseRunError",
    "arun_prompts",
    "compare_runs",
    "frame",
    "load",
    "recover",
    "run_prompts",
    "runs",
    "simulator",
    "update_prices",
    "upload_files",
]


def __getattr__(name: str) -> Any:
    room = _LAZY.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not room:
        return import_module(f".{name}", __name__)
    value = getattr(import_module(f".{room}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def load_ipython_extension(ipython: Any) -> None:
    """Register ``%claude_batch`` and ``%%claude_batch``; ``%load_ext pandas_batch`` calls this."""
    import_module(".magics", __name__).register_magics(ipython)


register()

if "IPython" in sys.modules:
    _shell = getattr(sys.modules["IPython"], "get_ipython", lambda: None)()
    if _shell is not None:
        import_module(".completion", __name__).offer_columns(_shell)

if "dask.dataframe" in sys.modules:
    with suppress(ImportError):  # a Dask without accessors, or without what it needs
        import_module(".dask", __name__)
