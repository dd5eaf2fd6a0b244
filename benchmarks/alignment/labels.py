"""Human labels of drawn answers, for the corrected columns of the lever tables.

    python benchmarks/alignment/labels.py draw --out runs/levers --per 25
        writes labels/todo.txt: rows to read, without lever or verdict
    python benchmarks/alignment/labels.py take --out runs/levers --file FILE
        reads lines "number 0|1|?" and adds them to labels.jsonl

Rows are drawn uniformly within each lever (equally many of each seed) and shown in random order. A
row that cannot be decided ("?") counts as not drawn.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import LEVERS

from truing.runs.folder import Run
from truing.specs.resolve import resolve
from truing.stats.intervals import Interval
from truing.stats.judge_error import corrected_difference, corrected_rate, ppi_mean

LABELS_FILE = Path(__file__).parent / "labels.jsonl"
MIN_LABELS_RATE, MIN_LABELS_DIFFERENCE = 10, 30


@dataclass(frozen=True)
class JudgedAnswer:
    """One judged answer. `run` is the folder's name, which for a further seed ends in -1, -2."""

    lever: str
    run: str
    sample: str
    index: int
    verdict: float

    @property
    def key(self) -> str:
        """The key of its label in `labels.jsonl`."""
        return f"{self.run}|{self.sample}|{self.index}"


@dataclass(frozen=True)
class LabelledSample:
    """The arguments of `ppi_mean` for one lever."""

    verdicts: list[float]
    labels: Any  # NaN where not drawn
    probabilities: Any  # of being drawn
    prompts: list[int]
    label_count: int

    def arguments(self) -> tuple[list[float], Any, Any, list[int]]:
        """Returns the positional arguments."""
        return self.verdicts, self.labels, self.probabilities, self.prompts


def read_judged_answers(out: Path, lever: str, judge: str) -> list[JudgedAnswer]:
    """Returns the judged answers to harmful prompts of all seeds, in a fixed order."""
    runs = out / "runs"
    folders = [runs / lever / "harm", *sorted(runs.glob(f"{lever}-[0-9]/harm"))]
    answers = [
        JudgedAnswer(lever, folder.parent.name, j.sample_id, j.index, float(j.verdict))
        for folder in folders
        if (folder / "manifest.json").is_file()
        for j in Run(folder).judgements(judge)
        if j.verdict is not None
    ]
    return sorted(answers, key=lambda answer: answer.key)


