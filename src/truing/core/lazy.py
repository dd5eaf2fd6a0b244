"""Names of a package that are imported when they are first used, so that importing the package stays cheap."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(
    package: str, names: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Returns the `__getattr__`, `__dir__` and `__all__` of a package (PEP 562).

    `names` maps a module of the package to its public names, separated by blanks; a module that is public
    as a whole stands under the key "". The getter raises AttributeError for any other name.
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
        setattr(sys.modules[package], name, value)  # the next access does not come here
        return value

    return __getattr__, lambda: sorted(defined_in), sorted(defined_in)
