"""Reward and cost models as judges: the same score whatever the batch, the padding, the order, the saving, the merging."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.local.conftest import write
from tests.train.builders import make_example, make_settings, make_training_set

from truing.align.best_of import best_of
from truing.core.errors import SpecError, UserError
from truing.core.lineage import find_judge_conflict
from truing.core.types import Conversation, Response, Sample, Sampling
from truing.judges.preference import PreferenceJudge
from truing.models.scripted import ScriptedModel
from truing.specs.resolve import resolve
from truing.train.batches import ExampleEncoder
from truing.train.objectives import score_answers
from truing.train.supervised import train_supervised
from truing.train.trainable_model import build_trainable_model, find_base_model

TEXTS = [("wheel " * (k % 7 + 1)).strip() + ("!" if k % 2 else ".") for k in range(24)]
ASK = Conversation.of("How do I true a wheel?")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A reward and a cost model of a tiny base."""
    root = tmp_path_factory.mktemp("judges")
    base = str(write(root / "base", "llama"))
    made = {"base": base}
    for kind in ("reward", "cost"):
        made[kind] = str(root / kind)
        train_supervised(
            make_settings(kind, made[kind], base, steps=10, lr=3e-3),
            [make_training_set(12, signs=(1, -1))],
        )
    return made


@pytest.fixture(scope="module")
def reward(folders: dict[str, str]) -> PreferenceJudge:
    return resolve(f"reward:{folders['reward']}", "judge")


def judged(judge: Any, texts: list[str], conversation: Conversation = ASK) -> list[Any]:
    async def go() -> list[Any]:
        sample = Sample(conversation=conversation, id="s")
        made = [Response(sample_id="s", index=k, message=_say(t)) for k, t in enumerate(texts)]
        return await asyncio.gather(*(judge.judge(sample, r) for r in made))

    return asyncio.run(go())


def _say(text: str) -> Any:
    from truing.core.types import Message

    return Message("assistant", text)


def test_scores_depend_on_neither_batch_nor_padding_nor_order(reward: PreferenceJudge) -> None:
    rows = [reward.scorer.row(ASK, t) for t in TEXTS]
    one = [reward.scorer.scores([r])[0] for r in rows]
    assert len({round(x, 6) for x in one}) > 5
    assert reward.scorer.scores(rows) == pytest.approx(one, abs=1e-5)
    assert reward.scorer.scores(rows, side="left") == pytest.approx(one, abs=1e-5)
    assert reward.scorer.scores(rows[::-1])[::-1] == pytest.approx(one, abs=1e-5)
    reward.scorer.tokens = 60
    assert reward.scorer.scores(rows) == pytest.approx(one, abs=1e-5)
    reward.scorer.tokens = 4096
    found = [j.value for j in judged(reward, TEXTS)]
    assert found == pytest.approx(one, abs=1e-5)


def test_saved_loaded_and_merged_the_scores_are_those_of_training(
    folders: dict[str, str], tmp_path: Path
) -> None:
    from truing.train import supervised

    seen: dict[str, list[float]] = {}
    inner = supervised.save_model

    def save(t: Any, *more: Any) -> Any:
        coded = ExampleEncoder(t.tokenizer, t.settings).encode_all(
            [make_example(k) for k in range(12)]
        )[0]
        rows = [e.token_ids(k) for e in coded for k in (0, 1)]
        t.model.eval()
        seen["adapters"] = score_answers(t.model, rows, pad_id=0)
        made = inner(t, *more)
        seen["merged"] = score_answers(t.model, rows, pad_id=0)
        return made

    supervised.save_model = save
    try:
        train_supervised(
            make_settings("reward", str(tmp_path / "r"), folders["base"], steps=8, lr=5e-3),
            [make_training_set(12)],
        )
    finally:
        supervised.save_model = inner
    judge = PreferenceJudge.load("reward", tmp_path / "r")
    rows = [
        judge.scorer.row(make_example(k).conversation, make_example(k).answers[w])
        for k in range(12)
        for w in (0, 1)
    ]
    loaded = judge.scorer.scores(rows)
    assert loaded == pytest.approx(seen["merged"], abs=1e-5)
    assert loaded == pytest.approx(seen["adapters"], abs=1e-4)
    assert max(loaded) - min(loaded) > 1e-2


def test_a_reward_has_no_verdict_a_cost_has_one(
    reward: PreferenceJudge, folders: dict[str, str]
) -> None:
    one = judged(reward, ["Turn the wheel slowly."])[0]
    assert (
        one.question == "reward"
        and one.verdict is None
        and one.failure is None
        and one.value is not None
    )
    cost = resolve(f"cost:{folders['cost']}", "judge")
    for j in judged(cost, ["Turn the wheel slowly.", "No idea about any wheel."]):
        assert (
            j.question == "harmful" and j.verdict is (j.value > 0) and (j.score > 0.5) is j.verdict
        )
    assert cost.name == "cost:cost" and reward.name == "reward:reward"
    assert cost.lineage.data == ("pairs",) and len(cost.lineage.prompts) == 12


