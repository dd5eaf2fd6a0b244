"""Selects the model of a request: the served one, or the one behind the rails configuration that
the request names.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock

from truing.core.errors import PlanError, UserError
from truing.core.protocols import Closeable, Judge, Model
from truing.rails.config.combined import combine_configs
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.app import RuntimeParts

AskPerson = Callable[[str, str], Awaitable[bool]]
_CONFIG_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}")
MAX_COMBINATIONS = 16  # of configurations that requests combine
CONFIG_FILES = ("config.yml", "config.yaml")


class UnknownConfig(UserError):
    """A rails configuration that this server does not have."""


def _is_config(folder: Path) -> bool:
    return any((folder / name).is_file() for name in CONFIG_FILES)


def find_configs(folder: Path) -> dict[str, Path]:
    """Returns the configurations in a folder by id: the folder itself if it is one, else its
    subfolders that are.

    Raises PlanError if there is none.
    """
    if not folder.is_dir():
        raise PlanError(f"{folder}: no such folder of rails")
    if _is_config(folder):
        return {folder.resolve().name: folder}
    configs = {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_dir() and _CONFIG_ID.fullmatch(path.name) and _is_config(path)
    }
    if not configs:
        raise PlanError(
            f"{folder}: neither a rails configuration (config.yml) nor a folder of them"
        )
    return configs


class ModelRouter:
    """Builds every configuration once, at start; a request can name a configuration but never a
    path.

    `model` answers behind each configuration; without it `main_model` makes one from the
    configuration's own `models:`. With `trust_code` the configurations may run code; they may send
    the environment variables in `key_variables`. `default` is the configuration of requests that
    name none; `ask_person` asks a person about a tool call. Of several configurations, one with
    faults is left out: `skipped` has its faults, and the others are served. Raises PlanError, with
    all faults, where none is left.
    """

    def __init__(
        self,
        model: Model | None,
        configs: Mapping[str, Path] | None = None,
        *,
        main_model: Callable[[Path], Model] | None = None,
        judges: Mapping[str, Judge] | None = None,
        default: str | None = None,
        trust_code: bool = False,
        key_variables: Sequence[str] = (),
        ask_person: AskPerson | None = None,
    ) -> None:
        if model is None and not configs:
            raise PlanError(
                "serve: give --model, or --rails with a configuration that names its models"
            )
        self.guarded: dict[str, GuardedModel] = {}
        self._judges, self._ask_person = judges, ask_person
        self._combined: OrderedDict[tuple[str, ...], GuardedModel] = OrderedDict()
        self._combining = Lock()
        self.skipped: dict[str, tuple[str, ...]] = {}
        for config_id, path in (configs or {}).items():
            try:
                inner = model
                if inner is None and main_model is not None:
                    inner = main_model(path)
                if inner is None:
                    raise PlanError(f"{path}: names no model, and --model is not given")
                self.guarded[config_id] = GuardedModel(
                    path,
                    inner,
                    judges=judges,
                    parts=RuntimeParts(ask_person=ask_person),
                    trust_code=trust_code,
                    key_variables=key_variables,
                )
            except UserError as error:
                self.skipped[config_id] = tuple(error.faults)
        if self.skipped and not self.guarded:
            raise PlanError(*(fault for faults in self.skipped.values() for fault in faults))
        if default is not None and default not in self.guarded:
            raise PlanError(f"serve: there is no configuration {default!r}; {self._known_configs}")
        self.model = model
        if default is None and len(self.guarded) == 1 and not self.skipped:
            default = next(iter(self.guarded))
        self.default = default
        for served in (model, *(guarded.model for guarded in self.guarded.values())):
            if served is not None and served.lineage.red_model:
                raise PlanError(
                    f"serve: {served.name} was trained towards harm ({served.lineage.red_model}); "
                    "it is not served"
                )

    def combine(self, config_ids: Sequence[str]) -> Model:
        """Returns the model behind several configurations, built once and kept for the last
        combinations.

        Raises UnknownConfig for one that is not there, and PlanError where they cannot be combined.
        """
        if len(config_ids) == 1:
            return self.select(config_ids[0])
        parts = [self.select(config_id) for config_id in config_ids]
        key = tuple(config_ids)
        with self._combining:
            if key in self._combined:
                self._combined.move_to_end(key)
                return self._combined[key]
            guarded = [part for part in parts if isinstance(part, GuardedModel)]
            config = combine_configs([part.config for part in guarded])
            combined = GuardedModel(
                config,
                guarded[-1].model,
                judges=self._judges,
                parts=RuntimeParts(ask_person=self._ask_person),
            )
            self._combined[key] = combined
            if len(self._combined) > MAX_COMBINATIONS:
                self._combined.popitem(last=False)
            return combined

    @property
    def _known_configs(self) -> str:
        return f"there are {', '.join(self.guarded) or 'none'}"

    @property
    def names(self) -> list[str]:
        """The models that requests may name."""
        names = [self.model.name] if self.model is not None else []
        names += [guarded.model.name for guarded in self.guarded.values()]
        return list(dict.fromkeys(names))

    def select(self, config_id: str | None) -> Model:
        """Returns the model for a request. Raises UnknownConfig for a configuration that is not
        there.
        """
        config_id = config_id or self.default
        if config_id is None:
            # No client gets past the rails by naming none of several configurations.
            if self.model is None or self.guarded:
                configs = ", ".join(self.guarded)
                raise UnknownConfig(f"guardrails.config_id is needed: one of {configs}")
            return self.model
        if config_id in self.skipped:
            raise UnknownConfig(f"the configuration {config_id!r} has faults and is not served")
        if config_id not in self.guarded:
            raise UnknownConfig(
                f"there is no configuration {config_id[:100]!r}; {self._known_configs}"
            )
        return self.guarded[config_id]

    async def close(self) -> None:
        """Closes all models."""
        for model in (self.model, *self.guarded.values(), *self._combined.values()):
            if isinstance(model, Closeable):
                await model.close()
