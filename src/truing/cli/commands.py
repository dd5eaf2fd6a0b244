"""Every command: its name -> (dotted path of its function, one line of help), and the sections of
the help.

A function returns the exit status. Modules with one command call it `command`; the docstrings and
the parameter names of these functions make the help and the flags.
"""

from __future__ import annotations

COMMANDS: dict[str, tuple[str, str]] = {
    "run": (
        "truing.cli.run:command",
        "Measure every variant of a plan and write one report.",
    ),
    "init": (
        "truing.cli.init:command",
        "Write a plan, rules for the gate and a CI workflow for a model.",
    ),
    "doctor": (
        "truing.cli.doctor:command",
        "Show what is installed, and whether a model answers.",
    ),
    "evaluate": (
        "truing.cli.evaluate:command",
        "Run a model on a data set and judge its answers.",
    ),
    "judge": (
        "truing.cli.judge:command",
        "Add judges to a run, without a call to its model.",
    ),
    "compare": (
        "truing.cli.compare:command",
        "Compare runs, paired by sample: differences, flips, and whether safety has improved.",
    ),
    "report": (
        "truing.cli.report:command",
        "Write a report on runs that are on disk.",
    ),
    "evidence": (
        "truing.cli.evidence:command",
        "Write what runs say about each item of a framework (NIST, EU, OWASP, ATLAS, ...).",
    ),
    "gate": (
        "truing.cli.gate:command",
        "Check a run against rules, for CI: exit 0 passed, 2 failed, 3 inconclusive.",
    ),
    "certify": (
        "truing.cli.certify:command",
        "Find a threshold under which harm is bounded with confidence, or what is missing for it.",
    ),
    "view": (
        "truing.cli.view:command",
        "Write a page to look through runs: filters, flips and disagreements first.",
    ),
    "ui": (
        "truing.cli.ui:command",
        "Look through a folder of runs in the browser: figures, rows side by side, search.",
    ),
    "plan-size": (
        "truing.cli.plan_size:command",
        "Calculate how many prompts and labels a question needs.",
    ),
    "label": (
        "truing.cli.label:command",
        "Draw rows of a run at random and label them, for corrected rates.",
    ),
    "moderate": (
        "truing.cli.moderate:command",
        "Judge the rows of a JSONL, CSV or TSV file.",
    ),
    "watch": (
        "truing.cli.watch:command",
        "Judge new rows of files, and raise an alarm on their harm rate.",
    ),
    "card": (
        "truing.cli.card:command",
        "Measure how well a judge agrees with people on a labelled set.",
    ),
    "judges compare": (
        "truing.cli.judges_compare:command",
        "Compare judges on labelled sets: accuracy, false alarms, agreement, time and memory.",
    ),
    "judges independent": (
        "truing.cli.judges_independent:command",
        "Check that judges which measure share nothing with judges that choose or train.",
    ),
    "show": (
        "truing.cli.show:command",
        "Show the rates of a run in the terminal.",
    ),
    "chat": (
        "truing.cli.chat:command",
        "Talk to a model in the terminal, with or without rails.",
    ),
    "serve": (
        "truing.cli.serve:command",
        "Serve a model, guarded or not, behind an OpenAI-compatible API.",
    ),
    "rails check": (
        "truing.cli.rails:check",
        "Check a guardrails configuration without running it.",
    ),
    "rails test": (
        "truing.cli.rails:run_dialogues",
        "Run the dialogue tests of a configuration (DIR/tests/*.yml).",
    ),
    "redteam serve": (
        "truing.cli.redteam:serve",
        "Serve the web pages for red-teamers and raters.",
    ),
    "redteam invite": (
        "truing.cli.redteam:invite",
        "Create invitation links.",
    ),
    "redteam import": (
        "truing.cli.redteam:import_items",
        "Add the responses of a run, or rows drawn from it, to the review queue.",
    ),
    "redteam generate": (
        "truing.cli.redteam_generate:command",
        "Let a model write red-team prompts, and measure how diverse they are.",
    ),
    "redteam export": (
        "truing.cli.redteam:export",
        "Export the collected data: tables, and judgements into run folders.",
    ),
    "train plan": (
        "truing.cli.train_plan:command",
        "Train the steps of a plan and evaluate the results (short: truing train PLAN.toml).",
    ),
    "train moderation": (
        "truing.cli.train_moderation:command",
        "Train a classifier for harm and its categories.",
    ),
    "train sft": (
        "truing.cli.train:sft",
        "Supervised fine-tuning on answers.",
    ),
    "train distil": (
        "truing.cli.train_on_samples:distil",
        "Context distillation: keep the effect of a prompt, drop the prompt.",
    ),
    "train reward": (
        "truing.cli.train_judges:reward",
        "Train a reward (preference) model on pairs ordered by helpfulness.",
    ),
    "train cost": (
        "truing.cli.train_judges:cost",
        "Train a cost model on pairs ordered by safety; a cost above 0 is unsafe.",
    ),
    "train probe": (
        "truing.cli.train_probe:command",
        "Train linear probes of labelled answers on a model's own states.",
    ),
    "train dpo": (
        "truing.cli.train:dpo",
        "Direct preference optimisation on pairs.",
    ),
    "train kto": (
        "truing.cli.train:kto",
        "Kahneman-Tversky optimisation on desirable and undesirable answers.",
    ),
    "train best-of-sft": (
        "truing.cli.train_on_samples:best_of_sft",
        "Fine-tuning on the best of n answers, chosen by a judge.",
    ),
    "train iterative-dpo": (
        "truing.cli.train_on_samples:iterative_dpo",
        "DPO in rounds on the model's own answers, ordered by a judge.",
    ),
    "train ppo": (
        "truing.cli.train_rl:ppo",
        "PPO: raise a reward with a KL penalty to the base model.",
    ),
    "train ppo-lag": (
        "truing.cli.train_rl:ppo_lag",
        "PPO-Lagrangian: raise a reward while a cost stays below a threshold.",
    ),
    "train reward-shaping": (
        "truing.cli.train_rl:reward_shaping",
        "PPO on reward - ν × cost: the baseline for ppo-lag.",
    ),
    "train rloo": (
        "truing.cli.train_rl:rloo",
        "REINFORCE leave-one-out; with --cost under a constraint.",
    ),
    "train grpo": (
        "truing.cli.train_rl:grpo",
        "Group-relative policy optimisation; with --cost under a constraint.",
    ),
    "import garak": (
        "truing.cli.exchange:import_garak",
        "Make a run of a garak report (*.report.jsonl).",
    ),
    "import pyrit": (
        "truing.cli.exchange:import_pyrit",
        "Make a run of PyRIT's memory (its database or a JSON export).",
    ),
    "import promptfoo": (
        "truing.cli.exchange:import_promptfoo",
        "Make a run of promptfoo's results (JSON).",
    ),
    "import inspect": (
        "truing.cli.exchange:import_inspect",
        "Make a run of an Inspect AI log (.eval), also of Petri's.",
    ),
    "import otel": (
        "truing.cli.exchange:import_otel",
        "Make a run of agents' traces in OpenTelemetry's form (OTLP JSON).",
    ),
    "export inspect": (
        "truing.cli.exchange:export_inspect",
        "Write a run as an Inspect AI log, for `inspect view`.",
    ),
    "rank mcq": (
        "truing.cli.rank:mcq",
        "Multiple choice: does the model prefer the right or harmless answer?",
    ),
    "rank perplexity": (
        "truing.cli.rank:perplexity",
        "Compare the perplexity of safe and unsafe answers, with controls.",
    ),
    "rank by": (
        "truing.cli.rank:by",
        "Order the answers of a run by a judge, and write them as preferences.",
    ),
    "rank report": (
        "truing.cli.rank:report",
        "Write the rankings of several data sets on one page.",
    ),
    "list models": (
        "truing.cli.list_kinds:models",
        "List the kinds of models, with an example of each.",
    ),
    "list judges": (
        "truing.cli.list_kinds:judges",
        "List the kinds of judges, with an example of each.",
    ),
    "list attacks": (
        "truing.cli.list_kinds:attacks",
        "List the attacks, with an example of each.",
    ),
    "list data": (
        "truing.cli.data:list_data",
        "List the data sets that truing reads.",
    ),
    "list rails": (
        "truing.cli.list_kinds:rails",
        "List the rails that a configuration can name.",
    ),
    "weights list": (
        "truing.cli.weights:list_weights",
        "List the weights that truing knows by name, and which are on this machine.",
    ),
    "weights pull": (
        "truing.cli.weights:pull",
        "Download and verify weights before they are needed.",
    ),
    "weights merge": (
        "truing.cli.weights:merge",
        "Merge a LoRA adapter of PEFT into its base.",
    ),
    "weights push": (
        "truing.cli.weights:push",
        "Publish a trained model on the Hugging Face hub, privately unless --public.",
    ),
    "data list": (
        "truing.cli.data:list_data",
        "List the data sets that truing reads.",
    ),
    "data show": (
        "truing.cli.data:show",
        "Count the rows and labels of a data set; prints no text of any row.",
    ),
}

