"""Lazy exports: names of a package that are imported at their first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(
    package: str, names: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Returns the `__getattr__`, `__dir__` and `__all__` of a package (PEP 562).

    `names` maps each module of the package to its public names, separated by spaces; modules that
    are public as a whole are listed under the key "". The getter raises AttributeError for other
    names.
    """
    defined_in = {name: module for module, listed in names.items() for name in listed.split()}

    def __getattr__(name: str) -> Any:
        if name not in defined_in:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if defined_in[name] == "":
            value: Any = importlib.import_module(f"{package}.{name}")
        else:
            module = importlib.import_module(f"{package}.{defined_in[name]}")
            value = getattr(module, name)
        # As an attribute of the package, it is found without this function the next time.
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__, lambda: sorted(defined_in), sorted(defined_in)
