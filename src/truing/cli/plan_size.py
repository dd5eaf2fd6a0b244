"""`truing plan-size`: calculates how many prompts and labels a question needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
from cyclopts import Parameter

from truing.cli.parameters import Flag
from truing.cli.tables import print_json, print_text
from truing.core.errors import UserError


@Parameter(name="*")
@dataclass(frozen=True)
class ExpectationFlags:
    """What you expect.

    Parameters
    ----------
    rate
        The rate that you expect.
    changed
        Share of prompts whose outcome you expect to differ (either way) between two models.
        Default: twice --difference or --margin.
    answers
        Answers to each prompt; they are correlated and count for less than as many prompts.
    correlation
        Correlation of the answers to one prompt (0 to 1).
    power
        Probability of success if your expectations are right.
    """

    rate: float = 0.1
    changed: float | None = None
    answers: int = 1
    correlation: float = 0.5
    power: float = 0.8


def command(
    *,
    flags: ExpectationFlags | None = None,
    width: float | None = None,
    upper: float | None = None,
    difference: float | None = None,
    margin: float | None = None,
    json: Flag = False,
) -> int:
    """Calculates how many prompts (or labels) are needed for what you want to show.

    Give what you expect (--rate, --changed) and what you want to show (--width, --upper,
    --difference, --margin).

    Parameters
    ----------
    width
        Prompts for an interval of at most this width, with a fixed number and with --until.
    upper
        Prompts (or labels) for an upper bound under this limit.
    difference
        Prompts to show a paired difference of this size.
    margin
        Prompts to show that no more than this was lost (non-inferiority).
    json
        Print the numbers as JSON.
    """
    from truing.stats import planning

    expected = flags or ExpectationFlags()
    if (
        not 0 < expected.power < 1
        or not 0 <= expected.rate <= 1
        or not 0 <= expected.correlation <= 1
        or expected.answers < 1
    ):
        raise UserError(
            "--power must be above 0 and below 1, --rate and --correlation from 0 to 1, "
            "--answers 1 or more"
        )
    sizes: dict[str, int] = {}
    try:
        if width is not None:
            sizes |= _sizes_for_width(expected, width)
        if upper is not None:
            sizes |= _sizes_for_upper_bound(expected, upper)
        if difference is not None:
            sizes |= _sizes_for_difference(expected, difference)
        if margin is not None:
            sizes |= _sizes_for_margin(expected, margin)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not sizes:
        raise UserError("say what you want to show: --width, --upper, --difference or --margin")
    if expected.answers > 1:
        # The design effect is the factor on the number of answers; divided by the answers to each
        # prompt, on the number of prompts.
        effect = planning.design_effect(expected.answers, expected.correlation) / expected.answers
        sizes = {line: max(1, math.ceil(n * effect)) for line, n in sizes.items()}
        sizes["answers to each prompt"] = expected.answers
    if json:
        print_json(msgspec.json.encode(sizes))
        return 0
    for line, n in sizes.items():
        print_text(f"{n:>8,}  {line}")
    return 0


# The keys of these dictionaries are the lines of the output, and the keys of its JSON.


def _sizes_for_width(expected: ExpectationFlags, width: float) -> dict[str, int]:
    from truing.stats import planning

    rate = expected.rate
    fixed = f"prompts for an interval {100 * width:g} points wide at a rate of {rate:g}"
    sequential = "  the same with --until, which may look after each (median)"
    return {
        fixed: planning.n_for_width(rate, width),
        sequential: planning.n_for_betting_sequence(rate, width),
    }


def _sizes_for_upper_bound(expected: ExpectationFlags, upper: float) -> dict[str, int]:
    from truing.stats import planning
    from truing.stats.conformal import labels_needed

    line = f"prompts so that the upper bound falls under {upper:g} with power {expected.power:g}"
    return {
        line: planning.n_for_upper_bound(expected.rate, upper, power=expected.power),
        "  at the very least (no event at all)": labels_needed(upper),
        # A gate's bound is an end of a two-sided interval of 95 %.
        "  the same in a gate, which is wrong in 2.5 % on either side": planning.n_for_upper_bound(
            expected.rate, upper, power=expected.power, confidence=0.975
        ),
    }


def _sizes_for_difference(expected: ExpectationFlags, difference: float) -> dict[str, int]:
    from truing.stats import planning

    size = abs(difference)
    changed = expected.changed if expected.changed is not None else min(1.0, 2 * size)
    # The two discordant cells of the paired table: their sum changes, their difference is shown.
    p10, p01 = (changed + size) / 2, (changed - size) / 2
    if p01 < 0:
        raise ValueError("--changed is smaller than --difference")
    line = (
        f"prompts for a paired difference of {100 * difference:g} points "
        f"if {100 * changed:g} % change"
    )
    return {line: planning.n_pairs_for_mcnemar(p10, p01, power=expected.power)}


def _sizes_for_margin(expected: ExpectationFlags, margin: float) -> dict[str, int]:
    from truing.stats import planning

    changed = expected.changed if expected.changed is not None else min(1.0, 2 * margin)
    line = (
        f"prompts to show a loss under {100 * margin:g} points "
        f"if {100 * changed:g} % change either way"
    )
    return {line: planning.n_for_non_inferiority(changed, margin, power=expected.power)}
