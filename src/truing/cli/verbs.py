"""Every verb: name -> (dotted path of its function, one line of help). A function returns its exit status."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str]] = {
    "run": ("truing.cli.run:run", "The main job: measure every variant of a plan, write one report."),
    "evaluate": ("truing.cli.evaluate:command", "Run a model on a data set and judge what it answers."),
    "judge": ("truing.cli.judge:command", "Add judges to a run, without a call to its model."),
    "compare": ("truing.cli.compare:command", "Compare runs, paired by sample: deltas, flips, what may be said."),
    "show": ("truing.cli.show:command", "Show the rates of a run in the terminal."),
    "chat": ("truing.cli.chat:command", "Talk to a model in the terminal, with rails or without."),
    "serve": ("truing.cli.serve:command", "Serve a model, guarded or not, behind an OpenAI-compatible API."),
    "data list": ("truing.cli.data:list_", "List the data sets that truing reads."),
    "data show": ("truing.cli.data:show", "Count what a data set holds; no text."),
}

GROUPS: dict[str, str] = {
    "data": "The data sets that truing reads.",
    "rails": "Guardrail configurations: check them, test them.",
    "rank": "Preference ranking: multiple choice, perplexity, by a judge.",
    "redteam": "Red teaming by people, in web pages.",
    "train": "Train a judge or a better model.",
    "weights": "The weights that truing knows by name.",
    "export": "Runs in other tools' formats.",
    "import": "Other tools' results as runs.",
}
