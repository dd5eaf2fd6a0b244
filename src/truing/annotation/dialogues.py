"""Red teaming by people, after Ganguli et al. 2022 (arXiv 2209.07858).

Each message brings a pair of answers, from two samples of one model or from two models. The
red-teamer sees them as A and B in random order, without a model's name, and picks the more harmful
one. The study decides which one the dialogue continues with; by default the safer one.
"""

from __future__ import annotations

import json
import random
import secrets

from msgspec import Struct
from sqlalchemy import func, select

from truing.annotation import wellbeing
from truing.annotation.people import add_audit_entry, find_submission, save_submission
from truing.annotation.review_items import NewItem, Target, add_item
from truing.annotation.store import RequestRejected, Transaction
from truing.annotation.study import Study, clean_text, decode_list, new_id
from truing.annotation.tables import Dialogue, DialogueTurn, Person, StoredAnswer
from truing.core.types import Answer, Conversation, Message

MAX_ANSWER_CHARS = 100_000
SLOTS = (0, 1)  # of a turn's pair of answers
TIE = 2  # the value of `DialogueTurn.picked` for "no difference"
_Answers = dict[tuple[str, int], StoredAnswer]  # (turn id, slot) -> answer


class ResponseView(Struct, frozen=True, kw_only=True):
    """One answer of a pair as the red-teamer sees it.

    `letter`: A or B; `failure`: why there is no answer; `continued`: the dialogue continues
    with it.
    """

    letter: str
    slot: int
    text: str = ""
    ready: bool = False
    failure: str | None = None
    grade: int | None = None
    continued: bool = False


class TurnView(Struct, frozen=True, kw_only=True):
    """One turn as the red-teamer sees it. `picked`: A, B, tie, or none."""

    id: str
    number: int
    message: str
    responses: tuple[ResponseView, ResponseView]
    picked: str | None = None

    @property
    def ready(self) -> bool:
        """Whether both responses are complete."""
        return all(r.ready for r in self.responses)


class DialogueView(Struct, frozen=True, kw_only=True):
    """A dialogue as the red-teamer sees it."""

    id: str
    state: str
    started: float
    turns: tuple[TurnView, ...]
    rating: int | None = None
    goal: str = ""
    categories: tuple[str, ...] = ()

    @property
    def open_turn(self) -> TurnView | None:
        """The newest turn, if no response was picked in it yet."""
        return self.turns[-1] if self.turns and self.turns[-1].picked is None else None


class ClosingForm(Struct, frozen=True, kw_only=True):
    """The form at the end of a dialogue.

    `rating`: own success, 0 to 4. `grades`: "turn-slot" -> grade of 1 to 5, for every response.
    """

    rating: int
    grades: dict[str, int]
    categories: tuple[str, ...] = ()
    goal: str = ""


class GenerationJob(Struct, frozen=True, kw_only=True):
    """An answer to generate: for one slot of a turn, by one model."""

    turn_id: str
    slot: int
    model: str
    seed: int
    conversation: Conversation
    letter: str


def start_dialogue(
    tx: Transaction, person_id: str, models: tuple[str, ...], study: Study, key: str
) -> str:
    """Starts a dialogue with one model (two samples a turn) or with two drawn from several.

    Returns its id; the same `key` again returns the same dialogue.
    """
    earlier_id = find_submission(tx, person_id, key)
    if earlier_id is not None:
        return earlier_id
    wellbeing.check_admission(tx, tx.session.get_one(Person, person_id), study)
    if not models:
        raise RequestRejected("invalid", "This server has no model to talk to.")
    # The system's entropy source: which models somebody talks to must not be predictable.
    pair = (
        (models[0], models[0])
        if len(models) == 1
        else tuple(secrets.SystemRandom().sample(models, 2))
    )
    dialogue = Dialogue(
        id=new_id(), person_id=person_id, models=json.dumps(pair), state="open", started=tx.now
    )
    tx.session.add(dialogue)
    save_submission(tx, person_id, key, dialogue.id)
    add_audit_entry(tx, person_id, "dialogue", dialogue.id)
    return dialogue.id


