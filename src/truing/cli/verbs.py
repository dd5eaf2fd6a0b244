"""Every verb: name -> (dotted path of its function, one line of help). A function returns its exit status."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str]] = {
    "evaluate": ("truing.cli.evaluate:command", "Run a model on a data set and judge what it answers."),
    "judge": ("truing.cli.judge:command", "Add judges to a run, without a call to its model."),
    "data list": ("truing.cli.data:list_", "List the data sets that truing reads."),
    "data show": ("truing.cli.data:show", "Count what a data set holds; no text."),
}
