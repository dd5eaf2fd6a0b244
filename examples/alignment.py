"""The whole loop in one file: train a reward model, train on its choices, measure otherwise.

    python examples/alignment.py [FOLDER] [--quick]

1. A reward model learns from pairs that ship: answers over refusals to harmless prompts that look
   harmful, and the same answers over damaged ones (synthetic, and named so).
2. The embedded 135M model answers the train half of the everyday instructions four times; the
   reward model puts the answers in order, and DPO trains on the best over the worst.
3. Plain, prompted, best of four and DPO answer the report's half. Program checks and the refusal
   rules measure them: the reward model chose, so it may not.

Some minutes on two cores; `--quick` shows the mechanics in one or two. At this size expect small
effects, and read the intervals in the report.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from truing.core.types import Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.plan import parse_plan, run_plan
from truing.report import render
from truing.specs.resolve import resolve
from truing.train.settings import TrainingSettings
from truing.train.supervised import train_supervised
from truing.train.training_data import read_training_set

PLAN = """
title = "One model, four levers"
baseline = "plain"
[models]
plain = "local:smollm2"
prompted = "prompted:hhh,of=(local:smollm2)"
best-of-4 = "best-of:4,by=(reward:{folder}/reward),of=(local:smollm2)"
dpo = "local:{folder}/dpo"
[run]
judges = ["rules:refusal", "rules:degenerate,cut=false"]
max_tokens = 32
temperature = 0.7
{limit}
[data.helpful]
spec = "builtin:helpful,half=report"
judges = ["rules:check", "rules:degenerate,cut=false"]
[data.safety]
spec = "builtin:safety,half=report"
"""


def train_model(kind: Any, specs: tuple[str, ...], out: Path, steps: int, lr: float) -> None:
    """Trains a model of one kind on preference pairs."""
    sources = [read_training_set(resolve(spec, "data"), kind) for spec in specs]
    settings = TrainingSettings(
        kind=kind, out=str(out / kind), steps=steps, batch=8, max_length=160, lr=lr
    )
    result = train_supervised(
        settings,
        sources,
        on_log=lambda row: print(f"  step {row['step']}: loss {row['loss']:.3f}", flush=True),
    )
    print(kind, "->", result.folder)


def main(folder: str = "runs/alignment", quick: bool = False) -> None:
    """Runs all steps; a second call resumes."""
    out = Path(folder)
    rows, steps = (24, 3) if quick else (108, 40)

    # 1. A reward model from pairs that ship.
    specs = ("pairs:benign,half=train", "pairs:synthetic,of=(pairs:benign,half=train)")
    train_model("reward", specs, out, steps, 5e-4)

    # 2. The model answers four times, the reward model ranks the answers, DPO trains on the best
    # and the worst.
    data = resolve(f"builtin:helpful,half=train,limit={rows}", "data")
    options = EvaluateOptions(
        sampling=Sampling(n=4, max_tokens=32, temperature=1.0), concurrency=128
    )
    judge = resolve(f"reward:{out / 'reward'}", "judge")
    evaluate(resolve("local:smollm2", "model"), data, [judge], out / "answers", options=options)
    train_model("dpo", (f"run:{out / 'answers'},by={judge.name}", specs[0]), out, steps, 2e-4)

    # 3. Base, prompted, best of four and DPO through the very same run, and one report.
    text = PLAN.format(folder=out, limit="limit = 8" if quick else "")
    report = run_plan(parse_plan(text), out / "runs")
    paths = render.write_report(report, out)
    for variant in report.variants:
        rates = {
            axis: variant.find(axis)
            for axis in ("passes_checks", "refuses_harmful", "answers_benign")
        }
        print(
            variant.name,
            {axis: f"{rate.raw.estimate:.0%}" for axis, rate in rates.items() if rate and rate.raw},
        )
    print(paths["html"])


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if a != "--quick"]
    main(*arguments, quick="--quick" in sys.argv)