SECTIONS: dict[str, tuple[str, ...]] = {
    "Begin": ("init", "doctor"),
    "Measure": (
        "run",
        "evaluate",
        "judge",
        "moderate",
        "watch",
        "rank",
        "compare",
        "report",
        "evidence",
        "show",
        "view",
        "ui",
    ),
    "Believe the figures": ("label", "card", "judges", "plan-size", "gate", "certify"),
    "Make a model safer": ("train",),
    "Control a model": ("serve", "chat", "rails"),
    "Attack": ("redteam",),
    "Look things up": ("list", "data", "weights", "import", "export"),
}
"""Title of a section of `truing --help` -> its commands, in the order in which they are shown."""

GROUPS: dict[str, str] = {
    "list": "What can be named: models, judges, attacks, data sets, rails.",
    "data": "The data sets that truing reads.",
    "judges": "Judges against each other.",
    "rails": "Check and test guardrail configurations.",
    "rank": "Preference ranking: multiple choice, perplexity, by a judge.",
    "redteam": "Red teaming by people in web pages, and prompts written by a model.",
    "train": "Train a judge or a safer model.",
    "weights": "Weights: those that truing knows by name, and those that it trained.",
    "export": "Write runs in the formats of other tools.",
    "import": "Make runs of the results of other tools.",
}
"""Command group -> its line of help."""
