"""Durability in the study of levers: the direction of refusal, and changes paired by prompt."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from truing.core.lineage import hash_prompt
from truing.core.measurement_set import is_frozen
from truing.hf.loading import load_causal_lm


def test_the_direction_leads_from_harmless_to_harmful_states(load: Any) -> None:
    script = load("refusal_direction")
    harmful, harmless = torch.tensor([[3.0, 5.0]]), torch.tensor([[0.0, 1.0]])
    assert script.directions(harmful, harmless).tolist() == [pytest.approx([0.6, 0.8])]
    # (1, 2) has 2.2 along (0.6, 0.8), which leaves (1 - 1.32, 2 - 1.76).
    left = script.remove_direction(torch.tensor([[1.0, 2.0]]), torch.tensor([0.6, 0.8]))
    assert left[0].tolist() == pytest.approx([-0.32, 0.24])


class Attention(nn.Module):
    """Adds nothing of its own; returns a tuple, as attention layers do."""

    def forward(self, states: Tensor) -> tuple[Tensor, None]:
        return states * 2, None


class Layer(nn.Module):
    """Attention and feed-forward layers that write to the stream of states."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(), nn.Linear(2, 2)

    def forward(self, states: Tensor) -> Tensor:
        states = states + self.self_attn(states)[0]
        return states + self.mlp(states)


class Body(nn.Module):
    """A decoder of two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed_tokens = nn.Embedding(5, 2)
        self.layers = nn.ModuleList([Layer(), Layer()])

    @property
    def base_model(self) -> nn.Module:
        """The model itself, which has no head."""
        return self

    def forward(self, ids: Tensor) -> Tensor:
        states = self.embed_tokens(ids)
        for layer in self.layers:
            states = layer(states)
        return states


@torch.no_grad()
def test_a_model_writes_nothing_along_the_direction_while_it_is_removed(load: Any) -> None:
    script = load("refusal_direction")
    body, ids, direction = Body(), torch.arange(5), torch.tensor([0.6, 0.8])
    before = body(ids)
    weights = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    with script.without_direction(body, direction):
        assert (body(ids) @ direction).abs().max() < 1e-5 < (before @ direction).abs().max()
    assert torch.equal(body(ids), before)
    assert all(torch.equal(weights[name], tensor) for name, tensor in body.state_dict().items())
    with pytest.raises(RuntimeError, match="stop"), script.without_direction(body, direction):
        raise RuntimeError("stop")
    assert torch.equal(body(ids), before)


def test_a_direction_that_takes_more_than_refusals_away_is_not_chosen(load: Any) -> None:
    choose = load("refusal_direction").choose_direction
    assert choose([-9.0, -5.0, -7.0], [0.5, 0.01, 0.1]) == 2
    assert choose([-9.0, -5.0], [0.5, 0.2]) == 1


def test_the_divergence_is_zero_for_the_same_and_known_for_a_coin(load: Any) -> None:
    mean_kl = load("refusal_direction").mean_kl
    fair, biased = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    assert mean_kl(fair, fair) == 0
    assert mean_kl(fair, biased) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))


def test_the_mean_state_of_a_batch_is_that_of_its_prompts(load: Any, base: str) -> None:
    script = load("refusal_direction")
    loaded = load_causal_lm(base, dtype="float32")
    prompts = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
    alone = torch.stack([script.mean_states(loaded, [prompt]) for prompt in prompts])
    torch.testing.assert_close(script.mean_states(loaded, prompts), alone.mean(0))


def test_the_change_of_a_rate_is_paired_by_prompt(load: Any) -> None:
    script = load("study_durability_weights")
    before = {f"p{k}": k < 5 for k in range(10)}
    after = {f"p{k}": k < 2 for k in range(10)} | {"another": True}
    text = script.difference_text(before, after)
    assert text.startswith("-30 [") and script.difference_text(before, before).startswith("+0 [")


def test_requests_that_give_the_direction_are_neither_frozen_nor_development(load: Any) -> None:
    script, prompts = load("study_durability_weights"), load("study_prompts")
    harmful, harmless = script.direction_prompts()
    assert len(harmful) == len(harmless) == script.DIRECTION_PROMPTS + script.CHECK_PROMPTS
    development = {
        sample.id
        for name in ("dev-harm", "dev-benign")
        for sample in prompts.build_prompt_set(name).samples
    }
    for text in [*harmful, *harmless]:
        assert not is_frozen(text) and hash_prompt(text) not in development
