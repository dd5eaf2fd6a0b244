"""States of answers: the mean over their tokens after a layer, whatever is read beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models.local.conftest import write

from truing.core.errors import PlanError, UserError
from truing.core.types import Conversation
from truing.hf.answer_states import AnswerStateEncoder, shared_answer_encoder
from truing.hf.chat_tokens import AnswerTooLong
from truing.hf.loading import load_causal_lm
from truing.hf.weights import find_weights

ASK = Conversation.of("how do I repair a wheel?")
TEXTS = ["the cat " * (k % 6 + 1) + "sat" * (k % 2) for k in range(12)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("base"), "llama")


def load(base: Path, **options: object) -> AnswerStateEncoder:
    options = {"window": 256, **options}
    return AnswerStateEncoder.load(
        find_weights(str(base)), dtype="float32", device="cpu", **options
    )  # type: ignore[arg-type]


def test_a_state_is_the_mean_over_the_answers_tokens_after_the_layer(base: Path) -> None:
    reader = load(base, layer=2)
    row = reader.encode(ASK, TEXTS[3], is_cut=False)
    whole = load_causal_lm(str(base), dtype="float32", device="cpu")
    with torch.inference_mode():
        # hidden_states[k] is what the model holds after k layers.
        hidden = whole.model(torch.tensor([row.ids]), output_hidden_states=True).hidden_states[2]
    expected = hidden[0, row.start :].mean(0).numpy()
    assert reader.states([row])[0] == pytest.approx(expected, abs=1e-5)


def test_the_prompt_is_no_part_of_the_answer_and_an_end_closes_it(base: Path) -> None:
    reader = load(base)
    row = reader.encode(ASK, TEXTS[0], is_cut=False)
    words = reader.turns.tokenizer
    assert words.decode(row.ids[: row.start]).endswith("<|im_start|>assistant\n")
    assert words.decode(row.ids[row.start :]) == TEXTS[0] + "<|im_end|>"
    cut = reader.encode(ASK, TEXTS[0], is_cut=True)
    assert words.decode(cut.ids[cut.start :]) == TEXTS[0]


def test_states_depend_on_neither_batch_nor_order(base: Path) -> None:
    reader = load(base)
    rows = [reader.encode(ASK, text, is_cut=False) for text in TEXTS]
    one = np.concatenate([reader.states([row]) for row in rows])
    assert reader.states(rows) == pytest.approx(one, abs=1e-5)
    assert reader.states(rows[::-1])[::-1] == pytest.approx(one, abs=1e-5)
    reader.tokens = 60
    assert reader.states(rows) == pytest.approx(one, abs=1e-5)
    assert reader.states([]).shape == (0, reader.width)


def test_two_thirds_of_the_layers_unless_one_is_named(base: Path) -> None:
    assert load(base).layer == 2
    assert load(base, layer=3).layer == 3
    for layer in (0, 4):
        with pytest.raises(PlanError, match=f"layer = {layer}: .* has layers 1 to 3"):
            load(base, layer=layer)
    for window in (0, 257):
        with pytest.raises(PlanError, match=f"max_length = {window}: .* reads 1 to 256 tokens"):
            load(base, window=window)


def test_what_does_not_fit_is_not_read_in_part(base: Path) -> None:
    reader = load(base, window=60)
    with pytest.raises(AnswerTooLong):
        reader.encode(Conversation.of("wheel " * 60), "the cat", is_cut=False)
    with pytest.raises(AnswerTooLong):
        reader.encode(ASK, "the cat " * 60, is_cut=False)


def test_a_text_that_would_be_read_in_part_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="holds '<|im_end|>', a token of the model's own".replace("|", r"\|")
    ):
        load(base).encode(ASK, "the cat<|im_end|> and more", is_cut=False)
    folder = write(tmp_path / "strips", "llama")
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    stripped = template.replace("m['content']", "m['content'].split('</think>')[-1]")
    assert stripped != template
    (folder / "chat_template.jinja").write_text(stripped, encoding="utf-8")
    encoder = load(folder)
    assert encoder.encode(ASK, "the cat", is_cut=False)
    with pytest.raises(UserError, match="leaves out parts of the answer"):
        encoder.encode(ASK, "the rain</think>the cat", is_cut=False)


def test_half_precision_that_may_overflow_is_not_used(base: Path) -> None:
    encoder = AnswerStateEncoder.load(find_weights(str(base)), dtype="float16", window=256)
    assert encoder.dtype == "float32"


def test_one_encoder_for_all_judges_of_a_base(base: Path) -> None:
    weights = find_weights(str(base))
    options = {"layer": 2, "dtype": "float32", "device": "cpu", "window": 256}
    first = shared_answer_encoder(weights, **options)
    assert shared_answer_encoder(weights, **options) is first
    assert shared_answer_encoder(weights, **{**options, "layer": 1}) is not first


@pytest.mark.parametrize("kind", ["qwen2", "mistral", "gemma2"])
def test_other_decoders_and_prompts_that_answers_share(kind: str, tmp_path: Path) -> None:
    # A window that is shorter than the prompt: a shared prompt must not be seen further than alone.
    more = {"sliding_window": 8} if kind != "qwen2" else {}
    reader = load(write(tmp_path / kind, kind, **more))
    other = Conversation.of("the rain in the garden")
    rows = [
        reader.encode(conversation, text, is_cut=False)
        for conversation in (ASK, other)
        for text in TEXTS[:5]
    ]
    rows.append(reader.encode(Conversation.of("alone"), "the cat", is_cut=False))
    one = np.concatenate([reader.states([row]) for row in rows])
    assert reader.states(rows) == pytest.approx(one, abs=1e-5)


def test_a_model_of_another_layout_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "gpt2", "gpt2", n_embd=64, n_layer=2, n_head=4)
    with pytest.raises(UserError, match="no list of decoder layers"):
        load(folder)
