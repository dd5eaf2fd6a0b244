"""Small labelled data for tests of moderation training."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from truing.core.taxonomy import load_taxonomy
from truing.core.types import (
    Answer,
    Conversation,
    DataInfo,
    Judgement,
    Preference,
    Response,
    Row,
    Sample,
)
from truing.judges.moderation.inputs import EncodedInput, ModerationInput
from truing.train.moderation.examples import (
    ModerationExample,
    ModerationTrainingSet,
    read_moderation_set,
)
from truing.train.moderation.settings import ModerationTrainingSettings

NAN = math.nan
CATEGORY_IDS = load_taxonomy().ids
VIOLENCE = CATEGORY_IDS[13]
VOCABULARY = tuple(
    dict.fromkeys(
        [
            "how",
            "do",
            "i",
            "bake",
            "open",
            "the",
            "door",
            "please",
            "tell",
            "me",
            "about",
            "steal",
            "stab",
            "bread",
            "cake",
            "a",
            "it",
            "so",
            "yes",
            "well",
            "then",
        ]
    )
)


class LabelledWords:
    """A data set of random words: every second answer has `stab`, is harmful, and violence."""

    def __init__(self, n: int, seed: int = 0) -> None:
        self.n, self.seed = n, seed
        self.info = DataInfo(spec="made", licence="CC0")

    def sha256(self) -> str:
        """Returns a text that identifies the rows."""
        return f"{self.n}-{self.seed}"

    def preferences(self) -> Iterator[Preference]:
        """Yields no pairs."""
        return iter(())

    def rows(self) -> Iterator[Row]:
        """Yields one answered and labelled prompt per row."""
        rng = random.Random(self.seed)
        harmless_words = [w for w in VOCABULARY if w not in ("steal", "stab")]
        for index in range(self.n):
            is_harmful = index % 2 == 0
            words = rng.choices(harmless_words, k=4 + index % 3)
            words.append("stab" if is_harmful else rng.choice(harmless_words))
            rng.shuffle(words)
            prompt = " ".join(rng.choices(harmless_words, k=5)) + f" {index}"
            yield labelled_row(index, prompt, " ".join(words), is_harmful)


def labelled_row(index: int, prompt: str, answer: str, is_harmful: bool) -> Row:
    """Returns a row with the label of an answer; what is harmful is violence."""
    harms = dict.fromkeys(CATEGORY_IDS, 0.0)
    if is_harmful:
        harms[VIOLENCE] = 1.0
    label = Judgement(
        sample_id=str(index),
        judge="human:made",
        question="harmful",
        verdict=is_harmful,
        harms=harms,
    )
    sample = Sample(conversation=Conversation.of(prompt), source="made", id=str(index))
    response = Response.of(str(index), 0, "recorded", Answer.of(answer))
    return Row(sample=sample, responses=(response,), judgements=(label,))


def make_training_set(n: int = 180) -> ModerationTrainingSet:
    """Returns n labelled examples that a run passes over 30 times."""
    return read_moderation_set(LabelledWords(n), CATEGORY_IDS, weight=30.0)


def make_settings(base: Path, out: Path, **fields: Any) -> ModerationTrainingSettings:
    """Returns settings of a short run in float32 on the CPU."""
    defaults: dict[str, Any] = {
        "data": ("made",),
        "weights": (30.0,),
        "tenths": ((0, 9),),
        "base": str(base),
        "folds": 2,
        "lr": 1e-3,
        "head_lr": 1e-2,
        "dropout": 0.0,
        "batch_tokens": 384,
        "ngram_bits": 10,
        "save_every": 7,
        "tensorboard": False,
        "dtype": "float32",
        "device": "cpu",
    }
    return ModerationTrainingSettings(out=str(out), **{**defaults, **fields})


def make_example(
    targets: tuple[float, ...] = (1.0, NAN, NAN, 1.0),
    source: str = "s",
    width: int = 5,
    **fields: Any,
) -> ModerationExample:
    """Returns an encoded example of `width` tokens, the last two of them in the response."""
    row = EncodedInput(tuple(range(width)), (0,) * (width - 2) + (1, 1))
    return ModerationExample(
        source=source,
        key="a",
        content=ModerationInput(("x",), "y"),
        targets=targets,
        encoded=row,
        **fields,
    )
