"""The forms that labels come in: whatever has an order and a meaning becomes a list of texts."""

from __future__ import annotations

import typing
from collections.abc import KeysView, ValuesView
from enum import Enum
from typing import Any

from pandas_batch.errors import InputError

from .plain_values import quoted

_N_SHOWN = 8


def with_plain_labels(schema: Any) -> Any:
    """
    Return labels as a list, in their order; whatever else describes an answer comes back as it is.

    A Series stands for its categories, or else for its distinct values; an Enum for the values of its members.

    Raises
    ------
    InputError
        They have no order.

    Examples
    --------
    >>> with_plain_labels(typing.Literal["yes", "no"]), with_plain_labels({"yes": 1}.keys())
    (['yes', 'no'], ['yes'])
    """
    import numpy as np
    import pandas as pd

    if isinstance(schema, set | frozenset):
        raise InputError(
            f"output_schema is a {type(schema).__name__}, which has no order; labels are a list.",
            hint=f"output_schema={_listed(schema)}",
        )
    if isinstance(schema, pd.Series):
        schema = schema.cat.categories if isinstance(schema.dtype, pd.CategoricalDtype) else schema.dropna().unique()
    if isinstance(schema, pd.Categorical | pd.CategoricalDtype):
        # A dtype that is still without categories describes no labels, and is no free text either.
        schema = [] if schema.categories is None else schema.categories
    if isinstance(schema, type) and issubclass(schema, Enum):
        return [member.value for member in schema]
    if typing.get_origin(schema) is typing.Literal:
        return list(typing.get_args(schema))
    if isinstance(schema, np.ndarray | pd.Index | pd.api.extensions.ExtensionArray | KeysView | ValuesView):
        schema = list(schema)
    if isinstance(schema, list | tuple):
        return [item.value if isinstance(item, Enum) else item for item in schema]
    return schema


def _listed(labels: set[Any] | frozenset[Any]) -> str:
    """Return the line that gives these labels in an order."""
    texts = sorted(label for label in labels if isinstance(label, str))
    if not texts or len(texts) != len(labels) or len(texts) > _N_SHOWN:
        return "sorted(labels)"
    return f"[{', '.join(quoted(text, 40) for text in texts)}]"
