"""A newer price list than the installed one, when the user asks for it: nothing is downloaded otherwise."""

from __future__ import annotations

from urllib.parse import urlsplit

from pandas_batch.call_arguments import in_words
from pandas_batch.errors import InputError, PandasBatchError, clip

UNCHANGED = "The prices that were known before still hold; nothing else was asked or sent."
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@in_words
def update_prices(url: str | None = None) -> int:
    """
    Download today's price list of genai-prices and use it in this process, for every cost from now on.

    Nothing is downloaded unless this is called. `pip install -U genai-prices` does the same for good.

    Parameters
    ----------
    url
        Where the list is, in the form of genai-prices; left out, where that package publishes it.

    Returns
    -------
    int
        How many models of Anthropic have a price now.

    Raises
    ------
    InputError
        `url` is not https.
    PandasBatchError
        The list cannot be had, or has no prices of Anthropic. The prices known before still hold.

    Examples
    --------
    >>> pandas_batch.update_prices()  # doctest: +SKIP
    31
    """
    from genai_prices.data_snapshot import set_custom_snapshot
    from genai_prices.update_prices import DEFAULT_UPDATE_URL, UpdatePrices

    wanted = DEFAULT_UPDATE_URL if url is None else url
    try:
        parts = urlsplit(wanted if isinstance(wanted, str) else "")
        host = parts.hostname
    except ValueError:  # half an IPv6 address
        parts, host = urlsplit(""), None
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise InputError(
            f"url is {clip(repr(url), 120)}; prices are taken over https alone.",
            "Nothing was asked or sent.",
            "pandas_batch.update_prices()   # from where genai-prices publishes them",
        )
    try:
        snapshot = UpdatePrices(url=wanted).fetch()
        known = [] if snapshot is None else [one for one in snapshot.providers if one.id == "anthropic"]
        n_models = sum(len(provider.models) for provider in known)
    except Exception as error:  # of the network, of JSON, of its form: whatever it is, nothing has changed
        raise PandasBatchError(
            f"The price list at {clip(wanted, 120)} cannot be had: {clip(str(error) or type(error).__name__, 120)}.",
            UNCHANGED,
            "pip install -U genai-prices   # brings a list as well; then restart the kernel",
        ) from error
    if not n_models:
        raise PandasBatchError(
            f"The price list at {clip(wanted, 120)} holds no model of Anthropic.",
            UNCHANGED,
            "pandas_batch.update_prices()   # from where genai-prices publishes it",
        )
    set_custom_snapshot(snapshot)
    return n_models
