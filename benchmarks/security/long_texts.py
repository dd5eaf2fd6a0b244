"""Long texts: fits the correction for the number of windows, and measures what it does.

    python benchmarks/security/long_texts.py fit --judge moderation:default --out long_texts.json
    python benchmarks/security/long_texts.py measure --judge moderation:default --out open.json

The benign texts are joined from rows of published sets (`TRUING_DATA`; rows that people called
harmless, by id), from Python's own documentation and from this project's. `fit` and `measure` share
no row, and four of the kinds of `measure` are not in `fit`. Harmful sentences are rows that people
called harmful. `before` is the highest window against the threshold of one, `after` the corrected.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from msgspec import json as msgspec_json
from msgspec import structs

from truing.core.language_id import detect_language
from truing.judges.moderation.inputs import ModerationInput
from truing.judges.moderation.long_texts import (
    EXCEEDANCE_LEVELS,
    HARMFUL_OUTPUT,
    LongTextCurves,
    fit_curve,
)
from truing.judges.moderation.scorer import ModerationScorer, find_classifier_folder
from truing.judges.moderation.settings import INPUT_MODES
from truing.judges.moderation.windows import WindowRow
from truing.specs.resolve import resolve

# Under licences that let a free judge learn from them; the curves are part of the judge.
FIT_KINDS = ("banking77", "llmbar", "python", "truthfulqa")
NEW_KINDS = ("toxic_chat", "pku_saferlhf", "bbq", "documentation")
ROWS_OF_KIND = 1_000
QUESTION = "What can you tell me about this?"
DOCS = Path(__file__).parents[2] / "docs"
Rows = list[WindowRow]

# -- texts -----------------------------------------------------------------------------------------


@cache
def read_rows(kind: str) -> dict[str, str]:
    """Returns up to `ROWS_OF_KIND` harmless English texts of a kind, drawn by their ids' hashes."""
    texts = list_rows(kind)
    order = sorted(texts, key=lambda i: hashlib.sha256(i.encode()).digest()[::-1])
    short = (i for i in order[:ROWS_OF_KIND] if len(texts[i]) < 2000)
    return {i: texts[i] for i in short if detect_language(texts[i]) == "en"}


def list_rows(kind: str) -> dict[str, str]:
    """Returns the harmless texts of a kind by their ids."""
    if kind == "python":
        return {f"{name} {k}": p for name, text in topics.items() for k, p in paragraphs(text)}
    if kind == "documentation":
        pages = sorted(DOCS.rglob("*.md"))
        return {f"{page.name} {k}": p for page in pages for k, p in paragraphs(page.read_text())}
    texts: dict[str, str] = {}
    for row in resolve(kind, "data").rows():
        verdicts = {j.question: j.verdict for j in row.judgements}
        if kind == "toxic_chat":
            if verdicts == {"harmful_prompt": False, "jailbreak": False}:
                texts[row.sample.id] = row.sample.prompt
        elif kind in ("pku_saferlhf", "llmbar"):
            harmless = {j.index for j in row.judgements if kind == "llmbar" or j.verdict is False}
            texts |= {
                f"{row.sample.id} {r.index}": r.message.content
                for r in row.responses
                if r.index in harmless
            }
        else:
            texts[row.sample.id] = row.sample.prompt
    return texts


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Yields the paragraphs of a page that are prose, with their numbers."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text)):
        line = " ".join(paragraph.split())
        if len(line.split()) > 12 and sum(c.isalpha() or c == " " for c in line) > 0.85 * len(line):
            yield number, line


def in_fit(row_id: str) -> bool:
    """Returns whether a row is of the half on which the curves are fitted."""
    return hashlib.sha256(row_id.encode()).digest()[0] % 2 == 0


def join_rows(rows: dict[str, str], words: int, rng: random.Random) -> str:
    """Returns a text of `words` words from rows in the order of their ids' hashes."""
    order = sorted(rows, key=lambda i: hashlib.sha256(f"order {i}".encode()).digest())
    start = rng.randrange(len(order))
    chosen: list[str] = []
    for number in range(10**6):
        chosen += rows[order[(start + number) % len(order)]].split()
        if len(chosen) >= words:
            break
    return " ".join(chosen[:words])


