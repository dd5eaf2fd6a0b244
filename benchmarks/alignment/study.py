"""The study of levers on two small chat models (PREREGISTRATION.md), in resumable phases.

    python benchmarks/alignment/study.py --out STUDY prepare              data, plans, own answers
    python benchmarks/alignment/study.py --out STUDY train --plan sft     one plan, in slices
    python benchmarks/alignment/study.py --out STUDY answer --lever sft-0 --set dev-harm dev-benign
    python benchmarks/alignment/study.py --out STUDY rotate --lever raft --set harm   seeds in turn
    python benchmarks/alignment/study.py --out STUDY table                rates of what is answered

Each command continues where an earlier one was stopped. STUDY/qwen05 is the folder (or a link to
it) of Qwen2.5-Coder-0.5B-Instruct. Answers and judgements are run folders in
STUDY/runs/TARGET/LEVER/SET, trained models in STUDY/train/TARGET. Needs TRUING_DATA.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import SampleList
from study_levers import OpeningTexts, RotatedSeeds, build_best_of
from study_prompts import (
    DATA,
    MEASURING_JUDGE,
    PROMPT_SETS,
    TRAINING_FILES,
    build_prompt_set,
    read_training_rows,
)
from study_steering import write_cost_pairs

from truing.align.prompted import prompted
from truing.core.errors import UserError
from truing.core.lineage import hash_prompt
from truing.core.protocols import Model
from truing.core.types import Conversation, Sample, Sampling
from truing.evaluation.evaluate import evaluate, judge_run
from truing.evaluation.options import EvaluateOptions
from truing.models.local import LocalModel
from truing.plan.training_plan import read_training_plan
from truing.plan.training_run import TrainingPlanOptions, run_training_plan
from truing.runs.folder import Run
from truing.specs.resolve import resolve
from truing.stats.intervals import wilson
from truing.train.step_loop import SliceLimit

PLANS = Path(__file__).resolve().parent / "plans"
MAX_TOKENS = 80
JUDGES = (MEASURING_JUDGE, "rules:refusal", "rules:degenerate,cut=false")
SEEDS = 3
LEFT_OUT = {"benign": 3}
"""Every third prompt of `benign` is not answered: PREREGISTRATION.md, *Changes*."""
OWN_ANSWERS = "own"
"""The base's own answers to everyday prompts, which keep a tuned model what it was. No judge reads
them: it would be in the lineage of what learns from them."""


@dataclass(frozen=True)
class Target:
    """A model to align. Sampling follows its model card, as far as `Sampling` has the setting."""

    base: str
    temperature: float
    top_p: float
    batch: int = 32


TARGETS = {
    "qwen": Target("qwen05", 0.7, 0.8, batch=128),
    "qwen15": Target("qwen15", 0.7, 0.8, batch=96),
    "smol": Target("smollm2", 0.2, 0.9, batch=64),
}


@dataclass(frozen=True)
class Request:
    """How a set is answered: all of it or its first rows, as it is or under an attack of ours.

    With `turn`, only prompts k with k mod 3 = turn: those of one of a lever's three seeds.
    """

    seed: int = 0
    limit: int | None = None
    attack: str = ""
    turn: int | None = None
    max_tokens: int = MAX_TOKENS


class Study:
    """The folder of the study and one of its targets."""

    def __init__(self, out: Path, target: str) -> None:
        self.out, self.name, self.target = out, target, TARGETS[target]

    def run_folder(self, lever: str, prompts: str) -> Path:
        """Returns the run folder of a lever's answers to a set."""
        return self.out / "runs" / self.name / lever / prompts

    def model_folder(self, lever: str) -> Path:
        """Returns the folder of a trained lever; raises UserError if it is not trained."""
        folders = [
            card.parent for card in (self.out / "train" / self.name).glob(f"{lever}-*/truing.json")
        ]
        # A plan that was changed leaves the folders of its earlier forms.
        if not folders:
            raise UserError(f"{lever}: not trained for {self.name}; run `train` first")
        return max(folders, key=lambda folder: (folder / "truing.json").stat().st_mtime)

    @contextmanager
    def model(self, lever: str) -> Iterator[Model]:
        """Loads a lever (base, hhh, best-8, or the name of a training step), and frees it."""
        is_base = lever in ("base", "hhh", "best-8")
        source = self.target.base if is_base else str(self.model_folder(lever))
        local = LocalModel.load(source, batch=self.target.batch)
        model: Model = local
        if lever == "hhh":
            model = prompted(local, "hhh")
        elif lever == "best-8":
            # The scoring models are adapters on Qwen, whatever the target is.
            scorers = Study(self.out, "qwen")
            model = build_best_of(
                local, scorers.model_folder("reward"), scorers.model_folder("cost")
            )
        try:
            yield model
        finally:
            asyncio.run(local.close())

    def rotate(self, lever: str, sets: list[str], request: Request) -> None:
        """Answers the sets by the stored answers of the lever's seeds, LEVER-0 and on, in turn."""
        attack = resolve(request.attack, "attack") if request.attack else None
        judges = [resolve(spec, "judge") for spec in JUDGES]
        for name in sets:
            folder = set_folder(name, request)
            seeds = sorted((self.out / "runs" / self.name).glob(f"{lever}-[0-9]/{folder}"))
            model = RotatedSeeds(f"{lever} ({len(seeds)} seeds in turn)", seeds)
            run = self.run_folder(lever, folder)
            data = read_prompts(name)
            evaluate(model, data, judges, run, attack=attack, options=self.options(request))

    def options(self, request: Request) -> EvaluateOptions:
        """Returns the sampling of this target, the same for every lever."""
        sampling = Sampling(
            max_tokens=request.max_tokens,
            temperature=self.target.temperature,
            top_p=self.target.top_p,
        )
        return EvaluateOptions(
            sampling=sampling,
            concurrency=2 * self.target.batch,
            seed=request.seed,
            limit=request.limit,
            sample="first",
        )

    def answer(self, lever: str, sets: list[str], request: Request) -> None:
        """Lets a lever answer the sets, then lets the judges read the answers."""
        attack = resolve(request.attack, "attack") if request.attack else None
        names = {name: set_folder(name, request) for name in sets}
        options = self.options(request)
        with self.model(lever) as model:
            for name, folder in names.items():
                data = own_prompts() if name == OWN_ANSWERS else read_prompts(name)
                if request.turn is not None:
                    data = SampleList(data.info.spec, data.samples[request.turn :: SEEDS])
                started = time.process_time()
                run = self.run_folder(lever, folder)
                evaluate(model, data, [], run, attack=attack, options=options)
                self.record(f"answer {lever} {folder}", time.process_time() - started)
        judges = [resolve(spec, "judge") for spec in JUDGES]
        for name, folder in names.items():
            if name != OWN_ANSWERS:
                judge_run(self.run_folder(lever, folder), judges)

    def train(self, plan: str, max_minutes: float | None) -> bool:
        """Trains the steps of a plan for at most so many minutes; returns whether all are done."""
        text = PLANS / f"{plan}-{self.name}.toml"
        started = time.process_time()
        limit = SliceLimit(minutes=max_minutes) if max_minutes else None
        result = run_training_plan(
            read_training_plan(text),
            self.out / "train" / self.name,
            TrainingPlanOptions(tell=lambda line: print(line, flush=True), limit=limit),
        )
        self.record(f"train {plan}", time.process_time() - started)
        return result.finished

    def record(self, what: str, cpu_seconds: float) -> None:
        """Appends processor time and peak memory to STUDY/times.jsonl."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        row = {"target": self.name, "what": what, "cpu_s": round(cpu_seconds, 1), "peak_mb": peak}
        with (self.out / "times.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")


def set_folder(name: str, request: Request) -> str:
    """Returns the name of the run folder of a set, which says how the set was attacked and cut."""
    attack = request.attack.replace(":", "-").replace("+", "-")
    length = "" if request.max_tokens == MAX_TOKENS else str(request.max_tokens)
    return "-".join(filter(None, (name, attack, length)))


def read_prompts(name: str) -> SampleList:
    """Returns a prompt set, or of one in `LEFT_OUT` the prompts that are answered."""
    data = build_prompt_set(name)
    period = LEFT_OUT.get(name)
    if period is None:
        return data
    samples = [sample for k, sample in enumerate(data.samples) if k % period != period - 1]
    return SampleList(data.info.spec, samples)


def own_prompts() -> SampleList:
    """Returns everyday prompts that train: the half of builtin:helpful that measures nothing."""
    data = resolve("builtin:helpful,half=train", "data")
    return SampleList("builtin:helpful,half=train", [row.sample for row in data.rows()])


def prepare(study: Study) -> None:
    """Copies our own texts to STUDY/data, and samples the base's own everyday answers."""
    folder = study.out / "data"
    folder.mkdir(exist_ok=True)
    for name in TRAINING_FILES:
        shutil.copyfile(DATA / f"{name}.jsonl", folder / f"{name}.jsonl")
    answers = {
        Conversation.of(row["prompt"]): row["completion"]
        for name in TRAINING_FILES
        for row in read_training_rows(name)
    }
    samples = [Sample(conversation=c, id=hash_prompt(c.prompt)) for c in answers]
    data = SampleList("our own texts", samples)
    evaluate(OpeningTexts(answers), data, [], study.out / "runs" / "openings")
    count = write_cost_pairs(folder / "cost-pairs.jsonl")
    print(f"{count} pairs for the cost model")
    study.answer("base", [OWN_ANSWERS], Request())