def _load_own_dialogue(
    tx: Transaction, dialogue_id: str, person_id: str, *, lock: bool = False
) -> Dialogue:
    dialogue = tx.session.get(
        Dialogue, dialogue_id, with_for_update={"key_share": True} if lock else None
    )
    # The same error for both, so that ids of other people's dialogues cannot be probed.
    if dialogue is None or dialogue.person_id != person_id:
        raise RequestRejected("missing", "This dialogue does not exist, or is not yours.")
    return dialogue


def _load_turn(tx: Transaction, dialogue_id: str, turn_id: str) -> DialogueTurn:
    turn = tx.session.get(DialogueTurn, turn_id)
    if turn is None or turn.dialogue_id != dialogue_id:
        raise RequestRejected("missing", "There is no such turn.")
    return turn


def _load_turns(tx: Transaction, dialogue_id: str) -> list[DialogueTurn]:
    return list(
        tx.session.scalars(
            select(DialogueTurn)
            .where(DialogueTurn.dialogue_id == dialogue_id)
            .order_by(DialogueTurn.number)
        )
    )


def _load_answers(tx: Transaction, dialogue_id: str) -> _Answers:
    rows = tx.session.scalars(
        select(StoredAnswer)
        .join(DialogueTurn, DialogueTurn.id == StoredAnswer.turn_id)
        .where(DialogueTurn.dialogue_id == dialogue_id)
    )
    return {(a.turn_id, a.slot): a for a in rows}


def _letter(turn: DialogueTurn, slot: int) -> str:
    return "AB"[slot ^ int(turn.flipped)]


def _view_response(turn: DialogueTurn, slot: int, answer: StoredAnswer | None) -> ResponseView:
    if answer is None:
        return ResponseView(letter=_letter(turn, slot), slot=slot)
    return ResponseView(
        letter=_letter(turn, slot),
        slot=slot,
        text=answer.text,
        ready=answer.failure is None,
        failure=answer.failure,
        grade=answer.grade,
        continued=turn.continued == slot,
    )


def _view_turn(turn: DialogueTurn, answers: _Answers) -> TurnView:
    first, second = sorted(
        (_view_response(turn, slot, answers.get((turn.id, slot))) for slot in SLOTS),
        key=lambda response: response.letter,
    )
    picked = None
    if turn.picked is not None:
        picked = "tie" if turn.picked == TIE else _letter(turn, turn.picked)
    return TurnView(
        id=turn.id,
        number=turn.number,
        message=turn.message,
        responses=(first, second),
        picked=picked,
    )


def view_dialogue(tx: Transaction, dialogue_id: str, person_id: str) -> DialogueView:
    """Returns a dialogue for its author; raises RequestRejected for everybody else."""
    dialogue = _load_own_dialogue(tx, dialogue_id, person_id)
    answers = _load_answers(tx, dialogue_id)
    return DialogueView(
        id=dialogue.id,
        state=dialogue.state,
        started=dialogue.started,
        turns=tuple(_view_turn(turn, answers) for turn in _load_turns(tx, dialogue_id)),
        rating=dialogue.rating,
        goal=dialogue.goal,
        categories=tuple(decode_list(dialogue.categories)),
    )


def add_turn(
    tx: Transaction, dialogue_id: str, person_id: str, text: str, key: str, study: Study
) -> str:
    """Adds the red-teamer's message as a new turn; returns its id.

    The same `key` again returns the same turn.
    """
    earlier_id = find_submission(tx, person_id, key)
    if earlier_id is not None:
        return earlier_id
    dialogue = _load_own_dialogue(tx, dialogue_id, person_id, lock=True)
    message = clean_text(text).strip()
    if not message:
        raise RequestRejected("invalid", "Write a message first.")
    if len(message) > study.max_message:
        raise RequestRejected(
            "long",
            f"A message has at most {study.max_message:,} characters; "
            f"this one has {len(message):,}.",
        )
    if dialogue.state != "open":
        raise RequestRejected("closed", "This dialogue is finished.")
    turns = _load_turns(tx, dialogue_id)
    if turns and turns[-1].picked is None:
        raise RequestRejected("order", "Pick a response of the last turn first.")
    if len(turns) >= study.max_turns:
        raise RequestRejected(
            "closed", f"A dialogue has at most {study.max_turns} turns; please finish it."
        )
    turn = DialogueTurn(
        id=new_id(),
        dialogue_id=dialogue_id,
        number=len(turns) + 1,
        message=message,
        at=tx.now,
        flipped=bool(secrets.randbits(1)),
        seed=secrets.randbelow(2**31),
    )
    tx.session.add(turn)
    save_submission(tx, person_id, key, turn.id)
    return turn.id


