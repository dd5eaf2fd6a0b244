"""Preference ranking: which of several answers does a model, or a judge, put first?

rank_choices(model, dataset, out)       multiple choice: by likelihood, by letter, by generation
rank_perplexity(model, dataset, out)    the perplexity of safe and unsafe answers, with controls
JudgeRanker(judge), LikelihoodRanker(model)     rankers of any candidates
"""

from __future__ import annotations

from truing.rankers.figures import RankingFigure, RankingSummary
from truing.rankers.judge_ranker import JudgeRanker
from truing.rankers.likelihood_ranker import LikelihoodRanker
from truing.rankers.ranking import RankingOptions, rank_choices, rank_perplexity
from truing.rankers.text_likelihood import PromptForm

__all__ = [
    "JudgeRanker",
    "LikelihoodRanker",
    "PromptForm",
    "RankingFigure",
    "RankingOptions",
    "RankingSummary",
    "rank_choices",
    "rank_perplexity",
]
