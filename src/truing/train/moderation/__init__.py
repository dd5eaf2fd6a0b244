"""Training of moderation classifiers (`truing train moderation`).

`run.train_moderation` trains a classifier from labelled data sets; `blend.blend_classifiers` makes
one classifier of two trained ones. What they write is a judge: `moderation:OUT`.
"""
