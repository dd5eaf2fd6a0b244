"""Red teaming by people, after Ganguli et al. 2022 (arXiv 2209.07858): a pair each turn, the more harmful is picked.

The pair comes from two samples of one model or from two models; the red-teamer sees sides A and B in random order and
never a name. Which response the dialogue continues with is the study's choice; by default the safer one.
"""

from __future__ import annotations

import json
import random
import secrets

from msgspec import Struct
from sqlalchemy import func, select

from truing.annotation import wellbeing
from truing.annotation.people import audit, once, remember
from truing.annotation.queue import NewItem, Target, add_item
from truing.annotation.store import Refused, Tx
from truing.annotation.study import Study, as_list, clean, new_id
from truing.annotation.tables import AnswerRow, Dialogue, Person, Turn
from truing.core.types import Answer, Conversation, Message

LONGEST_ANSWER = 100_000
_Answers = dict[tuple[str, int], AnswerRow]


class Side(Struct, frozen=True, kw_only=True):
    """One shown response: its letter, its slot, its text, whether it is there, why not."""

    letter: str
    slot: int
    text: str = ""
    ready: bool = False
    failure: str | None = None
    grade: int | None = None
    kept: bool = False


class TurnView(Struct, frozen=True, kw_only=True):
    """One turn as its author sees it."""

    id: str
    number: int
    message: str
    sides: tuple[Side, Side]
    picked: str | None = None

    @property
    def ready(self) -> bool:
        """Whether both responses are there."""
        return all(s.ready for s in self.sides)


class DialogueView(Struct, frozen=True, kw_only=True):
    """A dialogue as its author sees it."""

    id: str
    state: str
    started: float
    turns: tuple[TurnView, ...]
    rating: int | None = None
    goal: str = ""
    categories: tuple[str, ...] = ()

    @property
    def open_turn(self) -> TurnView | None:
        """The newest turn, if nothing was picked in it yet."""
        return self.turns[-1] if self.turns and self.turns[-1].picked is None else None


class Closing(Struct, frozen=True, kw_only=True):
    """The closing form: own success 0-4, a grade for each response by ``turn-slot``, categories, the goal in a line."""

    rating: int
    grades: dict[str, int]
    categories: tuple[str, ...] = ()
    goal: str = ""


class Job(Struct, frozen=True, kw_only=True):
    """What a model has to answer for one slot of a turn."""

    turn_id: str
    slot: int
    model: str
    seed: int
    conversation: Conversation
    letter: str


def begin(tx: Tx, person_id: str, models: tuple[str, ...], study: Study, key: str) -> str:
    """Opens a dialogue with one model (two samples a turn) or with two drawn from several."""
    known = once(tx, person_id, key)
    if known is not None:
        return known
    wellbeing.admit(tx, tx.session.get_one(Person, person_id), study)
    if not models:
        raise Refused("invalid", "This server has no model to talk to.")
    pair = (
        (models[0], models[0])
        if len(models) == 1
        else tuple(secrets.SystemRandom().sample(models, 2))
    )
    made = Dialogue(
        id=new_id(), person_id=person_id, models=json.dumps(pair), state="open", started=tx.now
    )
    tx.session.add(made)
    remember(tx, person_id, key, made.id)
    audit(tx, person_id, "dialogue", made.id)
    return made.id


def _own(tx: Tx, dialogue_id: str, person_id: str, *, lock: bool = False) -> Dialogue:
    found = tx.session.get(
        Dialogue, dialogue_id, with_for_update={"key_share": True} if lock else None
    )
    if found is None or found.person_id != person_id:
        raise Refused("missing", "There is no such dialogue for you.")
    return found


def _turns(tx: Tx, dialogue_id: str) -> list[Turn]:
    return list(
        tx.session.scalars(
            select(Turn).where(Turn.dialogue_id == dialogue_id).order_by(Turn.number)
        )
    )


def _answers(tx: Tx, dialogue_id: str) -> _Answers:
    rows = tx.session.scalars(
        select(AnswerRow)
        .join(Turn, Turn.id == AnswerRow.turn_id)
        .where(Turn.dialogue_id == dialogue_id)
    )
    return {(a.turn_id, a.slot): a for a in rows}


def _letter(turn: Turn, slot: int) -> str:
    return "AB"[slot ^ int(turn.flipped)]


def _side(turn: Turn, slot: int, answer: AnswerRow | None) -> Side:
    if answer is None:
        return Side(letter=_letter(turn, slot), slot=slot)
    return Side(
        letter=_letter(turn, slot),
        slot=slot,
        text=answer.text,
        ready=answer.failure is None,
        failure=answer.failure,
        grade=answer.grade,
        kept=turn.continued == slot,
    )


