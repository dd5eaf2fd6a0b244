"""truing: a model answers, a judge scores the answer, an aligner returns a better model, and the better model is
measured by the very same run."""

__version__ = "0.1.0"
