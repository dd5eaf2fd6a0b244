"""`train_probes` on a tiny model: what it writes, what a second run reads again, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.models.local.conftest import write

from truing.core.errors import DataError, PlanError, UserError
from truing.core.types import Conversation, Lineage
from truing.hf.answer_states import AnswerStateEncoder
from truing.judges.probe import read_probes
from truing.train.labelled_answers import LabelledAnswer, LabelledAnswers
from truing.train.model_card import TrainedModelCard, read_model_card
from truing.train.probe import TrainedProbes, train_probes
from truing.train.probe_settings import ProbeSettings


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("base"), "llama")


def make_answers(n: int = 60, **fields: Any) -> LabelledAnswers:
    """Answers about cats are helpful, those about rain are not; every third is harmful."""
    items = [
        LabelledAnswer(
            conversation=Conversation.of(f"how do I repair wheel {k // 2}?"),
            text=("the cat sat on the mat" if k % 2 else "rain rain rain") + f" {k}",
            is_cut=False,
            labels={"helpful": bool(k % 2)} | ({"harmful": k % 3 == 0} if k % 5 else {}),
        )
        for k in range(n)
    ]
    return LabelledAnswers(spec="memory:answers", items=tuple(items), licence="CC0-1.0", **fields)


def train(base: Path, out: Path, *sources: LabelledAnswers, **fields: Any) -> TrainedProbes:
    fields = {"dtype": "float32", "device": "cpu", "max_length": 256, **fields}
    settings = ProbeSettings(out=str(out), base=str(base), **fields)
    return train_probes(settings, sources or (make_answers(),))


def test_a_probe_of_each_question_with_labels(base: Path, tmp_path: Path) -> None:
    judge = Lineage(name="llm:rubric", hash="abc")
    trained = train(base, tmp_path / "p", make_answers(judges=(judge,)))
    assert list(trained.fits) == ["harmful", "helpful"]
    assert trained.fits["helpful"].held_out.estimate > 0.99
    assert (trained.fits["harmful"].n, trained.fits["helpful"].n) == (48, 60)
    assert trained.layer == 2 and trained.unreadable == trained.left_out == {}

    probes, card = read_probes(tmp_path / "p")
    assert card.base == str(base)
    assert probes.layer == 2
    assert probes.questions["helpful"].weights == trained.fits["helpful"].weights
    full_card = read_model_card(tmp_path / "p")
    assert full_card is not None and full_card.kind == "probe"
    assert full_card.lineage.judges == (judge,)
    assert len(full_card.lineage.prompts) == 30
    assert full_card.lineage.data == ("memory:answers",)
    assert "CC0-1.0" in full_card.lineage.licence
    evaluation = json.loads((tmp_path / "p" / "evaluation.json").read_text())
    assert evaluation["helpful"]["n_true"] == 30
    readme = (tmp_path / "p" / "README.md").read_text()
    assert "`probe:FOLDER` of truing" in readme and "held_out_auroc" in readme


def test_states_that_are_stored_are_not_read_again(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(base, tmp_path / "p")
    probe_file = (tmp_path / "p" / "probe.json").read_bytes()

    def fail(*_: object) -> None:
        raise AssertionError("the states were read again")

    with monkeypatch.context() as patch:
        patch.setattr(AnswerStateEncoder, "states", fail)
        again = train(base, tmp_path / "p")
        # Other labels need no new pass.
        relabelled = make_answers()
        items = tuple(
            msgspec.structs.replace(item, labels={"odd": item.labels["helpful"]})
            for item in relabelled.items
        )
        others = train(base, tmp_path / "p", msgspec.structs.replace(relabelled, items=items))
    assert again.fits == first.fits
    assert list(others.fits) == ["odd"]
    # A file that was damaged is read anew.
    [stored] = (tmp_path / "p" / "states").iterdir()
    for damaged in (stored.read_bytes()[:-40], b""):
        stored.write_bytes(damaged)
        train(base, tmp_path / "p")
        assert (tmp_path / "p" / "probe.json").read_bytes() == probe_file


def test_of_new_labels_only_new_answers_are_read(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = make_answers(62)
    train(base, tmp_path / "p", msgspec.structs.replace(answers, items=answers.items[2:]))
    read: list[int] = []
    states = AnswerStateEncoder.states

    def counted(self: AnswerStateEncoder, rows: Any) -> Any:
        read.append(len(rows))
        return states(self, rows)

    monkeypatch.setattr(AnswerStateEncoder, "states", counted)
    later = train(base, tmp_path / "p", answers)
    assert read == [2]
    fresh = train(base, tmp_path / "q", answers)
    assert read == [2, 62]
    assert later.fits["helpful"].weights == pytest.approx(fresh.fits["helpful"].weights, abs=1e-3)


def test_another_layer_is_read_of_its_own(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path / "p")
    trained = train(base, tmp_path / "p", layer=1, questions=("helpful",))
    assert trained.layer == 1
    assert list(trained.fits) == ["helpful"]
    assert len(list((tmp_path / "p" / "states").iterdir())) == 2


def test_answers_that_cannot_be_read_whole_are_counted(base: Path, tmp_path: Path) -> None:
    answers = make_answers()
    long, ended = (
        msgspec.structs.replace(answers.items[0], text=text)
        for text in ("the cat " * 200, "the cat<|im_end|> and more")
    )
    answers = msgspec.structs.replace(answers, items=(*answers.items, long, ended))
    trained = train(base, tmp_path / "p", answers, max_length=120)
    assert trained.unreadable == {
        "longer than 120 tokens with the prompt": 1,
        "refused or changed by the chat template": 1,
    }
    # Too few labels are left when what cannot be read is gone: that question alone has no probe.
    items = [
        msgspec.structs.replace(item, labels={**item.labels, "rare": k % 6 == 0})
        if k
        else msgspec.structs.replace(item, labels={"rare": True}, text="the cat " * 200)
        for k, item in enumerate(make_answers().items)
    ]
    rare = msgspec.structs.replace(make_answers(), items=tuple(items))
    trained = train(base, tmp_path / "r", rare, max_length=120)
    assert list(trained.fits) == ["harmful", "helpful"]
    assert "rare: 9 labels are true" in trained.left_out["rare"]
    with pytest.raises(DataError, match="no answer can be read: 60 longer than 4 tokens"):
        train(base, tmp_path / "q", max_length=4)
    assert not (tmp_path / "q" / "truing.json").exists()


def test_a_question_with_too_few_labels_stops_nothing_unless_it_is_named(
    base: Path, tmp_path: Path
) -> None:
    answers = make_answers()
    items = [
        msgspec.structs.replace(
            item, labels={**item.labels, "degenerate": k == 0, "is it polite?": k % 2 == 0}
        )
        for k, item in enumerate(answers.items)
    ]
    answers = msgspec.structs.replace(answers, items=tuple(items))
    trained = train(base, tmp_path / "p", answers)
    assert list(trained.fits) == ["harmful", "helpful"]
    assert "1 labels are true, of 1 prompts" in trained.left_out["degenerate"]
    assert "one word of letters" in trained.left_out["is it polite?"]
    with pytest.raises(DataError) as raised:
        train(base, tmp_path / "q", answers, questions=("degenerate", "polite", "helpful"))
    assert len(raised.value.faults) == 2  # before the model is loaded, and all together
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"questions": ("helpfull",)}, DataError, "no answer has a label.*did you mean 'helpful'"),
        ({"max_length": 0}, PlanError, "max_length = 0"),
        ({"max_length": 100_000}, PlanError, "reads 1 to 256 tokens"),
        ({"layer": 9}, PlanError, "has layers 1 to 3"),
        ({"base": "/nowhere"}, UserError, "nowhere"),
    ],
)
def test_settings_that_do_not_fit(
    base: Path, tmp_path: Path, fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = {"out": str(tmp_path / "p"), "base": str(base), "max_length": 256, **fields}
    settings = ProbeSettings(**given)
    with pytest.raises(error, match=message):
        train_probes(settings, [make_answers()])
    assert not (tmp_path / "p" / "truing.json").exists()


def test_states_that_overflow_are_an_error(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(self: AnswerStateEncoder, rows: Any) -> Any:
        return np.full((len(rows), self.width), np.inf, dtype=np.float32)

    monkeypatch.setattr(AnswerStateEncoder, "states", overflow)
    with pytest.raises(DataError, match="states of answers are not finite"):
        train(base, tmp_path / "p")
    assert not (tmp_path / "p" / "truing.json").exists()


def test_a_folder_of_another_model_is_not_overwritten(base: Path, tmp_path: Path) -> None:
    card = TrainedModelCard(kind="dpo", base="b", base_sha256="0")
    (tmp_path / "truing.json").write_bytes(msgspec.json.encode(card))
    with pytest.raises(UserError, match="holds a dpo model; give another --out"):
        train(base, tmp_path)


def test_the_base_itself_is_not_overwritten(base: Path) -> None:
    with pytest.raises(UserError, match="holds a model; give another --out"):
        train(base, base)
    assert not (base / "probe.json").exists()


def test_files_of_something_else_are_not_overwritten(base: Path, tmp_path: Path) -> None:
    for name in ("README.md", "evaluation.json", "manifest.json"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(UserError, match=f"holds {name} of something else"):
            train(base, tmp_path)
        (tmp_path / name).unlink()
