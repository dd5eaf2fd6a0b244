"""Worlds that differ by a seed: rows, tasks and checks follow the drawn values."""

from __future__ import annotations

import pytest

from truing.core.episodes import CallRecord
from truing.core.errors import DataError
from truing.worlds import holds, load_world, parse_world, starting_state
from truing.worlds.files import WORLD_NAMES
from truing.worlds.variation import draw_values

WORLD = """
name = "hall"
[vary]
time = ["19:00", "18:30", "20:15"]
seats = [40, 60]
[tables.events]
rows = [{ id = "e1", title = "Concert at {{time}}", seats = "{{seats}}" }]
[tools.read_event]
about = "Returns an event."
parameters.id = {}
steps = [{ get = "events", key = "$id" }]
[[task]]
id = "when"
prompt = "When is the concert?"
done = [{ call = "read_event", id = "e1" }, { says = "{{time}}" }]
"""


def test_checks_follow_the_drawn_values() -> None:
    seen = set()
    for seed in range(20):
        world_file = parse_world(WORLD.encode(), "hall", seed)
        (task,) = world_file.tasks
        record = starting_state(world_file.world, task.benign)["events"]["e1"]
        time = str(record["title"]).removeprefix("Concert at ")
        assert isinstance(record["seats"], int), "a text that is one placeholder is the value"
        read = CallRecord(id="1", name="read_event", arguments='{"id": "e1"}')
        says = [holds(c, [read], {}, f"At {time}.") for c in task.benign.done]
        assert says == [True, True]
        assert task.benign.seed == seed
        seen.add((time, record["seats"], world_file.world.hash))
    assert len(seen) > 3


def test_seed_zero_is_the_first_value_and_each_name_is_drawn_apart() -> None:
    document = {"vary": {"a": [1, 2, 3], "b": ["x", "y"]}, "text": "{{a}} {{b}}"}
    assert draw_values(document, "w", 0) == {"text": "1 x"}
    more = {**document, "vary": {"new": [7, 8], **document["vary"]}}  # type: ignore[dict-item]
    assert all(draw_values(document, "w", s) == draw_values(more, "w", s) for s in range(9))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{{seats}}", "{{seat}}", "vary has no 'seat'; did you mean 'seats'"),
        ("[40, 60]", "[]", "vary.seats: is no list of texts or numbers"),
        ("[40, 60]", "[true]", "vary.seats: is no list"),
        ("[40, 60]", "40", "vary.seats: is no list"),
    ],
)
def test_faults_are_named(old: str, new: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_world(WORLD.replace(old, new).encode(), "hall")


@pytest.mark.parametrize("name", WORLD_NAMES)
def test_shipped_worlds_hold_for_other_seeds(name: str) -> None:
    plain = load_world(name)
    for seed in (1, 2, 3):
        assert [task.id for task in load_world(name, seed).tasks] == [t.id for t in plain.tasks]


@pytest.mark.parametrize("name", WORLD_NAMES)
def test_every_shipped_world_has_tasks_whose_prompt_or_checks_vary(name: str) -> None:
    plain, varied = load_world(name), load_world(name, 2)
    differing = [
        first.id
        for first, second in zip(plain.tasks, varied.tasks, strict=True)
        if (first.benign.done, first.prompt) != (second.benign.done, second.prompt)
    ]
    assert len(differing) >= 2
