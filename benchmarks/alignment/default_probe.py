"""Trains the probes that come with truing for the embedded model, from graded answers of its own.

    python benchmarks/alignment/default_probe.py --out FOLDER sample
    python benchmarks/alignment/default_probe.py --out FOLDER packets
    python benchmarks/alignment/default_probe.py --out FOLDER take --files GRADES ...
    python benchmarks/alignment/default_probe.py --out FOLDER fit

`sample` lets the plain variant of the default run answer requests of our own (written-pairs.jsonl:
a harmful request or its benign look-alike, none of which measures) `SAMPLES` times. `packets` writes
them for readers, FOLDER/packets/answers-K.txt, and `take` stores the grades, as study_answers.py
does: "R", or a digit of harm by rubric.md and, for harmless ones, a digit of use. What is published,
grades-smol-box.jsonl, has hashes for texts. `fit` trains the probes (harmful, refused, helpful) and
writes them to src/truing/resources/weights/probes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from common import SampleList
from study_answers import Counts, Grade, cell_samples, hash_answer
from study_cells import CELLS
from study_labels import MAX_STOCK_WORDS, write_parts
from study_pairs import write_rows
from study_steering import declines

from truing.cli.run import load_default_plan
from truing.core.errors import UserError
from truing.core.lineage import digest
from truing.core.types import (
    DataInfo,
    Judgement,
    Lineage,
    Preference,
    Response,
    Row,
    Sample,
    Sampling,
)
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.runs.folder import Run
from truing.specs.resolve import resolve
from truing.train.labelled_answers import LabelledAnswer, read_labelled_answers
from truing.train.probe import TrainedProbes, train_probes
from truing.train.probe_fit import ProbeFit
from truing.train.probe_settings import ProbeSettings

COUNTS = {
    "box": {
        "refuse-plain": Counts(400),
        "refuse-role-play": Counts(100),
        "comply-plain": Counts(300),
        "comply-role-play": Counts(100),
    }
}
SAMPLES = 3
TEMPERATURE = 0.7
"""Warmer than the default run: of four answers at 0.2 several are the same."""
WEIGHTS = (0.3, 0.5, 0.7, 1.0, 1.3, 1.6, 2.0)
PROMPTS_OF_A_PART = 60
GRADES_FILE = Path(__file__).resolve().parent / "grades-smol-box.jsonl"
PROBES = Path(__file__).resolve().parents[2] / "src/truing/resources/weights/probes/smollm2"
READER = "ai:reader"


def sample_answers(out: Path) -> None:
    """Lets the plain variant answer the prompts, as far as it has not."""
    plan = load_default_plan()
    samples = [s for cell in CELLS for s in cell_samples("box", cell, COUNTS)]
    sampling = Sampling(
        n=SAMPLES,
        max_tokens=plan.run.max_tokens,
        temperature=TEMPERATURE,
        top_p=plan.run.top_p,
        stop=plan.run.stop,
    )
    options = EvaluateOptions(sampling=sampling, concurrency=plan.run.concurrency)
    model = resolve(plan.models["plain"], "model")
    evaluate(model, SampleList("graded prompts", samples), [], out / "run", options=options)


def distinct_answers(run: Run) -> dict[str, tuple[Sample, dict[str, Response]]]:
    """Returns each prompt with its distinct answers, by id and by text."""
    answers: dict[str, tuple[Sample, dict[str, Response]]] = {
        sample.id: (sample, {}) for sample in run.samples()
    }
    for response in sorted(run.responses(), key=lambda r: (r.sample_id, r.index)):
        if response.failure is None and response.text.strip():
            answers[response.sample_id][1].setdefault(response.text.strip(), response)
    return answers


def is_short_refusal(text: str, response: Response) -> bool:
    """Returns whether an answer is a complete short refusal, which the rule grades."""
    is_cut = response.finish_reason == "length"
    return declines(text) and len(text.split()) <= MAX_STOCK_WORDS and not is_cut


def write_packets(out: Path) -> int:
    """Writes the answers that readers grade; returns the number of prompts."""
    rows = [
        (sample, [text for text, r in answers.items() if not is_short_refusal(text, r)])
        for sample, answers in distinct_answers(Run(out / "run")).values()
    ]
    rows = [row for row in rows if row[1]]
    random.Random("graded prompts").shuffle(rows)
    lines = []
    for number, (sample, texts) in enumerate(rows):
        request = " ".join(sample.prompt.split())
        answers = [f"  {number}.{k} {' '.join(text.split())}" for k, text in enumerate(texts)]
        lines.append("\n".join([f"[{number}] {request}", *answers]))
    folder = out / "packets"
    folder.mkdir(exist_ok=True)
    write_parts(folder / "answers", lines, PROMPTS_OF_A_PART)
    keys = {
        f"{number}.{k}": (sample.id, text)
        for number, (sample, texts) in enumerate(rows)
        for k, text in enumerate(texts)
    }
    (folder / "keys.json").write_text(json.dumps(keys), encoding="utf-8")
    return len(rows)


def take_grades(out: Path, files: Sequence[Path]) -> int:
    """Stores the readers' grades, lines "12.0 R", and those of short refusals; returns their number."""
    keys = json.loads((out / "packets" / "keys.json").read_text(encoding="utf-8"))
    grades = {
        (sample.id, text): "R"
        for sample, answers in distinct_answers(Run(out / "run")).values()
        for text, response in answers.items()
        if is_short_refusal(text, response)
    }
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.strip():
                number, grade = line.split()
                Grade.parse(grade)
                if number not in keys:
                    raise UserError(f"{file}: the packet has no answer {number}")
                sample_id, text = keys[number]
                grades[sample_id, text] = grade
    missing = sum((sample_id, text) not in grades for sample_id, text in keys.values())
    if missing:
        print(f"{missing} answers have no grade")
    rows = [
        {"sample": key, "answer": hash_answer(text), "grade": g}
        for (key, text), g in grades.items()
    ]
    return write_rows(GRADES_FILE, rows)


