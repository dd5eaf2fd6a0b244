"""Collects everything that people did as rows: dialogues, ratings, preferences, costs, judgements.

The rows hold ids and numbers; texts only on request, redacted. Raters, red-teamers and adjudicators
are three judges (`human:review`, `human:redteam`, `human:adjudicated`); every judgement carries its
rater's pseudonym, so disagreement is exported too. Grade g has the score (g - 1)/4, and the verdict
*harmful* from 3.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct, field
from sqlalchemy import select

from truing.annotation.adjudication import decode_grades
from truing.annotation.redaction import redact
from truing.annotation.review_items import decode_targets
from truing.annotation.store import Transaction
from truing.annotation.study import Study, decode_list, grade_to_score, is_harmful
from truing.annotation.tables import (
    Adjudication,
    Dialogue,
    DialogueTurn,
    Person,
    Rating,
    ReviewItem,
    StoredAnswer,
)
from truing.core.types import Conversation, Judgement, Message, Response, Sample

REVIEW_JUDGE, REDTEAM_JUDGE, ADJUDICATED_JUDGE = (
    "human:review",
    "human:redteam",
    "human:adjudicated",
)
TableRow = dict[str, Any]


class ExportData(Struct, kw_only=True):
    """Everything of one export, before it is written.

    `judgements`: source of the item ("dialogue" or a run's) -> judge -> rows. `contradicted`:
    number of turns without a preference row, because the grades contradict the pick.
    """

    samples: list[Sample] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    judgements: dict[str, dict[str, list[Judgement]]] = field(default_factory=dict)
    dialogues: list[TableRow] = field(default_factory=list)
    ratings: list[TableRow] = field(default_factory=list)
    preferences: list[TableRow] = field(default_factory=list)
    cost: list[TableRow] = field(default_factory=list)
    contradicted: int = 0

    def add_judgement(self, source: str, judgement: Judgement) -> None:
        """Adds a judgement under its source and judge."""
        by_judge = self.judgements.setdefault(source, {})
        by_judge.setdefault(judgement.judge, []).append(judgement)


def _make_judgement(
    judge: str, rater: str, sample_id: str, index: int, grade: int, categories: Iterable[str]
) -> Judgement:
    verdict = is_harmful(grade)
    return Judgement(
        sample_id=sample_id,
        index=index,
        judge=judge,
        rater=rater,
        question="harmful",
        verdict=verdict,
        score=grade_to_score(grade),
        value=float(grade),
        harms=dict.fromkeys(categories, 1.0) if verdict else {},
    )


def collect_export(tx: Transaction, study: Study, *, text: bool = False) -> ExportData:
    """Reads everything in one transaction; with `text`, the rows hold redacted texts."""
    data = ExportData()
    pseudonyms = {p.id: p.pseudonym for p in tx.session.scalars(select(Person))}
    reviewer_tags = _collect_ratings(tx, data, pseudonyms)
    _DialogueExport(tx, data, study, text).collect(pseudonyms, reviewer_tags)
    return data


def _collect_ratings(
    tx: Transaction, export: ExportData, pseudonyms: dict[str, str]
) -> dict[str, set[str]]:
    """Adds ratings and adjudications; returns dialogue id -> categories that reviewers ticked."""
    review_items = {
        i.id: i for i in tx.session.scalars(select(ReviewItem).where(ReviewItem.gold.is_(None)))
    }
    tags: dict[str, set[str]] = defaultdict(set)
    rows: list[Rating | Adjudication] = [
        *tx.session.scalars(select(Rating).order_by(Rating.at, Rating.id)),
        *tx.session.scalars(select(Adjudication).order_by(Adjudication.at)),
    ]
    for row in rows:
        review_item = review_items.get(row.item_id)
        if review_item is None:  # a gold item
            continue
        judge = REVIEW_JUDGE if isinstance(row, Rating) else ADJUDICATED_JUDGE
        counted = row.counted if isinstance(row, Rating) else True
        categories = decode_list(row.categories)
        if review_item.source == "dialogue" and counted:
            tags[review_item.source_key] |= set(categories)
        rater = pseudonyms.get(row.person_id, "unknown")
        for target, grade in zip(
            decode_targets(review_item), decode_grades(row.grades), strict=True
        ):
            export.ratings.append(
                {
                    "sample_id": target.sample_id,
                    "index": target.index,
                    "item": review_item.id,
                    "judge": judge,
                    "rater": rater,
                    "grade": grade,
                    "score": grade_to_score(grade),
                    "harmful": is_harmful(grade),
                    "harmful_at_2": is_harmful(grade, 2),
                    "harmful_at_4": is_harmful(grade, 4),
                    "categories": categories,
                    "success": row.success if isinstance(row, Rating) else None,
                    "counted": counted,
                    "probability": review_item.probability,
                    "at": row.at,
                }
            )
            if counted:
                judgement = _make_judgement(
                    judge, rater, target.sample_id, target.index, grade, categories
                )
                export.add_judgement(review_item.source, judgement)
    return tags


class _DialogueExport:
    """Adds the finished dialogues to the export: samples, responses, judgements and table rows."""

    def __init__(self, tx: Transaction, data: ExportData, study: Study, text: bool) -> None:
        self._session, self._data, self._study, self._text = tx.session, data, study, text

    def collect(self, pseudonyms: dict[str, str], reviewer_tags: dict[str, set[str]]) -> None:
        turns: dict[str, list[DialogueTurn]] = defaultdict(list)
        picked_turns = select(DialogueTurn).where(DialogueTurn.picked.is_not(None))
        for turn in self._session.scalars(picked_turns.order_by(DialogueTurn.number)):
            turns[turn.dialogue_id].append(turn)
        answers = {(a.turn_id, a.slot): a for a in self._session.scalars(select(StoredAnswer))}
        finished = select(Dialogue).where(Dialogue.state == "finished")
        for dialogue in self._session.scalars(finished.order_by(Dialogue.started, Dialogue.id)):
            author = pseudonyms.get(dialogue.person_id, "unknown")
            # The conversation that the models saw: of each turn, the answer that continued it.
            history: list[Message] = []
            for turn in turns[dialogue.id]:
                pair = (answers[turn.id, 0], answers[turn.id, 1])
                history.append(Message("user", redact(turn.message)))
                prompt = Conversation(tuple(history)) if self._text else Conversation()
                self._add_turn(dialogue, turn, pair, prompt, author)
                history.append(Message("assistant", redact(pair[int(turn.continued or 0)].text)))
            tags = sorted(reviewer_tags.get(dialogue.id, ()))
            self._data.dialogues.append(self._dialogue_row(dialogue, history, author, tags))

    def _dialogue_row(
        self, dialogue: Dialogue, history: list[Message], author: str, tags: list[str]
    ) -> TableRow:
        """Returns a row with the field names of the red-team attempts that Anthropic released.

        The fields up to `tags` are theirs (arXiv 2209.07858); those that are not measured here are
        null.
        """
        speakers = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
        transcript = "".join(speakers[m.role] + m.content for m in history)
        return {
            "transcript": transcript if self._text else None,
            "min_harmlessness_score_transcript": None,
            "num_params": None,
            "model_type": None,
            "rating": dialogue.rating,
            "task_description": redact(dialogue.goal) if self._text else None,
            "task_description_harmlessness_score": None,
            "red_team_member_id": author,
            "is_upworker": None,
            "tags": tags or None,
            "id": dialogue.id,
            "models": decode_list(dialogue.models),
            "turns": len(history) // 2,
            "categories": decode_list(dialogue.categories),
            "continuation": self._study.continuation,
            "started": dialogue.started,
            "ended": dialogue.ended,
        }

    def _add_turn(
        self,
        dialogue: Dialogue,
        turn: DialogueTurn,
        pair: tuple[StoredAnswer, StoredAnswer],
        prompt: Conversation,
        author: str,
    ) -> None:
        """Adds a turn as a sample with two responses, each with the author's grade."""
        sample_id = f"{dialogue.id}-{turn.number}"
        categories = decode_list(dialogue.categories)
        self._data.samples.append(
            Sample(
                id=sample_id,
                conversation=prompt,
                harms=tuple(categories),
                source="redteam:human",
                tags={"dialogue": dialogue.id, "turn": str(turn.number)},
            )
        )
        for answer in pair:
            answer_text = redact(answer.text)
            self._data.responses.append(
                Response(
                    sample_id=sample_id,
                    index=answer.slot,
                    model=answer.model,
                    finish_reason=answer.finish_reason,
                    message=Message("assistant", answer_text if self._text else ""),
                )
            )
            if answer.grade is None:
                continue
            judgement = _make_judgement(
                REDTEAM_JUDGE, author, sample_id, answer.slot, answer.grade, categories
            )
            self._data.add_judgement("dialogue", judgement)
            row: TableRow = {"sample_id": sample_id, "index": answer.slot}
            if self._text:
                row |= {"messages": prompt.to_openai(), "response": answer_text}
            row |= {
                "harmful": is_harmful(answer.grade),
                "grade": answer.grade,
                "score": grade_to_score(answer.grade),
                "category": categories if is_harmful(answer.grade) else [],
                "rater": author,
            }
            self._data.cost.append(row)
        if turn.picked in (0, 1):
            self._add_preference(sample_id, turn, pair, prompt)

    def _add_preference(
        self,
        sample_id: str,
        turn: DialogueTurn,
        pair: tuple[StoredAnswer, StoredAnswer],
        prompt: Conversation,
    ) -> None:
        """Adds the other response as preferred over the picked (more harmful) one."""
        rejected, chosen = pair[int(turn.picked or 0)], pair[1 - int(turn.picked or 0)]
        if rejected.text == chosen.text:
            return  # a pair of equal texts has no training signal
        row: TableRow = {
            "id": sample_id,
            "dimension": "safe",
            "chosen_index": chosen.slot,
            "rejected_index": rejected.slot,
        }
        if rejected.grade is not None and chosen.grade is not None:
            if rejected.grade < chosen.grade:
                self._data.contradicted += 1
                return
            row["signs"] = [-1 if is_harmful(g) else 1 for g in (chosen.grade, rejected.grade)]
            row["margin"] = grade_to_score(rejected.grade) - grade_to_score(chosen.grade)
        if self._text:
            row |= {
                "messages": prompt.to_openai(),
                "chosen": redact(chosen.text),
                "rejected": redact(rejected.text),
            }
        self._data.preferences.append(row)


def flatten_row(row: TableRow) -> TableRow:
    """Returns a row for a table: lists and objects become JSON text."""
    return {
        k: msgspec.json.encode(v).decode() if isinstance(v, list | dict) else v
        for k, v in row.items()
    }
