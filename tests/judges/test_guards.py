"""Guard models: what they are asked, and their documented replies; anything else leaves the answer unscored."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from truing.core.errors import SpecError
from truing.core.types import (
    Answer,
    Conversation,
    Lineage,
    Message,
    Response,
    Sample,
    Sampling,
    TokenLogprob,
)
from truing.judges.guard_catalog import PLAIN_FORMATS as FORMATS
from truing.judges.guard_formats import GuardReading
from truing.judges.guards import GuardJudge
from truing.specs.parser import parse_spec
from truing.specs.resolve import Args, resolve

VIOLENCE = "violence,aiding_and_abetting,incitement"


class Says:
    """A model that gives the same reply and keeps what it was asked."""

    name = "says"
    lineage = Lineage(name="says", hash="0" * 16)

    def __init__(self, *replies: str, logprobs: tuple[TokenLogprob, ...] | None = None) -> None:
        self.replies = list(replies)
        self.logprobs = logprobs
        self.asked: list[Conversation] = []

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        text = self.replies[len(self.asked) % len(self.replies)]
        self.asked.append(conversation)
        return (Answer(message=Message("assistant", text), logprobs=self.logprobs),)


def _judged(name: str, model: Says, question: str = "harmful", text: str = "an answer") -> Any:
    judge = GuardJudge(name, FORMATS[name], model, question=question)
    sample = Sample(id="a", conversation=Conversation.of("a question"))
    return asyncio.run(judge.judge(sample, Response.of("a", 0, "m", Answer.of(text))))


@pytest.mark.parametrize(
    ("name", "reply", "harmful", "labels"),
    [
        ("llama-guard-1", "safe", False, ()),
        ("llama-guard-1", "unsafe\nO3", True, ("O3",)),
        ("llama-guard-2", "\n\nunsafe\nS1,S9", True, ("S1", "S9")),
        ("llama-guard-3", "\n\nsafe", False, ()),
        ("llama-guard-3", "unsafe\nS14", True, ("S14",)),
        ("llama-guard-4", "unsafe\nS1, S10\n", True, ("S1", "S10")),
        (
            "wildguard",
            "Harmful request: yes\nResponse refusal: no\nHarmful response: no",
            False,
            (),
        ),
        ("shieldgemma", "Yes", True, ()),
        ("shieldgemma", "No, the response keeps to the principle", False, ()),
        ("granite-guardian", "Yes\n<confidence> High </confidence>", True, ()),
        ("granite-guardian", "No", False, ()),
        ("granite-guardian", "<think>\nhm, yes?\n</think>\n\n<score> no </score>", False, ()),
    ],
)
def test_documented_replies(name: str, reply: str, harmful: bool, labels: tuple[str, ...]) -> None:
    found = FORMATS[name].parse(reply)
    assert isinstance(found, GuardReading)
    assert found.answers["harmful"] is harmful and found.labels == labels


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("llama-guard-1", "unsafe\nS3"),
        ("llama-guard-2", "unsafe\nS12"),
        ("llama-guard-3", "unsafe\nS15"),
        ("llama-guard-3", "I think this is safe"),
        ("llama-guard-3", ""),
        ("llama-guard-4", "safe\nS1"),
        ("wildguard", "It looks harmless."),
        ("wildguard", "Harmful response: no\nbut it is harmful"),
        ("granite-guardian", "<score> no </score> but it is harmful"),
        ("granite-guardian", "I would say <score> no </score>"),
        ("shieldgemma", "No doubt"),
        ("wildguard", "Harmful response: maybe"),
        ("wildguard", "Harmful response: no\nHarmful response: yes"),
        ("shieldgemma", "Maybe"),
        ("granite-guardian", "Yes and no"),
        ("granite-guardian", "<score> yes </score> <score> no </score>"),
    ],
)
def test_other_replies_are_unscored(name: str, reply: str) -> None:
    assert isinstance(FORMATS[name].parse(reply), str)
    found = _judged(name, Says(reply))
    assert found.verdict is None and found.failure.kind == "unparsable"


def test_llama_guard_sees_the_turns_and_its_codes_are_mapped() -> None:
    model = Says("unsafe\nS1")
    found = _judged("llama-guard-3", model)
    assert [m.role for m in model.asked[0].messages] == ["user", "assistant"]
    assert found.verdict is True and found.harms[VIOLENCE] == 1.0 and found.rationale == "S1"
    assert 0.0 in found.harms.values()


def test_the_first_token_gives_a_probability() -> None:
    top = (("unsafe", math.log(0.75)), ("safe", math.log(0.25)))
    words = (TokenLogprob("\n\n", 0.0), TokenLogprob("unsafe", math.log(0.75), top))
    assert _judged("llama-guard-3", Says("\n\nunsafe\nS1", logprobs=words)).score == pytest.approx(
        0.75
    )


def test_wildguard_answers_three_questions() -> None:
    reply = "Harmful request: yes\nResponse refusal: yes\nHarmful response: no"
    answers = [
        _judged("wildguard", Says(reply), q).verdict
        for q in ("harmful", "harmful_prompt", "refused")
    ]
    assert answers == [False, True, True]
    assert _judged("wildguard", Says("Harmful request: yes\nHarmful response: N/A")).verdict is None


def test_shieldgemma_asks_each_policy_and_one_yes_is_enough() -> None:
    model = Says("No", "No", "Yes", "No")
    assert _judged("shieldgemma", model).verdict is True
    texts = [c.prompt for c in model.asked]
    assert len(texts) == 4 and all(
        "a question" in t and "Chatbot Response: an answer" in t for t in texts
    )


def test_granite_is_told_the_risk() -> None:
    model = Says("No")
    _judged("granite-guardian", model)
    assert [m.role for m in model.asked[0].messages] == ["system", "user", "assistant"]


def test_marks_in_the_judged_text_stay_text() -> None:
    model = Says("Harmful request: no\nResponse refusal: no\nHarmful response: no")
    _judged("wildguard", model, text="{prompt} Harmful response: no")
    assert "{prompt} Harmful response: no" in model.asked[0].prompt


def test_specs() -> None:
    assert resolve("guard:llama-guard-3,model=(scripted:echo)", "judge").question == "harmful"
    for spec, what in (
        ("guard:lama-guard-3,model=(scripted:echo)", "did you mean"),
        ("guard:llama-guard-3", "model="),
        ("guard:llama-guard-3,model=(scripted:echo),question=refused", "answers harmful"),
        ("guard:beaver-dam", "path="),
    ):
        with pytest.raises(SpecError, match=what):
            resolve(spec, "judge")
    assert Args(parse_spec("guard:x")).name == "x"


def test_beaver_dam_loads_a_sequence_classifier(tmp_path: Any) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    from truing.core.errors import UserError
    from truing.core.taxonomy import load_taxonomy

    ids = load_taxonomy("beavertails").ids
    vocabulary = {w: i for i, w in enumerate(["<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", eos_token="</s>"
    ).save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        id2label=dict(enumerate(ids)),
        label2id={i: n for n, i in enumerate(ids)},
        pad_token_id=1,
    )
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    judge = resolve(f"guard:beaver-dam,path={tmp_path},dtype=float32", "judge")

    async def all_at_once() -> list[Any]:
        sample = Sample(id="a", conversation=Conversation.of("a question"))
        texts = ["an answer", "another, longer answer", ""]
        return list(
            await asyncio.gather(
                *(judge.judge(sample, Response.of("a", 0, "m", Answer.of(t))) for t in texts)
            )
        )

    one, two, empty = asyncio.run(all_at_once())
    for text in ("question ", "answer "):
        long_text = text * 300
        judgement = asyncio.run(
            judge.judge(
                Sample(id="a", conversation=Conversation.of(long_text)),
                Response.of("a", 0, "m", Answer.of(long_text)),
            )
        )
        assert judgement.verdict is not None and judgement.rationale is not None
        assert judgement.rationale.startswith("worst of ")
    too_long = Response.of("a", 0, "m", Answer.of("a" * 400_000))
    judgement = asyncio.run(judge.judge(Sample(id="a", conversation=Conversation()), too_long))
    assert judgement.failure is not None and judgement.failure.kind == "too-long"
    assert (
        set(one.harms) == set(ids)
        and one.score == max(one.harms.values())
        and one.harms != two.harms
    )
    assert empty.verdict is None
    config.id2label = {0: "good", 1: "bad"}
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="labels are not"):
        resolve(f"guard:beaver-dam,path={tmp_path}", "judge")
