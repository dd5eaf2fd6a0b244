"""Whole answers that readers grade, and what is learned from them: the sixth round.

    python benchmarks/alignment/study_answers.py --out STUDY sample --target qwen
    python benchmarks/alignment/study_answers.py --out STUDY packets --target qwen
    python benchmarks/alignment/study_answers.py --out STUDY take --target qwen --file GRADES
    python benchmarks/alignment/study_answers.py --out STUDY write --target qwen

The rounds before taught which requests to decline, by the first words of an answer, and no model of
this size tells harmful requests from look-alikes well enough. Here pairs are of whole answers of the
base to one prompt: an answer that harms nobody over one that could, and an answer over a needless
refusal. Whether to decline is taught only where the base has no harmless answer.

`sample` lets the base answer training prompts `SAMPLES` times. `packets` writes them for readers, who
know neither the kind of the prompt nor the base: STUDY/packets/answers-TARGET-K.txt. A grade is "R"
(declines, lectures, or answers another question) or a digit of harm by rubric.md followed, where the
digit is 1 or 2, by a digit of use (0 useless, 1 poor, 2 fair). `write` makes STUDY/data/answer-pairs-TARGET.jsonl (DPO),
answer-sft-TARGET.jsonl and answer-grades-TARGET.jsonl (for a cost model).
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from common import SampleList
from study import Study
from study_cells import CELLS, Cell, attacked, published_requests, share_of
from study_labels import write_parts
from study_pairs import write_rows
from study_steering import request_of
from study_written import AT_RISK, SIDES, written_pairs

from truing.core.types import Sample, Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.runs.folder import Run

MAX_TOKENS = 64
SAMPLES = 4
TEMPERATURE = 0.8
"""Warmer than the study measures: a cold model gives four times the same answer."""
HARMFUL_GRADE = 3
PROMPTS_OF_A_PART = 60


@dataclass(frozen=True)
class Counts:
    """How many prompts of a cell are sampled: of the written pairs, and of published sets."""

    written: int
    published: int = 0


COUNTS: dict[str, dict[str, Counts]] = {
    "qwen": {
        "refuse-plain": Counts(100, 130),
        "refuse-role-play": Counts(80, 100),
        "comply-plain": Counts(90, 60),
        "comply-role-play": Counts(90, 60),
    },
    # What ships with truing learns from texts of our own alone.
    "smol": {
        "refuse-plain": Counts(280),
        "refuse-role-play": Counts(60),
        "comply-plain": Counts(160),
        "comply-role-play": Counts(60),
    },
}


def cell_samples(target: str, cell: Cell) -> list[Sample]:
    """Returns the prompts of a cell: each request stands in one cell."""
    counts = COUNTS[target][cell.name]
    texts = [
        pair[SIDES[cell.expect]]
        for pair in written_pairs()
        if not (cell.expect == "refuse" and pair["category"] in AT_RISK)
    ]
    is_plain = cell.form == "plain"
    written = sorted(
        (text for text in texts if (share_of(text, "form") < 0.5) == is_plain),
        key=lambda text: share_of(text, "answers"),
    )[: counts.written]
    published = published_requests(cell)[: counts.published] if counts.published else []
    return attacked(cell, [*written, *published])


def sample_cell(study: Study, cell: Cell) -> None:
    """Lets the base answer the prompts of a cell, as far as it has not."""
    sampling = Sampling(
        n=SAMPLES, max_tokens=MAX_TOKENS, temperature=TEMPERATURE, top_p=study.target.top_p
    )
    options = EvaluateOptions(sampling=sampling, concurrency=2 * study.target.batch)
    data = SampleList(f"study answers {cell.name}", cell_samples(study.name, cell))
    with study.model("base") as model:
        evaluate(model, data, [], answer_folder(study, cell), options=options)


def answer_folder(study: Study, cell: Cell) -> Path:
    """Returns the run folder of the base's answers in a cell."""
    return study.run_folder("base", f"answers-{cell.name}")


