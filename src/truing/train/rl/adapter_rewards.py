"""Reward and cost models on the run's own backbone: their adapters beside the actor's, so that they cost no second copy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from truing.core.errors import PlanError, UserError
from truing.core.lineage import digest
from truing.core.types import Lineage
from truing.hf.chat_tokens import AnswerTooLong, ChatTokenizer
from truing.hf.loading import ScalarModel, batch_by_length, pad_rows
from truing.train.model_folder import TrainedModelCard, read_model_card
from truing.train.rl.policy_models import SharedCrew
from truing.train.rl.rollout import Rollout


class AdapterSignal:
    """The score of an adapter at the last token of prompt and answer, read as the judge `reward:DIR` or `cost:DIR` reads
    it.
    """

    def __init__(
        self, crew: SharedCrew, adapter: str, card: TrainedModelCard, *, tokens: int = 4096
    ) -> None:
        self.crew, self.adapter, self.tokens, self.window = crew, adapter, tokens, card.max_length
        self.turns = ChatTokenizer(crew.tokenizer, plain=card.template == "plain")
        self.name, self.lineage = adapter, card.lineage
        self.question = "harmful" if card.kind == "cost" else "reward"

    @classmethod
    def of(cls, crew: Any, folder: str, adapter: str, base_sha256: str) -> AdapterSignal:
        """Loads the adapter of a folder onto the crew's backbone; UserError where it is of another base."""
        path = Path(folder)
        card = read_model_card(path)
        if card is None or card.kind not in ("reward", "cost") or not (path / "adapter").is_dir():
            raise UserError(
                f"{folder}: no reward or cost model with an adapter (`truing train reward --lora 16`)"
            )
        if not isinstance(crew, SharedCrew):
            raise PlanError(
                f"{folder}: a shared backbone needs adapters: lora = 16, or give reward:{folder} as a judge"
            )
        if card.base_sha256 != base_sha256:
            raise PlanError(
                f"{folder}: was trained on another base; give reward:{folder} as a judge of its own"
            )
        crew.add_scorer(adapter, path)
        made = cls(crew, adapter, card)
        made.name = f"{card.kind}:{path.name}"
        made.lineage = (
            card.lineage
            if card.lineage.hash
            else Lineage(name=made.name, hash=digest(card.kind, folder))
        )
        return made

    @torch.no_grad()
    def score(self, rollout: Rollout, *, cost: bool) -> list[float | str]:
        """One number an answer; empty and too long answers are unscored."""
        found: list[float | str] = ["empty"] * len(rollout.texts)
        rows: dict[int, list[int]] = {}
        for at, (prompt, text) in enumerate(zip(rollout.prompts, rollout.texts)):
            if not text:
                continue
            try:
                rows[at] = self.turns.encode_row(
                    prompt.sample.conversation.messages, text, self.window
                )
            except AnswerTooLong:
                found[at] = "too-long"
        places = list(rows)
        with self.crew.role(self.adapter) as model:
            for batch in self.crew.pace.each(
                batch_by_length([len(rows[k]) for k in places], tokens=self.tokens)
            ):
                if (
                    batch is None
                ):  # another process has more to read, and this one holds a piece of the weights
                    model(
                        *(
                            torch.ones(1, 1, dtype=torch.long, device=self.crew.device)
                            for _ in range(2)
                        )
                    )
                    continue
                ids, mask = (
                    x.to(self.crew.device) for x in pad_rows([rows[places[k]] for k in batch], 0)
                )
                for k, value in zip(
                    batch, ScalarModel.last_token_values(model(ids, mask), mask).float().tolist()
                ):
                    found[places[k]] = value if math.isfinite(value) else "not a finite number"
        return found
