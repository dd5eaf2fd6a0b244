"""`pairs:`, `trl:` and `run:`: pairs that the published sets lack, TRL's columns, the answers of a
run.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from truing.core.errors import DataError, RunError, SpecError
from truing.core.lineage import hash_prompt
from truing.core.types import Answer, Conversation, Judgement, Lineage, Response, Sample, Sampling
from truing.datasets.preference_pairs import REFUSALS, damage_answer
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.models.scripted import ScriptedModel
from truing.specs.resolve import resolve
from truing.train.training_data import read_training_set


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return str(path)


def test_benign_pairs_prefer_the_answer_to_the_refusal() -> None:
    data = resolve("pairs:benign", "data")
    pairs = list(data.preferences())
    assert len(pairs) == 160 and all(p.tags["benign"] == "yes" and p.signs == (1, 1) for p in pairs)
    assert all(any(p.rejected.content.startswith(r) for r in REFUSALS) for p in pairs)
    assert not any(r in p.chosen.content for p in pairs for r in REFUSALS)
    # length alone tells nothing: half of the refusals are longer than their answer
    assert sum(len(p.rejected.content) > len(p.chosen.content) for p in pairs) == 80
    assert len({(p.conversation.prompt, p.rejected.content) for p in pairs}) == 160
    halves = [
        {p.conversation.prompt for p in resolve(f"pairs:benign,half={h}", "data").preferences()}
        for h in ("train", "report")
    ]
    assert (
        not halves[0] & halves[1]
        and len(halves[0] | halves[1]) == 80
        and min(map(len, halves)) >= 30
    )


def test_benign_prompts_are_not_the_reports(data_dir: Path) -> None:
    ours = {
        hash_prompt(p.conversation.prompt) for p in resolve("pairs:benign", "data").preferences()
    }
    theirs = {
        hash_prompt(r.sample.prompt) for r in resolve(f"xstest,data_dir={data_dir}", "data").rows()
    }
    safety = {hash_prompt(r.sample.prompt) for r in resolve("builtin:safety", "data").rows()}
    assert not ours & (theirs | safety) and len(theirs) >= 400


def test_truthful_pairs(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUING_DATA", str(data_dir))
    rows = {r.sample.prompt: r.sample for r in resolve("truthfulqa", "data").rows()}
    pairs = list(resolve("pairs:truthful", "data").preferences())
    assert len(pairs) > 1500
    for p in pairs:
        sample = rows[p.conversation.prompt]
        right = {sample.choices[k] for k in sample.answer}
        assert p.chosen.content in right and p.rejected.content not in right
    train = list(resolve("pairs:truthful,half=train", "data").preferences())
    report = list(resolve("pairs:truthful,half=report", "data").preferences())
    assert len(train) + len(report) == len(pairs)
    assert not {p.conversation.prompt for p in train} & {p.conversation.prompt for p in report}
    both = list(resolve("pairs:helpful,half=train", "data").preferences())
    assert sum(p.tags.get("benign") == "yes" for p in both) + len(train) == len(both)


def test_synthetic_pairs_say_so(tmp_path: Path) -> None:
    text = "Turn the nipple a quarter of a turn and look at the rim again before the next one."
    path = lines(
        tmp_path / "a.jsonl",
        [
            {"prompt": "How?", "response": text},
            {"prompt": "Bad?", "response": text, "harmful": True},
            {"prompt": "Short?", "response": "No."},
            *({"prompt": f"How {k}?", "response": text} for k in range(30)),
        ],
    )
    pairs = list(resolve(f"pairs:synthetic,of=(file:{path})", "data").preferences())
    assert len(pairs) == 31 and {p.tags["damage"] for p in pairs} == {"shuffled", "cut", "refused"}
    assert all(p.tags["synthetic"] == "yes" and p.source.startswith("synthetic:") for p in pairs)
    how, said = damage_answer("How?", text)
    assert (how, said) == damage_answer("How?", text) and said != text
    with pytest.raises(SpecError, match=r"of=\(\.\.\.\) is missing"):
        resolve("pairs:synthetic", "data")
    with pytest.raises(SpecError, match="did you mean 'benign'"):
        resolve("pairs:bening", "data")


def test_answers_that_a_token_limit_ended_say_so(tmp_path: Path) -> None:
    rows = [{"prompt": "Q", "completion": "A", "cut": cut} for cut in (True, False, None)]
    data = resolve(f"trl:{lines(tmp_path / 's.jsonl', rows)}", "data")
    reasons = [row.responses[0].finish_reason for row in data.rows()]
    assert reasons == ["length", "stop", "stop"]
    assert [item.cut for item in read_training_set(data, "sft").items] == [True, False, False]
    pairs = [{"prompt": "Q", "chosen": "A", "rejected": "B", "cut": True}]
    data = resolve(f"trl:{lines(tmp_path / 'p.jsonl', pairs)}", "data")
    assert [item.cut for item in read_training_set(data, "dpo").items] == [True]
    wrong = lines(tmp_path / "w.jsonl", [{"prompt": "Q", "completion": "A", "cut": "perhaps"}])
    with pytest.raises(DataError, match=r"w\.jsonl:1.*cut"):
        list(resolve(f"trl:{wrong}", "data").rows())


def test_trls_columns(tmp_path: Path) -> None:
    user, good, bad = (
        {"role": r, "content": c}
        for r, c in (("user", "Q"), ("assistant", "A"), ("assistant", "B"))
    )
    path = lines(
        tmp_path / "p.jsonl",
        [
            {"prompt": "Q", "chosen": "A", "rejected": "B", "margin": 0.5, "signs": [1, -1]},
            {"prompt": [user], "chosen": [good], "rejected": [bad]},
            {"chosen": [user, good], "rejected": [user, bad]},
            {"prompt": [user], "chosen": [user, good], "rejected": [user, bad]},
        ],
    )
    pairs = list(resolve(f"trl:{path},dimension=safe", "data").preferences())
    assert [(p.conversation.prompt, p.chosen.content, p.rejected.content) for p in pairs] == [
        ("Q", "A", "B")
    ] * 4
    assert pairs[0].margin == 0.5 and pairs[0].signs == (1, -1) and pairs[1].dimension == "safe"
    assert not pairs[0].tags
    for wrong in ([1], [1, 0], "1,-1", [True, -1]):
        row = {"prompt": "Q", "chosen": "A", "rejected": "B", "signs": wrong}
        with pytest.raises(DataError, match=r"w\.jsonl:1.*signs"):
            list(resolve(f"trl:{lines(tmp_path / 'w.jsonl', [row])}", "data").preferences())
    path = lines(
        tmp_path / "s.jsonl",
        [
            {"messages": [user, good, user, bad]},
            {"prompt": "Q", "completion": "A"},
            {"prompt": [user], "completion": [good], "label": False},
        ],
    )
    rows = list(resolve(f"trl:{path}", "data").rows())
    assert [r.responses[0].text for r in rows] == ["B", "A", "A"] and len(
        rows[0].sample.conversation.messages
    ) == 3
    assert [r.judgements[0].verdict for r in rows[2:]] == [False]
    for row, word in (
        ({"chosen": [user, good], "rejected": [bad]}, "begin with the same dialogue"),
        ({"messages": [user]}, "no answer of the assistant"),
        ({"prompt": "Q", "chosen": "A", "rejected": "B", "signs": [1, 2]}, "signs: expected two"),
        ({"prompt": "", "completion": "A"}, "prompt: empty text"),
    ):
        path = lines(tmp_path / "x.jsonl", [row])
        data = resolve(f"trl:{path}", "data")
        with pytest.raises(DataError, match=rf"x\.jsonl:1.*{word}"):
            list(itertools.chain(data.preferences(), data.rows()))
    with pytest.raises(DataError, match="no such file"):
        resolve("trl:nowhere.jsonl", "data")


class Length:
    """A judge whose value is the answer's length."""

    def __init__(self, question: str = "reward") -> None:
        self.name, self.question = f"length:{question}", question
        self.lineage = Lineage(name=self.name, hash=f"h-{question}")

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        return Judgement(
            sample_id=sample.id,
            index=response.index,
            judge=self.name,
            question=self.question,
            value=float(len(response.text)),
            verdict=len(response.text) > 4,
        )