@dataclass(frozen=True)
class Grade:
    """What a reader said of an answer: that it declines, or how harmful and how useful it is."""

    declines: bool = False
    harm: int = 1
    use: int = 0

    @classmethod
    def parse(cls, text: str) -> Grade | None:
        """Returns the grade that a reader wrote, None for "?"; raises ValueError for any other text."""
        if text == "?":
            return None
        if text == "R":
            return cls(declines=True)
        if text in ("3", "4", "5"):
            return cls(harm=int(text))
        if len(text) == 2 and text[0] in "12" and text[1] in "012":
            return cls(harm=int(text[0]), use=int(text[1]))
        raise ValueError(f"{text!r} is no grade")

    @property
    def is_harmful(self) -> bool:
        """Whether somebody could act on the answer or be hurt by it."""
        return self.harm >= HARMFUL_GRADE


@dataclass
class GradedPrompt:
    """A training prompt and the distinct answers of the base to it; None could not be told."""

    sample: Sample
    cell: Cell
    grades: dict[str, Grade | None] = field(default_factory=dict)

    def answers(self, *, declining: bool) -> list[str]:
        """Returns the harmless answers that decline, or that do not, the most useful first."""
        fit = [
            (text, grade)
            for text, grade in self.grades.items()
            if grade and grade.declines == declining and not grade.is_harmful
        ]
        return [text for text, grade in sorted(fit, key=lambda pair: -pair[1].use)]

    def harmful_answers(self) -> list[str]:
        """Returns the harmful answers, in the order in which they were drawn."""
        return [text for text, grade in self.grades.items() if grade and grade.is_harmful]


def read_prompts(study: Study) -> list[GradedPrompt]:
    """Returns the sampled prompts with their distinct answers, without grades."""
    prompts = []
    for cell in CELLS:
        run = Run(answer_folder(study, cell))
        answers: dict[str, list[str]] = defaultdict(list)
        for response in sorted(run.responses(), key=lambda r: r.index):
            answers[response.sample_id].append(response.text.strip())
        for sample in run.samples():
            texts = dict.fromkeys(filter(None, answers[sample.id]))
            prompts.append(GradedPrompt(sample, cell, dict.fromkeys(texts)))
    return prompts


def write_packets(study: Study) -> int:
    """Writes the answers for readers, those to one prompt together, in a random order of prompts."""
    prompts = read_prompts(study)
    random.Random(f"answers {study.name}").shuffle(prompts)
    lines, keys = [], []
    for number, prompt in enumerate(prompts):
        form = " (in a role-play)" if prompt.cell.form != "plain" else ""
        request = " ".join(request_of(prompt.sample.prompt).split())
        answers = [
            f"  {number}.{k} {' '.join(text.split())}" for k, text in enumerate(prompt.grades)
        ]
        lines.append("\n".join([f"[{number}]{form} {request}", *answers]))
        keys.append([prompt.sample.id, list(prompt.grades)])
    folder = study.out / "packets"
    folder.mkdir(exist_ok=True)
    write_parts(folder / f"answers-{study.name}", lines, PROMPTS_OF_A_PART)
    keys_file(study).write_text(json.dumps(keys), encoding="utf-8")
    return len(lines)


def keys_file(study: Study) -> Path:
    """Returns the file that says whose answers the numbers of the packets are."""
    return study.out / "packets" / f"answers-{study.name}.keys.json"


def grades_file(study: Study) -> Path:
    """Returns the file of the readers' grades: answer, a tab, grade, as JSON lines by prompt."""
    return study.out / "data" / f"answer-grades-{study.name}.jsonl"


def take_grades(study: Study, files: list[Path]) -> Counter[str]:
    """Joins the readers' files, lines "12.0 R", into one; the last grade of an answer counts."""
    keys = json.loads(keys_file(study).read_text(encoding="utf-8"))
    texts: dict[tuple[str, str], str] = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            if not line.strip():
                continue
            number, text = line.split()
            Grade.parse(text)
            row, _, index = number.partition(".")
            prompt, answers = keys[int(row)]
            texts[prompt, answers[int(index)]] = text
    grades_file(study).parent.mkdir(exist_ok=True)
    rows = [{"id": key, "answer": answer, "grade": text} for (key, answer), text in texts.items()]
    write_rows(grades_file(study), rows)
    return Counter(texts.values())


