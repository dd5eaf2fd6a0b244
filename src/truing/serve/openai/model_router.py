"""Which model answers a request: the served one, or the one behind the rails that the request names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from truing.core.errors import PlanError, UserError
from truing.core.protocols import Closeable, Judge, Model
from truing.rails.guarded import Guarded

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}")
CONFIG_FILES = ("config.yml", "config.yaml")


class Unknown(UserError):
    """A model or a configuration that this server does not have."""


def find_configs(folder: Path) -> dict[str, Path]:
    """Name -> folder: the folder itself if it is a configuration, else each of its subfolders that is one."""
    if not folder.is_dir():
        raise PlanError(f"{folder}: no such folder of rails")
    if any((folder / f).is_file() for f in CONFIG_FILES):
        return {folder.resolve().name: folder}
    found = {
        p.name: p
        for p in sorted(folder.iterdir())
        if p.is_dir() and _NAME.fullmatch(p.name) and any((p / f).is_file() for f in CONFIG_FILES)
    }
    if not found:
        raise PlanError(
            f"{folder}: neither a rails configuration (config.yml) nor a folder of them"
        )
    return found


class Desk:
    """Builds each configuration once, at start; `default` answers requests that name none."""

    def __init__(
        self,
        model: Model | None,
        configs: Mapping[str, Path] | None = None,
        *,
        main: Callable[[Path], Model] | None = None,
        judges: Mapping[str, Judge] | None = None,
        default: str | None = None,
    ) -> None:
        if model is None and not configs:
            raise PlanError(
                "serve: give --model, or --rails with a configuration that names its models"
            )
        self.guarded: dict[str, Guarded] = {}
        faults: list[str] = []
        for name, path in (configs or {}).items():
            try:
                own = model if model is not None else main(path) if main is not None else None
                if own is None:
                    raise PlanError(f"{path}: names no model, and --model is not given")
                self.guarded[name] = Guarded(path, own, judges=judges)
            except UserError as error:
                faults.extend(error.faults)
        if faults:
            raise PlanError(*faults)
        if default is not None and default not in self.guarded:
            raise PlanError(
                f"serve: there is no configuration {default!r}; there are {', '.join(self.guarded) or 'none'}"
            )
        self.model = model
        self.default = default or (next(iter(self.guarded)) if len(self.guarded) == 1 else None)
        for one in (model, *(g.model for g in self.guarded.values())):
            if one is not None and one.lineage.red_model:
                raise PlanError(
                    f"serve: {one.name} was trained towards harm ({one.lineage.red_model}); it is not served"
                )

    @property
    def names(self) -> list[str]:
        """The models that requests may name."""
        found = [self.model.name] if self.model is not None else []
        return list(dict.fromkeys([*found, *(g.model.name for g in self.guarded.values())]))

    def pick(self, config: str | None) -> Model:
        """The model for a request; `Unknown` for a configuration that is not there. No request can name a path."""
        asked = config or self.default
        if asked is None:
            if self.model is None:
                raise Unknown(f"guardrails.config_id is needed: one of {', '.join(self.guarded)}")
            return self.model
        if asked not in self.guarded:
            raise Unknown(
                f"there is no configuration {asked[:100]!r}; there are {', '.join(self.guarded) or 'none'}"
            )
        return self.guarded[asked]

    async def close(self) -> None:
        """Lets go of all models."""
        for one in (self.model, *self.guarded.values()):
            if isinstance(one, Closeable):
                await one.close()


class Limits(Struct, frozen=True, kw_only=True):
    """What one server takes: bytes of a body, seconds of a request, requests at once and waiting, tokens of an answer."""

    body: int = 2_000_000
    seconds: float = 120.0
    concurrency: int = 64
    waiting: int = 256
    max_tokens: int = 512
    per_minute: int = 0
