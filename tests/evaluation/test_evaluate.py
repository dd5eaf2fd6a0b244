"""The run from data to folder: what is written, what a second call does, what is refused."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from tests.model_stand_ins import EvenJudge, MemoryDataset, SeedModel

from truing.core.errors import BudgetExceeded, DataError, PlanError, RunError
from truing.core.types import (
    Answer,
    Conversation,
    Judgement,
    Lineage,
    Message,
    Response,
    Row,
    Sample,
    Sampling,
    stream_seed,
)
from truing.evaluation.evaluate import evaluate, judge_run
from truing.evaluation.options import EvaluateOptions
from truing.models.scripted import ScriptedModel
from truing.runs.folder import Run


def files(run: Run) -> dict[str, bytes]:
    """The bytes of a run's lines by name."""
    return {str(p.relative_to(run.path)): p.read_bytes() for p in sorted(run.path.rglob("*.jsonl"))}


def test_a_run_is_samples_answers_and_judgements_in_order(tmp_path: Path) -> None:
    model, judge = ScriptedModel(lambda c, s: c.prompt.split(":")[0]), EvenJudge()
    run = evaluate(
        model,
        MemoryDataset.of_size(40),
        [judge],
        tmp_path / "run",
        options=EvaluateOptions(concurrency=7),
    )
    samples, responses, judgements = (
        list(run.samples()),
        list(run.responses()),
        list(run.judgements()),
    )
    assert (
        [r.sample_id for r in responses]
        == [s.id for s in samples]
        == [j.sample_id for j in judgements]
    )
    assert [r.text for r in responses] == [f"Question {i}" for i in range(40)]
    assert [j.verdict for j in judgements] == [len(f"Question {i}") % 2 == 0 for i in range(40)]
    manifest = run.manifest
    assert manifest.complete
    assert manifest.data[0].n == 40
    assert [j.file for j in manifest.judges] == [
        f"judgements/test-even-{judge.lineage.hash[:8]}.jsonl"
    ]
    assert (run.path.stat().st_mode & 0o777) == 0o700


def test_the_same_call_again_asks_nobody(tmp_path: Path) -> None:
    model, judge = SeedModel(), EvenJudge()
    first = files(evaluate(model, MemoryDataset.of_size(9), [judge], tmp_path / "run"))
    assert len(model.prompts) == 9
    assert files(evaluate(model, MemoryDataset.of_size(9), [judge], tmp_path / "run")) == first
    assert (len(model.prompts), judge.calls) == (9, 9)


