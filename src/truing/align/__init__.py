"""Makes a safer `Model` from a `Model` without training.

`prompted` adds a fixed prefix, `best_of` selects the best of n answers by a judge; the spec
`guarded:` puts guardrails around a model.

The result runs through the same evaluation as the original model. Its lineage names every judge
that selected or blocked answers for it, so that such a judge cannot measure it.
"""

from __future__ import annotations

from truing.align.best_of import BestOf, best_of
from truing.align.curve import best_of_curve, best_of_kl, retained_effect
from truing.align.prompted import Prompted, load_prefix, prompted

__all__ = [
    "BestOf",
    "Prompted",
    "best_of",
    "best_of_curve",
    "best_of_kl",
    "load_prefix",
    "prompted",
    "retained_effect",
]
