"""Preference ranking: which of several answers does a model, or a judge, put first?

rank_choices(model, dataset, out)       multiple choice: by likelihood, by letter, by generation
rank_perplexity(model, dataset, out)    the perplexity of safe and unsafe answers, with controls
JudgeRanker(judge), LikelihoodRanker(model)     rankers of any candidates
"""

from __future__ import annotations

from truing.rankers.figures import Figure, Summary
from truing.rankers.judged import JudgeRanker
from truing.rankers.likelihood import LikelihoodRanker
from truing.rankers.measures import Form
from truing.rankers.run import Settings, rank_choices, rank_perplexity

__all__ = [
    "Figure",
    "Form",
    "JudgeRanker",
    "LikelihoodRanker",
    "Settings",
    "Summary",
    "rank_choices",
    "rank_perplexity",
]
