"""Dialogues: a blind pair each turn, the study's policy of going on, keys, failures, the closing form."""

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


class Talk:
    """A dialogue and short words for what happens in it."""

    def __init__(
        self, store: Store, study: Study, person: str, models: tuple[str, ...] = MODELS
    ) -> None:
        self.store, self.study, self.person = store, study, person
        self.id = store.write(
            lambda tx: dialogues.start_dialogue(tx, person, models, study, new_id())
        )

    def say(self, text: str, key: str = "") -> str:
        given = key or new_id()
        return self.store.write(
            lambda tx: dialogues.add_turn(tx, self.id, self.person, text, given, self.study)
        )

    def jobs(self, turn: str) -> tuple[dialogues.GenerationJob, ...]:
        return self.store.read(
            lambda tx: dialogues.list_pending_jobs(tx, self.id, self.person, turn, self.study)
        )

    def answer(self, turn: str, **texts: str) -> None:
        for job in self.jobs(turn):
            given = Answer.of(texts.get(job.model, f"{job.model} says"))
            self.store.write(lambda tx, j=job, a=given: dialogues.save_answer(tx, j, a))

    def pick(self, turn: str, side: str) -> None:
        self.store.write(
            lambda tx: dialogues.pick_response(tx, self.id, self.person, turn, side, self.study)
        )

    def view(self) -> dialogues.DialogueView:
        return self.store.read(lambda tx: dialogues.view_dialogue(tx, self.id, self.person))

    def letter(self, text: str) -> str:
        return next(s.letter for s in self.view().turns[-1].responses if s.text == text)

    def finish(self, grade: int = 4, **more: object) -> None:
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
        } | more
        closing = ClosingForm(**fields)  # type: ignore[arg-type]
        self.store.write(
            lambda tx: dialogues.finish_dialogue(tx, self.id, self.person, closing, self.study)
        )


@pytest.fixture
def person(join: Callable[..., str]) -> str:
    return join("red-wren", "redteamer")


@pytest.mark.parametrize(
    ("policy", "kept"), [("safer", "two says"), ("picked", "one says"), ("random", None)]
)
def test_the_studys_choice_goes_on(
    store: Store, person: str, policy: str, kept: str | None
) -> None:
    talk = Talk(store, Study(continuation=policy), person)  # type: ignore[arg-type]
    turn = talk.say("first")
    talk.answer(turn)
    talk.pick(turn, talk.letter("one says"))
    went_on = next(s.text for s in talk.view().turns[0].responses if s.kept)
    assert went_on == kept if kept else went_on in ("one says", "two says")
    second = talk.say("second")
    seen = talk.jobs(second)[0].conversation.messages
    assert [(m.role, m.content) for m in seen] == [
        ("user", "first"),
        ("assistant", went_on),
        ("user", "second"),
    ]


def test_sides_are_in_random_order_and_carry_no_name(
    store: Store, study: Study, person: str
) -> None:
    talk = Talk(store, study, person)
    letters = Counter[str]()
    for n in range(19):
        turn = talk.say(f"message {n}")
        talk.answer(turn)
        letters[talk.letter("one says")] += 1
        talk.pick(turn, "tie")
    assert min(letters["A"], letters["B"]) >= 2  # 19 throws of a coin: otherwise once in 13,000
    assert "one" not in repr(talk.view()).replace("one says", "").replace("None", "")


def test_one_model_gives_two_samples_with_seeds_of_their_own(
    store: Store, study: Study, person: str
) -> None:
    talk = Talk(store, study, person, ("only",))
    jobs = talk.jobs(talk.say("hello"))
    assert [j.model for j in jobs] == ["only", "only"] and jobs[0].seed != jobs[1].seed
    assert {j.letter for j in jobs} == {"A", "B"}


def test_three_models_are_drawn_in_pairs(store: Store, study: Study, person: str) -> None:
    drawn = Counter[str]()
    for _ in range(24):
        talk = Talk(store, study, person, ("a", "b", "c"))
        pair = [j.model for j in talk.jobs(talk.say("x"))]
        assert len(set(pair)) == 2
        drawn.update(pair)
    assert set(drawn) == {"a", "b", "c"}
    with pytest.raises(RequestRejected, match="no model"):
        Talk(store, study, person, ())


def test_the_same_form_twice_is_one_turn(store: Store, study: Study, person: str) -> None:
    talk = Talk(store, study, person)
    assert talk.say("hello", "key-key-key") == talk.say("hello", "key-key-key")
    key = new_id()
    begun = [
        store.write(lambda tx: dialogues.start_dialogue(tx, person, MODELS, study, key))
        for _ in range(2)
    ]
    assert begun[0] == begun[1]
    assert len(store.read(lambda tx: tx.session.scalars(select(DialogueTurn.id)).all())) == 1


def test_another_person_sees_and_changes_nothing(
    store: Store, study: Study, person: str, join: Callable[..., str]
) -> None:
    talk = Talk(store, study, person)
    turn = talk.say("hello", "key-of-the-owner")
    stranger = join("stranger", "redteamer")
    for attempt in (
        lambda tx: dialogues.view_dialogue(tx, talk.id, stranger),
        lambda tx: dialogues.add_turn(tx, talk.id, stranger, "x", new_id(), study),
        lambda tx: dialogues.list_pending_jobs(tx, talk.id, stranger, turn, study),
        lambda tx: dialogues.abandon_dialogue(tx, talk.id, stranger),
        lambda tx: dialogues.pick_response(tx, talk.id, stranger, turn, "A", study),
        lambda tx: dialogues.add_turn(tx, talk.id, stranger, "x", "key-of-the-owner", study),
    ):
        with pytest.raises(RequestRejected) as caught:
            store.write(attempt)
        assert caught.value.kind == "missing"