def build_conversation(
    tx: Transaction, dialogue_id: str, *, system: str = "", until_turn: int | None = None
) -> Conversation:
    """Returns the prompt of turn number `until_turn`, or the whole conversation.

    Of each earlier turn it holds the answer that the dialogue continued with.
    """
    answers = _load_answers(tx, dialogue_id)
    messages = [Message("system", system)] if system else []
    for turn in _load_turns(tx, dialogue_id):
        messages.append(Message("user", turn.message))
        if until_turn is not None and turn.number >= until_turn:
            break
        if turn.continued is not None:
            messages.append(Message("assistant", answers[turn.id, turn.continued].text))
    return Conversation(tuple(messages))


def list_pending_jobs(
    tx: Transaction, dialogue_id: str, person_id: str, turn_id: str, study: Study
) -> tuple[GenerationJob, ...]:
    """Returns the answers of a turn that are still to be generated, failed ones included."""
    dialogue = _load_own_dialogue(tx, dialogue_id, person_id)
    turn = _load_turn(tx, dialogue_id, turn_id)
    models = decode_list(dialogue.models)
    answers = _load_answers(tx, dialogue_id)
    conversation = build_conversation(tx, dialogue_id, system=study.system, until_turn=turn.number)
    return tuple(
        GenerationJob(
            turn_id=turn_id,
            slot=slot,
            model=models[slot],
            # Different seeds, or two samples of one model would be equal.
            seed=(turn.seed + slot) % 2**31,
            conversation=conversation,
            letter=_letter(turn, slot),
        )
        for slot in SLOTS
        if not _has_answer(answers, turn_id, slot)
    )


def _has_answer(answers: _Answers, turn_id: str, slot: int) -> bool:
    answer = answers.get((turn_id, slot))
    return answer is not None and answer.failure is None


def save_answer(tx: Transaction, job: GenerationJob, answer: Answer) -> None:
    """Stores a generated answer, cut to `MAX_ANSWER_CHARS`.

    A stored failure is replaced; a stored answer stays, because the red-teamer may have read it.
    """
    turn = tx.session.get(DialogueTurn, job.turn_id, with_for_update={"key_share": True})
    if turn is None:
        return  # its author has withdrawn the dialogue while the model was answering
    stored = tx.session.get(StoredAnswer, (job.turn_id, job.slot))
    failure = None
    if answer.failure is not None:
        failure = f"{answer.failure.kind}: {answer.failure.message}"[:500]
    text, finish_reason = clean_text(answer.text), answer.finish_reason
    if len(text) > MAX_ANSWER_CHARS:
        text, finish_reason = text[:MAX_ANSWER_CHARS], "length"
    if stored is None:
        tx.session.add(
            StoredAnswer(
                turn_id=job.turn_id,
                slot=job.slot,
                model=job.model,
                text=text,
                finish_reason=finish_reason,
                failure=failure,
            )
        )
    elif stored.failure is not None:
        stored.text, stored.finish_reason, stored.failure = text, finish_reason, failure


def pick_response(
    tx: Transaction, dialogue_id: str, person_id: str, turn_id: str, pick: str, study: Study
) -> None:
    """Stores which response is more harmful (A, B or tie) and which one continues the dialogue."""
    dialogue = _load_own_dialogue(tx, dialogue_id, person_id, lock=True)
    turn = _load_turn(tx, dialogue_id, turn_id)
    if turn.picked is not None:
        return  # a second click; the first choice stands
    if dialogue.state != "open":
        raise RequestRejected("closed", "This dialogue is finished.")
    answers = _load_answers(tx, dialogue_id)
    if not all(_has_answer(answers, turn_id, slot) for slot in SLOTS):
        raise RequestRejected("order", "Wait until both responses are complete.")
    if pick not in ("A", "B", "tie"):
        raise RequestRejected("invalid", "Pick A, B or no difference.")
    picked = TIE if pick == "tie" else "AB".index(pick) ^ int(turn.flipped)
    if picked == TIE or study.continuation == "random":
        # From the turn's seed, so that a retried transaction draws the same one.
        turn.continued = random.Random(turn.seed).randrange(2)
    else:
        turn.continued = picked if study.continuation == "picked" else 1 - picked
    turn.picked, turn.chosen_at = picked, tx.now


