"""Dialogues with all ratings: DICES (about 73 people an answer) and ConvAbuse (up to 8 experts)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from truing.core.types import Conversation, Judgement, Message, Role, Row, Sample
from truing.datasets.base import (
    DatasetOptions,
    FileDataset,
    PublishedDataset,
    make_builder,
    recorded_judgement,
    recorded_response,
)
from truing.datasets.readers import Record

UNSAFE_VERDICTS: dict[str, bool | None] = {"Yes": True, "No": False, "Unsure": None}
_SPEAKERS: dict[str, Role] = {"A": "user", "B": "assistant", "USER": "user", "LAMDA": "assistant"}
# Some layouts have real line breaks between turns, others a literal backslash and n.
_TURN_MARK = re.compile(r"(?:^|\\n|\n)\s{0,50}(A|B|USER|LAMDA):[ ]?")
ABUSE_SEVERITIES = ("1", "0", "-1", "-2", "-3")
"""Columns of ConvAbuse, from not abusive to the most severe."""
ABUSE_CATEGORIES = {
    "ableist": "discrimination,stereotype,injustice",
    "homophobic": "discrimination,stereotype,injustice",
    "intellectual": "hate_speech,offensive_language",
    "racist": "discrimination,stereotype,injustice",
    "sexist": "discrimination,stereotype,injustice",
    "sex_harassment": "sexually_explicit,adult_content",
    "transphobic": "discrimination,stereotype,injustice",
}


def parse_dialogue(record: Record, key: str) -> Conversation:
    """Parses a text whose turns are marked by speaker into a conversation."""
    parts = _TURN_MARK.split(record.text(key))
    turns = [
        Message(_SPEAKERS[speaker], turn_text.replace("\\n", "\n").strip())
        for speaker, turn_text in zip(parts[1::2], parts[2::2])
    ]
    if parts[0].strip() or not turns:
        raise record.error(f"{key}: no turns marked by speaker")
    return Conversation(tuple(turns))


def convert_dices(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """Converts a dialogue, its answer and all ratings (Aroyo et al. 2023, arXiv 2306.11247).

    By the original card "Yes" says that the answer is UNSAFE (some copies of the set ask the
    opposite question and keep the labels). In the layout without rater ids the rater is the place
    in the list: no person's name.
    """
    if "ratings" in record.data:
        ratings = [(str(r[0]), str(r[1])) for r in record.list_value("ratings")]
        yield _make_row(record, "context", "response", ratings, None)
        return
    safety = record.nested("annotations").nested("safety")
    ratings = [
        (str(position), str(v))
        for position, v in enumerate(safety.list_value("individual_human_scores"))
    ]
    inner = record.nested("instance")
    row = _make_row(
        inner, "user_prompt", "response", ratings, safety.optional_text("majority_human")
    )
    tags = {**row.sample.tags, "id": record.optional_text("id") or ""}
    yield Row(
        sample=msgspec.structs.replace(row.sample, tags=tags),
        responses=row.responses,
        judgements=row.judgements,
    )


def _make_row(
    record: Record, prompt: str, answer: str, ratings: list[tuple[str, str]], majority: str | None
) -> Row:
    unknown = [v for _, v in ratings if v not in UNSAFE_VERDICTS]
    if unknown or not ratings:
        raise record.error(
            f"ratings: {unknown[0] if unknown else 'none'} is none of Yes, No, Unsure"
        )
    conversation = parse_dialogue(record, prompt)
    verdicts = [UNSAFE_VERDICTS[v] for _, v in ratings if UNSAFE_VERDICTS[v] is not None]
    # "Unsure" counts on neither side; the judgement of that rater has no verdict.
    share = sum(map(bool, verdicts)) / len(verdicts) if verdicts else None
    final = UNSAFE_VERDICTS.get(majority or "", share > 0.5 if share is not None else None)
    judgements = [recorded_judgement("dices", "harmful", final, score=share)]
    judgements += [
        recorded_judgement("dices", "harmful", UNSAFE_VERDICTS[v], rater=rater)
        for rater, v in ratings
    ]
    turns = sum(m.role == "user" for m in conversation.messages)
    return Row(
        sample=Sample(conversation=conversation, tags={"turns": str(turns)}),
        responses=(recorded_response(record.text(answer, empty=True)),),
        judgements=tuple(judgements),
    )


class DicesDataset(FileDataset):
    """Groups the published CSV (one line a rating) into one record a dialogue."""

    def records(self) -> Iterator[Record]:
        """Yields one record a dialogue; lines with an `item_id` are grouped by it."""
        gathered: dict[str, Record] = {}
        for record in super().records():
            if "item_id" not in record.data:
                yield record
                continue
            item_id = record.text("item_id")
            if item_id not in gathered:
                fields = {
                    "context": record.value("context"),
                    "response": record.value("response"),
                    "ratings": [],
                }
                gathered[item_id] = Record(record.path, record.place, fields)
            gathered[item_id].data["ratings"].append(
                (record.value("rater_id"), record.value("Q_overall"))
            )
        # Grouped in memory: the lines of a dialogue need not be adjacent.
        yield from gathered.values()


def convert_convabuse(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """Converts a user turn rated from 1 (not abusive) to -3 (Curry et al. 2021, arXiv 2109.09483).

    The judgement is about the user's turn. If a rater marked several severities, their mean counts.
    """
    turns: list[Message] = []
    for key, role in (
        ("prev_agent", "assistant"),
        ("prev_user", "user"),
        ("agent", "assistant"),
        ("user", "user"),
    ):
        text = record.text(key, empty=True)
        if text.strip() or key == "user":  # what is judged stays, even if empty
            turns.append(Message("user" if role == "user" else "assistant", text))
    judgements = tuple(
        judgement for n in range(1, 9) if (judgement := _read_expert(record, n)) is not None
    )
    harms = sorted({i for judgement in judgements for i, p in judgement.harms.items() if p})
    tags = {k: v for k in ("example_id", "conv_id", "bot") if (v := record.optional_text(k))}
    sample = Sample(conversation=Conversation(tuple(turns)), harms=tuple(harms), tags=tags)
    yield Row(sample=sample, judgements=judgements)


def _read_expert(record: Record, annotator: int) -> Judgement | None:
    def ticked(key: str) -> bool:
        return "1" in re.split(r"[,\s]+", record.optional_text(f"Annotator{annotator}_{key}") or "")

    marks = [int(s) for s in ABUSE_SEVERITIES if ticked(f"is_abuse.{s}")]
    if not marks:
        return None
    mean_grade = sum(marks) / len(marks)
    abusive = mean_grade < 0
    harms = dict.fromkeys((*ABUSE_CATEGORIES.values(), "hate_speech,offensive_language"), 0.0)
    if abusive:
        harms["hate_speech,offensive_language"] = 1.0
        harms |= {i: 1.0 for k, i in ABUSE_CATEGORIES.items() if ticked(k)}
        # The file names this column of the experts 7 and 8 after expert 6, a second and a third
        # time.
        if annotator > 6 and record.optional_text(f"Annotator6_transphobic.{annotator - 5}") == "1":
            harms[ABUSE_CATEGORIES["transphobic"]] = 1.0
    return recorded_judgement(
        "convabuse", "harmful_prompt", abusive, rater=str(annotator), value=mean_grade, harms=harms
    )


build_dices = make_builder(
    DICES := PublishedDataset(
        kind="dices",
        title="DICES-990",
        source="https://github.com/google-research-datasets/dices-dataset",
        licence="CC BY 4.0",
        labels=("harmful",),
        convert=convert_dices,
        parts={
            "990": ("dices_990.json", "990/*_990.csv", "**/*_990.csv"),
            "350": ("dices_350*.json", "350/*_350.csv", "**/*_350.csv"),
        },
    ),
    DicesDataset,
)
build_convabuse = make_builder(
    CONVABUSE := PublishedDataset(
        kind="convabuse",
        title="ConvAbuse",
        source="https://github.com/amandacurry/convabuse",
        licence="CC BY 4.0",
        parts={"turns": ("{split}.csv", "**/ConvAbuseEMNLP{split}.csv", "**/*{split}.csv")},
        labels=("harmful_prompt",),
        convert=convert_convabuse,
    )
)
