"""`RailsConfig` with NeMo's constructors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import yaml

from truing.rails.config.combined import combine_configs
from truing.rails.config.loader import RailsConfig as LoadedConfig


class RailsConfig(LoadedConfig):
    """A configuration; PlanError names every fault with file and line.

    Python of the folder (`actions.py`, `config.py`) runs only with `trust_code=True`, which NeMo
    Guardrails does without being asked.
    """

    __slots__ = ()

    @classmethod
    def from_path(
        cls,
        config_path: str | Path,
        *,
        trust_code: bool = False,
        key_variables: Sequence[str] = (),
    ) -> Self:
        """Loads a folder, or one YAML file."""
        config = LoadedConfig.load(config_path, trust_code=trust_code, key_variables=key_variables)
        return cls._copy(config)

    @classmethod
    def from_content(
        cls,
        colang_content: str | None = None,
        yaml_content: str | None = None,
        config: Mapping[str, Any] | None = None,
        *,
        trust_code: bool = False,
    ) -> Self:
        """Loads texts; `config` holds the values of the YAML instead of a text."""
        if config and yaml_content:
            raise ValueError("give yaml_content or config, not both")
        text = yaml_content or (yaml.safe_dump(dict(config)) if config else "")
        loaded = LoadedConfig.from_text(text, colang_content or "", trust_code=trust_code)
        return cls._copy(loaded)

    @classmethod
    def _copy(cls, config: LoadedConfig) -> Self:
        return cls(**{field.name: getattr(config, field.name) for field in fields(config)})

    def __add__(self, other: LoadedConfig) -> Self:
        """Returns both configurations as one; the other one takes precedence."""
        return self._copy(combine_configs([self, other]))
