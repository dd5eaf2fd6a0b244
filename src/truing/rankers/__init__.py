"""Preference ranking: which of several answers does a model, or a judge, put first?

rank_choices(model, dataset, out)       multiple choice: by likelihood, by letter, by generation
rank_perplexity(model, dataset, out)    the perplexity of safe and unsafe answers, with controls
JudgeRanker(judge), LikelihoodRanker(model)     rankers of any candidates
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "figures": "MIN_ITEMS_FOR_SHARE RankingFigure RankingSummary",
        "item_ranking": (
            "ANSWERS ITEM_TYPES ItemRanker MapItems PAIRS RANKING_METHODS ROW_TYPES RankedItem "
            "RankingItem RankingOptions"
        ),
        "judge_ranker": "JudgeRanker",
        "likelihood_ranker": "LikelihoodRanker",
        "ranking": "rank_choices rank_perplexity read_summaries",
        "run_ranking": "rank_run",
        "text_likelihood": "PromptForm map_in_batches",
    },
)
