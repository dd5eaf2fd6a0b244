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

import sys

from truing.plan import TrainingPlanOptions, parse_training_plan, run_training_plan

PLAN = """
base = "smollm2"
[defaults]
batch = 8
max_length = 160
steps = {steps}
[steps.reward]
kind = "reward"
lr = 5e-4
data = ["pairs:benign,half=train", "pairs:synthetic,of=(pairs:benign,half=train)"]
[steps.dpo]
kind = "iterative-dpo"
lr = 2e-4
data = ["builtin:helpful,half=train"]
limit = {rows}
n = 4
max_tokens = 32
by = "reward:{{steps.reward}}"
[evaluate]
title = "One model, four levers"
[evaluate.models]
plain = "local:smollm2"
prompted = "prompted:hhh,of=(local:smollm2)"
best-of-4 = "best-of:4,by=(reward:{{steps.reward}}),of=(local:smollm2)"
dpo = "local:{{steps.dpo}}"
[evaluate.run]
judges = ["rules:refusal", "rules:degenerate,cut=false"]
max_tokens = 32
temperature = 0.7
{limit}
[evaluate.data.helpful]
spec = "builtin:helpful,half=report"
judges = ["rules:check", "rules:degenerate,cut=false"]
[evaluate.data.safety]
spec = "builtin:safety,half=report"
"""

if __name__ == "__main__":
    quick = "--quick" in sys.argv
    folder = next((word for word in sys.argv[1:] if word != "--quick"), "runs/alignment")
    rows, steps, limit = (24, 3, "limit = 8") if quick else (108, 40, "")
    plan = parse_training_plan(PLAN.format(rows=rows, steps=steps, limit=limit))
    result = run_training_plan(
        plan, folder, TrainingPlanOptions(tell=print)
    )  # a second call resumes
    print(result.report["html"])
