"""`truing judges independent`: may these judges measure what those judges chose or trained?"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from truing.cli.parameters import Flag, OptionalStrings, resolve_all
from truing.cli.tables import print_json, print_text
from truing.core.errors import PlanError
from truing.core.protocols import Judge, Model


class Independence(Struct, frozen=True, kw_only=True):
    """Whether a judge may measure a study, and the reasons why it may not."""

    judge: str
    independent: bool
    reasons: tuple[str, ...]


def command(*judges: str, target: str, steering: OptionalStrings = None, json: Flag = False) -> int:
    """Checks that judges which measure share nothing with what they measure: exit status 2 if one
    has a base model, a judge or a training prompt in common with the target or a steering judge.

    Parameters
    ----------
    judges
        Specs of the judges that measure, such as moderation:default.
    target
        Spec of the model before anything is done to it, such as local:smollm2.
    steering
        Specs of the judges that choose answers, train the model or teach rails, such as cost:DIR.
    json
        Print the result for each judge as JSON.
    """
    from truing.analysis.judge_families import find_dependences

    if not judges:
        raise PlanError("judges independent: give one judge or more, such as moderation:default")
    steering = steering or []
    resolved = resolve_all([(target, "model"), *((spec, "judge") for spec in (*judges, *steering))])
    model: Model = resolved[0]
    measuring_judges: list[Judge] = resolved[1 : 1 + len(judges)]
    steering_judges: list[Judge] = resolved[1 + len(judges) :]
    judge_checks = []
    for judge in measuring_judges:
        lineages = [other.lineage for other in steering_judges]
        reasons = find_dependences(judge.lineage, model.lineage, lineages)
        judge_checks.append(
            Independence(judge=judge.name, independent=not reasons, reasons=reasons)
        )
    if json:
        print_json(msgspec.json.encode(judge_checks))
    else:
        for judge_check in judge_checks:
            print_text(
                f"{judge_check.judge}: {'independent' if judge_check.independent else 'dependent'}"
            )
            for reason in judge_check.reasons:
                print_text(f"  {reason}")
    return 0 if all(judge_check.independent for judge_check in judge_checks) else 2
