"""Makes a safer `Model` from a `Model` without training.

`prompted` adds a fixed prefix, `best_of` selects the best of n answers by a judge; the spec
`guarded:` puts guardrails around a model.

The result runs through the same evaluation as the original model. Its lineage names every judge
that selected or blocked answers for it, so that such a judge cannot measure it.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "": "best_of prompted",
        "best_of": "BestOf",
        "curve": "best_of_curve best_of_kl retained_effect",
        "prompted": "Prompted load_prefix",
    },
)
