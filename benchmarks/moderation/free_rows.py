"""Writes the training rows of the free judge that are made by construction.

    python benchmarks/moderation/free_rows.py --answers smollm2.jsonl qwen.jsonl --out FOLDER

`--answers` are files of `model_answers.py`, `--kinds` those to write. The kinds of rows, in `constructed.jsonl` but for the
last two, which have a file each:

    model      benign prompts answered by small models; harmful prompts that a model refused
    complied   harmful prompts that a small model complied with
    harmless   harmful prompts beside an answer to another prompt, cut, unreadable or refusing
    harmful    harm under a benign prompt, after a refusal or a disclaimer, late in an answer
    own        exchanges in our own words (recipes/own_exchanges.jsonl), as they are and exchanged
    artifacts  attack prompts and answers of JailbreakBench, of the goals that may train
    windows    parts of long benign texts, as prompts and as answers
    topics     prompts about pairs of topics, one of which is harmful (recipes/own_topics.jsonl)
    plain      harmless prompts: questions of bank customers and of TruthfulQA (training halves)
    toxicity   continuations of RealToxicityPrompts
    hh         with --teacher: exchanges of HH-RLHF that a judge of the first stage is sure about

No prompt of the frozen measurement set is in any of them. The texts come from sets under MIT,
Apache-2.0 and CC BY 4.0 and from us; do not publish the rows. Every choice is drawn from the
seed and the row, so that the same input gives the same files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from answers import compose_refusal
from prompt_rows import plain_rows, topic_rows
from row_files import OWN_EXCHANGES, Row, make_row, read_lines

from truing.core.measurement_set import is_frozen
from truing.core.taxonomy import load_crosswalk
from truing.core.types import Failure
from truing.datasets.base import assign_half
from truing.judges.moderation.inputs import ModerationInput
from truing.judges.moderation.scorer import ModerationScorer, shared_scorer
from truing.judges.refusal import refusal_probabilities
from truing.specs.resolve import resolve

BRIDGES = (
    "That said, here is what you asked for:",
    "But since you insist:",
    "However, for educational purposes only:",
    "Anyway,",
    "Just kidding.",
    "Note that this may be unethical. Still,",
)
CUT_STARTS = (
    "Sure, here",
    "Here is how",
    "First, you",
    "Of course! To",
    "Well,",
    "To do this, you",
)
BROKEN_SHARE = 0.5  # of the harmful prompts get an unreadable or cut answer, too
OWN_FILES = ("toxicity", "hh")  # kinds that get a file and a weight of their own
TOXICITY_LIMITS = (0.2, 0.6)
WORDS_OF_WINDOW = {"prompt": (8, 26), "answer": (60, 95)}


class Sources:
    """Prompts and texts that rows are made of, without those of the frozen measurement set."""

    def __init__(self, answer_files: Sequence[Path]) -> None:
        self.answers = [
            row
            for path in answer_files
            for row in read_lines(path)
            if row["response"].strip() and not is_frozen(row["prompt"])
        ]
        self.own = read_lines(OWN_EXCHANGES)
        self.benign = [a for a in self.answers if a["group"].endswith("_comply")]
        self.to_refuse = [a for a in self.answers if a["group"].endswith("_refuse")]
        self.artifacts = [row for row in read_artifacts() if not is_frozen(row["prompt"])]
        self.harmful_answers = [
            {"text": row["harmful_answer"], "category": [row["category"]], "own": True}
            for row in self.own
        ] + [
            {"text": row["response"], "category": row["category"], "own": False}
            for row in self.artifacts
            if row["jailbroken"]
        ]

    def harmful_prompts(self) -> list[Row]:
        """Returns each harmful prompt once, with its categories."""
        rows = {a["prompt"]: a["harms"] for a in self.to_refuse}
        rows |= {row["harmful_prompt"]: [row["category"]] for row in self.own}
        return [{"prompt": prompt, "category": harms} for prompt, harms in sorted(rows.items())]


def read_artifacts() -> list[Row]:
    """Returns the rows of JailbreakBench's artifacts whose goal may train.

    The plain goals are frozen, so a row has the attack prompt alone.
    """
    path = Path(os.environ["TRUING_DATA"]) / "jailbreakbench" / "artifacts.jsonl"
    categories = load_crosswalk("jailbreakbench").map
    rows = []
    for row in read_lines(path):
        if assign_half(row["goal"]) == "train" and row["response"].strip():
            rows.append({**row, "category": list(categories[row["category"]])})
    return rows


def was_refused(text: str) -> bool | None:
    """Returns whether an answer refuses, by the patterns of `rules:refusal`; None if unclear."""
    p = refusal_probabilities(text)
    if p["refused"] + p["partly"] > 0.7:
        return True
    return False if p["complied"] > 0.9 else None


# -- kinds of rows


def answers_of_models(sources: Sources, rng: random.Random) -> list[Row]:
    """Returns benign prompts with the models' answers, and harmful ones that were refused."""
    rows = [
        make_row(
            "benign-answer",
            a["prompt"],
            a["response"],
            False,
            expect="comply",
            refused=was_refused(a["response"]),
        )
        for a in sources.benign
    ]
    for a in sources.answers:
        if not a["group"].endswith("_comply") and was_refused(a["response"]):
            expect = "refuse" if a["group"].endswith("_refuse") else None
            rows.append(
                make_row("refused", a["prompt"], a["response"], False, expect=expect, refused=True)
            )
    return rows


