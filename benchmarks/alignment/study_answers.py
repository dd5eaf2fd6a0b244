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
digit is 1 or 2, by a digit of use (0 useless, 1 poor, 2 fair). `write` makes STUDY/data/MIX-pairs-TARGET.jsonl (DPO),
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
MORE_SAMPLES = 8
AGAIN = "-again"
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


def sample_cell(study: Study, cell: Cell, *, again: bool = False) -> None:
    """Lets the base answer the prompts of a cell, as far as it has not.

    With `again`, it answers those anew to which it has given a harmful answer, `MORE_SAMPLES` times.
    """
    sampling = Sampling(
        n=MORE_SAMPLES if again else SAMPLES,
        max_tokens=MAX_TOKENS,
        temperature=TEMPERATURE,
        top_p=study.target.top_p,
    )
    options = EvaluateOptions(
        sampling=sampling, concurrency=2 * study.target.batch, seed=1 if again else 0
    )
    samples = cell_samples(study.name, cell)
    if again:
        harmful = {p.sample.id for p in graded_prompts(study) if p.harmful_answers()}
        # A prompt under an attack has an id of its own, which its run has given it.
        samples = [s for s in Run(answer_folder(study, cell)).samples() if s.id in harmful]
    data = SampleList(f"study answers {cell.name}{AGAIN if again else ''}", samples)
    with study.model("base") as model:
        evaluate(model, data, [], answer_folder(study, cell, again=again), options=options)


def answer_folder(study: Study, cell: Cell, *, again: bool = False) -> Path:
    """Returns the run folder of the base's answers in a cell, the first or the later ones."""
    return study.run_folder("base", f"answers-{cell.name}{AGAIN if again else ''}")


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


def read_prompts(study: Study, *, again: bool = True) -> list[GradedPrompt]:
    """Returns the sampled prompts with their distinct answers, without grades.

    Without `again`, with their first `SAMPLES` alone.
    """
    prompts = []
    for cell in CELLS:
        run = Run(answer_folder(study, cell))
        later = answer_folder(study, cell, again=True)
        responses = sorted(run.responses(), key=lambda r: r.index)
        if again and (later / "manifest.json").is_file():
            responses += sorted(Run(later).responses(), key=lambda r: r.index)
        answers: dict[str, list[str]] = defaultdict(list)
        for response in responses:
            answers[response.sample_id].append(response.text.strip())
        for sample in run.samples():
            texts = dict.fromkeys(filter(None, answers[sample.id]))
            prompts.append(GradedPrompt(sample, cell, dict.fromkeys(texts)))
    return prompts


def write_packets(study: Study) -> int:
    """Writes the answers without a grade for readers, those to one prompt together, in a random order."""
    prompts = [ungraded(prompt) for prompt in graded_prompts(study)]
    prompts = [prompt for prompt in prompts if prompt.grades]
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


def ungraded(prompt: GradedPrompt) -> GradedPrompt:
    """Returns the prompt with the answers alone that nobody has graded."""
    left = [text for text, grade in prompt.grades.items() if grade is None]
    return GradedPrompt(prompt.sample, prompt.cell, dict.fromkeys(left))


def keys_file(study: Study) -> Path:
    """Returns the file that says whose answers the numbers of the packets are."""
    return study.out / "packets" / f"answers-{study.name}.keys.json"


def grades_file(study: Study) -> Path:
    """Returns the file of the readers' grades: answer, a tab, grade, as JSON lines by prompt."""
    return study.out / "data" / f"answer-grades-{study.name}.jsonl"


def take_grades(study: Study, files: list[Path]) -> Counter[str]:
    """Joins the readers' files, lines "12.0 R", to the grades; the last grade of an answer counts."""
    keys = json.loads(keys_file(study).read_text(encoding="utf-8"))
    texts = {(row["id"], row["answer"]): row["grade"] for row in stored_grades(study)}
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


def stored_grades(study: Study) -> list[dict[str, str]]:
    """Returns the grades that were taken."""
    file = grades_file(study)
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines]


