"""What a turn leaves beside its answer: variables (`output_vars`) and NeMo's generation log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from truing.rails.runtime.turn_result import TurnResult

# Variables of the runtime: they hold settings, or texts that the rails may have withheld.
_INTERNAL_VARIABLES = frozenset(
    {"config", "generation_options", "event", "bot_message", "bot_thinking", "last_bot_message"}
)


@dataclass(slots=True)
class TurnRecord:
    """Filled in by a call of `GuardedModel.answer`: the result of its turn; None if it failed."""

    result: TurnResult | None = None


def select_output_data(
    result: TurnResult | None, output_vars: bool | Sequence[str] | None
) -> dict[str, Any] | None:
    """Returns the variables that the option `output_vars` names; None where it names none.

    A turn that was blocked or failed leaves none: its variables may hold what was withheld. Values
    that are not JSON are left out.
    """
    if not output_vars:
        return None
    if result is None or result.blocked or result.failure is not None:
        return {}
    if output_vars is True:
        names = [name for name in result.context if name not in _INTERNAL_VARIABLES]
    else:
        names = [name for name in output_vars if name in result.context]
    return {name: result.context[name] for name in names if _is_json(result.context[name])}


def build_generation_log(
    result: TurnResult | None, log: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Returns NeMo's generation log with the parts that the option `log` asks for, or None."""
    if not log or result is None or not any(log.values()):
        return None
    built: dict[str, Any] = {
        "stats": {
            "llm_calls_count": result.llm_calls,
            "llm_calls_total_prompt_tokens": result.usage.prompt_tokens,
            "llm_calls_total_completion_tokens": result.usage.completion_tokens,
        }
    }
    if log.get("activated_rails"):
        built["activated_rails"] = [
            {
                "type": ruling.stage,
                "name": ruling.name,
                "decisions": [ruling.ruling],
                "stop": ruling.ruling == "block",
                "duration": ruling.ms / 1000,
            }
            for ruling in result.rulings
        ]
    if log.get("llm_calls"):
        built["llm_calls"] = [asdict(record) for record in result.llm_records]
    if log.get("internal_events"):
        # An event of the caller brings its own id.
        built["internal_events"] = [
            {"uid": str(uuid4()), **event} for event in result.events if _is_json(event)
        ]
    if log.get("colang_history"):
        built["colang_history"] = result.colang_history
    return built


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
