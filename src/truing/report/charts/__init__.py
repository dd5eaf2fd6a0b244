"""The report's charts, drawn as SVG."""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "calibration": "reliability_diagram",
        "forest": "forest_plot",
        "svg": "Mark Point interval_chart legend_html plane_chart stacked_bars",
    },
)
