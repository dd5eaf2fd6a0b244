"""Statistics for evaluations: pure functions on numbers and arrays, without files or models.

Intervals for rates, paired tests, corrections for the errors of a judge, agreement of raters,
calibration, anytime-valid sequences, conformal thresholds and sample sizes. Estimates are
returned as `Interval`s. Each function names its source; symbols are those of the source.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "": "planning",
        "agreement": "cohen_kappa krippendorff_alpha leave_one_out_alpha",
        "agreement_intervals": "BootstrapOptions",
        "attempts": "false_hit_at_k hit_at_k mean_hit_at_k",
        "calibration": (
            "LogitCalibration ReliabilityBin SelectiveAccuracy brier_score ece fit_platt "
            "fit_temperature reliability_bins selective_accuracy"
        ),
        "classification": (
            "AurocDifference ClassificationScores RecallAtFalseAlarm auroc auroc_difference "
            "classification_scores f1_score pairwise_accuracy recall_at_false_alarm "
            "spearman_correlation"
        ),
        "cluster_sketch": "ClusterSketch DEFAULT_BOUND",
        "conformal": (
            "TestedThreshold anytime_p_value binomial_p_value labels_needed learn_then_test"
        ),
        "corrected_alarm": "CorrectedRateAlarm",
        "intervals": (
            "Interval clopper_pearson clustered_wilson effective_rows exact_upper_bound "
            "normal_quantile student_quantile unscored_bounds wilson"
        ),
        "judge_error": (
            "JudgeErrorRates MIN_LABELS_PER_CLASS MIN_YOUDEN corrected_difference corrected_rate "
            "ppi_mean transported_rate"
        ),
        "paired": (
            "PairedTable benjamini_hochberg holm mcnemar_exact newcombe_paired paired_mean "
            "permutation_test_from_counts"
        ),
        "planning": "n_for_non_inferiority n_for_upper_bound n_pairs_for_mcnemar",
        "pooling": "partial_pooling partial_pooling_of_changes",
        "sequential": (
            "BettingSequence HarmRateAlarm PairedBettingSequence anytime_quantile betting_interval"
        ),
    },
)
