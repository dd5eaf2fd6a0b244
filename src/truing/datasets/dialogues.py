"""Dialogues with attackers: HH-RLHF pairs, Anthropic's red-team attempts, Bot-Adversarial Dialogue.

A row's conversation ends with the newest human turn; the recorded assistant's reply to it is the
response. With `replay=true` the target answers that turn instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from truing.core.types import (
    Conversation,
    Judgement,
    Message,
    Preference,
    Response,
    Role,
    Row,
    Sample,
)
from truing.datasets.base import (
    DatasetOptions,
    PublishedDataset,
    make_builder,
    recorded_judgement,
    recorded_response,
)
from truing.datasets.readers import Record

_TURN_MARK = re.compile(r"(?:^|\n\n)(Human|Assistant):[ ]?")
HH_URL = "https://huggingface.co/datasets/Anthropic/hh-rlhf"


def parse_transcript(record: Record, key: str) -> list[Message]:
    """Parses a transcript whose turns begin with "Human:" or "Assistant:" after an empty line.

    Consecutive turns of one speaker are joined: a few answers contain the mark themselves.
    """
    text = record.text(key)
    parts = _TURN_MARK.split(text)
    if parts[0].strip() or len(parts) < 3:
        raise record.error(f"{key}: no transcript with Human: and Assistant: turns")
    roles: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
    turns: list[Message] = []
    # re.split with a group alternates text before the first mark, speaker, text, speaker, ...
    for speaker, turn_text in zip(parts[1::2], parts[2::2]):
        before = turns.pop().content + "\n\n" if turns and turns[-1].role == roles[speaker] else ""
        turns.append(Message(roles[speaker], before + turn_text.strip()))
    return turns


def _split_last_answer(turns: list[Message]) -> tuple[Conversation, str | None]:
    if turns and turns[-1].role == "assistant":
        return Conversation(tuple(turns[:-1])), turns[-1].content
    return Conversation(tuple(turns)), None


def _count_turns(conversation: Conversation) -> dict[str, str]:
    return {"turns": str(sum(m.role == "user" for m in conversation.messages))}


def _shared_dialogue(record: Record) -> tuple[Conversation, Message, Message] | None:
    chosen, rejected = parse_transcript(record, "chosen"), parse_transcript(record, "rejected")
    same = len(chosen) == len(rejected) and chosen[:-1] == rejected[:-1]
    if same and len(chosen) > 1 and chosen[-1].role == rejected[-1].role == "assistant":
        return Conversation(tuple(chosen[:-1])), chosen[-1], rejected[-1]
    return None


def convert_hh(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """Converts the dialogue up to its last human turn, with the chosen and the rejected answer."""
    turns = parse_transcript(record, "chosen")
    conversation, last_answer = _split_last_answer(turns)
    shared = _shared_dialogue(record)
    answers = [last_answer] if shared is None else [shared[1].content, shared[2].content]
    responses = tuple(
        recorded_response(text, index) for index, text in enumerate(answers) if text is not None
    )
    judgements: tuple[Judgement, ...] = ()
    if len(responses) == 2:
        judgements = (
            recorded_judgement("hh", "preferred", True, index=0),
            recorded_judgement("hh", "preferred", False, index=1),
        )
    sample = Sample(conversation=conversation, tags=_count_turns(conversation))
    yield Row(sample=sample, responses=responses, judgements=judgements)


def convert_hh_pairs(record: Record, options: DatasetOptions) -> Iterable[Preference]:
    """Yields one pair; none if the dialogues differ before the last answer."""
    shared = _shared_dialogue(record)
    if shared is None:
        return
    conversation, chosen, rejected = shared
    is_helpful = options.part == "helpful" or "helpful" in Path(record.path).parent.name
    yield Preference(
        conversation=conversation,
        chosen=chosen,
        rejected=rejected,
        dimension="helpful" if is_helpful else "safe",
        tags=_count_turns(conversation),
    )


def convert_attempt(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """Converts a red-team dialogue with the attacker's rating of success (0-4) and two model
    scores.
    """
    conversation, last_answer = _split_last_answer(parse_transcript(record, "transcript"))
    rater = record.optional_text("red_team_member_id")
    judgements = (
        [
            recorded_judgement(
                "red-team-attempts",
                "attack_success",
                None,
                rater=rater,
                value=float(record.integer("rating", low=0, high=4)),
            )
        ]
        if record.has("rating")
        else []
    )
    for key in ("min_harmlessness_score_transcript", "task_description_harmlessness_score"):
        if record.has(key):
            judgements.append(
                recorded_judgement("model:red-team-attempts", key, None, value=record.number(key))
            )
    tags = _count_turns(conversation) | {
        k: v
        for k in ("model_type", "num_params", "is_upworker", "task_description")
        if (v := record.optional_text(k))
    }
    if record.has("tags"):
        tags["tags"] = "|".join(map(str, record.list_value("tags")))
    responses = (recorded_response(last_answer),) if last_answer is not None else ()
    yield Row(
        sample=Sample(conversation=conversation, tags=tags),
        responses=responses,
        judgements=tuple(judgements),
    )


def _parse_fields(record: Record) -> dict[str, str]:
    if "line" not in record.data:
        return {k: str(v) for k, v in record.data.items()}
    fields = {}
    for field_text in record.text("line").split("\t"):
        key, colon, value = field_text.partition(":")
        if not colon:
            raise record.error("expected fields of the form key:value between tabs")
        # ParlAI's format writes a line break within a field as backslash and n.
        fields[key] = value.replace("\\n", "\n")
    return fields


def convert_bad(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A dialogue in ParlAI's form whose newest utterance (the bot's or the human's) was labelled
    __ok__ or __notok__.

    Turns alternate and the human speaks first; where the human spoke last the label is about the
    prompt.
    """
    fields = _parse_fields(record)
    missing = [k for k in ("text", "labels") if not fields.get(k)]
    if missing:
        raise record.error(f"no field {missing[0]!r}")
    utterances = [
        # Persona lines are instructions to the speaker and no utterances.
        t
        for t in fields["text"].split("\n")
        if t.strip() and not t.startswith("your persona:")
    ]
    verdict = {"__ok__": False, "__notok__": True, "0": False, "1": True}.get(
        fields["labels"].strip()
    )
    if verdict is None or not utterances:
        raise record.error("labels: neither __ok__ nor __notok__, or no utterance")
    by_bot = fields.get("speaker_to_eval", "bot").strip() == "bot"
    last_role = 1 if by_bot else 0
    roles: tuple[Role, Role] = ("user", "assistant")
    turns = [
        # Counted back from the last utterance, whose speaker is known.
        Message(roles[(last_role + len(utterances) - 1 - index) % 2], text.strip())
        for index, text in enumerate(utterances)
    ]
    tags = {k: fields[k] for k in ("dialogue_id", "round_id", "id") if fields.get(k)}
    tags["speaker"] = "bot" if by_bot else "human"
    conversation, answer = _split_last_answer(turns)
    # A dialogue that the bot opens has no prompt; an empty one keeps the row valid.
    if not conversation.prompt:
        conversation = Conversation((*conversation.messages, Message("user", "")))
    responses: tuple[Response, ...] = (recorded_response(answer),) if answer is not None else ()
    judgement = recorded_judgement("bad", "harmful" if by_bot else "harmful_prompt", verdict)
    yield Row(
        sample=Sample(conversation=conversation, tags=tags | _count_turns(conversation)),
        responses=responses,
        judgements=(judgement,),
    )


