"""The Python objects that `python:package.module:name` names."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from truing.specs.resolve import Args, load_object


def load_function(args: Args) -> Callable[..., Any]:
    """Returns the function that a `python:` spec names; modules in the working directory are found
    too. Raises SpecError if there is no such function, or its module cannot be imported.
    """
    module, _, attribute = args.name.partition(":")
    if not module or not attribute:
        raise args.fault("expected python:package.module:function")
    # A console script does not have the working directory on sys.path, unlike `python -m`.
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function: Any = load_object(args.name)
    except ModuleNotFoundError as error:
        raise args.fault(f"there is no module {error.name!r}") from error
    except AttributeError as error:
        raise args.fault(f"module {module!r} has no {attribute!r}") from error
    except Exception as error:
        reason = f"importing {module!r} failed: {type(error).__name__}: {error}"
        raise args.fault(reason) from error
    if not callable(function):
        raise args.fault(f"{attribute!r} is no function")
    checked: Callable[..., Any] = function
    return checked


def is_async_function(function: Callable[..., Any]) -> bool:
    """Returns whether a call gives a coroutine: `async def`, or an object whose `__call__` is."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004
    )
