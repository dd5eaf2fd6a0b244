"""Judges the runs that `levers.py` left and prints the lever, durability and divergence tables.

    python benchmarks/alignment/tables.py --out runs/levers [--harm moderation:open]

A judge that chose for a lever, or shares training prompts with one that did, is struck for it: the cell shows ×. Rates
are over all answers (the base has n to a prompt) with 95 % intervals clustered by prompt.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from labels import corrected, difference, judge_error

from truing.align import best_of_curve, best_of_kl, retained_effect
from truing.core.lineage import find_judge_conflict
from truing.evaluation.evaluate import judge_run
from truing.runs.folder import Run
from truing.specs.resolve import resolve
from truing.stats.intervals import clustered_wilson
from truing.stats.paired import paired_mean

LEVERS = (
    "base",
    "system",
    "prompted",
    "distilled",
    "best-reward",
    "best-cost",
    "best-both",
    "sft",
    "dpo",
    "ppo",
    "ppo-lag",
    "grpo-lag",
)
DURABLE = ("base", "prompted", "distilled", "sft", "dpo", "ppo", "ppo-lag", "grpo-lag")
CHECKS = {"helpful": ["rules:check"], "honest": ["rules:clarifies", "rules:abstains"]}


def judge(run: Path, judges: list[Any]) -> None:
    """Adds the judges that are not there."""
    judge_run(run, judges)


def verdicts(run: Path, name: str, only: Any = None) -> dict[str, list[float]]:
    """Verdicts of a judge by sample; unscored ones are left out."""
    samples = {s.id: s for s in Run(run).samples()} if only else {}
    made: dict[str, list[float]] = defaultdict(list)
    for j in Run(run).judgements(name):
        if j.verdict is not None and (only is None or only(samples[j.sample_id])):
            made[j.sample_id].append(float(j.verdict))
    return made


def seeds(run: Path) -> list[Path]:
    """The same part of a lever's run for every seed."""
    lever, part = run.parent, run.name
    more = sorted(lever.parent.glob(f"{lever.name}-[0-9]/{part}"))
    return [r for r in (run, *more) if (r / "manifest.json").is_file()]


def pooled(run: Path, name: str, only: Any = None) -> dict[str, list[float]]:
    """Verdicts by sample over all seeds."""
    made: dict[str, list[float]] = defaultdict(list)
    for one in seeds(run):
        for key, some in verdicts(one, name, only).items():
            made[key] += some
    return made


def points(run: Path, name: str, only: Any = None) -> str:
    """The rate of every seed, where there are several."""
    every = seeds(run)
    if len(every) < 2:
        return ""
    flat = [[v for some in verdicts(one, name, only).values() for v in some] for one in every]
    return f" ({' · '.join(f'{100 * sum(x) / len(x):.0f}' for x in flat if x)})"


def apart(lever: Path, base: Path, name: str) -> str:
    """The mean difference to the base of prompts' rates, in points, with its interval."""
    a, b = pooled(base, name), pooled(lever, name)
    keys = [k for k in a if k in b]
    found = paired_mean(
        [sum(a[k]) / len(a[k]) for k in keys], [sum(b[k]) / len(b[k]) for k in keys]
    )
    return f"{100 * found.estimate:+.0f} [{100 * found.lower:+.0f}, {100 * found.upper:+.0f}]"


def cell(groups: Iterable[list[float]], *, flip: bool = False) -> str:
    """A rate in per cent with its interval."""
    listed = [g for g in groups if g]
    if not listed:
        return "-"
    found = clustered_wilson(
        [len(g) - sum(g) if flip else sum(g) for g in listed], [len(g) for g in listed]
    )
    low, high = max(0.0, found.lower), min(1.0, found.upper)
    return f"{100 * found.estimate:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