def rate_cell(verdicts: list[bool]) -> str:
    """Returns "30 [25, 36] of 200" for verdicts, "-" without any."""
    if not verdicts:
        return "-"
    rate = wilson(sum(verdicts), len(verdicts))
    bounds = f"[{100 * rate.lower:.0f}, {100 * rate.upper:.0f}]"
    return f"{100 * rate.estimate:.0f} {bounds} of {len(verdicts)}"


def describe_run(folder: Path) -> dict[str, Any]:
    """Returns the rates of a run by question, the share of cut answers, and tokens an answer."""
    run = Run(folder)
    responses = list(run.responses())
    cells: dict[str, Any] = {}
    for record in run.manifest.judges:
        verdicts = [j.verdict for j in run.judgements(record.name) if j.verdict is not None]
        cells[record.question] = rate_cell(verdicts)
    cells["cut"] = rate_cell([r.finish_reason == "length" for r in responses])
    tokens = [r.usage.completion_tokens for r in responses]
    cells["tokens"] = round(sum(tokens) / max(1, len(tokens)))
    return cells


def print_table(study: Study) -> None:
    """Prints the raw rates of all runs of a target: the screening, not a result."""
    print("| lever | set | harmful (raw) | refused | degenerate | cut | tokens |")
    print("|---|---|---|---|---|---|---|")
    for folder in sorted((study.out / "runs" / study.name).glob("*/*")):
        if not (folder / "manifest.json").is_file():
            continue
        cells = describe_run(folder)
        values = [cells.get(q, "-") for q in ("harmful", "refused", "degenerate", "cut", "tokens")]
        print(f"| {folder.parent.name} | {folder.name} | {' | '.join(map(str, values))} |")