def test_answers_come_in_any_order_and_end_in_the_samples_order(tmp_path: Path) -> None:
    async def slow_first(conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        number = int(conversation.prompt.split()[1].rstrip(":"))
        await asyncio.sleep(0.0005 * (30 - number))
        return (Answer.of(f"answer {number}"),)

    model = SeedModel()
    model.generate = slow_first  # type: ignore[method-assign]
    run = evaluate(
        model,
        MemoryDataset.of_size(30),
        [EvenJudge()],
        tmp_path / "run",
        options=EvaluateOptions(concurrency=30),
    )
    assert [r.text for r in run.responses()] == [f"answer {i}" for i in range(30)]
    assert [j.sample_id for j in run.judgements()] == [s.id for s in run.samples()]


def test_each_sample_and_answer_has_a_stream_of_its_own(tmp_path: Path) -> None:
    options = EvaluateOptions(seed=3, sampling=Sampling(n=2))
    run = evaluate(SeedModel(), MemoryDataset.of_size(5), [], tmp_path / "run", options=options)
    for r in run.responses():
        assert r.text == f"{stream_seed(3, r.sample_id)}/{r.index}"
    texts = {r.text for r in run.responses()}
    assert len(texts) == 10


def test_a_run_cut_anywhere_ends_the_same(tmp_path: Path) -> None:
    options = EvaluateOptions(sampling=Sampling(n=3), concurrency=4)
    whole = files(
        evaluate(
            SeedModel(),
            MemoryDataset.of_size(20),
            [EvenJudge()],
            tmp_path / "whole",
            options=options,
        )
    )
    size = len(whole["responses.jsonl"])
    for cut in (0, 1, size // 3, size // 2 + 7, size - 1):
        out = tmp_path / f"cut{cut}"
        run = evaluate(SeedModel(), MemoryDataset.of_size(20), [EvenJudge()], out, options=options)
        manifest = json.loads((out / "manifest.json").read_text())
        (out / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
        for path in (out / "responses.jsonl", *(out / "judgements").iterdir()):
            data = path.read_bytes()
            path.write_bytes(data[: cut * len(data) // size])
        model = SeedModel()
        assert (
            files(evaluate(model, MemoryDataset.of_size(20), [EvenJudge()], out, options=options))
            == whole
        )
        assert len(model.prompts) <= 20
        assert run.manifest.complete


def test_judge_adds_to_a_finished_run_without_asking(tmp_path: Path) -> None:
    model = SeedModel()
    run = evaluate(model, MemoryDataset.of_size(12), [EvenJudge()], tmp_path / "run")
    second = EvenJudge("test:second", "odd")
    judge_run(run, second)
    judge_run(run.path, [second])
    assert (len(model.prompts), second.calls) == (12, 12)
    assert [j.question for j in run.manifest.judges] == ["even", "odd"]
    assert len(list(run.judgements("test:second"))) == 12
    assert run.manifest.complete
    assert "judging" not in run.manifest.notes


def test_recorded_answers_and_peoples_judgements_become_a_run(tmp_path: Path) -> None:
    rows = []
    for i in range(6):
        sample = Sample(id=f"s{i}", conversation=Conversation.of(f"prompt {i}"))
        texts = ("x" * i, "x" * (i + 1))
        responses = tuple(
            Response(sample_id=sample.id, index=k, message=Message("assistant", t))
            for k, t in enumerate(texts)
        )
        people = tuple(
            Judgement(
                sample_id=sample.id,
                index=0,
                judge="human:crowd",
                rater=str(k),
                question="harmful",
                verdict=bool(k),
            )
            for k in range(3)
        )
        rows.append(Row(sample=sample, responses=responses, judgements=people))
    run = evaluate(None, MemoryDataset(rows), [EvenJudge()], tmp_path / "run")
    assert run.manifest.model == "recorded"
    assert [(r.sample_id, r.index, r.model) for r in run.responses()][:3] == [
        ("s0", 0, "recorded"),
        ("s0", 1, "recorded"),
        ("s1", 0, "recorded"),
    ]
    assert len(list(run.judgements("human:crowd"))) == 18
    assert [(j.sample_id, j.index, j.verdict) for j in run.judgements("test:even")][:3] == [
        ("s0", 0, True),
        ("s0", 1, False),
        ("s1", 0, False),
    ]
    with pytest.raises(DataError, match="no recorded answers"):
        evaluate(None, MemoryDataset.of_size(3), [], tmp_path / "none")
    assert not (tmp_path / "none").exists()


class Prefix:
    """Puts a word before the prompt; fails on one."""

    name = "test:prefix"

    async def attack(self, sample: Sample, target: object) -> Sample:
        if "Question 3:" in sample.prompt:
            raise RuntimeError("no idea")
        return Sample(conversation=Conversation.of(f"Please. {sample.prompt}"), parent=sample.id)


def test_an_attack_writes_the_samples_that_were_asked_and_their_parents(tmp_path: Path) -> None:
    model = SeedModel()
    run = evaluate(
        model,
        MemoryDataset.of_size(6),
        [EvenJudge()],
        tmp_path / "run",
        attack=Prefix(),
        options=EvaluateOptions(concurrency=3),
    )
    asked = list(run.samples())
    parents = [s.id for s in MemoryDataset.of_size(6).rows() for s in [s.sample]]
    assert [s.parent for s in asked] == parents
    assert all(s.id != s.parent for s in asked)
    assert sorted(model.prompts) == sorted(s.prompt for i, s in enumerate(asked) if i != 3)
    failed = [r for r in run.responses() if r.failure]
    assert [(r.sample_id, r.failure.stage) for r in failed if r.failure] == [
        (asked[3].id, "attack")
    ]
    judge_run(run, EvenJudge("test:later"))
    assert len(list(run.judgements("test:later"))) == 6


class Stop:
    """Stops at the second yes."""

    question = "even"

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool | None]] = []

    def observe(self, sample_id: str, verdict: bool | None) -> bool:
        self.seen.append((sample_id, verdict))
        return sum(v is True for _, v in self.seen) == 5

    def __str__(self) -> str:
        return "five yes"


def test_until_looks_at_draws_in_the_order_drawn(tmp_path: Path) -> None:
    async def jittery(conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        await asyncio.sleep(0.0001 * (sampling.seed % 40))
        return (Answer.of("x" * (sampling.seed % 7)),)

    runs = []
    for concurrency in (1, 16):
        stop, model = Stop(), SeedModel()
        model.generate = jittery  # type: ignore[method-assign]
        run = evaluate(
            model,
            MemoryDataset.of_size(200),
            [EvenJudge()],
            tmp_path / str(concurrency),
            options=EvaluateOptions(until=stop, concurrency=concurrency, seed=1),
        )
        runs.append((stop.seen, files(run)))
        assert len(list(run.responses())) == len(stop.seen) == len(list(run.judgements()))
        assert run.manifest.notes["until"] == f"stopped after {len(stop.seen)} of 200 draws"
    assert runs[0] == runs[1]
    assert [i for i, _ in runs[0][0]] != [r.sample.id for r in MemoryDataset.of_size(200).rows()][
        : len(runs[0][0])
    ]
    with pytest.raises(PlanError, match="no judge of this run answers"):
        evaluate(
            SeedModel(),
            MemoryDataset.of_size(3),
            [EvenJudge(question="harmful")],
            tmp_path / "x",
            options=EvaluateOptions(until=Stop()),
        )


def test_another_plan_and_another_process_are_refused_with_a_clear_word(tmp_path: Path) -> None:
    run = evaluate(SeedModel(), MemoryDataset.of_size(3), [], tmp_path / "run")
    with pytest.raises(RunError, match=r"holds a run of another plan \(seed: 0, not 1\)"):
        evaluate(
            SeedModel(), MemoryDataset.of_size(3), [], run.path, options=EvaluateOptions(seed=1)
        )
    with pytest.raises(RunError, match="data_sha256"):
        evaluate(SeedModel(), MemoryDataset.of_size(4), [], run.path)
    from truing.runs.folder import RunWriter

    writer = RunWriter(run.path, run.manifest)
    with pytest.raises(RunError, match="another process is writing"):
        evaluate(SeedModel(), MemoryDataset.of_size(3), [EvenJudge()], run.path)
    writer.close()


def test_faults_of_yours_come_together_and_before_the_first_call(tmp_path: Path) -> None:
    model = SeedModel()
    with pytest.raises(PlanError) as caught:
        evaluate(
            model,
            MemoryDataset.of_size(2),
            [EvenJudge(), EvenJudge()],
            tmp_path / "a",
            options=EvaluateOptions(concurrency=0, limit=0),
        )
    assert len(caught.value.faults) == 3
    sample = Sample(id="same", conversation=Conversation.of("x"))
    with pytest.raises(DataError, match="row 2: the id 'same' occurs more than once"):
        evaluate(model, MemoryDataset([Row(sample=sample)] * 2), [], tmp_path / "b")
    with pytest.raises(DataError, match="no rows"):
        evaluate(model, MemoryDataset([]), [], tmp_path / "c")
    assert not (tmp_path / "b").exists()
    assert model.prompts == []


def test_trouble_of_the_world_is_data(tmp_path: Path) -> None:
    class Odd(SeedModel):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            number = int(conversation.prompt.split()[1].rstrip(":"))
            if number == 0:
                raise OSError("the line\nis dead")
            if number == 1:
                return ()
            if number == 2:
                return (Answer.of("z" * 1_500_000),)
            if number == 3:
                return (Answer.of("half \ud800 a character"),)
            if number == 4:
                return ("text",)  # type: ignore[return-value]
            return (Answer.of(""),)

    class Raises(EvenJudge):
        async def judge(self, sample: Sample, response: Response) -> Judgement:
            if not response.text:
                raise ZeroDivisionError("by nothing")
            return await super().judge(sample, response)

    run = evaluate(Odd(), MemoryDataset.of_size(6), [Raises()], tmp_path / "run")
    kinds = [(r.failure.stage, r.failure.kind) if r.failure else None for r in run.responses()]
    told = [
        ("model", "exception"),
        ("model", "empty"),
        ("model", "too_large"),
        None,
        ("model", "unparsable"),
        None,
    ]
    assert kinds == told
    assert [len(r.text) for r in run.responses()][2] == 20_000
    first = next(run.responses()).failure
    assert first is not None and first.message == "OSError: the line is dead"
    judged = [(j.verdict, j.failure.kind if j.failure else None) for j in run.judgements()]
    assert judged == [
        (None, "exception"),
        (None, "empty"),
        (None, "too_large"),
        (True, None),
        (None, "unparsable"),
        (None, "exception"),
    ]


def test_failed_samples_are_asked_again_only_if_wanted(tmp_path: Path) -> None:
    down = True

    class Flaky(SeedModel):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            if down and "3" in conversation.prompt:
                return (Answer.failed("http", "503"),)
            return await super().generate(conversation, sampling)

    run = evaluate(Flaky(), MemoryDataset.of_size(8), [EvenJudge()], tmp_path / "run")
    down = False
    model = Flaky()
    evaluate(model, MemoryDataset.of_size(8), [EvenJudge()], run.path)
    assert model.prompts == []
    evaluate(
        model,
        MemoryDataset.of_size(8),
        [EvenJudge()],
        run.path,
        options=EvaluateOptions(retry_failures=True),
    )
    assert len(model.prompts) == 1
    whole = evaluate(SeedModel(), MemoryDataset.of_size(8), [EvenJudge()], tmp_path / "whole")
    assert files(run) == files(whole)


def test_a_spent_budget_keeps_what_came_and_goes_on_later(tmp_path: Path) -> None:
    class Poor(SeedModel):
        left = 5

        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            if self.left == 0:
                raise BudgetExceeded("5 requests are spent")
            self.left -= 1
            return await super().generate(conversation, sampling)

    with pytest.raises(BudgetExceeded, match="5 requests"):
        evaluate(
            Poor(),
            MemoryDataset.of_size(9),
            [EvenJudge()],
            tmp_path / "run",
            options=EvaluateOptions(concurrency=2),
        )
    run = Run(tmp_path / "run")
    assert len(list(run.responses())) == 5
    assert not run.manifest.complete
    model = Poor()
    evaluate(model, MemoryDataset.of_size(9), [EvenJudge()], run.path)
    assert len(model.prompts) == 4
    whole = evaluate(SeedModel(), MemoryDataset.of_size(9), [EvenJudge()], tmp_path / "whole")
    assert files(run) == files(whole)


def test_a_judge_that_chose_the_variant_is_struck(tmp_path: Path) -> None:
    judge = EvenJudge()
    model = SeedModel()
    model.lineage = Lineage(name="tuned", hash="1234", judges=(judge.lineage,))
    run = evaluate(model, MemoryDataset.of_size(2), [judge], tmp_path / "run")
    assert "tuned was chosen" in (run.manifest.judges[0].struck or "")


def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = files(evaluate(SeedModel(), MemoryDataset.of_size(5), [EvenJudge()], tmp_path / "a"))
    wall = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr(time, "time", lambda: float(next(wall)))
    assert (
        files(evaluate(SeedModel(), MemoryDataset.of_size(5), [EvenJudge()], tmp_path / "b"))
        == plain
    )


def test_progress_and_a_running_loop(tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []

    async def notebook() -> Run:
        options = EvaluateOptions(
            progress=lambda done, total, failures: seen.append((done, total, failures))
        )
        return evaluate(
            SeedModel(), MemoryDataset.of_size(4), [], tmp_path / "run", options=options
        )

    assert asyncio.run(notebook()).manifest.complete
    assert seen[0] == (0, 4, 0)
    assert seen[-1] == (4, 4, 0)