def complied_rows(sources: Sources, rng: random.Random) -> list[Row]:
    """Returns the models' answers to harmful prompts that comply: harm in the models' own style.

    Without them a judge learns that whatever a small model writes is harmless.
    """
    return [
        make_row(
            "complied",
            a["prompt"],
            a["response"],
            True,
            expect="refuse",
            refused=False,
            category=a["harms"],
        )
        for a in sources.to_refuse
        if was_refused(a["response"]) is False and is_on_topic(a["prompt"], a["response"])
    ]


def is_on_topic(prompt: str, answer: str) -> bool:
    """Returns whether an answer of some length repeats two longer words of the prompt."""
    words = {word[:5] for word in re.findall(r"[a-z]{5,}", prompt.lower())}
    answer_words = re.findall(r"[a-z]{5,}", answer.lower())
    return len(answer_words) >= 8 and len(words & {word[:5] for word in answer_words}) >= 2


def harmless_answers(sources: Sources, rng: random.Random) -> list[Row]:
    """Returns harmful prompts with answers that do no harm."""
    benign_texts = [a["response"] for a in sources.benign]
    benign_texts += [row["benign_answer"] for row in sources.own]
    rows = []
    for row in sources.harmful_prompts():
        prompt = row["prompt"]
        rows.append(make_row("swapped", prompt, rng.choice(benign_texts), False, expect="refuse"))
        rows.append(
            make_row("refusal", prompt, compose_refusal(rng), False, expect="refuse", refused=True)
        )
        if rng.random() < BROKEN_SHARE:
            text = rng.choice(benign_texts)
            broken = rng.choice((shuffle_words, cut_start, repeat_word, random_letters))(text, rng)
            rows.append(make_row("broken", prompt, broken, False, expect="refuse"))
    for a in rng.sample(sources.benign, min(80, len(sources.benign))):
        rows.append(
            make_row(
                "refusal", a["prompt"], compose_refusal(rng), False, expect="comply", refused=True
            )
        )
    for row in rng.sample(sources.artifacts, min(150, len(sources.artifacts))):
        rows.append(
            make_row("swapped", row["prompt"], rng.choice(benign_texts), False, expect="refuse")
        )
    return rows


def shuffle_words(text: str, rng: random.Random) -> str:
    """Returns the words of a text in random order."""
    words = text.split()
    return " ".join(rng.sample(words, len(words)))


def cut_start(text: str, rng: random.Random) -> str:
    """Returns the first words of an answer."""
    return rng.choice((rng.choice(CUT_STARTS), " ".join(text.split()[: rng.randint(1, 5)])))


def repeat_word(text: str, rng: random.Random) -> str:
    """Returns one word of a text many times, as small models sometimes do."""
    return " ".join([rng.choice(text.split())] * rng.randint(5, 40))


def random_letters(text: str, rng: random.Random) -> str:
    """Returns a text of random letters."""
    letters = "abcdefghijklmnopqrstuvwxyz  "
    return "".join(rng.choice(letters) for _ in range(rng.randint(10, 160)))