def graded_prompts(study: Study) -> list[GradedPrompt]:
    """Returns the sampled prompts with the grades of the readers."""
    prompts = {prompt.sample.id: prompt for prompt in read_prompts(study)}
    for line in grades_file(study).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prompts[row["id"]].grades[row["answer"]] = Grade.parse(row["grade"])
    return list(prompts.values())


def preference_pairs(prompt: GradedPrompt) -> Iterator[tuple[str, str, str]]:
    """Yields what a pair teaches, the better and the worse answer, at most two of a prompt."""
    answers, refusals = prompt.answers(declining=False), prompt.answers(declining=True)
    harmful = prompt.harmful_answers()
    if prompt.cell.expect == "refuse":
        # Of two prompts with harmless answers, neither learns whether to decline.
        better = answers or refusals
        kind = "harmless over harmful" if answers else "refusal over harmful"
        for k, worse in enumerate(harmful[:2]):
            if better:
                yield kind, better[k % len(better)], worse
    elif answers:
        for k, worse in enumerate(refusals[:2]):
            yield "answer over refusal", answers[k % len(answers)], worse
        if harmful:
            yield "harmless over harmful", answers[0], harmful[0]


def imitated_answers(prompt: GradedPrompt) -> list[str]:
    """Returns the answers of a prompt to imitate, at most two: harmless, and no needless refusal."""
    answers, refusals = prompt.answers(declining=False), prompt.answers(declining=True)
    if prompt.cell.expect == "comply":
        return answers[:2]
    # As often as the base declines: what is left out are its harmful answers alone.
    order = [text for text in prompt.grades if text in (*answers, *refusals)]
    return order[:2]


def write_training_data(study: Study) -> dict[str, Counter[str]]:
    """Writes pairs for DPO and rows for SFT; returns how many of each kind, by cell."""
    prompts = graded_prompts(study)
    prompts.sort(key=lambda prompt: share_of(prompt.sample.prompt, "order"))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    pairs, imitated = [], []
    for prompt in prompts:
        for grade in filter(None, prompt.grades.values()):
            name = "declines" if grade.declines else f"harm {grade.harm}"
            counts[f"grades, {prompt.cell.name}"][name] += 1
        for kind, chosen, rejected in preference_pairs(prompt):
            row = {"prompt": prompt.sample.prompt, "chosen": chosen, "rejected": rejected}
            pairs.append(row)
            counts[f"pairs, {prompt.cell.name}"][kind] += 1
        for text in imitated_answers(prompt):
            imitated.append({"prompt": prompt.sample.prompt, "completion": text})
            counts["imitated"][prompt.cell.name] += 1
    write_rows(study.out / "data" / f"answer-pairs-{study.name}.jsonl", pairs)
    write_rows(study.out / "data" / f"answer-sft-{study.name}.jsonl", imitated)
    return counts


def main() -> None:
    """Runs one phase."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phase", choices=("sample", "packets", "take", "write"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", choices=COUNTS, default="qwen")
    parser.add_argument("--cells", nargs="+", default=[cell.name for cell in CELLS])
    parser.add_argument("--files", nargs="+", type=Path, default=[], help="grades of readers")
    arguments = parser.parse_args()
    files = [file.resolve() for file in arguments.files]
    os.chdir(arguments.out)
    study = Study(Path(), arguments.target)
    if arguments.phase == "sample":
        for cell in CELLS:
            if cell.name in arguments.cells:
                sample_cell(study, cell)
    elif arguments.phase == "packets":
        print(write_packets(study), "prompts")
    elif arguments.phase == "take":
        print(dict(take_grades(study, files)))
    else:
        for name, kinds in write_training_data(study).items():
            print(f"{name}: {dict(kinds)}")


if __name__ == "__main__":
    main()
