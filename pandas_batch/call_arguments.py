"""Calls whose arguments do not fit their signature: an error in words, with the line to type, as for wrong values."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from .errors import NOTHING_SENT, InputError, UnknownOptionError, clip

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

_N_NAMED = 3


def in_words(call: Callable[P, R]) -> Callable[P, R]:
    """
    Let a call say in words which of its arguments it does not take, lacks, or was given twice.

    Examples
    --------
    >>> @in_words
    ... def wait(timeout=None): ...
    >>> wait(timout=5)
    Traceback (most recent call last):
    ...
    pandas_batch.errors.UnknownOptionError: wait() takes no timout=.
      Nothing was sent, nothing was billed.
        did you mean timeout=?
    """
    return _answering_in_words(call, getattr(call, "__name__", ""), is_method=False)


def calls_in_words(state: str = NOTHING_SENT) -> Callable[[C], C]:
    """
    Do for the making of a class's objects, and for their public methods, what `in_words` does for a function.

    Parameters
    ----------
    state
        What such a call has left as it was.
    """

    def decorated(cls: C) -> C:
        for name, call in list(vars(cls).items()):
            if inspect.isfunction(call) and (name == "__init__" or not name.startswith("_")):
                setattr(cls, name, _answering_in_words(call, name, is_method=True, state=state))
        return cls

    return decorated


def nearest(name: str, known: Iterable[str], cutoff: float) -> str | None:
    """
    Return the name that was probably meant, or None: letters in another order, or as much alike as `cutoff` says.

    Examples
    --------
    >>> nearest("modle", ["mode", "model"], 0.84), nearest("score", ["store"], 0.84)
    ('model', None)
    """
    names = list(known)
    turned = [one for one in names if one != name and sorted(one) == sorted(name.lower())]
    return next(iter([*turned, *difflib.get_close_matches(name, names, n=1, cutoff=cutoff)]), None)


def _answering_in_words(
    call: Callable[P, R], name: str, *, is_method: bool, state: str = NOTHING_SENT
) -> Callable[P, R]:
    def in_words_of(error: TypeError, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Exception:
        # Python says so before the first line of the call; what comes from its inside has more of a traceback.
        trace = error.__traceback__
        if trace is not None and trace.tb_next is not None:
            return error
        said = type(args[0]).__name__ if name == "__init__" else name
        return _misfit(call, said, args[is_method:], kwargs, is_method=is_method, state=state) or error

    if inspect.iscoroutinefunction(call):

        @functools.wraps(call)
        async def called_later(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                made = call(*args, **kwargs)
            except TypeError as error:
                wrong = in_words_of(error, args, kwargs)
                if wrong is error:
                    raise
                raise wrong from None
            finally:
                del args, kwargs
            return await cast("Any", made)

        return cast("Callable[P, R]", called_later)

    @functools.wraps(call)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except TypeError as error:
            wrong = in_words_of(error, args, kwargs)
            if wrong is error:
                raise
            raise wrong from None
        finally:
            # Tracebacks may show local variables, and one of these may be a key.
            del args, kwargs

    return called


def _misfit(
    call: Callable[..., Any],
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    is_method: bool,
    state: str,
) -> Exception | None:
    """Return the error in words; None where the arguments do fit."""
    parameters = list(inspect.signature(call).parameters.values())[is_method:]
    by_place = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    by_name = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    if len(args) > len(by_place):
        takes = f"{len(by_place) or 'no'} argument{'' if len(by_place) == 1 else 's'} without a name"
        takes += f" ({', '.join(by_place)})" if by_place else ""
        given = f"{len(args)} {'was' if len(args) == 1 else 'were'}"
        return UnknownOptionError(
            f"{name}() takes {takes}; {given} given.", state, _line(name, by_place, by_name, args[len(by_place) :])
        )
    for one in by_place[: len(args)]:
        if one in kwargs:
            return InputError(
                f"{name}() is given {one} twice: by its place and by its name.", state, _line(name, by_place, [])
            )
    taken = [*by_place, *by_name]
    for one in kwargs:
        if one not in taken:
            meant = nearest(one, taken, 0.7)
            hint = f"did you mean {meant}=?" if meant else _line(name, by_place, by_name)
            return UnknownOptionError(f"{name}() takes no {clip(one, 40)}=.", state, hint)
    there = {*by_place[: len(args)], *kwargs}
    for parameter in parameters:
        is_needed = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        if is_needed and parameter.name not in there:
            return InputError(f"{name}() lacks {parameter.name}.", state, _line(name, by_place, []))
    return None


def _line(name: str, by_place: list[str], by_name: list[str], surplus: tuple[Any, ...] = ()) -> str:
    """Return the call as it is typed; values that came without a name stand under the names they were meant for."""
    values = [str(value) if isinstance(value, bool | int | float) else "..." for value in surplus]
    n_named = max(_N_NAMED, len(values))
    named = [f"{one}={values[at] if at < len(values) else '...'}" for at, one in enumerate(by_name[:n_named])]
    if values and all(value != "..." for value in values):
        named = named[: len(values)]
    elif len(by_name) > n_named:
        named.append("...")
    return f"{name}({', '.join([*by_place, *named])})"