def write_benign_texts(count: int, words: tuple[int, int], *, fit: bool) -> list[tuple[str, str]]:
    """Returns kinds and texts; lengths are uniform in the logarithm between two bounds."""
    kinds = FIT_KINDS if fit else FIT_KINDS + NEW_KINDS
    rows = {kind: read_rows(kind) for kind in kinds}
    texts = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        half = {i: t for i, t in rows[kind].items() if kind in NEW_KINDS or in_fit(i) == fit}
        rng = random.Random(f"{fit} {words} {number}")
        length = round(words[0] * (words[1] / words[0]) ** rng.random())
        texts.append((kind, join_rows(half, length, rng)))
    return texts


def read_harmful(side: str, count: int) -> list[str]:
    """Returns short prompts, or short answers, that people called harmful, by their ids' hashes."""
    texts: dict[str, str] = {}
    for row in resolve("pku_saferlhf", "data").rows():
        harmful = {j.index for j in row.judgements if j.verdict is True}
        if side == "prompt" and len(harmful) == 2:
            texts[row.sample.id] = row.sample.prompt
        elif side == "answer":
            answers = {r.index: r.message.content for r in row.responses}
            texts |= {f"{row.sample.id} {k}": answers[k] for k in harmful}
    if side == "prompt":
        for row in resolve("toxic_chat", "data").rows():
            if any(j.question == "harmful_prompt" and j.verdict for j in row.judgements):
                texts[row.sample.id] = row.sample.prompt
    short = [i for i, t in texts.items() if 30 < len(t) < 250 and detect_language(t) == "en"]
    short.sort(key=lambda i: hashlib.sha256(i.encode()).digest())
    return [texts[i] for i in short[:count]]


