"""The folder of a benchmark run: its base model, training data and settings, runs and models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from common import Size, evaluation_sets, loaded_model

from truing.core.lineage import hash_prompt
from truing.core.protocols import Model
from truing.core.types import Conversation, Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.models.local import LocalModel
from truing.specs.resolve import resolve
from truing.train.data_mix import split_held_out
from truing.train.examples import TrainingExample, TrainingSet
from truing.train.settings import TrainingSettings
from truing.train.training_data import read_training_set


class Workspace:
    """What the phases share. Runs are in OUT/runs/LEVER/SET, trained models in OUT/models/NAME."""

    def __init__(self, out: Path, size: Size) -> None:
        self.out, self.size = out, size
        out.mkdir(parents=True, exist_ok=True)
        self._base: LocalModel | None = None

    @property
    def base(self) -> LocalModel:
        """The base model, loaded at the first use."""
        if self._base is None:
            self._base = LocalModel.load("smollm2")
        return self._base

    def options(self, n: int = 1) -> EvaluateOptions:
        """Returns the sampling that is used for every lever."""
        sampling = Sampling(n=n, max_tokens=self.size.max_tokens, temperature=1.0)
        return EvaluateOptions(sampling=sampling, concurrency=256)

    def answer(self, name: str, model: Model, n: int = 1) -> None:
        """Lets a lever answer every evaluation set."""
        for key, data in evaluation_sets(self.size).items():
            evaluate(model, data, [], self.out / "runs" / name / key, options=self.options(n))

    def answer_with_trained(self, name: str) -> None:
        """Lets a trained lever answer every evaluation set."""
        with loaded_model(str(self.out / "models" / name)) as model:
            self.answer(name, model)

    def settings(self, kind: str, name: str, **changes: Any) -> TrainingSettings:
        """Returns the shared settings of the training runs, with changes."""
        shared = {
            "base": "smollm2",
            "steps": self.size.steps,
            "batch": self.size.batch,
            "micro": 8,
            "max_length": self.size.max_length,
            "lr": 5e-4,
            "save_every": 20,
            "keep": 1,
        }
        out = str(self.out / "models" / name)
        return TrainingSettings(kind=kind, out=out, **{**shared, **changes})  # type: ignore[arg-type]

    def scorer_settings(self, kind: str, **changes: Any) -> TrainingSettings:
        """Returns the settings of a reward or cost model.

        They are adapters on the base, so that RLHF holds one backbone for all of its models.
        """
        steps, batch = self.size.judge_steps, 2 * self.size.batch
        return self.settings(kind, kind, steps=steps, batch=batch, lr=2e-4, **changes)

    def read_pku(
        self, kind: str, *, chosen: bool = False
    ) -> tuple[TrainingSet, list[TrainingExample]]:
        """Returns PKU pairs whose prompts are in no evaluation set, and a held-out fifth of them.

        All of BeaverTails is excluded, not only its evaluation part: the two sets share prompts.
        """
        excluded = {
            hash_prompt(row.sample.prompt)
            for data in (*evaluation_sets(self.size).values(), resolve("beavertails", "data"))
            for row in data.rows()
        }
        pairs = read_training_set(resolve("pku,conflicts=drop", "data"), kind, chosen=chosen)  # type: ignore[arg-type]
        allowed = tuple(
            item for item in pairs.items if hash_prompt(item.conversation.prompt) not in excluded
        )
        sources, held_out = split_held_out([msgspec.structs.replace(pairs, items=allowed)], 0.2)
        return sources[0], held_out

    def read_benign(self, kind: str) -> TrainingSet:
        """Returns benign prompts that look harmful, to top the training mix up with."""
        return read_training_set(resolve("pairs:benign,half=train", "data"), kind)  # type: ignore[arg-type]

    def unsafe_pairs(self) -> list[tuple[Conversation, str]]:
        """Returns held-out prompts, each with one answer that people called unsafe.

        The answers are measured along and continued; they are never printed.
        """
        _, held_out = self.read_pku("cost")
        pairs: dict[str, tuple[Conversation, str]] = {}
        for item in held_out:
            if item.signs is not None and item.signs[1] < 0:
                pairs.setdefault(item.conversation.prompt, (item.conversation, item.answers[1]))
        return list(pairs.values())[: self.size.prefilled]
