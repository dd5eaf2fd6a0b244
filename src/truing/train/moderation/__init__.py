"""Training of moderation classifiers (`truing train moderation`).

`run.train_moderation` trains a classifier from labelled data sets; `blend.blend_classifiers` makes
one classifier of two trained ones. What they write is a judge: `moderation:OUT`.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "blend": "blend_classifiers",
        "classifier_export": "ModerationResult",
        "examples": "ModerationTrainingSet read_moderation_set",
        "finished_run": "read_run_settings",
        "run": "train_moderation",
        "settings": "ModerationTrainingSettings",
    },
)
