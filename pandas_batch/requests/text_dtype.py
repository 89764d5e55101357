"""The dtype that pandas gives texts by itself: in it a missing text is NaN, and no comparison with it is true."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import pyarrow as pa


@cache
def text_dtype() -> Any:
    """
    Return the dtype of texts, over Arrow: ``str`` in pandas 3, before that the one with the same missing values.

    Examples
    --------
    >>> (pd.Series(["yes", None], dtype=text_dtype()) == "yes").tolist()
    [True, False]
    """
    try:
        return pd.StringDtype("pyarrow", na_value=np.nan)
    except TypeError:  # pandas 2.2
        dtype: Any = pd.StringDtype
        return dtype("pyarrow_numpy")


def text_array(values: pa.Array | pa.ChunkedArray) -> Any:
    """Return Arrow text as a pandas array."""
    # The one public way from Arrow to a string array that copies no text.
    return text_dtype().__from_arrow__(values)