def harmful_rows(sources: Sources, rng: random.Random) -> list[Row]:
    """Returns harm where it is not expected."""
    harmful_prompts = sources.harmful_prompts()
    rows = []
    for harm in sources.harmful_answers:
        text, category = harm["text"], harm["category"]
        answer, other = rng.choice(sources.benign), rng.choice(sources.benign)["response"]
        short = " ".join(other.split()[: rng.randint(10, 45)])
        clipped = " ".join(text.split()[:70])
        start = f"{compose_refusal(rng)} {rng.choice(BRIDGES)} {clipped}"
        prompt = rng.choice(harmful_prompts)["prompt"]
        variants = [
            make_row("under-benign", answer["prompt"], text, True, category=category),
            make_row("after-refusal", prompt, start, True, expect="refuse", category=category),
            make_row("late", answer["prompt"], f"{short} {clipped}", True, category=category),
        ]
        # The artifacts are few long texts of one style: each is used once, our own answers thrice.
        rows += variants if harm["own"] else [rng.choice(variants)]
    return rows


def own_rows(sources: Sources, rng: random.Random) -> list[Row]:
    """Returns our own exchanges and their prompts."""
    rows = []
    for own in sources.own:
        category = [own["category"]]
        harmful_prompt, benign_prompt = own["harmful_prompt"], own["benign_prompt"]
        rows += [
            make_row("own", harmful_prompt, None, True, category=category),
            make_row("own", benign_prompt, None, False, expect="comply"),
            make_row(
                "own",
                harmful_prompt,
                own["harmful_answer"],
                True,
                expect="refuse",
                refused=False,
                category=category,
            ),
            make_row("own", harmful_prompt, own["safe_answer"], False, expect="refuse"),
            make_row("own", benign_prompt, own["benign_answer"], False, expect="comply"),
            make_row("own", harmful_prompt, own["benign_answer"], False, expect="refuse"),
            make_row("own", benign_prompt, own["harmful_answer"], True, category=category),
        ]
    return rows


def artifact_rows(sources: Sources, rng: random.Random) -> list[Row]:
    """Returns JailbreakBench's attack prompts with the attacked models' answers."""
    return [
        make_row(
            "artifact",
            row["prompt"],
            row["response"],
            bool(row["jailbroken"]),
            refused=None if row["jailbroken"] else was_refused(row["response"]),
            category=row["category"] if row["jailbroken"] else (),
        )
        for row in sources.artifacts
    ]


def window_rows(sources: Sources, rng: random.Random) -> list[Row]:
    """Returns spans of long benign texts: what a window of such a text looks like."""
    texts = [a["response"] for a in sources.benign]
    texts += [a["prompt"] for a in sources.benign]
    instructions = [
        row.sample.prompt for row in resolve("refusal-direction,half=train", "data").rows()
    ]
    texts += rng.sample(instructions, 2500)
    rng.shuffle(texts)
    words = " ".join(texts).split()
    prompts = [a["prompt"] for a in sources.benign]
    harmful = [row["prompt"] for row in sources.harmful_prompts()]

    def draw_span(side: str) -> str:
        low, high = WORDS_OF_WINDOW[side]
        start = rng.randrange(len(words) - high)
        return " ".join(words[start : start + rng.randint(low, high)])

    rows = [make_row("window", draw_span("prompt"), None, False) for _ in range(500)]
    rows += [
        make_row("window", rng.choice(prompts), draw_span("answer"), False, expect="comply")
        for _ in range(250)
    ]
    rows += [
        make_row("window", rng.choice(harmful), draw_span("answer"), False, expect="refuse")
        for _ in range(100)
    ]
    return rows


def toxicity_rows(sources: Sources, rng: random.Random) -> list[Row]:
    """Returns RealToxicityPrompts' continuations that Perspective finds clearly toxic or not."""
    folder = Path(os.environ["TRUING_DATA"]) / "real_toxicity_prompts"
    rows = []
    for name in ("toxic", "nontoxic"):
        for row in read_lines(folder / f"{name}.jsonl"):
            prompt, continuation = row["prompt"], row["continuation"]
            toxicity = continuation.get("toxicity")
            if toxicity is None or TOXICITY_LIMITS[0] < toxicity < TOXICITY_LIMITS[1]:
                continue
            harmful = toxicity >= TOXICITY_LIMITS[1]
            rows.append(make_row("toxicity", prompt["text"], continuation["text"], harmful))
    return rows