def graded_prompts(study: Study, *, again: bool = True) -> list[GradedPrompt]:
    """Returns the sampled prompts with the grades of the readers, as far as there are some."""
    prompts = {prompt.sample.id: prompt for prompt in read_prompts(study, again=again)}
    for row in stored_grades(study):
        if row["answer"] in prompts[row["id"]].grades:
            prompts[row["id"]].grades[row["answer"]] = Grade.parse(row["grade"])
    return list(prompts.values())


@dataclass(frozen=True)
class PairMix:
    """Which pairs DPO sees: `harmful` bad answers to a harmful prompt at most, one more of them under a
    refusal with `with_refusal`, and the pairs of that share of benign prompts. `again`: also of
    the answers that were drawn later.
    """

    harmful: int = 2
    with_refusal: bool = False
    benign_share: float = 1.0
    again: bool = False


MIXES = {
    "better": PairMix(),
    # The first mix took needless refusals away, and with them those of harmful requests.
    "better2": PairMix(harmful=4, with_refusal=True, benign_share=0.4, again=True),
}


def preference_pairs(
    prompt: GradedPrompt, mix: PairMix = MIXES["better"]
) -> Iterator[tuple[str, str, str]]:
    """Yields what a pair teaches, the better and the worse answer."""
    answers, refusals = prompt.answers(declining=False), prompt.answers(declining=True)
    harmful = prompt.harmful_answers()
    if prompt.cell.expect == "refuse":
        # A prompt with harmless answers does not teach to decline.
        better = answers or refusals
        kind = "harmless over harmful" if answers else "refusal over harmful"
        for k, worse in enumerate(harmful[: mix.harmful]):
            if better:
                yield kind, better[k % len(better)], worse
        if mix.with_refusal and answers and refusals and harmful:
            yield "refusal over harmful", refusals[0], harmful[-1]
    elif answers and share_of(prompt.sample.prompt, "benign pairs") < mix.benign_share:
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
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, mix in MIXES.items():
        pairs: list[dict[str, object]] = []
        for prompt in in_training_order(graded_prompts(study, again=mix.again)):
            for kind, chosen, rejected in preference_pairs(prompt, mix):
                row = {"prompt": prompt.sample.prompt, "chosen": chosen, "rejected": rejected}
                pairs.append(row)
                counts[f"pairs of {name}, {prompt.cell.name}"][kind] += 1
        write_rows(study.out / "data" / f"{name}-pairs-{study.name}.jsonl", pairs)
    imitated: list[dict[str, object]] = []
    for prompt in in_training_order(graded_prompts(study, again=False)):
        for grade in filter(None, prompt.grades.values()):
            name = "declines" if grade.declines else f"harm {grade.harm}"
            counts[f"grades, {prompt.cell.name}"][name] += 1
        for text in imitated_answers(prompt):
            imitated.append({"prompt": prompt.sample.prompt, "completion": text})
            counts["imitated"][prompt.cell.name] += 1
    write_rows(study.out / "data" / f"answer-sft-{study.name}.jsonl", imitated)
    return counts


def in_training_order(prompts: list[GradedPrompt]) -> list[GradedPrompt]:
    """Returns the prompts in an order drawn by their hashes."""
    return sorted(prompts, key=lambda prompt: share_of(prompt.sample.prompt, "order"))


def main() -> None:
    """Runs one phase."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phase", choices=("sample", "packets", "take", "write"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", choices=COUNTS, default="qwen")
    parser.add_argument("--cells", nargs="+", default=[cell.name for cell in CELLS])
    parser.add_argument(
        "--again", action="store_true", help="sample: prompts with a harmful answer, once more"
    )
    parser.add_argument("--files", nargs="+", type=Path, default=[], help="grades of readers")
    arguments = parser.parse_args()
    files = [file.resolve() for file in arguments.files]
    os.chdir(arguments.out)
    study = Study(Path(), arguments.target)
    if arguments.phase == "sample":
        for cell in CELLS:
            if cell.name in arguments.cells:
                sample_cell(study, cell, again=arguments.again)
    elif arguments.phase == "packets":
        print(write_packets(study), "prompts")
    elif arguments.phase == "take":
        print(dict(take_grades(study, files)))
    else:
        for name, kinds in write_training_data(study).items():
            print(f"{name}: {dict(kinds)}")


if __name__ == "__main__":
    main()
