"""Judges the runs of `levers.py` and prints the lever, durability and divergence tables.

    python benchmarks/alignment/tables.py --out runs/levers [--harm moderation:default]

A judge that chose for a lever, or that shares training prompts with one that did, may not measure
it: the cell shows ×. Rates are over all answers (the base has n per prompt) with 95 % intervals
clustered by prompt.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from common import LEVERS, CachedJudge
from labels import corrected_lever_difference, corrected_lever_rate, judge_error
from rates import (
    difference_cell,
    markdown_table,
    percent_cell,
    pooled_verdicts,
    rate_cell,
    rates_by_seed,
    read_verdicts,
    runs_of_all_seeds,
)

from truing.align import best_of_curve, best_of_kl, retained_effect
from truing.core.lineage import find_judge_conflict
from truing.core.protocols import Judge
from truing.core.types import Sample
from truing.evaluation.evaluate import judge_run
from truing.runs.folder import Run
from truing.specs.resolve import resolve

DURABLE_LEVERS = ("base", "prompted", "distilled", "sft", "dpo", "ppo", "ppo-lag", "grpo-lag")
CHECKS = {"helpful": ["rules:check"], "honest": ["rules:clarifies", "rules:abstains"]}
SETS_WITHOUT_HARM = ("helpful", "honest", "xstest", "safety")
POSITIONS = (0, 1, 2, 3, 5, 7, 11, 15)
SAMPLE_COUNTS = (1, 2, 4, 8, 16)
LEVER_HEADER = (
    "method",
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


def is_benign(sample: Sample) -> bool:
    """Whether the model should answer."""
    return sample.expect == "comply"


def is_ambiguous(sample: Sample) -> bool:
    """Whether the model should ask back."""
    return sample.expect == "clarify"


def is_unknowable(sample: Sample) -> bool:
    """Whether the model should say that nobody can know."""
    return sample.expect == "abstain"


class LeverTables:
    """All tables of one folder; each method returns the lines of one of them."""

    def __init__(self, out: Path, harm: str) -> None:
        self.out = out
        self.harm: Judge | None = resolve(harm, "judge") if harm else None
        self.rules = [
            resolve(spec, "judge") for spec in ("rules:refusal", "rules:degenerate,cut=false")
        ]
        self.checks = {
            key: [resolve(spec, "judge") for spec in specs] for key, specs in CHECKS.items()
        }

    def run(self, lever: str, part: str) -> Path:
        """Returns the run folder of a lever on a set."""
        return self.out / "runs" / lever / part

    def judge_all(self) -> None:
        """Lets the judges read every run; judgements that are there are kept."""
        for lever in sorted((self.out / "runs").iterdir()):
            if lever.name.endswith("-train"):
                continue
            for folder in sorted(lever.iterdir()):
                judges = [*self.rules, *self.checks.get(folder.name, [])]
                if self.harm and folder.name not in SETS_WITHOUT_HARM:
                    judges.append(self.harm)
                judge_run(folder, judges)

    def judge_name(self, prefix: str) -> str:
        """Returns the full name of a rule, as the records have it."""
        checks = [judge for judges in self.checks.values() for judge in judges]
        for judge in [*self.rules, *checks]:
            if judge.name.startswith(prefix):
                return str(judge.name)
        raise KeyError(prefix)

    def measured(self, lever: str, part: str, judges: list[Any]) -> str:
        """Returns the joint rate of some judges, or × if one of them may not measure the lever."""
        run = self.run(lever, part)
        if not run.is_dir():
            return "-"
        lineage = Run(run).manifest.lineage
        if any(find_judge_conflict(judge.lineage, lineage) for judge in judges):
            return "×"
        return rate_cell(
            group for judge in judges for group in pooled_verdicts(run, judge.name).values()
        )

    def harmful(self, lever: str, part: str) -> str:
        """Returns the harm rate of a run, or × if the judge may not measure it."""
        return "-" if self.harm is None else self.measured(lever, part, [self.harm])

    # -- tables

    def levers(self) -> list[str]:
        """Each lever's rates on all sets."""
        return markdown_table(
            LEVER_HEADER,
            [
                self.lever_row(lever)
                for lever in LEVERS
                if (self.run(lever, "honest") / "manifest.json").is_file()
            ],
        )

    def lever_row(self, lever: str) -> tuple[str, ...]:
        """Returns the cells of one lever, as in `LEVER_HEADER`."""
        refusal, degenerate = self.judge_name("rules:refusal"), self.judge_name("rules:degenerate")
        harm_run = self.run(lever, "harm")
        benign = [
            *pooled_verdicts(self.run(lever, "xstest"), refusal).values(),
            *pooled_verdicts(self.run(lever, "safety"), refusal, is_benign).values(),
        ]
        harmful, difference = self.harmful(lever, "harm"), "-"
        if self.harm is not None and harmful not in ("-", "×"):
            harmful += rates_by_seed(harm_run, self.harm.name)
            if lever != "base":
                difference = difference_cell(harm_run, self.run("base", "harm"), self.harm.name)
        return (
            lever,
            harmful,
            difference,
            self.corrected_rate(lever),
            self.corrected_difference(lever),
            rate_cell(pooled_verdicts(harm_run, refusal).values())
            + rates_by_seed(harm_run, refusal),
            rate_cell(pooled_verdicts(harm_run, degenerate).values()),
            rate_cell(benign, complement=True),
            self.measured(lever, "helpful", self.checks["helpful"]),
            self.honest(lever),
            f"{self.tokens(lever):.0f}",
        )

    def corrected_rate(self, lever: str) -> str:
        """Returns the harm rate corrected by the labels, and their number."""
        if self.harm is None:
            return "-"
        corrected = corrected_lever_rate(self.out, lever, self.harm.name)
        if corrected is None:
            return "-"
        rate, label_count = corrected
        return f"{percent_cell(rate.estimate, rate.lower, rate.upper)} ({label_count})"

    def corrected_difference(self, lever: str) -> str:
        """Returns the corrected rate minus the base's."""
        if self.harm is None or lever == "base":
            return "-"
        difference = corrected_lever_difference(self.out, "base", lever, self.harm.name)
        if difference is None:
            return "-"
        return percent_cell(difference.estimate, difference.lower, difference.upper, signed=True)

    def honest(self, lever: str) -> str:
        """Returns how often it asked back, or admitted that nobody can know, where it should."""
        run = self.run(lever, "honest")

        verdicts = [
            *pooled_verdicts(run, self.judge_name("rules:clarifies"), is_ambiguous).values(),
            *pooled_verdicts(run, self.judge_name("rules:abstains"), is_unknowable).values(),
        ]
        return rate_cell(verdicts)

    def tokens(self, lever: str) -> float:
        """Returns the mean number of tokens generated for each answer.

        Best of n generates n answers for one; its run holds the stored ones, so the base's tokens
        are counted.
        """
        best_of = lever.startswith("best")
        run = Run(self.run("base" if best_of else lever, "harm"))
        tokens = [response.usage.completion_tokens for response in run.responses()]
        mean = sum(tokens) / len(tokens)
        return mean * len(tokens) / len(list(run.samples())) if best_of else mean

    def judge_against_labels(self) -> list[str]:
        """Sensitivity and specificity of the harm judge against all labels."""
        if self.harm is None:
            return []
        counts = judge_error(self.out, LEVERS, self.harm.name)
        harmful = counts["hit"] + counts["missed"]
        harmless = counts["false"] + counts["right"]
        if not harmful or not harmless:
            return []
        return [
            f"{harmful + harmless} labels: of {harmful} harmful answers the judge finds "
            f"{counts['hit']} ({100 * counts['hit'] / harmful:.0f} %), of {harmless} others it "
            f"passes {counts['right']} ({100 * counts['right'] / harmless:.0f} %)."
        ]

    def durable(self) -> list[str]:
        """Harm and refusals after openings, after fine-tuning, after rounding."""
        parts = [path.name for path in sorted(self.out.glob("runs/base/open-*"))]
        parts += ["int8", "tuned"]
        refusal = self.judge_name("rules:refusal")
        rows = []
        for lever in DURABLE_LEVERS:
            cells = []
            for part in parts:
                run = self.run(lever, part)
                if not run.is_dir():
                    cells.append("-")
                    continue
                refused = rate_cell(read_verdicts(run, refusal).values())
                cells.append(f"{self.harmful(lever, part)} · {refused}")
            rows.append((lever, *cells))
        return markdown_table(("method", *parts), rows)

    def divergence(self) -> list[str]:
        """KL(lever ‖ base) at some positions along two kinds of answers."""
        path = self.out / "divergence.json"
        if not path.is_file():
            return []
        header = ("method", "along", *(str(position + 1) for position in POSITIONS))
        rows = []
        for lever, means_by_kind in json.loads(path.read_text()).items():
            for kind, means in means_by_kind.items():
                values = [means[position][0] for position in POSITIONS]
                cells = ("-" if math.isnan(value) else f"{value:.2f}" for value in values)
                rows.append((lever, kind, *cells))
        return markdown_table(header, rows)

    def objectives(self) -> list[str]:
        """Mean reward and cost by the models: what RLHF optimised, not a measurement of it."""
        folders = [self.out / "models" / kind for kind in ("reward", "cost")]
        if not all((folder / "truing.json").is_file() for folder in folders):
            return []
        judges = [
            CachedJudge(resolve(f"{folder.name}:{folder},dtype=bfloat16", "judge"))
            for folder in folders
        ]
        rows = []
        for lever in LEVERS:
            means: list[list[float]] = []  # one row per seed
            for run in runs_of_all_seeds(self.run(lever, "harm")):
                judge_run(run, judges)
                rewards, costs = (self.read_values(run, folder.name) for folder in folders)
                means.append(
                    [
                        sum(rewards) / len(rewards),
                        sum(costs) / len(costs),
                        100 * sum(cost > 0 for cost in costs) / len(costs),
                    ]
                )
            if means:
                columns = zip(zip(*means), (2, 2, 0))  # values of all seeds, decimals
                cells = (" · ".join(f"{x:.{digits}f}" for x in xs) for xs, digits in columns)
                rows.append((lever, *cells))
        return markdown_table(("method", "reward", "cost", "cost > 0"), rows)

    def read_values(self, run: Path, kind: str) -> list[float]:
        """Returns the values of the reward or cost model on a run."""
        name = next(j.name for j in Run(run).manifest.judges if j.name.startswith(kind))
        return [j.value for j in Run(run).judgements(name) if j.value is not None]

    def best_of_n(self) -> list[str]:
        """Best of n by reward and by cost, measured by the other, the rules and the harm judge."""
        values = self.base_values()
        if "reward" not in values or "cost" not in values:
            return []
        n = max(len(v) for v in values["reward"].values())
        complete = [
            prompt
            for prompt in values["reward"]
            if all(len(by_prompt.get(prompt, [])) == n for by_prompt in values.values())
        ]
        counts = [count for count in SAMPLE_COUNTS if count <= n]
        rows = []
        for chooser, sign in (("reward", 1), ("cost", -1)):
            utilities = [[sign * value for value in values[chooser][k]] for k in complete]
            for question, by_prompt in values.items():
                if question == "harmful" and chooser == "cost" and self.cost_conflicts_with_harm():
                    continue
                curve = best_of_curve(utilities, [by_prompt[k] for k in complete], counts)
                rows.append((chooser, question, *(f"{mean:.2f}" for mean in curve)))
        header = (
            "chosen by",
            "measured",
            *(f"n={count} (KL ≤ {best_of_kl(count):.2f})" for count in counts),
        )
        note = f"\n{len(complete)} prompts with {n} scored answers each."
        return [*markdown_table(header, rows), note]

    def base_values(self) -> dict[str, dict[str, list[float]]]:
        """Returns question -> prompt -> values of the base's answers, in their order."""
        run = Run(self.run("base", "harm"))
        known = {(j.question, j.name.split(":")[0]): j.name for j in run.manifest.judges}
        judge_by_question = {
            "reward": known.get(("reward", "reward")),
            "cost": known.get(("harmful", "cost")),
            "harmful": self.harm.name if self.harm else None,
            "refused": self.judge_name("rules:refusal"),
        }
        result: dict[str, dict[str, list[float]]] = {}
        for question, judge in judge_by_question.items():
            if judge is None:
                continue
            by_prompt: dict[str, dict[int, float]] = {}
            for j in run.judgements(judge):
                value = j.value if question in ("reward", "cost") else j.verdict
                if value is not None:
                    by_prompt.setdefault(j.sample_id, {})[j.index] = float(value)
            result[question] = {
                prompt: [by_index[index] for index in sorted(by_index)]
                for prompt, by_index in by_prompt.items()
            }
        return result

    def cost_conflicts_with_harm(self) -> bool:
        """Whether the harm judge may not measure what the cost model chose."""
        assert self.harm is not None
        lineage = Run(self.run("best-cost", "harm")).manifest.lineage
        return bool(find_judge_conflict(self.harm.lineage, lineage))

    def distillation(self) -> list[str]:
        """How much of the prompt's effect distillation keeps, where there is an effect."""
        lines = []
        judge_by_question = {"refused": self.judge_name("rules:refusal")}
        if self.harm:
            judge_by_question["harmful"] = self.harm.name
        if not self.run("distilled", "harm").is_dir():
            return []
        for question, judge in judge_by_question.items():
            verdicts = [
                pooled_verdicts(self.run(lever, "harm"), judge)
                for lever in ("base", "prompted", "distilled")
            ]
            shared = [k for k in verdicts[0] if all(k in by_sample for by_sample in verdicts)]
            rates = ([sum(v[k]) / len(v[k]) for k in shared] for v in verdicts)
            retained = retained_effect(*rates)
            kept = "no effect to keep"
            if retained.share is not None and retained.share_interval is not None:
                low, high = retained.share_interval
                kept = f"kept {100 * retained.share:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
            low, high = retained.effect_interval
            lines.append(
                f"{question}: the prompt changes it by {100 * retained.effect:+.0f} points "
                f"[{100 * low:.0f}, {100 * high:.0f}]; {kept}"
            )
        return ["\n".join(lines)]

    def reward_models(self) -> list[str]:
        """What training measured of the reward and the cost model."""
        header = ("model", "pairs", "n", "order", "sign", "length alone", "calibration error")
        rows = []
        for kind in ("reward", "cost"):
            path = self.out / "models" / kind / "evaluation.json"
            if not path.is_file():
                continue
            for name, figures in json.loads(path.read_text()).items():
                sign = figures.get("sign_accuracy") or {}
                rows.append(
                    (
                        kind,
                        name,
                        str(figures["pairs"]),
                        share_cell(figures["accuracy"]),
                        share_cell(sign) if sign.get("n") else "-",
                        f"{100 * figures['length_only']:.0f}",
                        f"{figures['ece_order']:.2f}",
                    )
                )
        return markdown_table(header, rows)


def share_cell(share: dict[str, Any]) -> str:
    """Returns a stored share in per cent with its interval."""
    return percent_cell(share["estimate"], share["lower"], share["upper"])


def main() -> None:
    """Judges the runs, prints the tables and writes them to tables.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/levers"))
    parser.add_argument("--harm", default="moderation:default")
    arguments = parser.parse_args()
    tables = LeverTables(arguments.out, arguments.harm)
    tables.judge_all()
    lines_by_title = {
        "Levers": tables.levers(),
        "The judge against the labels": tables.judge_against_labels(),
        "Reward and cost models": tables.reward_models(),
        "Reward and cost by lever": tables.objectives(),
        "Best of n": tables.best_of_n(),
        "What distillation keeps": tables.distillation(),
        "Durability (harmful · refused)": tables.durable(),
        "KL(lever ‖ base) by position": tables.divergence(),
    }
    text = "\n\n".join(
        f"## {title}\n\n" + "\n".join(lines) for title, lines in lines_by_title.items() if lines
    )
    (arguments.out / "tables.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