class GradedAnswers:
    """The graded answers as a data set: three labels of `ai:reader` an answer."""

    def __init__(self, run: Run) -> None:
        self.run = run
        lines = GRADES_FILE.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        self.grades = {(row["sample"], row["answer"]): row["grade"] for row in rows}
        self.info = DataInfo(
            spec="written pairs, answered by smollm2 and graded by language models and a rule",
            licence="Apache-2.0",
        )
        self.judges: tuple[Lineage, ...] = ()

    def sha256(self) -> str:
        """Returns the hash of the grades."""
        return digest(*(f"{key} {grade}" for key, grade in sorted(self.grades.items())))

    def rows(self) -> Iterator[Row]:
        """Yields each prompt with its distinct answers and their labels."""
        for sample, answers in distinct_answers(self.run).values():
            judgements = []
            for text, response in answers.items():
                written = self.grades.get((sample.id, hash_answer(text)))
                grade = Grade.parse(written) if written else None
                if grade is None:
                    continue
                for question, verdict in (
                    ("harmful", grade.is_harmful),
                    ("refused", grade.declines),
                    ("helpful", grade.use > 0 and not grade.is_harmful),
                ):
                    judgements.append(
                        Judgement(
                            sample_id=sample.id,
                            index=response.index,
                            judge=READER,
                            question=question,
                            verdict=verdict,
                        )
                    )
            yield Row(
                sample=sample, responses=tuple(answers.values()), judgements=tuple(judgements)
            )

    def preferences(self) -> Iterator[Preference]:
        """Yields nothing."""
        return iter(())


def fit(out: Path) -> TrainedProbes:
    """Trains the probes, copies what the package needs of them, and prints what they choose."""
    data = GradedAnswers(Run(out / "run"))
    settings = ProbeSettings(out=str(out / "smollm2"), base="smollm2", dtype="float32")
    answers = read_labelled_answers(data)
    trained = train_probes(settings, [answers])
    PROBES.mkdir(parents=True, exist_ok=True)
    for name in ("probe.json", "truing.json", "evaluation.json"):
        shutil.copyfile(trained.folder / name, PROBES / name)
    expects = {s.prompt: s.expect for s, _ in distinct_answers(Run(out / "run")).values()}
    print_choices(answers.items, expects, trained.fits)
    return trained


def print_choices(
    items: Sequence[LabelledAnswer], expects: Mapping[str, str], fits: Mapping[str, ProbeFit]
) -> None:
    """Prints what best of the distinct answers to a prompt gives by the readers' grades, in per cent, for
    several weights of `helpful`: chosen by probes that did not see the prompt.

    `expects` says of each prompt whether it should be refused.
    """
    logits = {name: np.array(fits[name].held_out_logits) for name in ("harmful", "helpful")}
    by_prompt: dict[str, list[int]] = defaultdict(list)
    for k, item in enumerate(items):
        by_prompt[item.conversation.prompt].append(k)
    print("| weight of helpful | harmful | benign: declined | benign: useful |\n|---|---|---|---|")
    for weight in (None, *WEIGHTS):
        chosen = []
        for answers in by_prompt.values():
            worth = [(weight or 0) * logits["helpful"][k] - logits["harmful"][k] for k in answers]
            chosen.append(answers[0 if weight is None else int(np.argmax(worth))])
        harmful = [k for k in chosen if expects[items[k].conversation.prompt] == "refuse"]
        benign = [k for k in chosen if expects[items[k].conversation.prompt] == "comply"]
        cells = " | ".join(
            f"{100 * np.mean([items[k].labels[question] for k in rows]):.1f}"
            for question, rows in (("harmful", harmful), ("refused", benign), ("helpful", benign))
        )
        print(f"| {'the first answer' if weight is None else weight} | {cells} |")


def main() -> None:
    """Runs one phase."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phase", choices=("sample", "packets", "take", "fit"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--files", nargs="+", type=Path, default=[], help="grades of readers")
    arguments = parser.parse_args()
    out: Path = arguments.out
    if arguments.phase == "sample":
        sample_answers(out)
    elif arguments.phase == "packets":
        print(write_packets(out), "prompts")
    elif arguments.phase == "take":
        print(take_grades(out, arguments.files), "grades")
    else:
        for question, trained in fit(out).fits.items():
            print(question, msgspec.to_builtins(trained.held_out), trained.n_true, trained.n)


if __name__ == "__main__":
    main()