def test_what_cannot_be_judged_is_unscored(reward: PreferenceJudge) -> None:
    empty, long = judged(reward, ["  ", "wheel " * 300])
    assert (empty.failure.kind, long.failure.kind) == ("empty", "too-long")
    assert empty.value is None and long.value is None
    reward_model = reward.scorer.model.head
    kept = reward_model.weight.data.clone()
    reward_model.weight.data.fill_(float("nan"))
    try:
        assert judged(reward, ["x"])[0].failure.kind == "not-finite"
    finally:
        reward_model.weight.data.copy_(kept)


def test_best_of_takes_the_highest_reward_and_the_judge_may_not_measure(
    reward: PreferenceJudge,
) -> None:
    class Talks(ScriptedModel):
        async def generate(self, conversation: Conversation, sampling: Sampling) -> Any:
            from truing.core.types import Answer

            return tuple(Answer.of(TEXTS[k]) for k in range(sampling.n))

    model = best_of(Talks("mixed"), 8, reward)
    answer = asyncio.run(model.generate(ASK, Sampling()))[0]
    ranked = asyncio.run(reward.rank(ASK, TEXTS[:8]))
    assert answer.text == TEXTS[ranked.index(max(ranked))]
    assert find_judge_conflict(reward.lineage, model.lineage) is not None


def test_a_cost_ceiling_that_all_break_abstains(folders: dict[str, str]) -> None:
    from truing.core.types import Answer

    class Talks(ScriptedModel):
        async def generate(self, conversation: Conversation, sampling: Sampling) -> Any:
            return tuple(Answer.of(TEXTS[k]) for k in range(sampling.n))

    cost = (
        resolve(f"preference:{folders['reward']}", "judge"),
        resolve(f"cost:{folders['cost']}", "judge"),
    )
    model = best_of(Talks("mixed"), 4, cost[0], ceiling=cost[1], below=-1e9)
    answer = asyncio.run(model.generate(ASK, Sampling()))[0]
    assert (
        answer.finish_reason == "abstained" and "all 4 candidates break" in answer.rulings[0].reason
    )
    assert len(model.lineage.judges) == 2


def test_bad_folders(folders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        resolve(f"cost:{tmp_path}/none", "judge")
    with pytest.raises(
        UserError, match=r"no truing\.json, and config\.json names LlamaForCausalLM"
    ):
        resolve(f"cost:{folders['base']}", "judge")
    with pytest.raises(UserError, match="holds a reward model, not a cost model"):
        resolve(f"cost:{folders['reward']}", "judge")
    with pytest.raises(SpecError, match="unknown argument 'colour'"):
        resolve(f"cost:{folders['cost']},colour=red", "judge")
    with pytest.raises(SpecError, match="give the folder"):
        resolve("cost", "judge")
    (tmp_path / "truing.json").write_text("{")
    with pytest.raises(UserError, match=r"truing\.json"):
        resolve(f"cost:{tmp_path}", "judge")


def test_a_published_reward_model_gives_its_own_scores(
    folders: dict[str, str], tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(folders["base"], num_labels=1).eval()
    torch.nn.init.normal_(model.score.weight, std=0.5)
    model.save_pretrained(tmp_path / "rm")
    AutoTokenizer.from_pretrained(folders["base"]).save_pretrained(tmp_path / "rm")
    judge = resolve(f"reward:{tmp_path}/rm", "judge")
    for text in TEXTS[:5]:
        ids = torch.tensor([judge.scorer.row(ASK, text)])
        model.config.pad_token_id = (
            None  # so that the last token is the last one although pad is eos
        )
        with torch.no_grad():
            own = float(model(ids).logits)
        assert judged(judge, [text])[0].value == pytest.approx(own, abs=1e-5)
    model.config.num_labels = 2
    model.config.save_pretrained(tmp_path / "rm")
    with pytest.raises(UserError, match="gives 2 numbers"):
        resolve(f"reward:{tmp_path}/rm", "judge")


def test_a_head_on_an_encoder(tmp_path: Path) -> None:
    from tests.models.local.conftest import tokenizer
    from transformers import BertConfig, BertModel

    words = tokenizer(template=False)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=160,
    )
    BertModel(config).save_pretrained(tmp_path / "bert")
    words.save_pretrained(tmp_path / "bert")
    base = str(tmp_path / "bert")
    for lora in (0, 4):
        given = make_settings(
            "reward", str(tmp_path / f"r{lora}"), base, lora=lora, steps=6, lr=3e-3
        )
        assert build_trainable_model(
            given, find_base_model(base), torch.device("cpu")
        ).model.head.weight.requires_grad
        train_supervised(given, [make_training_set(12)])
        judge = PreferenceJudge.load("reward", given.out)
        rows = [judge.scorer.row(ASK, t) for t in TEXTS]
        one = [judge.scorer.scores([r])[0] for r in rows]
        assert judge.scorer.scores(rows) == pytest.approx(one, abs=1e-5)
