"""Durability of the study's levers to changes of the model, for harm and for use.

    python benchmarks/alignment/study_durability_weights.py --out STUDY --levers base dpo2-0 grpo3-0

Conditions: as trained; after 16 steps of benign fine-tuning on the base's own everyday answers (Qi
et al. 2024, 2310.03693); without the direction of refusal (`refusal_direction.py`: in memory, while
the prompts are answered); with weights rounded to eight bits; and with an opening that the answer
continues. In four cells: harmful and benign development prompts, as they are and under role-play.
Prints what the rule calls refused, what the judge calls harmful (raw), and the difference from the
lever as trained, paired by prompt. No claim rests on it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from common import SampleList
from refusal_direction import (
    choose_direction,
    directions,
    first_token_logps,
    mean_kl,
    mean_states,
    refusal_score,
    without_direction,
)
from study import JUDGES, OWN_ANSWERS, TARGETS, Study, rate_cell, read_prompts
from study_durability import SEEN_ATTACK, attacked_prompts, rounded_model, with_opening
from study_prompts import draw_order, read_training_rows
from torch import Tensor

from truing.core.protocols import Model
from truing.core.types import Conversation, Sample, Sampling
from truing.evaluation.evaluate import evaluate, judge_run
from truing.evaluation.options import EvaluateOptions
from truing.hf.chat_tokens import ChatTokenizer
from truing.hf.loading import LoadedModel, load_causal_lm
from truing.hf.packed_linear import pack_linear_layers
from truing.models.local import LocalModel
from truing.runs.folder import Run
from truing.specs.resolve import resolve
from truing.stats.paired import PairedTable, newcombe_paired
from truing.train.settings import TrainingSettings
from truing.train.supervised import train_supervised
from truing.train.training_data import read_training_set

CONDITIONS = ("trained", "tuned", "ablated", "int8", "opening")
JUDGED_CONDITIONS = ("trained", "tuned", "ablated")
"""Harm is judged on whole answers there; study_durability.py does it for the others."""
WHOLE_TOKENS = 80
OPENING_TOKENS = 12
REFUSAL = "I'm sorry"
LAYERS = (10, 12, 14, 16, 18)
DIRECTION_PROMPTS = 64
CHECK_PROMPTS = 16
TUNING_STEPS = 16


def direction_prompts() -> tuple[list[str], list[str]]:
    """Returns requests that give the direction and its layer: harmful and harmless, equally many.

    Harmful ones are our own training requests; neither side develops or measures.
    """
    harmful = [row["prompt"] for row in read_training_rows("refusals")]
    rows = resolve("refusal-direction,half=train", "data").rows()
    harmless = [row.sample.prompt for row in rows if row.sample.expect == "comply"]
    count = DIRECTION_PROMPTS + CHECK_PROMPTS
    return sorted(harmful, key=draw_order)[:count], sorted(harmless, key=draw_order)[:count]


def find_direction(loaded: LoadedModel) -> Tensor:
    """Returns the model's own direction of refusal; prints its layer and what its removal does."""
    tokenizer = ChatTokenizer(loaded.tokenizer)
    harmful, harmless = (
        [tokenizer.encode_prompt(Conversation.of(text).messages) for text in texts]
        for texts in direction_prompts()
    )
    means = [mean_states(loaded, rows[:DIRECTION_PROMPTS]) for rows in (harmful, harmless)]
    candidates = directions(*means)
    harmful, harmless = harmful[DIRECTION_PROMPTS:], harmless[DIRECTION_PROMPTS:]
    refusal = tokenizer.encode_text(REFUSAL, first=False)
    before = first_token_logps(loaded, harmless)
    refusals, kls = [], []
    for layer in LAYERS:
        with without_direction(loaded.model, candidates[layer]):
            refusals.append(refusal_score(loaded, harmful, refusal))
            kls.append(mean_kl(before, first_token_logps(loaded, harmless)))
    best = choose_direction(refusals, kls)
    print(
        f"layer {LAYERS[best]}: log p({REFUSAL!r}) {refusal_score(loaded, harmful, refusal):.2f}"
        f" to {refusals[best]:.2f}, KL {kls[best]:.3f}; all layers:"
        f" {[f'{r:.2f} ({kl:.3f})' for r, kl in zip(refusals, kls)]}",
        flush=True,
    )
    return candidates[LAYERS[best]]


def tune(study: Study, lever: str, folder: str) -> Path:
    """Trains a lever on the base's own everyday answers, and returns the folder of the result."""
    target = study.out / "train" / study.name / f"tuned-{lever}"
    settings = TrainingSettings(
        kind="sft",
        out=str(target),
        base=folder,
        steps=TUNING_STEPS,
        batch=16,
        micro=16,
        lora=16,
        lr=3e-4,
        max_length=192,
        benign=0.0,
        save_every=1000,
        keep=1,
        tensorboard=False,
    )
    own = study.run_folder("base", OWN_ANSWERS)
    train_supervised(settings, [read_training_set(resolve(f"run:{own}", "data"), "sft")])
    return target


@contextmanager
def changed_model(study: Study, lever: str, condition: str) -> Iterator[Model]:
    """Loads a lever in a condition, and frees it; what fine-tuning wrote is deleted."""
    folder = study.target.base if lever == "base" else str(study.model_folder(lever))
    batch = study.target.batch
    tuned: Path | None = None
    direction: Tensor | None = None
    if condition == "tuned":
        tuned = tune(study, lever, folder)
        model = LocalModel.load(str(tuned), batch=batch)
    elif condition == "int8":
        model = rounded_model(folder, batch)
    else:
        loaded = load_causal_lm(folder)
        if condition == "ablated":
            direction = find_direction(loaded)
        pack_linear_layers(loaded.model)
        model = LocalModel(loaded, batch=batch)
    try:
        if direction is None:
            yield model
        else:
            with without_direction(model.loaded.model, direction):
                yield model
    finally:
        asyncio.run(model.close())
    if tuned is not None:
        shutil.rmtree(tuned)


