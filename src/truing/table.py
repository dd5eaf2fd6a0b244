"""Every kind that a spec can name: role -> kind -> dotted path of its builder, a function from `Args` to the object."""

from __future__ import annotations

TABLE: dict[str, dict[str, str]] = {
    "model": {
        "scripted": "truing.models.scripted:build",
        "openai": "truing.models.openai:build",
        "http": "truing.models.http:build",
        "python": "truing.models.python:build",
        "answers": "truing.models.answers:build",
        "local": "truing.models.local:build",
        "vllm": "truing.models.vllm:build",
        "pool": "truing.models.pool:build",
        "prompted": "truing.align:build_prompted",
        "best-of": "truing.align:build_best_of",
        "guarded": "truing.align:build_guarded",
    },
    "judge": {
        "rules": "truing.judges.rules:build",
        "llm": "truing.judges.rubric:build",
        "panel": "truing.judges.panel:build",
        "moderation": "truing.judges.moderation:build",
        "guard": "truing.judges.guards:build",
        "openai-moderation": "truing.judges.endpoint:build",
        "reward": "truing.judges.preference:build_reward",
        "cost": "truing.judges.preference:build_cost",
    },
    "data": {
        "file": "truing.datasets.file:build",
        "builtin": "truing.datasets.builtin_sets:build",
        "beavertails": "truing.datasets.beavertails:build",
        "pku": "truing.datasets.pku:build",
        "do-not-answer": "truing.datasets.do_not_answer:build",
        "diasafety": "truing.datasets.diasafety:build",
        "xstest": "truing.datasets.xstest:build",
    },
    "attack": {},
    "aligner": {},
    "rail": {},
}
