"""The one use of a nested event loop: the user's own tasks go on while a synchronous call waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from pandas_batch.errors import InputError

T = TypeVar("T")


def run_nested(work: Coroutine[Any, Any, T]) -> T:
    """
    Run `work` to its end on the loop that is running already, other tasks of it going on meanwhile.

    Where no loop is running it is simply run.

    Raises
    ------
    InputError
        The extra ``nested`` is not installed.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    try:
        import nest_asyncio2
    except ImportError:
        work.close()
        raise InputError(
            "nested=True needs nest-asyncio2 (nest-asyncio itself loses the queued cells of Run All on ipykernel 7).",
            hint="pip install 'pandas-batch[nested]'",
        ) from None
    nest_asyncio2.apply(loop)
    return loop.run_until_complete(work)