def draw_answers(answers: list[JudgedAnswer], count: int) -> list[JudgedAnswer]:
    """Draws about `count` answers, equally many of each seed.

    The draw is always the same, and that of a larger count contains that of a smaller one.
    """
    drawn: list[JudgedAnswer] = []
    runs = sorted({answer.run for answer in answers})
    per_run = -(-count // len(runs))  # rounded up
    for run in runs:
        shuffled = [answer for answer in answers if answer.run == run]
        random.Random(f"labels of {run}").shuffle(shuffled)
        drawn += shuffled[:per_run]
    return drawn


def read_labels() -> dict[str, float | None]:
    """Returns the labels by key; None where a row could not be decided."""
    if not LABELS_FILE.is_file():
        return {}
    records = (json.loads(line) for line in LABELS_FILE.read_text().splitlines())
    return {record["key"]: record["harmful"] for record in records}


def labelled_sample(out: Path, lever: str, judge: str) -> LabelledSample:
    """Returns the verdicts and labels of a lever."""
    answers, label_by_key = read_judged_answers(out, lever, judge), read_labels()
    labels = [label_by_key.get(answer.key) for answer in answers]
    label_count = sum(label is not None for label in labels)
    prompts = sorted({answer.sample for answer in answers})
    prompt_index = {prompt: k for k, prompt in enumerate(prompts)}
    return LabelledSample(
        [answer.verdict for answer in answers],
        np.array([np.nan if label is None else label for label in labels]),
        np.full(len(answers), label_count / max(1, len(answers))),
        [prompt_index[answer.sample] for answer in answers],
        label_count,
    )


def corrected_lever_rate(out: Path, lever: str, judge: str) -> tuple[Interval, int] | None:
    """Returns the harm rate corrected by the labels, and their number.

    The estimate is PPI++, clustered by prompt. None with fewer than ten labels.
    """
    sample = labelled_sample(out, lever, judge)
    if sample.label_count < MIN_LABELS_RATE:
        return None
    return corrected_rate(*sample.arguments()), sample.label_count


def corrected_lever_difference(out: Path, base: str, lever: str, judge: str) -> Interval | None:
    """Returns the corrected rate of a lever minus that of the base.

    Paired by prompt if both answered the same prompts; None with fewer than thirty labels of
    either.
    """
    samples = [labelled_sample(out, name, judge) for name in (base, lever)]
    if min(sample.label_count for sample in samples) < MIN_LABELS_DIFFERENCE:
        return None
    base_mean, lever_mean = (ppi_mean(*sample.arguments()) for sample in samples)
    base_prompts, lever_prompts = (
        {answer.sample for answer in read_judged_answers(out, name, judge)}
        for name in (base, lever)
    )
    return corrected_difference(base_mean, lever_mean, paired=base_prompts == lever_prompts)


def judge_error(out: Path, levers: tuple[str, ...], judge: str) -> dict[str, int]:
    """Returns the confusion counts of the judge against the labels, over all levers."""
    names = {
        (True, True): "hit",
        (False, True): "missed",
        (True, False): "false",
        (False, False): "right",
    }
    label_by_key, counts = read_labels(), dict.fromkeys(names.values(), 0)
    for lever in levers:
        for answer in read_judged_answers(out, lever, judge):
            label = label_by_key.get(answer.key)
            if label is not None:
                counts[names[bool(answer.verdict), bool(label)]] += 1
    return counts


def read_texts(out: Path, answers: list[JudgedAnswer]) -> dict[str, tuple[str, str]]:
    """Returns the prompt and the text of all answers of the runs, by key."""
    texts: dict[str, tuple[str, str]] = {}
    for run in sorted({answer.run for answer in answers}):
        folder = Run(out / "runs" / run / "harm")
        prompts = {sample.id: sample.prompt for sample in folder.samples()}
        for response in folder.responses():
            key = f"{run}|{response.sample_id}|{response.index}"
            texts[key] = (prompts[response.sample_id], response.text)
    return texts


def write_rows_to_label(out: Path, levers: tuple[str, ...], judge: str, count: int) -> None:
    """Writes the drawn rows that have no label yet, and their keys to a separate file."""
    labels = read_labels()
    rows: list[JudgedAnswer] = []
    for lever in levers:
        answers = read_judged_answers(out, lever, judge)
        if answers:
            rows += [row for row in draw_answers(answers, count) if row.key not in labels]
    random.Random("order").shuffle(rows)
    texts = read_texts(out, rows)
    folder = out / "labels"
    folder.mkdir(exist_ok=True)
    (folder / "keys.json").write_text(json.dumps([[row.key, row.lever] for row in rows]))
    lines = []
    for k, row in enumerate(rows):
        prompt, answer = (" ".join(text.split()) for text in texts[row.key])
        lines.append(f"[{k}] {prompt}\n    -> {answer}")
    (folder / "todo.txt").write_text("\n".join(lines) + "\n")


def add_labels(out: Path, file: Path) -> None:
    """Adds the labels of a file to `labels.jsonl`: ids alone, no text."""
    keys: list[Any] = json.loads((out / "labels" / "keys.json").read_text())
    labels = read_labels()
    with LABELS_FILE.open("a") as stream:
        for line in file.read_text().split("\n"):
            if not line.strip():
                continue
            number, label = line.split()
            key, lever = keys[int(number)]
            if key in labels:
                continue
            harmful = None if label == "?" else int(label)
            stream.write(json.dumps({"key": key, "lever": lever, "harmful": harmful}) + "\n")


def main() -> None:
    """Draws rows, or takes their labels."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("draw", "take"))
    parser.add_argument("--out", type=Path, default=Path("runs/levers"))
    parser.add_argument("--file", type=Path)
    parser.add_argument("--per", type=int, default=25)
    parser.add_argument("--judge", default="moderation:default")
    arguments = parser.parse_args()
    if arguments.verb == "take":
        add_labels(arguments.out, arguments.file)
    else:
        judge = resolve(arguments.judge, "judge").name
        write_rows_to_label(arguments.out, LEVERS, judge, arguments.per)


if __name__ == "__main__":
    main()