class Tables:
    """All tables of one folder."""

    def __init__(self, out: Path, harm: str) -> None:
        self.out, self.harm_name = out, harm
        self.harm = resolve(harm, "judge") if harm else None
        self.rules = [resolve(s, "judge") for s in ("rules:refusal", "rules:degenerate,cut=false")]
        self.checks = {k: [resolve(s, "judge") for s in v] for k, v in CHECKS.items()}

    def run(self, lever: str, part: str) -> Path:
        """A run folder."""
        return self.out / "runs" / lever / part

    def judge_all(self) -> None:
        """Every lever's runs."""
        for lever in sorted(p.name for p in (self.out / "runs").iterdir()):
            if lever.endswith("-train"):
                continue
            for folder in sorted((self.out / "runs" / lever).iterdir()):
                harm = (
                    [self.harm]
                    if self.harm and folder.name not in ("helpful", "honest", "xstest", "safety")
                    else []
                )
                judge(folder, [*self.rules, *harm, *self.checks.get(folder.name, [])])

    def name(self, prefix: str) -> str:
        """A judge's name in the records."""
        for j in [
            *self.rules,
            *(x for v in self.checks.values() for x in v),
            *([self.harm] if self.harm else []),
        ]:
            if j.name.startswith(prefix):
                return str(j.name)
        raise KeyError(prefix)

    def measured(
        self, lever: str, part: str, judges: list[Any], *, flip: bool = False, only: Any = None
    ) -> str:
        """A rate by some judges together, or × where one of them may not measure the lever."""
        run = self.run(lever, part)
        if not run.is_dir():
            return "-"
        made = Run(run).manifest.lineage
        if any(find_judge_conflict(j.lineage, made) for j in judges):
            return "×"
        return cell((g for j in judges for g in pooled(run, j.name, only).values()), flip=flip)

    def harmful(self, lever: str, part: str) -> str:
        """Harm in a run, or × where the judge may not measure it."""
        return "-" if self.harm is None else self.measured(lever, part, [self.harm])

    def levers(self) -> list[str]:
        """The levers' table."""
        head = (
            "lever",
            "harmful by the judge (seeds)",
            "less the base, paired",
            "harmful, corrected (labels)",
            "less the base, corrected",
            "refused (harmful prompts)",
            "degenerate",
            "benign answered",
            "checks passed",
            "asked back or admitted",
            "tokens an answer",
        )
        rows = [head, tuple("---" for _ in head)]
        refuse, broken = self.name("rules:refusal"), self.name("rules:degenerate")
        for lever in LEVERS:
            if not (self.run(lever, "honest") / "manifest.json").is_file():
                continue
            red = self.run(lever, "harm")
            benign = [
                *pooled(self.run(lever, "xstest"), refuse).values(),
                *pooled(self.run(lever, "safety"), refuse, lambda s: s.expect == "comply").values(),
            ]
            harmful, less = self.harmful(lever, "harm"), "-"
            if self.harm is not None and harmful not in ("-", "×"):
                harmful += points(red, self.harm.name)
                less = (
                    less
                    if lever == "base"
                    else apart(red, self.run("base", "harm"), self.harm.name)
                )
            rows.append(
                (
                    lever,
                    harmful,
                    less,
                    self.corrected(lever),
                    self.less(lever),
                    cell(pooled(red, refuse).values()) + points(red, refuse),
                    cell(pooled(red, broken).values()),
                    cell(benign, flip=True),
                    self.measured(lever, "helpful", self.checks["helpful"]),
                    self.honest(lever),
                    f"{self.tokens(lever):.0f}",
                )
            )
        return ["| " + " | ".join(r) + " |" for r in rows]

    def corrected(self, lever: str) -> str:
        """The harm rate after correction by the labels of `labels.py`."""
        made = corrected(self.out, lever, self.harm.name) if self.harm is not None else None
        if made is None:
            return "-"
        found, count = made
        return f"{100 * found.estimate:.0f} [{100 * found.lower:.0f}, {100 * found.upper:.0f}] ({count})"

    def less(self, lever: str) -> str:
        """The corrected rate less the base's."""
        made = (
            difference(self.out, "base", lever, self.harm.name)
            if self.harm is not None and lever != "base"
            else None
        )
        return (
            "-"
            if made is None
            else f"{100 * made.estimate:+.0f} [{100 * made.lower:+.0f}, {100 * made.upper:+.0f}]"
        )

    def trust(self) -> list[str]:
        """The harm judge against all labels."""
        if self.harm is None:
            return []
        c = judge_error(self.out, LEVERS, self.harm.name)
        found, passed = c["hit"] + c["missed"], c["false"] + c["right"]
        if not found or not passed:
            return []
        return [
            f"{found + passed} labels: of {found} harmful answers the judge finds {c['hit']} ({100 * c['hit'] / found:.0f} %), "
            f"of {passed} others it passes {c['right']} ({100 * c['right'] / passed:.0f} %)."
        ]

    def honest(self, lever: str) -> str:
        """Asked back where something was missing, admitted what nobody can know."""
        run = self.run(lever, "honest")
        asks = pooled(run, self.name("rules:clarifies"), lambda s: s.expect == "clarify")
        admits = pooled(run, self.name("rules:abstains"), lambda s: s.expect == "abstain")
        return cell([*asks.values(), *admits.values()])

    def tokens(self, lever: str) -> float:
        """Tokens written for each answer given; best of n writes n (its answers are stored ones, so n times the base's)."""
        run = Run(self.run("base" if lever.startswith("best") else lever, "harm"))
        used = [r.usage.completion_tokens for r in run.responses()]
        mean = sum(used) / len(used)
        return mean * (len(used) / len(list(run.samples())) if lever.startswith("best") else 1)

    def durable(self) -> list[str]:
        """Harm (and refusals) behind openings, after fine-tuning, after rounding."""
        parts = [p.name for p in sorted(self.out.glob("runs/base/open-*"))] + ["int8", "tuned"]
        head = ("lever", *parts)
        rows = [head, tuple("---" for _ in head)]
        for lever in DURABLE:
            cells = []
            for part in parts:
                run = self.run(lever, part)
                if not run.is_dir():
                    cells.append("-")
                    continue
                refused = cell(verdicts(run, self.name("rules:refusal")).values())
                cells.append(f"{self.harmful(lever, part)} · {refused}")
            rows.append((lever, *cells))
        return ["| " + " | ".join(r) + " |" for r in rows]

    def divergence(self) -> list[str]:
        """KL at positions along two kinds of answers."""
        path = self.out / "divergence.json"
        if not path.is_file():
            return []
        found = json.loads(path.read_text())
        at = (0, 1, 2, 3, 5, 7, 11, 15)
        head = ("lever", "along", *(str(k + 1) for k in at))
        rows = [head, tuple("---" for _ in head)]
        for lever, kinds in found.items():
            for kind, values in kinds.items():
                rows.append(
                    (
                        lever,
                        kind,
                        *(
                            "-" if values[k][0] != values[k][0] else f"{values[k][0]:.2f}"
                            for k in at
                        ),
                    )
                )
        return ["| " + " | ".join(r) + " |" for r in rows]

    def objectives(self) -> list[str]:
        """Reward and cost as the models give them: what RLHF was told to move, no measurement of it."""
        from levers import Remembers

        folders = [self.out / "models" / k for k in ("reward", "cost")]
        if not all((f / "truing.json").is_file() for f in folders):
            return []
        judges = [Remembers(resolve(f"{f.name}:{f},dtype=bfloat16", "judge")) for f in folders]
        rows = [("lever", "reward", "cost", "cost > 0")]
        rows.append(tuple("---" for _ in rows[0]))
        for lever in LEVERS:
            runs = seeds(self.run(lever, "harm"))
            if not runs:
                continue
            means: list[list[float]] = []
            for run in runs:
                judge_run(run, judges)
                names = [
                    next(j.name for j in Run(run).manifest.judges if j.name.startswith(f.name))
                    for f in folders
                ]
                reward, cost = (
                    [j.value for j in Run(run).judgements(n) if j.value is not None] for n in names
                )
                means.append(
                    [
                        sum(reward) / len(reward),
                        sum(cost) / len(cost),
                        100 * sum(c > 0 for c in cost) / len(cost),
                    ]
                )
            rows.append(
                (
                    lever,
                    *(
                        " · ".join(f"{m[k]:.{0 if k == 2 else 2}f}" for m in means)
                        for k in range(3)
                    ),
                )
            )
        return ["| " + " | ".join(r) + " |" for r in rows]

    def curve(self) -> list[str]:
        """Best of n by reward and by cost, measured by the other, by the rules and by the harm judge."""
        run = self.run("base", "harm")
        known = {j.question + j.name.split(":")[0]: j.name for j in Run(run).manifest.judges}
        values: dict[str, dict[str, list[float]]] = {}
        names = {
            "reward": known.get("rewardreward"),
            "cost": known.get("harmfulcost"),
            "harmful": self.harm.name if self.harm else None,
            "refused": self.name("rules:refusal"),
        }
        for word, name in names.items():
            if name is None:
                continue
            by: dict[str, dict[int, float]] = defaultdict(dict)
            for j in Run(run).judgements(name):
                v = (
                    j.value
                    if word in ("reward", "cost")
                    else None
                    if j.verdict is None
                    else float(j.verdict)
                )
                if v is not None:
                    by[j.sample_id][j.index] = v
            values[word] = {k: [v[i] for i in sorted(v)] for k, v in by.items()}
        if "reward" not in values or "cost" not in values:
            return []
        n = max(len(v) for v in values["reward"].values())
        whole = [k for k in values["reward"] if all(len(values[w].get(k, [])) == n for w in values)]
        ns = [x for x in (1, 2, 4, 8, 16) if x <= n]
        rows = [("chosen by", "measured", *(f"n={x} (KL ≤ {best_of_kl(x):.2f})" for x in ns))]
        rows.append(tuple("---" for _ in rows[0]))
        for chooser, sign in (("reward", 1), ("cost", -1)):
            by_it = [[sign * v for v in values[chooser][k]] for k in whole]
            for word, measured in values.items():
                if word == "harmful" and self.harm and chooser == "cost" and self._cost_strikes():
                    continue
                curve = best_of_curve(by_it, [measured[k] for k in whole], ns)
                rows.append((chooser, word, *(f"{x:.2f}" for x in curve)))
        return ["| " + " | ".join(r) + " |" for r in rows] + [
            f"\n{len(whole)} prompts with {n} scored answers each."
        ]

    def _cost_strikes(self) -> bool:
        assert self.harm is not None
        return bool(
            find_judge_conflict(
                self.harm.lineage, Run(self.run("best-cost", "harm")).manifest.lineage
            )
        )

    def kept(self) -> str:
        """How much of the prompt's effect distillation keeps, where there is an effect."""
        lines = []
        for word, name in (
            ("refused", self.name("rules:refusal")),
            ("harmful", self.harm.name if self.harm else ""),
        ):
            if not name or not self.run("distilled", "harm").is_dir():
                continue
            three = [pooled(self.run(x, "harm"), name) for x in ("base", "prompted", "distilled")]
            keys = [k for k in three[0] if all(k in t for t in three)]
            got = retained_effect(*([sum(t[k]) / len(t[k]) for k in keys] for t in three))
            low, high = got.effect_interval
            share = (
                "no effect to keep"
                if got.share is None or got.share_interval is None
                else (
                    f"kept {100 * got.share:.0f} % [{100 * got.share_interval[0]:.0f}, {100 * got.share_interval[1]:.0f}]"
                )
            )
            lines.append(
                f"{word}: the prompt changes it by {100 * got.effect:+.0f} points "
                f"[{100 * low:.0f}, {100 * high:.0f}]; {share}"
            )
        return "\n".join(lines)

    def judges(self) -> list[str]:
        """What training measured of the reward and the cost model."""
        rows = [("model", "pairs", "n", "order", "sign", "length alone", "calibration error")]
        rows.append(tuple("---" for _ in rows[0]))
        for kind in ("reward", "cost"):
            path = self.out / "models" / kind / "evaluation.json"
            if not path.is_file():
                continue
            for name, one in json.loads(path.read_text()).items():
                sign = one.get("sign_accuracy") or {}
                rows.append(
                    (
                        kind,
                        name,
                        str(one["pairs"]),
                        _share(one["accuracy"]),
                        _share(sign) if sign.get("n") else "-",
                        f"{100 * one['length_only']:.0f}",
                        f"{one['ece_order']:.2f}",
                    )
                )
        return ["| " + " | ".join(r) + " |" for r in rows]


def _share(one: dict[str, Any]) -> str:
    return f"{100 * one['estimate']:.0f} [{100 * one['lower']:.0f}, {100 * one['upper']:.0f}]"


def main() -> None:
    """Judges and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/levers"))
    parser.add_argument("--harm", default="moderation:open")
    given = parser.parse_args()
    made = Tables(given.out, given.harm)
    made.judge_all()
    parts = {
        "Levers": made.levers(),
        "The judge against the labels": made.trust(),
        "Reward and cost models": made.judges(),
        "Reward and cost by lever": made.objectives(),
        "Best of n": made.curve(),
        "What distillation keeps": [made.kept()],
        "Durability (harmful · refused)": made.durable(),
        "KL(lever ‖ base) by position": made.divergence(),
    }
    text = "\n\n".join(
        f"## {title}\n\n" + "\n".join(lines) for title, lines in parts.items() if lines
    )
    (given.out / "tables.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
