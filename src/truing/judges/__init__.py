"""Judges: programs (`rules:`, `keywords:`), prompted and guard models, moderation classifiers,
reward and cost models.
"""
