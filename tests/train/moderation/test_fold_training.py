"""Rows that lose their prompt or role, frozen embeddings, learning rates of layers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.train.moderation.builders import make_example, make_settings

from truing.core.errors import PlanError
from truing.hf.weights import find_weights
from truing.judges.moderation.inputs import EncodedInput, ModerationInput
from truing.train.moderation.fold_training import (
    _build_optimizer,
    augment_example,
    build_trainable_network,
    drop_prompt,
    merge_adapters,
    prompt_as_response,
)


def test_rows_without_their_prompt_or_role() -> None:
    pair = EncodedInput((1, 5, 6, 2, 7, 8, 2), (0, 0, 0, 0, 1, 1, 1))
    assert drop_prompt(pair) == EncodedInput((1, 2, 7, 8, 2), (0, 0, 1, 1, 1))
    prompt = EncodedInput((1, 5, 6, 2), (0, 0, 0, 0))
    assert prompt_as_response(prompt) == EncodedInput((1, 2, 5, 6, 2), (0, 0, 1, 1, 1))


def test_a_prompt_in_the_place_of_a_response_is_asked_whether_it_is_harmful() -> None:
    settings = make_settings(Path("base"), Path("out"))
    prompt = msgspec.structs.replace(
        make_example((math.nan, 1.0, math.nan, 0.5)),
        content=ModerationInput(("x",)),
        encoded=EncodedInput((1, 5, 2), (0, 0, 0)),
    )
    augmented = [augment_example(prompt, settings, random.Random(seed)) for seed in range(50)]
    as_response = [targets for row, targets in augmented if 1 in row.segments]
    unchanged = [targets for row, targets in augmented if 1 not in row.segments]
    assert 5 < len(as_response) < 30
    assert all(t[0] == 1.0 and math.isnan(t[1]) and t[3] == 0.5 for t in as_response)
    assert all(t is prompt.targets for t in unchanged)


def test_embeddings_are_frozen_and_lower_layers_learn_more_slowly(tiny_bert: Path) -> None:
    settings = make_settings(tiny_bert, Path("out"), layer_decay=0.5)
    network = build_trainable_network(settings, find_weights(str(tiny_bert)), 14)
    frozen = {n for n, p in network.named_parameters() if not p.requires_grad}
    assert frozen and all("embeddings" in name for name in frozen)
    groups = _build_optimizer(network, settings).param_groups
    rates = [group["lr"] for group in groups]
    assert rates == pytest.approx([0.5 * settings.lr, settings.lr, 1e-2, 1e-1])


def test_adapters_are_only_above_the_frozen_layers(
    tmp_path: Path, tiny_bert: Path, make_tiny_llama: Callable[[Path, int], Path]
) -> None:
    base = find_weights(str(make_tiny_llama(tmp_path, 3)))
    settings = make_settings(tmp_path, Path("out"), lora=2, frozen=1)
    network = build_trainable_network(settings, base, 14)
    trained = {n for n, p in network.named_parameters() if p.requires_grad}
    assert any("layers.1." in name for name in trained)
    assert not any("layers.0." in name for name in trained)
    assert network.first_used == 1
    assert not any("lora" in name for name, _ in merge_adapters(network).named_parameters())
    with pytest.raises(PlanError, match="frozen = 3: needs a language model"):
        build_trainable_network(msgspec.structs.replace(settings, frozen=3), base, 14)
    with pytest.raises(PlanError, match="frozen = 1: needs a language model"):
        build_trainable_network(settings, find_weights(str(tiny_bert)), 14)
