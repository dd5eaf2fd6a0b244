"""From verdicts to figures: `summarise` one run, `compare` two, make judge cards, draw labels.

`read_verdict_table` turns a run folder into compact columns; everything else counts over these.
Functions take run folders and return structs of numbers, which reports and gates read.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "agent_answers": "outcome_of_answer",
        "agent_outcomes": "AGENT_OUTCOMES AgentFigure AgentOutcomes AgentSummary",
        "attack_success": "ATTEMPT_COUNTS AttackResult attack_results",
        "card_files": "read_card write_card",
        "claim_analyses": "CARD_MARGIN",
        "claim_decisions": "describe_change",
        "claim_evidence": "collect_evidence",
        "claims": (
            "Claim ClaimCheck ClaimOptions Conclusion Decision HARM_QUESTIONS find_margin_fault "
            "not_worse_claim pair_claims"
        ),
        "comparison": "Comparison adjust_comparisons compare",
        "corrected_deltas": "PairLabels",
        "deltas": "Delta",
        "goodhart": "GoodhartEntry",
        "judge_calibration": "METHODS fit_calibration",
        "judge_card": "CardLineage GradedAgreement JudgeCard make_card samples_trained_on",
        "judge_comparison": (
            "ComparedJudge ComparedSet JudgesComparison SetSource check_comparable compare_judges"
        ),
        "judge_facts": "JudgeFacts collect_judge_facts facts_from_card",
        "judge_families": "find_dependences require_independence",
        "judge_figures": "FALSE_ALARM_RATES JudgeOnSet ModelAlarms Speed",
        "judge_pairs": "JudgeAgreement JudgeDifference",
        "judged_sets": "DESIGN MACHINE PEOPLE",
        "label_allocation": "allocate_labels",
        "label_draws": "LabelDraw draw_rows next_batch read_draws store_draws",
        "labels": "RowKey add_label import_labels majority_vote read_votes unlabelled_draws",
        "lineage_relations": "warnings_about",
        "looks": "Look read_looks record_look",
        "outcomes": "OUTCOME_NAMES outcome_arrays outcome_codes outcome_name",
        "pairing": "RunPair pair_runs",
        "prompt_counts": "PLAIN",
        "rate_claims": "RateRule decide_rate distrust_reason select_figure",
        "rates": (
            "AXES AXIS_TITLES CorrectedRate PREDICTED_SUFFIX QUESTION_ALIASES Rate "
            "SMALL_SAMPLE_SIZE TransportedRate verdict_codes"
        ),
        "scalar_scores": "MeanScore MeanScoreDelta",
        "stopping_rule": "parse_stopping_rule",
        "streamed_summary": "is_streamed",
        "summary": "OutcomeCounts RunSummary summarise write_summary",
        "transport": "check_card_matches",
        "verdict_table": (
            "ABSENT EXPECTS FAILED INAPPLICABLE_KINDS NO SKIPPED UNSCORED VerdictColumn "
            "VerdictTable YES cached_verdict_tables read_verdict_table"
        ),
    },
)
