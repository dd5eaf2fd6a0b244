"""`probe:DIR` as a judge: verdicts, weighted sums, best of n, and specs that do not fit."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.local.conftest import write
from tests.train.test_probe import train

from truing.align.best_of import BestOf
from truing.core.errors import SpecError, UserError
from truing.core.types import (
    Answer,
    Conversation,
    Failure,
    Judgement,
    Message,
    Response,
    Sample,
    Sampling,
)
from truing.judges.probe import ProbeJudge, list_shipped_probes, locate_probes, read_probes
from truing.models.scripted import ScriptedModel
from truing.specs.resolve import resolve
from truing.train.model_card import read_model_card

ASK = Conversation.of("how do I repair wheel 3?")
CAT, RAIN = "the cat sat on the mat 7", "rain rain rain 8"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("base"), "llama")


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probes") / "mine"
    train(base, out)
    return out


def load(folder: Path, args: str) -> ProbeJudge:
    return resolve(f"probe:{folder},{args}", "judge")


def judged(judge: ProbeJudge, *texts: str, **fields: Any) -> list[Judgement]:
    async def go() -> list[Judgement]:
        sample = Sample(conversation=ASK, id="s")
        responses = [
            Response(sample_id="s", index=k, model="m", message=Message("assistant", t), **fields)
            for k, t in enumerate(texts)
        ]
        return await asyncio.gather(*(judge.judge(sample, r) for r in responses))

    return asyncio.run(go())


def test_a_verdict_with_its_probability(folder: Path) -> None:
    judge = load(folder, "question=helpful")
    assert (judge.name, judge.question) == ("probe:mine,question=helpful", "helpful")
    cat, rain = judged(judge, CAT, RAIN)
    assert (cat.verdict, rain.verdict) == (True, False)
    assert cat.score is not None and rain.score is not None and judge.threshold is not None
    assert cat.score > judge.threshold > rain.score
    # A value would be what best-of and its ceiling order by, in place of the probability.
    assert cat.value is None
    [alone] = judged(judge, CAT)
    assert alone.score == pytest.approx(cat.score, abs=1e-5)


def test_a_ceiling_lies_at_the_verdicts_threshold(folder: Path) -> None:
    judge = load(folder, "question=harmful,threshold=0.2")
    model = BestOf(ScriptedModel("mixed"), 2, load(folder, "question=helpful"), ceiling=judge)
    assert model.below == 0.2
    for args in ("question=helpful", "harmful=-1,helpful=1"):
        ceiling = load(folder, args)
        with pytest.raises(ValueError, match="name a question where yes is bad"):
            BestOf(ScriptedModel("mixed"), 2, judge, ceiling=ceiling)


def test_a_threshold_moves_the_verdict_and_names_the_judge(folder: Path) -> None:
    judge = load(folder, "question=helpful,threshold=0.999999")
    assert judge.name.endswith("question=helpful,threshold=0.999999")
    assert judged(judge, CAT)[0].verdict is False
    plain = load(folder, "question=helpful")
    assert judge.lineage.hash != plain.lineage.hash


def test_a_weighted_sum_is_a_value_without_a_verdict(folder: Path) -> None:
    harmful, helpful = (judged(load(folder, f"{q}=1"), CAT, RAIN) for q in ("harmful", "helpful"))
    judge = load(folder, "harmful=-1,helpful=1.3")
    assert judge.question == "reward"
    for k, found in enumerate(judged(judge, CAT, RAIN)):
        assert found.verdict is None and found.score is None
        expected = -harmful[k].value + 1.3 * helpful[k].value  # type: ignore[operator]
        assert found.value == pytest.approx(expected, abs=1e-3)


def test_best_of_n_chooses_by_it(folder: Path) -> None:
    class Several(ScriptedModel):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            texts = [RAIN, CAT, RAIN, RAIN][: sampling.n]
            return tuple(Answer(message=Message("assistant", text)) for text in texts)

    model = BestOf(Several("mixed"), 4, load(folder, "harmful=0.001,helpful=1"))
    assert model.prefer == "high"
    [best] = asyncio.run(model.generate(ASK, Sampling(n=1)))
    assert best.message.content == CAT
    assert any(judge.name.startswith("probe:mine") for judge in model.lineage.judges)


def test_what_cannot_be_judged_is_unscored(folder: Path) -> None:
    judge = load(folder, "question=harmful")
    [long, empty, fine] = judged(judge, "the cat " * 2000, " ", CAT)
    assert long.failure is not None and long.failure.kind == "too-long"
    assert empty.failure is not None and empty.failure.kind == "empty"
    assert fine.failure is None
    [failed] = judged(judge, CAT, failure=Failure("model", "timeout", "late"))
    assert failed.verdict is None and failed.failure is not None
    judge._direction = judge._direction * np.nan
    [ended] = judged(judge, "the cat<|im_end|> and more")
    assert ended.failure is not None and ended.failure.kind == "template"
    [broken] = judged(judge, CAT)
    assert broken.verdict is None
    assert broken.failure is not None and broken.failure.kind == "not-finite"


def test_its_lineage_holds_the_prompts_that_it_learned_from(folder: Path) -> None:
    card = read_model_card(folder)
    judge = load(folder, "question=harmful")
    assert load(folder, "question=helpful").encoder is judge.encoder  # loaded once
    assert card is not None
    assert judge.lineage.prompts == card.lineage.prompts
    assert judge.lineage.hash not in ("", card.lineage.hash)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("dtype=float32", "holds probes of harmful, helpful: question=NAME gives the verdict"),
        ("question=helpfull", "the folder holds harmful, helpful.*did you mean 'helpful'"),
        ("question=helpful,harmful=1", "either question= or weights"),
        ("harmful=0,helpful=0", "not all 0"),
        ("harmful=nan", "not all 0"),
        ("harmful=much", "harmful=much"),
        ("question=helpful,threshold=1", "above 0 and below 1"),
        ("helpful=1,threshold=0.3", "a weighted sum gives none"),
        ("question=helpful,batch=0", "at least 1 token"),
        ("question=helpful,bach=3", "bach"),
    ],
)
def test_specs_that_do_not_fit(folder: Path, args: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(folder, args)


def test_a_single_question_needs_no_name(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path / "one", questions=("helpful",))
    judge = resolve(f"probe:{tmp_path / 'one'}", "judge")
    assert judge.question == "helpful"


def test_other_weights_than_those_it_learned_from_are_refused(
    base: Path, folder: Path, tmp_path: Path
) -> None:
    other = write(tmp_path / "other", "llama", intermediate_size=80)
    with pytest.raises(SpecError, match="base=FOLDER names the right ones"):
        load(folder, f"question=helpful,base={other}")
    with pytest.raises(SpecError, match="base=FOLDER names the base if it was moved"):
        load(folder, "question=helpful,base=/nowhere")
    assert load(folder, f"question=helpful,base={base}").question == "helpful"


def test_a_folder_goes_before_shipped_probes_of_the_same_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "smollm2" in list_shipped_probes()
    monkeypatch.chdir(tmp_path)
    assert locate_probes("smollm2").parent.name == "probes"
    shutil.copytree(folder, tmp_path / "smollm2")
    assert locate_probes("smollm2") == Path("smollm2")


def test_the_shipped_probes_find_something() -> None:
    probes, card = read_probes("smollm2")
    assert list(probes.questions) == ["harmful", "helpful", "refused"]
    # Few of the graded answers are harmful: a verdict above a half would find next to none.
    assert probes.questions["harmful"].threshold < 0
    assert card.base == "smollm2"


def test_folders_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="give the folder"):
        resolve("probe:", "judge")
    with pytest.raises(UserError, match=r"no truing\.json there; `truing train probe`"):
        resolve(f"probe:{tmp_path}", "judge")
    copy = tmp_path / "copy"
    copy.mkdir()
    card = json.loads((folder / "truing.json").read_text())
    (copy / "truing.json").write_text(json.dumps({**card, "kind": "cost"}))
    with pytest.raises(UserError, match="holds a cost model, no probe"):
        resolve(f"probe:{copy}", "judge")
    (copy / "truing.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"no probe\.json there"):
        read_probes(copy)
    (copy / "probe.json").write_text("{}")
    with pytest.raises(UserError, match="layer"):
        read_probes(copy)
    probes = json.loads((folder / "probe.json").read_text())
    probes["questions"]["helpful"]["weights"] = [1.0, 2.0]
    (copy / "probe.json").write_text(json.dumps(probes))
    with pytest.raises(SpecError, match="has 2 weights, and a state of .* 64 numbers"):
        load(copy, "question=helpful")
    probes["questions"]["helpful"]["bias"] = 1e999
    (copy / "probe.json").write_text(json.dumps(probes).replace("Infinity", "1e999"))
    with pytest.raises(UserError):
        read_probes(copy)
