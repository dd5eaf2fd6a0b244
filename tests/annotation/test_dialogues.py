"""Dialogues: blind pairs, which response continues, repeated forms, failures, the closing form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import select

from truing.annotation import dialogues, queue
from truing.annotation.dialogues import ClosingForm
from truing.annotation.store import RequestRejected, Store
from truing.annotation.study import Study, new_id
from truing.annotation.tables import DialogueTurn
from truing.core.types import Answer

MODELS = ("one", "two")


class DialogueDriver:
    """A dialogue, with one method for each step of it."""

    def __init__(
        self, store: Store, study: Study, person: str, models: tuple[str, ...] = MODELS
    ) -> None:
        self.store, self.study, self.person = store, study, person
        self.id = store.write(
            lambda tx: dialogues.start_dialogue(tx, person, models, study, new_id())
        )

    def add_message(self, text: str, key: str = "") -> str:
        submission_key = key or new_id()
        return self.store.write(
            lambda tx: dialogues.add_turn(
                tx, self.id, self.person, text, submission_key, self.study
            )
        )

    def pending_jobs(self, turn: str) -> tuple[dialogues.GenerationJob, ...]:
        return self.store.read(
            lambda tx: dialogues.list_pending_jobs(tx, self.id, self.person, turn, self.study)
        )

    def answer_all(self, turn: str, **texts: str) -> None:
        for job in self.pending_jobs(turn):
            submission_key = Answer.of(texts.get(job.model, f"{job.model} says"))
            self.store.write(lambda tx, j=job, a=submission_key: dialogues.save_answer(tx, j, a))

    def pick(self, turn: str, side: str) -> None:
        self.store.write(
            lambda tx: dialogues.pick_response(tx, self.id, self.person, turn, side, self.study)
        )

    def view(self) -> dialogues.DialogueView:
        return self.store.read(lambda tx: dialogues.view_dialogue(tx, self.id, self.person))

    def letter_of(self, text: str) -> str:
        return next(s.letter for s in self.view().turns[-1].responses if s.text == text)

    def finish(self, grade: int = 4, **overrides: object) -> None:
        grades = {
            f"{t.number}-{s.slot}": grade
            for t in self.view().turns
            if t.picked
            for s in t.responses
        }
        fields = {
            "rating": 2,
            "grades": grades,
            "categories": ("privacy_violation",),
            "goal": " a\n goal ",
        } | overrides
        closing = ClosingForm(**fields)  # type: ignore[arg-type]
        self.store.write(
            lambda tx: dialogues.finish_dialogue(tx, self.id, self.person, closing, self.study)
        )


@pytest.fixture
def person(add_person: Callable[..., str]) -> str:
    return add_person("red-wren", "redteamer")


@pytest.mark.parametrize(
    ("policy", "expected"), [("safer", "two says"), ("picked", "one says"), ("random", None)]
)
def test_the_study_decides_which_response_continues(
    store: Store, person: str, policy: str, expected: str | None
) -> None:
    dialogue = DialogueDriver(store, Study(continuation=policy), person)  # type: ignore[arg-type]
    turn = dialogue.add_message("first")
    dialogue.answer_all(turn)
    dialogue.pick(turn, dialogue.letter_of("one says"))
    continued = next(s.text for s in dialogue.view().turns[0].responses if s.continued)
    assert continued == expected if expected else continued in ("one says", "two says")
    second = dialogue.add_message("second")
    messages = dialogue.pending_jobs(second)[0].conversation.messages
    assert [(m.role, m.content) for m in messages] == [
        ("user", "first"),
        ("assistant", continued),
        ("user", "second"),
    ]


def test_responses_are_in_random_order_without_model_names(
    store: Store, study: Study, person: str
) -> None:
    dialogue = DialogueDriver(store, study, person)
    letters = Counter[str]()
    for n in range(19):
        turn = dialogue.add_message(f"message {n}")
        dialogue.answer_all(turn)
        letters[dialogue.letter_of("one says")] += 1
        dialogue.pick(turn, "tie")
    assert min(letters["A"], letters["B"]) >= 2  # 19 throws of a coin: otherwise once in 13,000
    assert "one" not in repr(dialogue.view()).replace("one says", "").replace("None", "")


def test_one_model_generates_two_samples_with_different_seeds(
    store: Store, study: Study, person: str
) -> None:
    dialogue = DialogueDriver(store, study, person, ("only",))
    jobs = dialogue.pending_jobs(dialogue.add_message("hello"))
    assert [j.model for j in jobs] == ["only", "only"] and jobs[0].seed != jobs[1].seed
    assert {j.letter for j in jobs} == {"A", "B"}


def test_three_models_are_drawn_in_pairs(store: Store, study: Study, person: str) -> None:
    counts = Counter[str]()
    for _ in range(24):
        dialogue = DialogueDriver(store, study, person, ("a", "b", "c"))
        pair = [j.model for j in dialogue.pending_jobs(dialogue.add_message("x"))]
        assert len(set(pair)) == 2
        counts.update(pair)
    assert set(counts) == {"a", "b", "c"}
    with pytest.raises(RequestRejected, match="no model"):
        DialogueDriver(store, study, person, ())


def test_a_repeated_form_adds_one_turn(store: Store, study: Study, person: str) -> None:
    dialogue = DialogueDriver(store, study, person)
    assert dialogue.add_message("hello", "key-key-key") == dialogue.add_message(
        "hello", "key-key-key"
    )
    key = new_id()
    ids = [
        store.write(lambda tx: dialogues.start_dialogue(tx, person, MODELS, study, key))
        for _ in range(2)
    ]
    assert ids[0] == ids[1]
    assert len(store.read(lambda tx: tx.session.scalars(select(DialogueTurn.id)).all())) == 1


def test_other_people_can_neither_read_nor_change_a_dialogue(
    store: Store, study: Study, person: str, add_person: Callable[..., str]
) -> None:
    dialogue = DialogueDriver(store, study, person)
    turn = dialogue.add_message("hello", "key-of-the-owner")
    stranger = add_person("stranger", "redteamer")
    for attempt in (
        lambda tx: dialogues.view_dialogue(tx, dialogue.id, stranger),
        lambda tx: dialogues.add_turn(tx, dialogue.id, stranger, "x", new_id(), study),
        lambda tx: dialogues.list_pending_jobs(tx, dialogue.id, stranger, turn, study),
        lambda tx: dialogues.abandon_dialogue(tx, dialogue.id, stranger),
        lambda tx: dialogues.pick_response(tx, dialogue.id, stranger, turn, "A", study),
        lambda tx: dialogues.add_turn(tx, dialogue.id, stranger, "x", "key-of-the-owner", study),
    ):
        with pytest.raises(RequestRejected) as caught:
            store.write(attempt)
        assert caught.value.kind == "missing"


def test_order_and_limits(store: Store, person: str) -> None:
    study = Study(max_message=10, max_turns=1)
    dialogue = DialogueDriver(store, study, person)
    for text, kind in (
        ("", "invalid"),
        ("   \x00 ".replace("\x00", ""), "invalid"),
        ("x" * 11, "long"),
    ):
        with pytest.raises(RequestRejected) as caught:
            dialogue.add_message(text)
        assert caught.value.kind == kind
    turn = dialogue.add_message("hello")
    for attempt in (
        lambda: dialogue.add_message("more"),
        lambda: dialogue.pick(turn, "A"),
        lambda: dialogue.finish(),
    ):
        with pytest.raises(RequestRejected) as caught:
            attempt()
        assert caught.value.kind == "order"
    dialogue.answer_all(turn)
    with pytest.raises(RequestRejected, match="Pick A, B"):
        dialogue.pick(turn, "C")
    dialogue.pick(turn, "A")
    dialogue.pick(turn, "B")  # a second click; the first stands
    assert dialogue.view().turns[0].picked == "A"
    with pytest.raises(RequestRejected, match="at most 1 turn"):
        dialogue.add_message("more")


def test_a_message_of_a_megabyte_is_rejected(store: Store, study: Study, person: str) -> None:
    dialogue = DialogueDriver(store, study, person)
    with pytest.raises(RequestRejected, match=r"at most 20,000 characters; this one has 1,000,000"):
        dialogue.add_message("x" * 1_000_000)


def test_a_failed_answer_is_replaced_and_a_complete_one_is_not(
    store: Store, study: Study, person: str
) -> None:
    dialogue = DialogueDriver(store, study, person)
    turn = dialogue.add_message("hello")
    one, two = dialogue.pending_jobs(turn)
    store.write(lambda tx: dialogues.save_answer(tx, one, Answer.of("good")))
    store.write(lambda tx: dialogues.save_answer(tx, two, Answer.failed("timeout", "no answer")))
    assert [j.slot for j in dialogue.pending_jobs(turn)] == [1]
    with pytest.raises(RequestRejected, match="Wait until both"):
        dialogue.pick(turn, "A")
    store.write(lambda tx: dialogues.save_answer(tx, two, Answer.of("better late")))
    store.write(lambda tx: dialogues.save_answer(tx, one, Answer.of("a second process")))
    assert {s.text for s in dialogue.view().turns[0].responses} == {"good", "better late"}
    assert dialogue.pending_jobs(turn) == ()
    huge = Answer.of("y" * 1_000_000)
    dialogue.pick(turn, "A")
    next_job = dialogue.pending_jobs(dialogue.add_message("again"))[0]
    store.write(lambda tx: dialogues.save_answer(tx, next_job, huge))
    assert (
        max(len(s.text) for s in dialogue.view().turns[1].responses) == dialogues.MAX_ANSWER_CHARS
    )


def test_the_closing_form_adds_a_review_item(
    store: Store, study: Study, person: str, add_person: Callable[..., str]
) -> None:
    dialogue = DialogueDriver(store, study, person)
    for text in ("first", "second"):
        turn = dialogue.add_message(text)
        dialogue.answer_all(turn)
        dialogue.pick(turn, dialogue.letter_of("one says"))
    dialogue.add_message("left open")
    dialogue.finish()
    dialogue.finish(rating=0)  # a second sending changes nothing
    messages = dialogue.view()
    assert (messages.state, messages.rating, messages.goal, messages.categories) == (
        "finished",
        2,
        "a goal",
        ("privacy_violation",),
    )
    rater = add_person("rater-1")
    leased = store.write(lambda tx: queue.claim_item(tx, rater, study))
    assert leased is not None and leased.dialogue
    shown = [(m.role, m.content) for m in leased.conversation.messages]
    assert shown == [
        ("user", "first"),
        ("assistant", "two says"),
        ("user", "second"),
        ("assistant", "two says"),
    ]
    assert [t.message_index for t in leased.targets] == [1, 3]
    assert store.read(lambda tx: dialogues.list_dialogues(tx, person))[0][1] == "finished"


@pytest.mark.parametrize(
    "invalid",
    [
        {"rating": 5},
        {"grades": {}},
        {"grades": {"1-0": 3}},
        {"grades": {"1-0": 3, "1-1": 6}},
        {"grades": {"1-0": 3, "1-1": 3, "2-0": 3}},
        {"categories": ("gossip",)},
    ],
)
def test_invalid_closing_forms(
    store: Store, study: Study, person: str, invalid: dict[str, object]
) -> None:
    dialogue = DialogueDriver(store, study, person)
    turn = dialogue.add_message("first")
    dialogue.answer_all(turn)
    dialogue.pick(turn, "A")
    with pytest.raises(RequestRejected) as caught:
        dialogue.finish(**invalid)
    assert caught.value.kind == "invalid" and dialogue.view().state == "open"


def test_an_abandoned_dialogue_takes_no_message(store: Store, study: Study, person: str) -> None:
    dialogue = DialogueDriver(store, study, person)
    store.write(lambda tx: dialogues.abandon_dialogue(tx, dialogue.id, person))
    assert dialogue.view().state == "abandoned"
    with pytest.raises(RequestRejected, match="finished"):
        dialogue.add_message("x")