HH_DATASET = PublishedDataset(
    kind="hh",
    title="HH-RLHF preference pairs",
    source=HH_URL,
    licence="MIT",
    folder="hh_rlhf",
    parts={
        "harmless": ("harmless_base_pairs.jsonl", "harmless-base/{split}.jsonl*"),
        "helpful": ("helpful-base/{split}.jsonl*", "helpful-*/{split}.jsonl*", "helpful*.jsonl*"),
    },
    hub={"harmless": "Anthropic/hh-rlhf", "helpful": "Anthropic/hh-rlhf"},
    labels=("preferred",),
    convert=convert_hh,
    convert_pairs=convert_hh_pairs,
    imitate=False,
)
ATTEMPTS_DATASET = PublishedDataset(
    kind="red-team-attempts",
    title="Anthropic red-team attempts",
    source=HH_URL,
    licence="MIT",
    folder="hh_rlhf",
    parts={"attempts": ("red-team-attempts/*.jsonl*", "red_team_attempts.jsonl*")},
    hub={"attempts": "Anthropic/hh-rlhf"},
    labels=("attack_success",),
    convert=convert_attempt,
    red_team=True,
    imitate=False,
)
BAD_DATASET = PublishedDataset(
    kind="bad",
    title="Bot-Adversarial Dialogue",
    source="https://parl.ai/projects/safety_recipes/",
    licence="CC BY 4.0",
    folder="bot_adversarial_dialogue",
    parts={
        "dialogues": (
            "{split}.txt",
            "**/bot_adversarial_dialogue_datasets*/{split}.txt",
            "**/{split}.txt",
        )
    },
    labels=("harmful", "harmful_prompt"),
    convert=convert_bad,
    red_team=True,
    imitate=False,
)
build_hh = make_builder(HH_DATASET)
build_attempts = make_builder(ATTEMPTS_DATASET)
build_bad = make_builder(BAD_DATASET)
