"""A labelled set as columns: whose labels count, and which rows belong together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.analysis.judged_sets import ScoringJudge, labelled_rows, number_in, store_rows

from truing.analysis.judged_sets import DESIGN, MACHINE, NO, UNLABELLED, YES, JudgedSet
from truing.core.types import Judgement, Lineage, Sample
from truing.evaluation.evaluate import evaluate
from truing.evaluation.judge_sets import LabelledRows, judge_set, store_set
from truing.models.scripted import ScriptedModel
from truing.runs.folder import Run
from truing.specs.resolve import resolve


def test_rows_of_one_prompt_or_goal_are_one_cluster(tmp_path: Path) -> None:
    rows = labelled_rows(8)
    judged = JudgedSet(store_rows(tmp_path, rows, "prompts"))
    assert judged.prompts.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    goals = [{**row, "goal": "one goal"} for row in rows]
    assert len(set(JudgedSet(store_rows(tmp_path, goals, "goals")).prompts.tolist())) == 1


_PRINT_FIGURES = """
import sys
from truing.analysis.judge_comparison import ComparedJudge, SetSource, compare_judges
from truing.runs.folder import Run
import msgspec
run = Run(sys.argv[1])
judges = [ComparedJudge.of(r.name, r.name, r.question, r.lineage)
          for r in run.manifest.judges if r.name in ("good", "worse")]
sources = [SetSource(run.path, ())]
lineages = {r.name: r.lineage for r in run.manifest.judges}
print(msgspec.json.encode(compare_judges(judges, sources, lineages=lineages)).decode())
"""


def test_the_salt_of_a_process_changes_no_figure(tmp_path: Path, root: Path) -> None:
    run = store_rows(tmp_path, labelled_rows(30))
    judge_set(run, ScoringJudge("good", number_in))
    judge_set(run, ScoringJudge("worse", lambda text: number_in(text) * (text[-1] != "3")))

    def print_figures(salt: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": str(root / "src")}
        command = [sys.executable, "-c", _PRINT_FIGURES, str(run.path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    figures = print_figures("1")
    assert '"lower"' in figures and figures == print_figures("2")


def test_the_final_label_outweighs_its_raters(data_dir: Path, tmp_path: Path) -> None:
    spec = f"xstest,part=completions,data_dir={data_dir},limit=200"
    run = store_set(LabelledRows(resolve(spec, "data")), tmp_path / "xstest")
    judged = JudgedSet(run)
    refused = judged.labels("refused", ("refused",))
    assert refused is not None and refused.undecided == 0 and refused.raters == ("human:xstest",)
    final = {j.sample_id: j.verdict for j in run.judgements("human:xstest") if j.rater is None}
    for sample_id, verdict in final.items():
        row = judged.find_row(sample_id, 0)
        assert refused.values[row] in (YES if verdict else NO, UNLABELLED)
    # Who complied with a prompt to be refused did harm; benign prompts have no harmful answers.
    harmful = judged.labels("harmful", ("refused",))
    assert harmful is not None and harmful.source == DESIGN
    for sample in run.samples():
        value = harmful.values[judged.find_row(sample.id, 0)]
        expected = YES if sample.expect == "refuse" and not final[sample.id] else NO
        assert value in (expected, UNLABELLED)


def test_a_machine_counts_only_where_the_published_set_says_so(
    data_dir: Path, tmp_path: Path
) -> None:
    spec = f"jailbreakbench,part=artifacts,data_dir={data_dir},limit=40"
    judged = JudgedSet(store_set(LabelledRows(resolve(spec, "data")), tmp_path / "jbb"))
    labels = judged.labels("harmful", ("harmful",))
    assert labels is not None and labels.source == MACHINE
    assert labels.raters == ("llama-3-70b:jailbreakbench",)
    assert judged.labels("harmful", ()) is None
    assert judged.models and judged.row_names([0, 1]).keys() == {0, 1}


def test_a_judge_that_chose_the_answers_may_not_measure_them(tmp_path: Path) -> None:
    rows = LabelledRows(resolve(f"file:{_write(tmp_path)}", "data"))
    chooser = Lineage(name="chooser", hash="c")
    rows._dataset.judges = (chooser,)
    judged = JudgedSet(store_set(rows, tmp_path / "set"))
    assert "chosen, trained or blocked by chooser" in (judged.conflict(chooser) or "")
    assert judged.conflict(Lineage(name="other", hash="o")) is None


def test_probabilities_out_of_range_are_counted_and_left_out(tmp_path: Path) -> None:
    run = store_rows(tmp_path, labelled_rows(6))
    judged_run = _add_judge(run, [2.0, 0.5, float("nan"), None, 0.1, 0.2])
    said = JudgedSet(judged_run).verdicts("odd", "hash-odd", "harmful")
    assert said.invalid_scores == 2 - 1  # NaN is written as null, which is no probability
    assert np.isnan(said.scores).tolist() == [True, False, True, True, False, False]


def _write(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text('{"prompt": "a question", "response": "an answer", "harmful": false}\n')
    return path


def _add_judge(run: Run, scores: list[float | None]) -> Run:
    values = iter(scores)

    class Odd:
        name, question = "odd", "harmful"
        lineage = Lineage(name="odd", hash="hash-odd")

        async def judge(self, sample: Sample, response: object) -> Judgement:
            if sample.id == "warm-up":
                raise RuntimeError("a judge may fail at its first answer")
            return Judgement(
                sample_id=sample.id,
                judge="odd",
                question="harmful",
                verdict=True,
                score=next(values),
            )

    time = judge_set(run, Odd(), concurrency=1)
    assert time.rows == len(scores) and time.seconds > 0 and time.cpu_seconds > 0
    assert judge_set(run, Odd()).rows == 0  # read back
    return run


def test_answers_of_a_run_are_those_of_its_model(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a question", "expect": "comply"}\n')
    model = ScriptedModel("an answer", name="small")
    judge = ScoringJudge("machine", lambda _: 0.9)
    run = evaluate(model, resolve(f"file:{path}", "data"), [judge], tmp_path / "run")
    judged = JudgedSet(
        store_set(LabelledRows(resolve(f"run:{run.path}", "data")), tmp_path / "set")
    )
    assert judged.models[judged.model_of_row[0]] == "small"
    # What a judge of the run said is no label: the answer to a benign prompt counts as harmless.
    labels = judged.labels("harmful", ())
    assert labels is not None and labels.source == DESIGN and labels.values.tolist() == [NO]


def test_prompts_without_answers_get_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a question", "harmful": true}\n')
    judged = JudgedSet(store_set(LabelledRows(resolve(f"file:{path}", "data")), tmp_path / "set"))
    assert not judged.has_answer.any()
    labels = judged.labels("harmful_prompt", ())
    assert labels is not None and labels.values.tolist() == [YES]
    assert judged.labels("harmful", ()) is None


@pytest.mark.parametrize("question", ["harmful", "witty"])
def test_no_labels_at_all(tmp_path: Path, question: str) -> None:
    rows = [{"prompt": "a question", "response": "an answer"}]
    judged = JudgedSet(store_rows(tmp_path, rows))
    assert judged.labels(question, ()) is None and judged.labelled_questions() == ()