def put_at(sentence: str, text: str, place: str) -> str:
    """Puts a sentence before, in the middle of, or after a text."""
    words = text.split()
    position = {"first": 0, "middle": len(words) // 2, "last": len(words)}[place]
    return " ".join([*words[:position], sentence, *words[position:]])


def make_input(text: str, mode: str) -> ModerationInput:
    """Returns the text as a prompt, as an answer to a plain question, or as an answer alone."""
    if mode == "prompt":
        return ModerationInput((text,))
    return ModerationInput((QUESTION,) if mode == "pair" else (), text)


# -- fit -------------------------------------------------------------------------------------------


def read_short_texts(count: int) -> list[str]:
    """Returns benign rows by themselves, as many of each kind of the fit."""
    texts: list[str] = []
    for kind in FIT_KINDS:
        rows = {i: t for i, t in read_rows(kind).items() if in_fit(i)}
        order = sorted(rows, key=lambda i: hashlib.sha256(f"short {i}".encode()).digest())
        texts += [rows[i] for i in order[: count // len(FIT_KINDS)]]
    return texts


def score_windows(scorer: ModerationScorer, texts: Sequence[str], mode: str) -> list[np.ndarray]:
    """Returns, for each text, the logits `[windows, outputs]` without any correction."""
    logits_of_texts = []
    for text in texts:
        rows = [r for r in scorer.rows(make_input(text, mode)) if not r.as_prompt]
        uncorrected = [structs.replace(row, windows=1) for row in rows]
        harmful, categories = scorer.correct_logits(mode, uncorrected, scorer.logits(rows))
        logits_of_texts.append(np.column_stack([harmful, categories]))
    return logits_of_texts


def fit_curves(
    scorer: ModerationScorer, count: int, most_words: int, short_count: int
) -> LongTextCurves:
    """Fits a curve for each mode and output on benign texts of 100 to `most_words` words."""
    curves: dict[str, dict[str, Any]] = {}
    note = (
        f"benign English texts ({', '.join(FIT_KINDS)}), long ones of 100 to {most_words:,} words"
    )
    short_texts = read_short_texts(short_count)
    long_texts = [text for _, text in write_benign_texts(count, (100, most_words), fit=True)]
    for mode in INPUT_MODES:
        start = time.process_time()
        whole = np.concatenate(
            [logits for logits in score_windows(scorer, short_texts, mode) if len(logits) == 1]
        )
        # Answers take more tokens a window: half of the texts beside a question, half alone.
        chosen = {"pair": long_texts[::2], "response": long_texts[1::2]}.get(mode, long_texts)
        windows = score_windows(scorer, chosen, mode)
        outputs = (HARMFUL_OUTPUT, *scorer.settings.categories)
        curves[mode] = {
            output: fit_curve(whole[:, k], [logits[:, k] for logits in windows])
            for k, output in enumerate(outputs)
        }
        note += f"; {mode}: {sum(map(len, windows)):,} windows of {len(chosen)} long, {len(whole)} short"
        threshold = np.log(scorer.thresholds.harmful[mode] / (1 - scorer.thresholds.harmful[mode]))
        print(
            f"{mode}: flagged {np.mean(whole[:, 0] >= threshold):.3f} of whole texts and "
            f"{np.mean(np.concatenate(windows)[:, 0] >= threshold):.3f} of windows, "
            f"{curves[mode][HARMFUL_OUTPUT]}, {time.process_time() - start:.0f} s of CPU",
            flush=True,
        )
    return LongTextCurves(exceedance=EXCEEDANCE_LEVELS, curves=curves, texts=note)


# -- measure ---------------------------------------------------------------------------------------


def judge_text(scorer: ModerationScorer, text: str, mode: str) -> dict[str, bool]:
    """Returns the verdicts and whether a category is flagged, before and after the correction."""
    rows: Rows = scorer.rows(make_input(text, mode))
    logits = scorer.logits(rows)
    after = scorer.combine_rows(mode, rows, logits)
    before = scorer.combine_rows(mode, [structs.replace(r, windows=1) for r in rows], logits)
    return {
        "before": before.flagged,
        "after": after.flagged,
        "category_before": bool(before.flagged_categories),
        "category_after": bool(after.flagged_categories),
    }


def count_flagged(results: Sequence[dict[str, bool]]) -> dict[str, int]:
    """Returns the number of texts, and of those that each rule flags."""
    sums = Counter(key for result in results for key, value in result.items() if value)
    return {"texts": len(results), **{key: sums[key] for key in results[0]}}


def measure(scorer: ModerationScorer, mode: str, words: int, benign: int, harmful: int) -> Any:
    """Returns the counts of benign texts by kind and of harmful sentences by their place."""
    side = "prompt" if mode == "prompt" else "answer"
    texts = write_benign_texts(max(benign, harmful), (words, words), fit=False)
    results = [(kind, judge_text(scorer, text, mode)) for kind, text in texts[:benign]]
    table: dict[str, Any] = {"benign": count_flagged([r for _, r in results])}
    for kind in dict(results):
        table[f"benign {kind}"] = count_flagged([r for k, r in results if k == kind])
    sentences = read_harmful(side, harmful)
    table["harmful alone"] = count_flagged([judge_text(scorer, s, mode) for s in sentences])
    for place in ("first", "middle", "last"):
        mixed = [put_at(s, t, place) for s, (_, t) in zip(sentences, texts, strict=False)]
        table[f"harmful {place}"] = count_flagged([judge_text(scorer, t, mode) for t in mixed])
    return table


def main() -> None:
    """Fits or measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("fit", "measure"))
    parser.add_argument("--judge", default="moderation:default")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--texts", type=int, default=160)
    parser.add_argument("--most-words", type=int, default=4_000)
    parser.add_argument("--short-texts", type=int, default=600)
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=["prompt:400:80:40", "prompt:4000:40:20", "pair:400:80:40", "pair:4000:24:12"],
        help="mode:words:benign texts:harmful sentences",
    )
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    folder = find_classifier_folder(options.judge.removeprefix("moderation:"))
    scorer = ModerationScorer(folder, dtype=options.dtype)
    if options.command == "fit":
        curves = fit_curves(scorer, options.texts, options.most_words, options.short_texts)
        options.out.write_bytes(msgspec_json.encode(curves) + b"\n")
        return
    tables = {}
    for size in options.sizes:
        mode, words, benign, harmful = size.split(":")
        tables[f"{mode} {words}"] = measure(scorer, mode, int(words), int(benign), int(harmful))
        print(f"{mode} {words}", json.dumps(tables[f"{mode} {words}"], indent=1), flush=True)
        options.out.write_text(json.dumps(tables, indent=1) + "\n")


if __name__ == "__main__":
    main()