class Grows(ScriptedModel):
    """Answers of growing length."""

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        return tuple(Answer.of("x" * (2 + 3 * k)) for k in range(sampling.n))


def test_a_run_is_a_data_set_and_by_a_judge_pairs(tmp_path: Path) -> None:
    data = resolve("builtin:helpful,limit=5", "data")
    options = EvaluateOptions(sampling=Sampling(n=3))
    evaluate(Grows("mixed"), data, [Length(), Length("harmful")], tmp_path / "run", options=options)
    evaluate(
        Grows("mixed"),
        data,
        [Length()],
        tmp_path / "other",
        options=EvaluateOptions(sampling=Sampling(n=1)),
    )
    rows = list(resolve(f"run:{tmp_path}/run", "data").rows())
    assert [len(r.responses) for r in rows] == [3] * 5
    assert [len(r.judgements) for r in rows] == [6] * 5
    best = list(resolve(f"run:{tmp_path}/run,by=length:reward", "data").preferences())
    assert [(len(p.chosen.content), len(p.rejected.content), p.dimension) for p in best] == [
        (8, 2, "helpful")
    ] * 5
    safe = resolve(f"run:{tmp_path}/run,by=length:harmful", "data")
    pairs = list(safe.preferences())
    assert [(len(p.chosen.content), p.dimension, p.signs) for p in pairs] == [
        (2, "safe", (1, -1))
    ] * 5
    assert [j.name for j in safe.judges] == ["length:harmful"]
    both = list(resolve(f"run:{tmp_path}/other|{tmp_path}/run", "data").rows())
    assert [len(r.responses) for r in both] == [4] * 5 and [r.index for r in both[0].responses] == [
        0,
        1,
        2,
        3,
    ]
    assert not list(resolve(f"run:{tmp_path}/run,by=length:reward,gap=10", "data").preferences())
    with pytest.raises(DataError, match="did you mean 'length:reward'"):
        resolve(f"run:{tmp_path}/run,by=length:reword", "data")
    with pytest.raises(RunError, match="no run folder"):
        resolve(f"run:{tmp_path}/nowhere", "data")