def main() -> None:
    """Runs one phase."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phase", choices=("prepare", "train", "answer", "rotate", "table"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", choices=TARGETS, default="qwen")
    parser.add_argument("--lever", default="base")
    parser.add_argument("--set", nargs="+", choices=PROMPT_SETS, default=["dev-harm", "dev-benign"])
    parser.add_argument("--plan", default="sft")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--attack", default="", help="a rewrite by rule, such as role-play")
    parser.add_argument("--turn", type=int, choices=range(SEEDS), help="the prompts of one seed")
    parser.add_argument("--max-tokens", type=int, default=MAX_TOKENS)
    parser.add_argument("--max-minutes", type=float)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    # Plans and runs name the weights and data below the folder of the study.
    os.chdir(arguments.out)
    study = Study(Path(), arguments.target)
    if arguments.phase == "prepare":
        prepare(study)
    elif arguments.phase == "train":
        done = study.train(arguments.plan, arguments.max_minutes)
        print("finished" if done else "the slice is over; the same command goes on")
    elif arguments.phase in ("answer", "rotate"):
        request = Request(
            arguments.seed,
            arguments.limit,
            arguments.attack,
            arguments.turn,
            arguments.max_tokens,
        )
        run_phase = study.answer if arguments.phase == "answer" else study.rotate
        run_phase(arguments.lever, arguments.set, request)
    else:
        print_table(study)


if __name__ == "__main__":
    main()
