"""The models that the simulated server knows: limits, abilities, lifecycle and list prices.

The figures are those published by November 2026. They are kept apart from the package's own price source on
purpose, so that a test which compares a bill of the simulator with a cost column compares two independent sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Literal

__all__ = ["MODELS", "Model", "Price", "find_model"]

_M = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Price:
    """Standard price in USD per million tokens; a batch costs half of every column."""

    input: Decimal
    output: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal
    cache_read: Decimal


@dataclass(frozen=True, slots=True)
class Model:
    """
    One model of the catalogue.

    Attributes
    ----------
    id
        The id that answers carry.
    price
        What its tokens cost.
    created_on, deprecated_on, retires_on
        Days, as ``2026-01-15``.
    aliases
        Other ids a request may use.
    thinking
        ``"none"``, ``"optional"`` (a budget or adaptive), ``"adaptive"`` (a budget is refused), ``"always"``.
    prefill
        Whether the last message may be the assistant's.
    forced_tools
        Whether ``tool_choice`` may force a tool.
    live
        Whether the Messages API offers it; if not, batches alone do.
    decibytes_per_token
        UTF-8 bytes per token, times ten: the whole tokenizer of this simulator.
    min_cached_tokens
        A shorter prefix is not cached.
    """

    id: str
    price: Price
    created_on: str
    aliases: tuple[str, ...] = ()
    lifecycle: Literal["active", "deprecated", "retired"] = "active"
    deprecated_on: str | None = None
    retires_on: str | None = None
    max_tokens: int = 128_000
    max_input_tokens: int = 1_000_000
    batch: bool = True
    live: bool = True
    structured_outputs: bool = True
    thinking: Literal["none", "optional", "adaptive", "always"] = "adaptive"
    prefill: bool = False
    forced_tools: bool = True
    decibytes_per_token: int = 31
    min_cached_tokens: int = 1024
    tells_geo: bool = True
    long_price: Price | None = None
    long_over_tokens: int = 0

    @property
    def line(self) -> str:
        """The word that its id begins with, after the maker's name."""
        return self.id.split("-")[1]

    @property
    def display_name(self) -> str:
        """
        Return its name for people.

        Examples
        --------
        >>> find_model("claude-haiku-4-5").display_name, find_model("claude-mythos-preview").display_name
        ('Claude Haiku 4.5', 'Claude Mythos Preview')
        """
        parts = [part for part in self.id.split("-") if not (part.isdigit() and len(part) == 8)]
        words = [part.title() for part in parts if not part.isdigit()]
        return " ".join([*words, ".".join(part for part in parts if part.isdigit())]).rstrip()

    def cost_usd(self, usage: dict[str, Any], *, batch: bool = True) -> Decimal:
        """
        Return what one answered request costs in USD, by the published rules.

        Examples
        --------
        >>> model = find_model("claude-haiku-4-5")
        >>> model.cost_usd({"input_tokens": 1_000_000, "output_tokens": 0})
        Decimal('0.50')
        """
        written = usage.get("cache_creation") or {}
        write_1h = written.get("ephemeral_1h_input_tokens", 0)
        write_5m = usage.get("cache_creation_input_tokens", 0) - write_1h
        read = usage.get("cache_read_input_tokens", 0)
        price = self.price
        if self.long_price and usage["input_tokens"] + write_1h + write_5m + read > self.long_over_tokens:
            price = self.long_price
        total: Decimal = (
            price.input * usage["input_tokens"]
            + price.output * usage["output_tokens"]
            + price.cache_write_5m * write_5m
            + price.cache_write_1h * write_1h
            + price.cache_read * read
        ) / _M
        if usage.get("inference_geo") == "us":
            total *= Decimal("1.1")
        if batch:
            total /= 2
        searches = (usage.get("server_tool_use") or {}).get("web_search_requests", 0)
        return total + Decimal(searches) / 100

    def to_json(self) -> dict[str, Any]:
        """Return the model as ``GET /v1/models/{id}`` shows it."""
        thinks = self.thinking != "none"
        yes, no = {"supported": True}, {"supported": False}
        return {
            "type": "model",
            "id": self.id,
            "display_name": self.display_name,
            "created_at": _midnight(self.created_on),
            "lifecycle": self.lifecycle,
            "deprecated_at": _midnight(self.deprecated_on),
            "retires_at": _midnight(self.retires_on),
            "line": self.line,
            "max_input_tokens": self.max_input_tokens,
            "max_tokens": self.max_tokens,
            "capabilities": {
                "batch": {"supported": self.batch},
                "citations": yes,
                "code_execution": yes,
                "context_management": {
                    "supported": True,
                    "clear_thinking_20251015": yes,
                    "clear_tool_uses_20250919": yes,
                    "compact_20260112": yes if self.thinking in ("adaptive", "always") else no,
                },
                "effort": {"supported": thinks, "low": yes, "medium": yes, "high": yes, "max": yes, "xhigh": no},
                "image_input": yes,
                "pdf_input": yes,
                "server_tools": {"supported": True, "code_execution": yes, "web_search": yes},
                "structured_outputs": {"supported": self.structured_outputs},
                "thinking": {
                    "supported": thinks,
                    "types": {
                        "adaptive": {"supported": self.thinking in ("adaptive", "always")},
                        "between_tools": no,
                        "disabled": {"supported": self.thinking != "always"},
                        "enabled": {"supported": self.thinking == "optional"},
                    },
                },
            },
        }


