"""Every verb: name -> (dotted path of its function, one line of help). A function returns its exit status."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str]] = {
    "run": (
        "truing.cli.run:run",
        "The main job: measure every variant of a plan, write one report.",
    ),
    "evaluate": (
        "truing.cli.evaluate:command",
        "Run a model on a data set and judge what it answers.",
    ),
    "judge": ("truing.cli.judge:command", "Add judges to a run, without a call to its model."),
    "compare": (
        "truing.cli.compare:command",
        "Compare runs, paired by sample: deltas, flips, what may be said.",
    ),
    "gate": (
        "truing.cli.gate:command",
        "A run against rules, for CI: exit 0 passed, 2 failed, 3 inconclusive.",
    ),
    "certify": (
        "truing.cli.certify:command",
        "A threshold under which harm is bounded, with confidence; or what is lacking.",
    ),
    "view": (
        "truing.cli.view:command",
        "Look through runs: one page with filters, flips, disagreement first.",
    ),
    "plan-size": ("truing.cli.plan_size:command", "How many prompts and labels a question needs."),
    "label": (
        "truing.cli.label:command",
        "Draw rows of a run at random and label them, for corrected rates.",
    ),
    "moderate": ("truing.cli.moderate:command", "Judge the rows of a JSONL file."),
    "card": ("truing.cli.card:command", "How well a judge agrees with people on a labelled set."),
    "show": ("truing.cli.show:command", "Show the rates of a run in the terminal."),
    "chat": ("truing.cli.chat:command", "Talk to a model in the terminal, with rails or without."),
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
        "Run a configuration's dialogues (DIR/tests/*.yml).",
    ),
    "redteam serve": ("truing.cli.redteam:serve", "Serve the pages for red-teamers and raters."),
    "redteam invite": ("truing.cli.redteam:invite", "Make invitation links."),
    "redteam import": (
        "truing.cli.redteam:import_",
        "Put a run's responses, or drawn rows, into the review queue.",
    ),
    "redteam generate": (
        "truing.cli.redteam_generate:generate",
        "Red-team prompts written by a model, and how diverse they are.",
    ),
    "redteam export": (
        "truing.cli.redteam:export",
        "Write what people did: tables, and judgements into run folders.",
    ),
    "train moderation": (
        "truing.cli.train_moderation:command",
        "A classifier for harm and its categories.",
    ),
    "train sft": ("truing.cli.train:sft", "Supervised fine-tuning on answers."),
    "train distil": (
        "truing.cli.train_samples:distil",
        "Context distillation: keep what a prompt does, drop the prompt.",
    ),
    "train reward": (
        "truing.cli.train_judges:reward",
        "A reward (preference) model from pairs ordered by helpfulness.",
    ),
    "train cost": (
        "truing.cli.train_judges:cost",
        "A cost model from pairs ordered by safety; above 0 is unsafe.",
    ),
    "train dpo": ("truing.cli.train:dpo", "Direct preference optimisation on pairs."),
    "train kto": (
        "truing.cli.train:kto",
        "Kahneman-Tversky optimisation on wanted and unwanted answers.",
    ),
    "train best-of-sft": (
        "truing.cli.train_samples:best_of_sft",
        "Fine-tuning on the answers that a judge chose of n.",
    ),
    "import garak": (
        "truing.cli.exchange:import_garak",
        "A garak report (*.report.jsonl) as a run.",
    ),
    "import pyrit": (
        "truing.cli.exchange:import_pyrit",
        "PyRIT's memory (its database or a JSON export) as a run.",
    ),
    "import promptfoo": (
        "truing.cli.exchange:import_promptfoo",
        "promptfoo's results (JSON) as a run.",
    ),
    "export inspect": (
        "truing.cli.exchange:export_inspect",
        "A run as an Inspect AI log, for `inspect view`.",
    ),
    "rank mcq": (
        "truing.cli.rank:mcq",
        "Multiple choice: does the model put the right, the harmless answer first?",
    ),
    "rank perplexity": (
        "truing.cli.rank:perplexity",
        "Safe and unsafe answers by perplexity, with controls.",
    ),
    "rank by": ("truing.cli.rank:by", "The answers of a run in order by a judge, as preferences."),
    "rank report": ("truing.cli.rank:report", "Rankings of several data sets on one page."),
    "weights list": (
        "truing.cli.weights:list_",
        "The weights that truing knows by name, and which are here.",
    ),
    "weights pull": ("truing.cli.weights:pull", "Fetch and check weights before they are needed."),
    "train ppo": ("truing.cli.train_rl:ppo", "PPO: raise a reward, stay near the base."),
    "train ppo-lag": (
        "truing.cli.train_rl:ppo_lag",
        "PPO-Lagrangian: raise a reward, hold a cost below a threshold.",
    ),
    "train reward-shaping": (
        "truing.cli.train_rl:reward_shaping",
        "PPO on reward - ν × cost: the baseline of ppo-lag.",
    ),
    "train rloo": (
        "truing.cli.train_rl:rloo",
        "REINFORCE leave-one-out, with a constraint where --cost is given.",
    ),
    "train grpo": ("truing.cli.train_rl:grpo", "GRPO, with a constraint where --cost is given."),
    "data list": ("truing.cli.data:list_", "List the data sets that truing reads."),
    "data show": ("truing.cli.data:show", "Count what a data set holds; no text."),
}

GROUPS: dict[str, str] = {
    "data": "The data sets that truing reads.",
    "rails": "Guardrail configurations: check them, test them.",
    "rank": "Preference ranking: multiple choice, perplexity, by a judge.",
    "redteam": "Red teaming by people, in web pages; prompts written by a model.",
    "train": "Train a judge or a better model.",
    "weights": "The weights that truing knows by name.",
    "export": "Runs in other tools' formats.",
    "import": "Other tools' results as runs.",
}
