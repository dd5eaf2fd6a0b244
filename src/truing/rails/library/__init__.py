"""The shipped rails: their flows (`*.co`), their actions, and the detectors that these use.

`catalog` lists them; `references.library_for_config` chooses those that a configuration uses.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "catalog": "RAIL_TITLES all_actions pure_action_names",
        "gliner_model": "build_gliner",
        "guard_models": "build_guard_judges find_guard_faults is_guard_key",
        "pii": "split_entities",
        "references": (
            "find_missing_references find_parser_faults find_pattern_faults library_for_config"
        ),
        "safety": "choose_stream_mode required_judge_specs",
        "service_protocols": "SERVICE_PROTOCOLS",
        "service_rails": "build_services",
        "tool_guards": "required_tool_judges",
    },
)
