"""What the trainer asks of a vLLM engine, in this process or behind HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from truing.train.rl.policy_models import PolicyModels


class VllmAnswer(NamedTuple):
    """One answer of vLLM: token ids, their log-probabilities, whether the end token was sampled."""

    ids: list[int]
    log_probs: list[float]
    ended: bool


class PolicyVersion(NamedTuple):
    """The weights of a step: a number that counts up, a name of this start of the run alone, and
    the folder of the adapter (None for whole weights).
    """

    number: int
    name: str
    adapter: Path | None


class VllmEngine(Protocol):
    """A vLLM engine, in this process or behind HTTP."""

    def push_weights(self, models: PolicyModels, version: PolicyVersion) -> None:
        """Loads the policy's weights: the adapter of the version, or whole weights without one."""
        ...

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sequence[dict[str, Any]]
    ) -> list[VllmAnswer]:
        """Samples one answer for each prompt, with the sampling parameters of each."""
        ...
