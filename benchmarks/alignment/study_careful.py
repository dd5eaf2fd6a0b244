"""Own answers of SmolLM2 that teach it to answer: the beginnings of its replies to benign prompts.

    python benchmarks/alignment/study_careful.py --out STUDY

Samples the base's answers to `data/careful-prompts.jsonl` (look-alikes of the requests in
`careful-refusals.jsonl`, and everyday prompts), drops those that decline or talk about the model,
and stores the first words of what is left as the run STUDY/runs/smol/careful-answers; the first
words of our refusals are STUDY/runs/smol/careful-openings. Both are recorded as cut: what a model
decides, to decline or to answer, it decides there, no end is learned from them, and a step costs
little. No judge is asked.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from common import SampleList
from study import Study
from study_levers import OpeningTexts
from study_prompts import read_training_rows
from study_steering import declines

from truing.core.lineage import hash_prompt
from truing.core.types import Answer, Conversation, Lineage, Sample, Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.runs.folder import Run

MAX_TOKENS = 24
ANSWER_WORDS = 8
SAMPLES_PER_PROMPT = 2
TEMPERATURE = 0.5
# Evasions of this base that are no refusals: apologies for a confusion, talk about itself.
EVADES = re.compile(
    r"\b(?:sorry|as an? (?:ai|chatbot|text-based)|i'm (?:glad|afraid|here to))\b", re.I
)


def is_good(answer: str) -> bool:
    """Returns whether the beginning of an answer answers, by its words."""
    words = answer.split()
    return len(words) > 2 and not declines(answer) and not EVADES.search(answer)


class ChosenAnswers:
    """Answers that were chosen from a model's samples, recorded as cut."""

    def __init__(self, answers: dict[Conversation, str], lineage: Lineage) -> None:
        self.name = "own answers that do not decline"
        self.lineage = lineage
        self._answers = answers

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns the chosen answer."""
        return (Answer.of(self._answers[conversation], finish_reason="length"),)


def write_answers(study: Study) -> tuple[int, int]:
    """Samples what is missing, stores the chosen answers, and returns their number and that of the
    prompts.
    """
    samples = [
        Sample(conversation=Conversation.of(row["prompt"]), id=hash_prompt(row["prompt"]))
        for row in read_training_rows("careful-prompts")
    ]
    folder = study.run_folder("base", "careful")
    options = EvaluateOptions(
        sampling=Sampling(n=SAMPLES_PER_PROMPT, max_tokens=MAX_TOKENS, temperature=TEMPERATURE),
        concurrency=2 * study.target.batch,
    )
    with study.model("base") as model:
        evaluate(model, SampleList("careful prompts", samples), [], folder, options=options)
    chosen: dict[str, str] = {}
    for response in Run(folder).responses():
        if response.sample_id not in chosen and is_good(response.text):
            words = response.text.split(" ")[:ANSWER_WORDS]
            chosen[response.sample_id] = " ".join(words).rstrip()
    answered = [sample for sample in samples if sample.id in chosen]
    answers = {sample.conversation: chosen[sample.id] for sample in answered}
    model = ChosenAnswers(answers, Run(folder).manifest.lineage)
    data = SampleList("careful prompts that were answered", answered)
    evaluate(model, data, [], study.out / "runs" / study.name / "careful-answers")
    refusals = {
        Conversation.of(row["prompt"]): row["completion"]
        for row in read_training_rows("careful-refusals")
    }
    requests = [Sample(conversation=c, id=hash_prompt(c.prompt)) for c in refusals]
    folder = study.out / "runs" / study.name / "careful-openings"
    evaluate(OpeningTexts(refusals), SampleList("our own refusals", requests), [], folder)
    return len(answered), len(samples)


def main() -> None:
    """Writes the run of chosen answers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    os.chdir(arguments.out)
    chosen, prompts = write_answers(Study(Path(), "smol"))
    print(f"{chosen} of {prompts} prompts have an answer to learn from")


if __name__ == "__main__":
    main()