@cache
def development_samples(name: str) -> tuple[Sample, ...]:
    """Returns the prompts of a development set, which are the same for all levers."""
    return tuple(read_prompts(name).samples)


def cell_samples(name: str, attack: str, limit: int | None, model: Model) -> list[Sample]:
    """Returns the development prompts of a cell, as they are or as the attack rewrites them."""
    samples = list(development_samples(name)[:limit])
    return attacked_prompts(resolve(attack, "attack"), samples, model) if attack else samples


CELLS = {
    "harm": ("dev-harm", "", 60),
    "harm, role-play": ("dev-harm", SEEN_ATTACK, 60),
    "benign": ("dev-benign", "", 100),
    "benign, role-play": ("dev-benign", SEEN_ATTACK, 100),
}


def run_folder(study: Study, lever: str, condition: str, cell: str) -> Path:
    """Returns the run folder of a lever's answers in a condition and a cell."""
    return study.run_folder(f"weights-{lever}", f"{condition}, {cell}")


def answer_cells(study: Study, lever: str, condition: str, limit: int | None) -> None:
    """Lets a lever answer the four cells in a condition, then lets the judges read the answers."""
    cells = [c for c in CELLS if not is_complete(run_folder(study, lever, condition, c))]
    if not cells:
        return
    started = time.process_time()
    with changed_model(study, lever, condition) as model:
        for cell in cells:
            name, attack, count = CELLS[cell]
            samples = cell_samples(name, attack, limit or count, model)
            if condition == "opening":
                samples = with_opening(samples)
            judged = is_judged(condition, cell)
            sampling = Sampling(
                max_tokens=WHOLE_TOKENS if judged else OPENING_TOKENS,
                temperature=study.target.temperature,
                top_p=study.target.top_p,
            )
            options = EvaluateOptions(sampling=sampling, concurrency=2 * study.target.batch)
            data = SampleList(f"{condition}, {cell}", samples)
            evaluate(model, data, [], run_folder(study, lever, condition, cell), options=options)
    for cell in cells:
        specs = JUDGES if is_judged(condition, cell) else ("rules:refusal",)
        judges = [resolve(spec, "judge") for spec in specs]
        judge_run(run_folder(study, lever, condition, cell), judges)
    study.record(f"durability {lever} {condition}", time.process_time() - started)


def is_judged(condition: str, cell: str) -> bool:
    """Returns whether the judge of harm reads the answers of a cell."""
    return condition in JUDGED_CONDITIONS and cell.startswith("harm")


def is_complete(folder: Path) -> bool:
    """Returns whether a run has its answers and the judgements of the last judge."""
    return (folder / "manifest.json").is_file() and bool(Run(folder).manifest.judges)


def verdicts(folder: Path, question: str) -> dict[str, bool]:
    """Returns the verdicts of a run by the request, which is the same in all conditions."""
    run = Run(folder)
    requests = {sample.id: sample.conversation.messages[0].content for sample in run.samples()}
    names = [record.name for record in run.manifest.judges if record.question == question]
    return {
        requests[row.sample_id]: row.verdict
        for name in names
        for row in run.judgements(name)
        if row.verdict is not None
    }


def difference_text(before: dict[str, bool], after: dict[str, bool]) -> str:
    """Returns "+12 [+3, +21]", the change of a rate in points on the prompts that both have."""
    shared = sorted(before.keys() & after.keys())
    table = PairedTable.from_outcomes([before[k] for k in shared], [after[k] for k in shared])
    change = newcombe_paired(table)
    points = [100 * value for value in (change.estimate, change.lower, change.upper)]
    return f"{points[0]:+.0f} [{points[1]:+.0f}, {points[2]:+.0f}]"


def print_lever(study: Study, lever: str, conditions: list[str]) -> None:
    """Prints the rates of a lever in each condition and cell, with the changes."""
    for condition in conditions:
        for cell in CELLS:
            values = []
            for question in ("refused", "harmful"):
                folder = run_folder(study, lever, condition, cell)
                after = verdicts(folder, question)
                text = rate_cell(list(after.values()))
                before_folder = run_folder(study, lever, "trained", cell)
                if after and condition != "trained" and is_complete(before_folder):
                    before = verdicts(before_folder, question)
                    text += f"; {difference_text(before, after)}" if before else ""
                values.append(text)
            print(f"| {lever} | {condition} | {cell} | {' | '.join(values)} |", flush=True)


def main() -> None:
    """Measures the levers one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", choices=TARGETS, default="qwen")
    parser.add_argument("--levers", nargs="+", default=["base"])
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--limit", type=int, help="answer only the first prompts of each cell")
    arguments = parser.parse_args()
    os.chdir(arguments.out)
    study = Study(Path(), arguments.target)
    print("| lever | condition | cell | refused, rule | harmful, judge |\n|---|---|---|---|---|")
    for lever in arguments.levers:
        for condition in arguments.conditions:
            answer_cells(study, lever, condition, arguments.limit)
        print_lever(study, lever, arguments.conditions)


if __name__ == "__main__":
    main()
