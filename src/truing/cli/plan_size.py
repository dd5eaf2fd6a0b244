"""`truing plan-size`: how many prompts and labels a question needs, before the money is spent."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from truing.core.errors import UserError
from truing.stats import planning
from truing.stats.conformal import labels_needed


@Parameter(name="*")
@dataclass(frozen=True)
class Expect:
    """What you expect.

    Parameters
    ----------
    rate
        The rate that you expect.
    changed
        The share of prompts whose outcome you expect to change either way between two models; default: twice the
        difference, or the margin.
    answers
        Answers to each prompt; they are alike, and count for less than so many prompts.
    correlation
        How alike the answers of a prompt are (0 to 1).
    power
        The chance to succeed if things are as you expect.
    """

    rate: float = 0.1
    changed: float | None = None
    answers: int = 1
    correlation: float = 0.5
    power: float = 0.8


def command(
    *,
    expect: Expect | None = None,
    width: float | None = None,
    upper: float | None = None,
    difference: float | None = None,
    margin: float | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Says how many prompts (or labels) are needed for what you want to be able to say.

    Give what you expect (--rate, --changed) and what you want to show (--width, --upper, --difference, --margin).

    Parameters
    ----------
    width
        Prompts until the interval is so wide at most, fixed beforehand and with --until.
    upper
        Prompts (or labels) until the upper bound lies under this limit.
    difference
        Prompts to show a paired difference of this size.
    margin
        Prompts to show that nothing was lost by more than this.
    json
        Print the numbers as JSON.
    """
    e = expect or Expect()
    if not 0 < e.power < 1 or not 0 <= e.rate <= 1 or e.answers < 1 or not 0 <= e.correlation <= 1:
        raise UserError(
            "--power lies between 0 and 1, --rate and --correlation in [0, 1], --answers is 1 or more"
        )
    found: dict[str, int | float] = {}
    effect = planning.design_effect(e.answers, e.correlation) / e.answers
    try:
        _fill(found, rate=e.rate, width=width, upper=upper, power=e.power)
        _pairs(found, changed=e.changed, difference=difference, margin=margin, power=e.power)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not found:
        raise UserError("say what you want to show: --width, --upper, --difference or --margin")
    if e.answers > 1:
        found = {k: _round(v * effect) for k, v in found.items()}
        found["answers to each prompt"] = e.answers
    if json:
        import msgspec

        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return 0
    for name, n in found.items():
        print(f"{n:>8,}  {name}")
    return 0


def _round(n: float) -> int:
    return max(1, int(-(-n // 1)))


def _fill(
    found: dict[str, int | float],
    *,
    rate: float,
    width: float | None,
    upper: float | None,
    power: float,
) -> None:
    if width is not None:
        found[f"prompts for an interval {100 * width:g} points wide at a rate of {rate:g}"] = (
            planning.n_for_width(rate, width)
        )
        found["  the same with --until, which may look after each (median)"] = (
            planning.n_for_betting_sequence(rate, width)
        )
    if upper is not None:
        n = planning.n_for_upper_bound(rate, upper, power=power)
        found[f"prompts so that the upper bound falls under {upper:g} with power {power:g}"] = n
        found["  at the very least (no event at all)"] = labels_needed(upper)


def _pairs(
    found: dict[str, int | float],
    *,
    changed: float | None,
    difference: float | None,
    margin: float | None,
    power: float,
) -> None:
    if difference is not None:
        share = changed if changed is not None else min(1.0, 2 * abs(difference))
        a, b = (share + abs(difference)) / 2, (share - abs(difference)) / 2
        if b < 0:
            raise ValueError("--changed is smaller than --difference")
        n = planning.n_pairs_for_mcnemar(a, b, power=power)
        found[
            f"prompts for a paired difference of {100 * difference:g} points if {100 * share:g} % change"
        ] = n
    if margin is not None:
        share = changed if changed is not None else min(1.0, 2 * margin)
        n = planning.n_for_non_inferiority(share, margin, power=power)
        found[
            f"prompts to show a loss under {100 * margin:g} points if {100 * share:g} % change either way"
        ] = n