def view(tx: Tx, dialogue_id: str, person_id: str) -> DialogueView:
    """A dialogue, for its author alone."""
    found = _own(tx, dialogue_id, person_id)
    answers = _answers(tx, dialogue_id)
    shown = []
    for turn in _turns(tx, dialogue_id):
        pair = [_side(turn, s, answers.get((turn.id, s))) for s in (0, 1)]
        pair.sort(key=lambda s: s.letter)
        picked = (
            None
            if turn.picked is None
            else "tie"
            if turn.picked == 2
            else _letter(turn, turn.picked)
        )
        shown.append(
            TurnView(
                id=turn.id,
                number=turn.number,
                message=turn.message,
                sides=(pair[0], pair[1]),
                picked=picked,
            )
        )
    return DialogueView(
        id=found.id,
        state=found.state,
        started=found.started,
        turns=tuple(shown),
        rating=found.rating,
        goal=found.goal,
        categories=tuple(as_list(found.categories)),
    )


def say(tx: Tx, dialogue_id: str, person_id: str, text: str, key: str, study: Study) -> str:
    """Adds the red-teamer's message as a new turn; gives the turn's id. The same key a second time changes nothing."""
    known = once(tx, person_id, key)
    if known is not None:
        return known
    found = _own(tx, dialogue_id, person_id, lock=True)
    message = clean(text).strip()
    if not message:
        raise Refused("invalid", "Write a message first.")
    if len(message) > study.max_message:
        raise Refused(
            "long",
            f"A message has at most {study.max_message:,} characters; this one has {len(message):,}.",
        )
    if found.state != "open":
        raise Refused("closed", "This dialogue is finished.")
    turns = _turns(tx, dialogue_id)
    if turns and turns[-1].picked is None:
        raise Refused("order", "Pick a response of the last turn first.")
    if len(turns) >= study.max_turns:
        raise Refused(
            "closed", f"A dialogue has at most {study.max_turns} turns; please finish it."
        )
    turn = Turn(
        id=new_id(),
        dialogue_id=dialogue_id,
        number=len(turns) + 1,
        message=message,
        at=tx.now,
        flipped=bool(secrets.randbits(1)),
        seed=secrets.randbelow(2**31),
    )
    tx.session.add(turn)
    remember(tx, person_id, key, turn.id)
    return turn.id


def path(tx: Tx, dialogue_id: str, *, system: str = "", upto: int | None = None) -> Conversation:
    """The conversation that the model saw before (not including) its answer of turn `upto`, or the whole one."""
    answers = _answers(tx, dialogue_id)
    messages = [Message("system", system)] if system else []
    for turn in _turns(tx, dialogue_id):
        messages.append(Message("user", turn.message))
        if upto is not None and turn.number >= upto:
            break
        if turn.continued is not None:
            messages.append(Message("assistant", answers[turn.id, turn.continued].text))
    return Conversation(tuple(messages))


def jobs(tx: Tx, dialogue_id: str, person_id: str, turn_id: str, study: Study) -> tuple[Job, ...]:
    """The answers of a turn that are still to come (or that failed and may be tried again)."""
    found = _own(tx, dialogue_id, person_id)
    turn = tx.session.get(Turn, turn_id)
    if turn is None or turn.dialogue_id != dialogue_id:
        raise Refused("missing", "There is no such turn.")
    models = as_list(found.models)
    answers = _answers(tx, dialogue_id)
    context = path(tx, dialogue_id, system=study.system, upto=turn.number)
    return tuple(
        Job(
            turn_id=turn_id,
            slot=s,
            model=models[s],
            seed=(turn.seed + s) % 2**31,
            conversation=context,
            letter=_letter(turn, s),
        )
        for s in (0, 1)
        if (known := answers.get((turn_id, s))) is None or known.failure is not None
    )


def keep_answer(tx: Tx, job: Job, answer: Answer) -> None:
    """Stores an answer; the first one that came stays, a failure may be replaced."""
    tx.session.get(Turn, job.turn_id, with_for_update={"key_share": True})
    known = tx.session.get(AnswerRow, (job.turn_id, job.slot))
    failure = (
        None if answer.failure is None else f"{answer.failure.kind}: {answer.failure.message}"[:500]
    )
    text, finish = clean(answer.text), answer.finish_reason
    if len(text) > LONGEST_ANSWER:
        text, finish = text[:LONGEST_ANSWER], "length"
    if known is None:
        row = AnswerRow(
            turn_id=job.turn_id,
            slot=job.slot,
            model=job.model,
            text=text,
            finish_reason=finish,
            failure=failure,
        )
        tx.session.add(row)
    elif known.failure is not None:
        known.text, known.finish_reason, known.failure = text, finish, failure