def finish_dialogue(
    tx: Transaction, dialogue_id: str, person_id: str, closing: ClosingForm, study: Study
) -> None:
    """Stores the closing form and adds the dialogue to the review queue."""
    dialogue = _load_own_dialogue(tx, dialogue_id, person_id, lock=True)
    if dialogue.state == "finished":
        return
    turns = [turn for turn in _load_turns(tx, dialogue_id) if turn.picked is not None]
    answers = _load_answers(tx, dialogue_id)
    if not turns:
        raise RequestRejected(
            "order", "Pick a response in at least one turn, or leave the dialogue."
        )
    answers_to_grade = {f"{t.number}-{slot}": answers[t.id, slot] for t in turns for slot in SLOTS}
    if set(closing.grades) != set(answers_to_grade) or any(
        g not in (1, 2, 3, 4, 5) for g in closing.grades.values()
    ):
        raise RequestRejected("invalid", "Give every response a grade from 1 to 5.")
    if closing.rating not in (0, 1, 2, 3, 4):
        raise RequestRejected("invalid", "Rate your own success from 0 to 4.")
    if set(closing.categories) - set(study.categories().ids):
        raise RequestRejected("invalid", "That is no category of this study.")
    for name, answer in answers_to_grade.items():
        answer.grade = closing.grades[name]
    dialogue.state, dialogue.ended, dialogue.rating = "finished", tx.now, closing.rating
    dialogue.goal = " ".join(clean_text(closing.goal).split())[:300]
    dialogue.categories = json.dumps(closing.categories)
    _add_to_review(tx, dialogue, turns, answers, closing, study)
    points = wellbeing.exposure_points(study, closing.categories, max(closing.grades.values()))
    wellbeing.add_exposure(tx, tx.session.get_one(Person, person_id), points, study)
    add_audit_entry(tx, person_id, "finish", dialogue_id)


def _add_to_review(
    tx: Transaction,
    dialogue: Dialogue,
    turns: list[DialogueTurn],
    answers: _Answers,
    closing: ClosingForm,
    study: Study,
) -> None:
    """Adds one item with the whole conversation; raters grade the answers that continued it."""
    messages: list[Message] = []
    targets = []
    for turn in turns:
        slot = int(turn.continued or 0)
        answer = answers[turn.id, slot]
        messages += [Message("user", turn.message), Message("assistant", answer.text)]
        sample_id = f"{dialogue.id}-{turn.number}"
        targets.append(Target(sample_id, slot, len(messages) - 1, answer.model))
    review_item = NewItem(
        source="dialogue",
        key=dialogue.id,
        conversation=Conversation(tuple(messages)),
        targets=tuple(targets),
        author=dialogue.person_id,
        # Without any category nobody knows yet what it is about: opt-outs need `unsorted`.
        harms=closing.categories or None,
    )
    add_item(tx, review_item, study)


def abandon_dialogue(tx: Transaction, dialogue_id: str, person_id: str) -> None:
    """Abandons an open dialogue; it is neither reviewed nor exported."""
    dialogue = _load_own_dialogue(tx, dialogue_id, person_id, lock=True)
    if dialogue.state == "open":
        dialogue.state, dialogue.ended = "abandoned", tx.now
        add_audit_entry(tx, person_id, "leave", dialogue_id)


def list_dialogues(tx: Transaction, person_id: str) -> list[tuple[str, str, float, int]]:
    """Returns (id, state, start, number of turns) of a person's newest 50 dialogues."""
    rows = tx.session.execute(
        select(Dialogue.id, Dialogue.state, Dialogue.started, func.count(DialogueTurn.id))
        .outerjoin(DialogueTurn, DialogueTurn.dialogue_id == Dialogue.id)
        .where(Dialogue.person_id == person_id)
        .group_by(Dialogue.id)
        .order_by(Dialogue.started.desc())
        .limit(50)
    )
    return [(r[0], r[1], r[2], r[3]) for r in rows]
