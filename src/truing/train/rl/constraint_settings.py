"""The settings of one constraint: the limit of its cost, its prompts, and the range of its λ."""

from __future__ import annotations

import math
import re
from typing import Literal

from msgspec import Struct

from truing.core.types import Sample

MAIN_CONSTRAINT = "cost"
"""The constraint on `--cost`; its figures keep the log keys without a name."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class ConstraintSettings(Struct, frozen=True, kw_only=True):
    """One constraint of a run.

    The multiplier λ keeps the mean cost of the last `window` answers at or below `threshold`; with
    `kind` cvar, the mean of their worst share `tail` (conditional value at risk). Only answers to
    prompts with the harm category `category` and the desired behaviour `expect` count; "" counts
    all. A category is named by its id, or by the part of the id before the first comma. `lambda_lr`
    is the learning rate of log λ.
    """

    name: str
    threshold: float = 0.0
    kind: Literal["mean", "cvar"] = "mean"
    tail: float = 0.1
    category: str = ""
    expect: Literal["", "comply", "refuse", "clarify", "abstain", "support"] = ""
    lambda_init: float = 1.0
    lambda_lr: float = 0.1
    lambda_max: float | None = 5.0
    lambda_min: float | None = None
    window: int = 128

    def applies_to(self, sample: Sample) -> bool:
        """Whether answers to this prompt are under the constraint."""
        if self.expect and sample.expect != self.expect:
            return False
        if not self.category:
            return True
        return any(self.category in (harm, harm.partition(",")[0]) for harm in sample.harms)

    def faults(self) -> list[str]:
        """Returns what is wrong with the settings."""
        place = "" if self.name == MAIN_CONSTRAINT else f"constraint {self.name}: "
        faults = []
        if not _NAME.fullmatch(self.name):
            faults.append(f"constraint {self.name!r}: a name has letters, digits, - and _ alone")
        # `not x > y` and not `x <= y`: a NaN must be a fault too.
        if not math.isfinite(self.threshold):
            faults.append(f"{place}threshold = {self.threshold}: must be finite")
        if not 0 < self.tail <= 1:
            faults.append(f"{place}tail = {self.tail}: above 0 and at most 1")
        if not self.lambda_lr >= 0:
            faults.append(f"{place}lambda_lr = {self.lambda_lr}: at least 0")
        if not self.window >= 1:
            faults.append(f"{place}window = {self.window}: at least 1")
        if not self.lambda_init > 0:
            faults.append(
                f"{place}lambda_init = {self.lambda_init}: must be above 0, because log λ is "
                f"updated"
            )
        low = self.lambda_min or 0.0
        high = math.inf if self.lambda_max is None else self.lambda_max
        if not low <= self.lambda_init <= high:
            faults.append(
                f"{place}lambda_init = {self.lambda_init} is outside its bounds [{low}, {high}]"
            )
        return faults
