"""Dialogues of which every rating is kept: DICES (each answer by about 73 people) and ConvAbuse (up to 8 experts)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from truing.core.types import Conversation, Judgement, Message, Role, Row, Sample
from truing.datasets.base import FileSet, Options, Published, builder, label, recorded
from truing.datasets.read import Record

UNSAFE: dict[str, bool | None] = {"Yes": True, "No": False, "Unsure": None}
_SPEAKERS: dict[str, Role] = {"A": "user", "B": "assistant", "USER": "user", "LAMDA": "assistant"}
_TURN = re.compile(r"(?:^|\\n|\n)\s*(A|B|USER|LAMDA):[ ]?")
SEVERITIES = ("1", "0", "-1", "-2", "-3")
KINDS = {
    "ableist": "discrimination,stereotype,injustice",
    "homophobic": "discrimination,stereotype,injustice",
    "intellectual": "hate_speech,offensive_language",
    "racist": "discrimination,stereotype,injustice",
    "sexist": "discrimination,stereotype,injustice",
    "sex_harassment": "sexually_explicit,adult_content",
    "transphobic": "discrimination,stereotype,injustice",
}


def dialogue(record: Record, key: str) -> Conversation:
    """The turns of a text that marks them by speaker; the dialogue ends with the user's turn."""
    pieces = _TURN.split(record.text(key))
    turns = [
        Message(_SPEAKERS[who], said.replace("\\n", "\n").strip())
        for who, said in zip(pieces[1::2], pieces[2::2])
    ]
    if pieces[0].strip() or not turns:
        raise record.fault(f"{key}: no turns marked by speaker")
    return Conversation(tuple(turns))


def dices(record: Record, options: Options) -> Iterable[Row]:
    """A dialogue, the answer, and everybody's rating (Aroyo et al. 2023, arXiv 2306.11247).

    By the original card "Yes" says that the answer is UNSAFE (some copies of the set ask the opposite question and keep
    the labels). In the layout without rater ids the rater is the place in the list: no person's name.
    """
    if "ratings" in record.data:
        ratings = [(str(r[0]), str(r[1])) for r in record.items("ratings")]
        yield _rated(record, "context", "response", ratings, None)
        return
    safety = record.inside("annotations").inside("safety")
    ratings = [(str(at), str(v)) for at, v in enumerate(safety.items("individual_human_scores"))]
    inner = record.inside("instance")
    row = _rated(inner, "user_prompt", "response", ratings, safety.maybe("majority_human"))
    tags = {**row.sample.tags, "id": record.maybe("id") or ""}
    yield Row(
        sample=msgspec.structs.replace(row.sample, tags=tags),
        responses=row.responses,
        judgements=row.judgements,
    )


def _rated(
    record: Record, prompt: str, answer: str, ratings: list[tuple[str, str]], majority: str | None
) -> Row:
    unknown = [v for _, v in ratings if v not in UNSAFE]
    if unknown or not ratings:
        raise record.fault(
            f"ratings: {unknown[0] if unknown else 'none'} is none of Yes, No, Unsure"
        )
    conversation = dialogue(record, prompt)
    said = [UNSAFE[v] for _, v in ratings if UNSAFE[v] is not None]
    share = sum(map(bool, said)) / len(said) if said else None
    final = UNSAFE.get(majority or "", share > 0.5 if share is not None else None)
    judged = [label("dices", "harmful", final, score=share)]
    judged += [label("dices", "harmful", UNSAFE[v], rater=who) for who, v in ratings]
    turns = sum(m.role == "user" for m in conversation.messages)
    return Row(
        sample=Sample(conversation=conversation, tags={"turns": str(turns)}),
        responses=(recorded(record.text(answer, empty=True)),),
        judgements=tuple(judged),
    )


class DicesSet(FileSet):
    """Gathers the published CSV, one line a rating, into one record a dialogue."""

    def records(self) -> Iterator[Record]:
        """Records as they stand, or gathered by `item_id`."""
        gathered: dict[str, Record] = {}
        for record in super().records():
            if "item_id" not in record.data:
                yield record
                continue
            item = record.text("item_id")
            if item not in gathered:
                fields = {
                    "context": record.raw("context"),
                    "response": record.raw("response"),
                    "ratings": [],
                }
                gathered[item] = Record(record.path, record.place, fields)
            gathered[item].data["ratings"].append((record.raw("rater_id"), record.raw("Q_overall")))
        yield from gathered.values()


def convabuse(record: Record, options: Options) -> Iterable[Row]:
    """What a user said to a bot, judged by experts from 1 (not abusive) to -3 (Curry et al. 2021, arXiv 2109.09483).

    The judgement is about the user's turn. Of a rater who marked two severities (a line judged twice) the mean counts.
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
    judged = tuple(j for n in range(1, 9) if (j := _expert(record, n)) is not None)
    harms = sorted({i for j in judged for i, p in j.harms.items() if p})
    tags = {k: v for k in ("example_id", "conv_id", "bot") if (v := record.maybe(k))}
    sample = Sample(conversation=Conversation(tuple(turns)), harms=tuple(harms), tags=tags)
    yield Row(sample=sample, judgements=judged)


def _expert(record: Record, n: int) -> Judgement | None:
    def ticked(key: str) -> bool:
        return "1" in re.split(r"[,\s]+", record.maybe(f"Annotator{n}_{key}") or "")

    marks = [int(s) for s in SEVERITIES if ticked(f"is_abuse.{s}")]
    if not marks:
        return None
    value = sum(marks) / len(marks)
    abusive = value < 0
    harms = dict.fromkeys((*KINDS.values(), "hate_speech,offensive_language"), 0.0)
    if abusive:
        harms["hate_speech,offensive_language"] = 1.0
        harms |= {i: 1.0 for k, i in KINDS.items() if ticked(k)}
        # The file names this column of the experts 7 and 8 after expert 6, a second and a third time.
        if n > 6 and record.maybe(f"Annotator6_transphobic.{n - 5}") == "1":
            harms[KINDS["transphobic"]] = 1.0
    return label("convabuse", "harmful_prompt", abusive, rater=str(n), value=value, harms=harms)


build_dices = builder(
    DICES := Published(
        kind="dices",
        title="DICES-990",
        source="https://github.com/google-research-datasets/dices-dataset",
        licence="CC BY 4.0",
        labels=("harmful",),
        convert=dices,
        parts={
            "990": ("dices_990.json", "990/*_990.csv", "**/*_990.csv"),
            "350": ("dices_350*.json", "350/*_350.csv", "**/*_350.csv"),
        },
    ),
    DicesSet,
)
build_convabuse = builder(
    CONVABUSE := Published(
        kind="convabuse",
        title="ConvAbuse",
        source="https://github.com/amandacurry/convabuse",
        licence="CC BY 4.0",
        parts={"turns": ("{split}.csv", "**/ConvAbuseEMNLP{split}.csv", "**/*{split}.csv")},
        labels=("harmful_prompt",),
        convert=convabuse,
    )
)