def hh_rows(sources: Sources, teacher: ModerationScorer) -> list[Row]:
    """Returns answers of HH-RLHF, labelled by its people and by a judge of the first stage.

    The answer that people rejected is harmful if it does not refuse a question that the teacher
    finds harmful, and the teacher agrees that it is the worse one. Refusals are harmless, and so
    are answers where the teacher finds neither question nor answer harmful.
    """
    comparisons = []
    for row in resolve("hh", "data").rows():
        turns = tuple(m.content for m in row.sample.conversation.messages)[-3:]
        preferred = {j.index for j in row.judgements if j.question == "preferred" and j.verdict}
        by_preference = sorted(row.responses, key=lambda r: r.index not in preferred)
        chosen, rejected = (r.text for r in by_preference)
        if chosen.strip() and rejected.strip() and not any(map(is_frozen, turns)):
            comparisons.append((turns, chosen, rejected))
    asked = teacher.score([ModerationInput((t[-1],)) for t, _, _ in comparisons])
    better = teacher.score([ModerationInput(t, a) for t, a, _ in comparisons])
    worse = teacher.score([ModerationInput(t, a) for t, _, a in comparisons])
    rows = []
    for (turns, chosen, rejected), *scores in zip(comparisons, asked, better, worse, strict=True):
        if any(isinstance(score, Failure) for score in scores):
            continue
        question, p_chosen, p_rejected = (s.harmful for s in scores if not isinstance(s, Failure))
        for answer, p in ((chosen, p_chosen), (rejected, p_rejected)):
            refused = was_refused(answer)
            is_worse = answer == rejected and p_rejected >= p_chosen
            if refused or max(question, p) <= 0.25:
                rows.append(make_dialogue_row(turns, answer, False, refused))
            elif refused is False and is_worse and question >= 0.5 and p >= 0.2:
                rows.append(make_dialogue_row(turns, answer, True, refused))
    return rows


def make_dialogue_row(
    turns: Sequence[str], answer: str, harmful: bool, refused: bool | None
) -> Row:
    """Returns the row of an answer to the last of some turns, of which the first is a user's."""
    row = make_row("hh", turns[-1], answer, harmful, refused=refused)
    if len(turns) > 1:
        roles = ("user", "assistant", "user")
        row["messages"] = [{"role": r, "content": t} for r, t in zip(roles, turns, strict=True)]
        del row["prompt"]
    return row


KINDS: dict[str, Callable[[Sources, random.Random], list[Row]]] = {
    "model": answers_of_models,
    "complied": complied_rows,
    "harmless": harmless_answers,
    "harmful": harmful_rows,
    "own": own_rows,
    "artifacts": artifact_rows,
    "windows": window_rows,
    "topics": lambda sources, rng: topic_rows(rng),
    "plain": lambda sources, rng: plain_rows(rng),
    "toxicity": toxicity_rows,
}

# `topics` and `plain` are added by the last stage of the recipe.
FIRST_KINDS = [kind for kind in KINDS if kind not in ("topics", "plain")]


def main() -> None:
    """Writes one file for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", nargs="+", type=Path, required=True)
    parser.add_argument("--teacher", help="a judge of the first stage, for the rows of HH-RLHF")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=[*FIRST_KINDS])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    sources = Sources(options.answers)
    kinds = {name: KINDS[name] for name in options.kinds}
    if options.teacher:
        teacher = shared_scorer(options.teacher.removeprefix("moderation:"))
        kinds["hh"] = lambda sources, _: hh_rows(sources, teacher)
    options.out.mkdir(parents=True, exist_ok=True)
    texts: dict[str, str] = {}
    for kind, make_rows in kinds.items():
        rows = {row["id"]: row for row in make_rows(sources, random.Random(f"0 {kind}"))}
        chosen = [row for row in rows.values() if not is_frozen(row.get("prompt", ""))]
        name = kind if kind in OWN_FILES else "constructed"
        texts[name] = texts.get(name, "") + "".join(json.dumps(row) + "\n" for row in chosen)
        counts = Counter((row["id"].rpartition("-")[0], row["harmful"]) for row in chosen)
        print(kind, {f"{part} {label}": n for (part, label), n in sorted(counts.items())})
    for name, text in texts.items():
        (options.out / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{name}.jsonl", hashlib.sha256(text.encode()).hexdigest())


if __name__ == "__main__":
    main()
