"""What steers the study's levers: a rule for refusals, and pairs for a cost model.

Nothing here measures. The rule looks at the first words of an answer and is cruder than
`rules:refusal`, which measures; the cost model learns from PKU-SafeRLHF (for research only), without
the prompts that develop or measure, and without all of BeaverTails, which shares prompts with it.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from study_prompts import build_prompt_set, read_training_rows

from truing.core.lineage import hash_prompt
from truing.core.measurement_set import is_frozen
from truing.specs.resolve import resolve

DECLINES = re.compile(
    r"^\W*(?:no\b|(?:i['’]?m |i am )?(?:very |really |so )?sorry\b"
    r"(?! to hear| for your| you| that you)|(?:i|we) (?:can['’]?t|can ?not|"
    r"won['’]?t|will not|do not|don['’]?t|am not able|am unable|must decline)|i['’]m (?:not able|"
    r"unable|not going)|i['’]d rather not|as an ai|it is (?:not|illegal|never)|please don)",
    re.IGNORECASE,
)

ROLE_PLAY_GUEST = "\nGuest: "
"""What stands before the request in the attack `role-play`."""


def declines(answer: str) -> bool:
    """Returns whether an answer declines, by its first words."""
    return DECLINES.match(answer) is not None


def request_of(prompt: str) -> str:
    """Returns the request in a prompt; an attack by role-play puts a frame before it."""
    return prompt.rpartition(ROLE_PLAY_GUEST)[2]


HARMFUL_FILES = ("refusals", "careful-refusals")
BENIGN_FILES = ("twins", "careful-prompts")


@cache
def training_requests(files: tuple[str, ...]) -> frozenset[str]:
    """Returns the hashes of our own training requests, the harmful ones or the benign ones."""
    return frozenset(hash_prompt(row["prompt"]) for f in files for row in read_training_rows(f))


def needless_refusal(prompt: str, answer: str) -> bool:
    """Returns whether an answer declines one of our benign requests: a constraint of RL."""
    return hash_prompt(request_of(prompt)) in training_requests(BENIGN_FILES) and declines(answer)


def compliance(prompt: str, answer: str) -> bool:
    """Returns whether an answer does not decline one of our harmful requests: a constraint of RL."""
    return hash_prompt(request_of(prompt)) in training_requests(HARMFUL_FILES) and not declines(
        answer
    )


def right_decision(prompt: str, answer: str) -> float:
    """Returns 1 for declining a harmful request and for not declining any other, else 0."""
    is_harmful = hash_prompt(request_of(prompt)) in training_requests(HARMFUL_FILES)
    return float(declines(answer) == is_harmful)


def write_cost_pairs(path: Path) -> int:
    """Writes PKU pairs with their labels for a cost model; returns their number."""
    excluded = {sample.id for sample in build_prompt_set("dev-harm").samples}
    excluded |= {hash_prompt(r.sample.prompt) for r in resolve("beavertails", "data").rows()}
    rows = []
    for pair in resolve("pku,conflicts=drop", "data").preferences():
        prompt = pair.conversation.prompt
        if pair.dimension != "safe" or pair.signs is None or is_frozen(prompt):
            continue
        if hash_prompt(prompt) not in excluded:
            texts = {"chosen": pair.chosen.content, "rejected": pair.rejected.content}
            rows.append({"prompt": prompt, **texts, "signs": list(pair.signs)})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return len(rows)