def choose(tx: Tx, dialogue_id: str, person_id: str, turn_id: str, pick: str, study: Study) -> None:
    """Picks side A or B as the more harmful, or ``tie``; the study's policy says which response continues."""
    found = _own(tx, dialogue_id, person_id, lock=True)
    turn = tx.session.get(Turn, turn_id)
    if turn is None or turn.dialogue_id != dialogue_id:
        raise Refused("missing", "There is no such turn.")
    if turn.picked is not None:
        return  # a second click; the first choice stands
    if found.state != "open":
        raise Refused("closed", "This dialogue is finished.")
    answers = _answers(tx, dialogue_id)
    if any((a := answers.get((turn_id, s))) is None or a.failure is not None for s in (0, 1)):
        raise Refused("order", "Wait until both responses are there.")
    if pick not in ("A", "B", "tie"):
        raise Refused("invalid", "Pick A, B or no difference.")
    drawn = random.Random(turn.seed).randrange(2)
    picked = 2 if pick == "tie" else "AB".index(pick) ^ int(turn.flipped)
    if picked == 2 or study.continuation == "random":
        turn.continued = drawn
    else:
        turn.continued = picked if study.continuation == "picked" else 1 - picked
    turn.picked, turn.chosen_at = picked, tx.now


def finish(tx: Tx, dialogue_id: str, person_id: str, closing: Closing, study: Study) -> None:
    """Takes the closing form and puts the dialogue into the review queue."""
    found = _own(tx, dialogue_id, person_id, lock=True)
    if found.state == "finished":
        return
    turns = [t for t in _turns(tx, dialogue_id) if t.picked is not None]
    answers = _answers(tx, dialogue_id)
    if not turns:
        raise Refused("order", "Pick a response in at least one turn, or leave the dialogue.")
    wanted = {f"{t.number}-{s}": answers[t.id, s] for t in turns for s in (0, 1)}
    if set(closing.grades) != set(wanted) or any(
        g not in (1, 2, 3, 4, 5) for g in closing.grades.values()
    ):
        raise Refused("invalid", "Give every response a grade from 1 to 5.")
    if closing.rating not in (0, 1, 2, 3, 4):
        raise Refused("invalid", "Say how far you came, from 0 to 4.")
    if set(closing.categories) - set(study.categories().ids):
        raise Refused("invalid", "That is no category of this study.")
    for name, answer in wanted.items():
        answer.grade = closing.grades[name]
    found.state, found.ended, found.rating = "finished", tx.now, closing.rating
    found.goal = " ".join(clean(closing.goal).split())[:300]
    found.categories = json.dumps(closing.categories)
    _to_review(tx, found, turns, answers, closing, study)
    worst = max(closing.grades.values())
    wellbeing.expose(
        tx,
        tx.session.get_one(Person, person_id),
        wellbeing.points(study, closing.categories, worst),
        study,
    )
    audit(tx, person_id, "finish", dialogue_id)


def _to_review(
    tx: Tx, found: Dialogue, turns: list[Turn], answers: _Answers, closing: Closing, study: Study
) -> None:
    messages: list[Message] = []
    targets = []
    for turn in turns:
        slot = int(turn.continued or 0)
        messages += [
            Message("user", turn.message),
            Message("assistant", answers[turn.id, slot].text),
        ]
        targets.append(
            Target(
                f"{found.id}-{turn.number}", slot, len(messages) - 1, answers[turn.id, slot].model
            )
        )
    item = NewItem(
        source="dialogue",
        key=found.id,
        conversation=Conversation(tuple(messages)),
        targets=tuple(targets),
        author=found.person_id,
        harms=closing.categories or None,
    )
    add_item(tx, item, study)


def leave(tx: Tx, dialogue_id: str, person_id: str) -> None:
    """Abandons a dialogue; it is neither reviewed nor exported, and leaving costs nothing."""
    found = _own(tx, dialogue_id, person_id, lock=True)
    if found.state == "open":
        found.state, found.ended = "abandoned", tx.now
        audit(tx, person_id, "leave", dialogue_id)


def mine(tx: Tx, person_id: str) -> list[tuple[str, str, float, int]]:
    """(id, state, start, number of turns) of a person's dialogues, newest first."""
    rows = tx.session.execute(
        select(Dialogue.id, Dialogue.state, Dialogue.started, func.count(Turn.id))
        .outerjoin(Turn, Turn.dialogue_id == Dialogue.id)
        .where(Dialogue.person_id == person_id)
        .group_by(Dialogue.id)
        .order_by(Dialogue.started.desc())
        .limit(50)
    )
    return [(r[0], r[1], r[2], r[3]) for r in rows]
