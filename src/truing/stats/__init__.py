"""Statistics for evaluations: pure functions on numbers and arrays, without files or models.

Intervals for rates, paired tests, corrections for the errors of a judge, agreement of raters,
calibration, anytime-valid sequences, conformal thresholds and sample sizes. Estimates are
returned as `Interval`s. Each function names its source; symbols are those of the source.
"""