def test_order_and_limits(store: Store, person: str) -> None:
    study = Study(max_message=10, max_turns=1)
    talk = Talk(store, study, person)
    for text, kind in (
        ("", "invalid"),
        ("   \x00 ".replace("\x00", ""), "invalid"),
        ("x" * 11, "long"),
    ):
        with pytest.raises(RequestRejected) as caught:
            talk.say(text)
        assert caught.value.kind == kind
    turn = talk.say("hello")
    for attempt in (lambda: talk.say("more"), lambda: talk.pick(turn, "A"), lambda: talk.finish()):
        with pytest.raises(RequestRejected) as caught:
            attempt()
        assert caught.value.kind == "order"
    talk.answer(turn)
    with pytest.raises(RequestRejected, match="Pick A, B"):
        talk.pick(turn, "C")
    talk.pick(turn, "A")
    talk.pick(turn, "B")  # a second click; the first stands
    assert talk.view().turns[0].picked == "A"
    with pytest.raises(RequestRejected, match="at most 1 turn"):
        talk.say("more")


def test_a_megabyte_is_refused_by_its_length(store: Store, study: Study, person: str) -> None:
    talk = Talk(store, study, person)
    with pytest.raises(RequestRejected, match=r"at most 20,000 characters; this one has 1,000,000"):
        talk.say("x" * 1_000_000)


def test_a_failed_answer_is_tried_again_and_a_good_one_stays(
    store: Store, study: Study, person: str
) -> None:
    talk = Talk(store, study, person)
    turn = talk.say("hello")
    one, two = talk.jobs(turn)
    store.write(lambda tx: dialogues.save_answer(tx, one, Answer.of("good")))
    store.write(lambda tx: dialogues.save_answer(tx, two, Answer.failed("timeout", "no answer")))
    assert [j.slot for j in talk.jobs(turn)] == [1]
    with pytest.raises(RequestRejected, match="Wait until both"):
        talk.pick(turn, "A")
    store.write(lambda tx: dialogues.save_answer(tx, two, Answer.of("better late")))
    store.write(lambda tx: dialogues.save_answer(tx, one, Answer.of("a second process")))
    assert {s.text for s in talk.view().turns[0].responses} == {"good", "better late"}
    assert talk.jobs(turn) == ()
    huge = Answer.of("y" * 1_000_000)
    talk.pick(turn, "A")
    third = talk.jobs(talk.say("again"))[0]
    store.write(lambda tx: dialogues.save_answer(tx, third, huge))
    assert max(len(s.text) for s in talk.view().turns[1].responses) == dialogues.MAX_ANSWER_CHARS


def test_the_closing_form_makes_an_item_for_review(
    store: Store, study: Study, person: str, join: Callable[..., str]
) -> None:
    talk = Talk(store, study, person)
    for text in ("first", "second"):
        turn = talk.say(text)
        talk.answer(turn)
        talk.pick(turn, talk.letter("one says"))
    talk.say("left open")
    talk.finish()
    talk.finish(rating=0)  # a second sending changes nothing
    seen = talk.view()
    assert (seen.state, seen.rating, seen.goal, seen.categories) == (
        "finished",
        2,
        "a goal",
        ("privacy_violation",),
    )
    rater = join("rater-1")
    held = store.write(lambda tx: queue.claim_item(tx, rater, study))
    assert held is not None and held.dialogue
    shown = [(m.role, m.content) for m in held.conversation.messages]
    assert shown == [
        ("user", "first"),
        ("assistant", "two says"),
        ("user", "second"),
        ("assistant", "two says"),
    ]
    assert [t.message_index for t in held.targets] == [1, 3]
    assert store.read(lambda tx: dialogues.list_dialogues(tx, person))[0][1] == "finished"


@pytest.mark.parametrize(
    "wrong",
    [
        {"rating": 5},
        {"grades": {}},
        {"grades": {"1-0": 3}},
        {"grades": {"1-0": 3, "1-1": 6}},
        {"grades": {"1-0": 3, "1-1": 3, "2-0": 3}},
        {"categories": ("gossip",)},
    ],
)
def test_wrong_closing_forms(
    store: Store, study: Study, person: str, wrong: dict[str, object]
) -> None:
    talk = Talk(store, study, person)
    turn = talk.say("first")
    talk.answer(turn)
    talk.pick(turn, "A")
    with pytest.raises(RequestRejected) as caught:
        talk.finish(**wrong)
    assert caught.value.kind == "invalid" and talk.view().state == "open"


def test_leaving(store: Store, study: Study, person: str) -> None:
    talk = Talk(store, study, person)
    store.write(lambda tx: dialogues.abandon_dialogue(tx, talk.id, person))
    assert talk.view().state == "abandoned"
    with pytest.raises(RequestRejected, match="finished"):
        talk.say("x")