def _midnight(day: str | None) -> str | None:
    return None if day is None else f"{day}T00:00:00Z"


def _price(*usd: str) -> Price:
    return Price(*(Decimal(one) for one in usd))


_FABLE = _price("10", "50", "12.5", "20", "1.00")
_FABLE_1 = _price("10", "50", "12.5", "20", "0.25")
_FABLE_2 = _price("8", "40", "10", "16", "0.20")
_OPUS = _price("5", "25", "6.25", "10", "0.50")
_SONNET_4 = _price("3", "15", "3.75", "6", "0.30")
_SONNET_5 = _price("2", "10", "2.5", "4", "0.20")
_SONNET_5_5 = _price("2", "10", "2.5", "4", "0.10")

_thinker = partial(Model, thinking="always")
_of_4_6 = partial(Model, thinking="optional", decibytes_per_token=40)
_of_4_5 = partial(_of_4_6, max_tokens=64_000, max_input_tokens=200_000, prefill=True, tells_geo=False)

_CATALOGUE = (
    _thinker("claude-fable-5-2", _FABLE_2, "2026-11-09"),
    _thinker("claude-mythos-5-2", _FABLE_2, "2026-11-09"),
    Model(
        "claude-haiku-5-5",
        _price("0.10", "0.50", "0.125", "0.20", "0.01"),
        "2026-10-14",
        long_price=_price("0.50", "2.50", "0.625", "1.00", "0.05"),
        long_over_tokens=100_000,
    ),
    Model("claude-sonnet-5-5", _SONNET_5_5, "2026-09-24", forced_tools=False),
    _thinker("claude-fable-5-1", _FABLE_1, "2026-09-10"),
    _thinker("claude-opus-5-5", _price("4", "20", "5", "8", "0.20"), "2026-08-27", forced_tools=False),
    _thinker("claude-mythos-5-1", _FABLE_1, "2026-08-20"),
    Model("claude-sonnet-5", _SONNET_5, "2026-07-01"),
    _thinker("claude-fable-5", _FABLE, "2026-06-18"),
    _thinker("claude-mythos-5", _FABLE, "2026-06-18"),
    Model("claude-opus-5", _OPUS, "2026-05-21"),
    Model("claude-opus-4-8", _OPUS, "2026-05-01"),
    Model("claude-opus-4-7", _OPUS, "2026-04-16"),
    _of_4_6("claude-opus-4-6", _OPUS, "2026-02-05"),
    _of_4_6("claude-sonnet-4-6", _SONNET_4, "2026-02-17"),
    _of_4_5("claude-opus-4-5-20251101", _OPUS, "2025-11-24", ("claude-opus-4-5",), min_cached_tokens=4096),
    _of_4_5(
        "claude-haiku-4-5-20251001",
        _price("1", "5", "1.25", "2", "0.10"),
        "2025-10-15",
        ("claude-haiku-4-5",),
        min_cached_tokens=4096,
    ),
    _of_4_5(
        "claude-sonnet-4-5-20250929",
        _SONNET_4,
        "2025-09-29",
        ("claude-sonnet-4-5",),
        lifecycle="deprecated",
        deprecated_on="2026-05-30",
        retires_on="2026-11-30",
    ),
    Model(
        "claude-mythos-preview",
        _price("25", "125", "31.25", "50", "2.50"),
        "2026-04-07",
        lifecycle="retired",
        deprecated_on="2026-05-01",
        retires_on="2026-06-30",
        batch=False,
    ),
)

MODELS: dict[str, Model] = {name: model for model in _CATALOGUE for name in (model.id, *model.aliases)}


def find_model(name: object) -> Model | None:
    """Return the model of an id or alias, retired ones included; None where there is none."""
    return MODELS.get(name) if isinstance(name, str) else None


def catalogue() -> tuple[Model, ...]:
    """Return every model once, newest first, as ``GET /v1/models`` lists them."""
    return _CATALOGUE
