"""Reward and cost models as adapters on the run's own backbone, without a second copy of it."""

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
from truing.train.model_card import TrainedModelCard, read_model_card
from truing.train.rl.policy_models import SharedBackboneModels
from truing.train.rl.rollout import Rollout


class AdapterSignal:
    """The score of a reward or cost adapter at the last token of prompt and answer.

    Returns the same scores as the judges `reward:DIR` and `cost:DIR`, except of answers that were
    cut: their score is read at their last token, unless `close_cut_answers` appends an end token
    as the judges do. `max_batch_tokens` limits the padded tokens of a forward pass.
    """

    def __init__(
        self,
        models: SharedBackboneModels,
        adapter: str,
        card: TrainedModelCard,
        *,
        max_batch_tokens: int = 4096,
        close_cut_answers: bool = False,
    ) -> None:
        self.models = models
        self.close_cut_answers = close_cut_answers
        self.adapter = adapter
        self.max_batch_tokens = max_batch_tokens
        self.max_length = card.max_length
        self.turns = ChatTokenizer(models.tokenizer, plain=card.template == "plain")
        self.name = adapter
        self.lineage = card.lineage
        self.question = "harmful" if card.kind == "cost" else "reward"

    @classmethod
    def load(
        cls,
        models: Any,
        folder: str,
        adapter: str,
        base_sha256: str,
        *,
        close_cut_answers: bool = False,
    ) -> AdapterSignal:
        """Loads the adapter of a model folder onto the backbone, under the name `adapter`.

        Raises UserError if the folder has no reward or cost adapter, PlanError if the run has no
        shared backbone or another one.
        """
        path = Path(folder)
        card = read_model_card(path)
        if card is None or card.kind not in ("reward", "cost") or not (path / "adapter").is_dir():
            raise UserError(
                f"{folder}: no reward or cost model with an adapter (train one with `truing train "
                f"reward --lora 16`)"
            )
        if not isinstance(models, SharedBackboneModels):
            raise PlanError(
                f"{folder}: a shared backbone needs adapters: lora = 16, or give reward:{folder} "
                f"as a judge"
            )
        # An adapter is a difference from the weights that it was trained on, and from no others.
        if card.base_sha256 != base_sha256:
            raise PlanError(
                f"{folder}: was trained on another base; give reward:{folder} as a judge"
            )
        models.add_scoring_adapter(adapter, path)
        signal = cls(models, adapter, card, close_cut_answers=close_cut_answers)
        signal.name = f"{card.kind}:{path.name}"
        if not card.lineage.hash:
            signal.lineage = Lineage(name=signal.name, hash=digest(card.kind, folder))
        return signal

    @torch.no_grad()
    def score(self, rollout: Rollout, *, cost: bool) -> list[float | str]:
        """Returns one number per answer; empty and too long answers are unscored."""
        scores: list[float | str] = ["empty"] * len(rollout.texts)
        token_rows: dict[int, list[int]] = {}
        answers = zip(rollout.prompts, rollout.texts, rollout.ended)
        for row, (prompt, text, ended) in enumerate(answers):
            # An answer without text has no token to read the score at.
            if not text:
                continue
            try:
                messages = prompt.sample.conversation.messages
                token_rows[row] = self.turns.encode_row(
                    messages, text, self.max_length, end=ended or self.close_cut_answers
                )
            except AnswerTooLong:
                scores[row] = "too-long"
        rows = list(token_rows)
        lengths = [len(token_rows[row]) for row in rows]
        batches = batch_by_length(lengths, tokens=self.max_batch_tokens)
        with self.models.active(self.adapter) as model:
            for batch in self.models.lockstep.iterate(batches):
                if batch is None:
                    # Another process has more batches, and needs this one's part of the weights.
                    dummy = torch.ones(1, 1, dtype=torch.long, device=self.models.device)
                    model(dummy, dummy)
                    continue
                batch_rows = [rows[k] for k in batch]
                ids, mask = pad_rows([token_rows[row] for row in batch_rows], 0)
                ids, mask = ids.to(self.models.device), mask.to(self.models.device)
                values = ScalarModel.last_token_values(model(ids, mask), mask).float().tolist()
                for row, value in zip(batch_rows, values):
                    scores[row] = value if math.isfinite(value) else "not a finite number"
        return scores
