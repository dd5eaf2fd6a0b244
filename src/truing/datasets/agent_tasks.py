"""`builtin:agents` and `agents:FILE.toml`: tasks for agents in simulated worlds.

Each task is read as up to three samples that are twins of each other: the benign task (expected to
be done), a harmful request in its place (expected to be refused), and the benign task with an
injected instruction in what a tool returns (expected to be done, the instruction not followed).
Arguments besides those of all sets: `kind=benign|harmful|injected`, `world=mail|bank`, and
`variant=3`: the worlds with the values that this seed draws; `variant=1|2|3` for several.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

from msgspec.structs import replace

from truing.core.errors import DataError, SpecError, did_you_mean
from truing.core.types import Conversation, Environment, Expect, Row, Sample
from truing.datasets.base import (
    DatasetOptions,
    FileDataset,
    PublishedDataset,
    assign_half,
    parse_options,
)
from truing.datasets.readers import Record
from truing.specs.resolve import Args
from truing.worlds.files import WORLD_NAMES, AgentTask, WorldFile, load_world

_WORLDS = Path(__file__).parents[1] / "resources" / "worlds"
_EXPECT: dict[str, Expect] = {"benign": "comply", "harmful": "refuse", "injected": "comply"}
KINDS = tuple(_EXPECT)


def convert(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """Raises DataError: a world file is read as a whole, not record by record."""
    raise DataError("tasks of agents are read from world files")


AGENTS_FILE = PublishedDataset(
    kind="agents",
    title="tasks for agents from your own world file",
    source="your own files",
    licence="yours",
    parts={},
    convert=convert,
    extra_arguments=("kind", "world", "variant"),
)
BUILTIN_AGENTS = replace(
    AGENTS_FILE,
    kind="builtin:agents",
    title="mild tasks for agents in six simulated worlds, each with a harmful and an injected twin",
    source="truing, in our own words",
    licence="Apache-2.0",
)


class AgentTasks(FileDataset):
    """The tasks of some world files; `half` keeps the twins of a task together."""

    def __init__(
        self,
        about: PublishedDataset,
        worlds: dict[str, Path],
        options: DatasetOptions,
        spec: str = "",
        kinds: tuple[str, ...] = KINDS,
    ) -> None:
        super().__init__(about, tuple(worlds.values()), options, spec)
        self._worlds, self._kinds = tuple(worlds), kinds
        self._variants = _read_variants(options.extra.get("variant", "0"))

    def converted(self) -> Iterator[list[Row]]:
        """Yields the twins of each task."""
        for variant, name in product(self._variants, self._worlds):
            world_file = load_world(name, variant)
            for task in world_file.tasks:
                yield [Row(sample=sample) for sample in self._samples(world_file, task)]

    def _samples(self, world_file: WorldFile, task: AgentTask) -> Iterator[Sample]:
        world = world_file.world
        twins = {
            "benign": (task.benign, task.prompt),
            "harmful": (task.harmful, task.harmful_prompt),
            "injected": (task.injected, task.prompt),
        }
        pair = f"{world.name}/{task.id}"
        if task.benign.seed:
            pair += f"/{task.benign.seed}"
        for kind in self._kinds:
            environment, prompt = twins[kind]
            if environment is None:
                continue
            yield Sample(
                conversation=Conversation.of(prompt, system=world.system or None),
                id=f"{pair}/{kind}",
                harms=self._harms(task) if kind == "harmful" else (),
                expect=_EXPECT[kind],
                pair=pair,
                parent=f"{pair}/benign" if kind == "injected" else None,
                tags=_tags(environment, world.name),
                environment=environment,
            )

    def _harms(self, task: AgentTask) -> tuple[str, ...]:
        return (self.options.taxonomy.find(task.category).id,) if task.category else ()

    def _half(self, sample: Sample) -> str:
        return assign_half(sample.pair or sample.prompt)


def _tags(environment: Environment, world: str) -> dict[str, str]:
    tags = {"world": world, "task": environment.task, "kind": environment.kind}
    return {**tags, "attack": "own injection"} if environment.kind == "injected" else tags


def _read_variants(text: str) -> tuple[int, ...]:
    try:
        variants = tuple(int(part) for part in text.split("|"))
    except ValueError:
        variants = ()
    if not variants or not all(0 <= v < 2**31 for v in variants):
        raise SpecError(f"variant={text}: whole numbers from 0, such as 1|2|3")
    return tuple(dict.fromkeys(variants))


def _select(args: Args, text: str | None, valid: tuple[str, ...], what: str) -> tuple[str, ...]:
    """Returns the names in `a|b`, in the order of the valid ones; all of them without a text."""
    names = [name.strip() for name in (text or "").split("|") if name.strip()]
    for name in names:
        if name not in valid:
            raise args.fault(f"there is no {what} {name!r}{did_you_mean(name, valid)}")
    return tuple(name for name in valid if not names or name in names)


def build_builtin(args: Args) -> AgentTasks:
    """Builds `builtin:agents`."""
    options = parse_options(args, BUILTIN_AGENTS)
    worlds = _select(args, options.extra.get("world"), WORLD_NAMES, "world")
    kinds = _select(args, options.extra.get("kind"), KINDS, "kind of task")
    files = {name: _WORLDS / f"{name}.toml" for name in worlds}
    return AgentTasks(BUILTIN_AGENTS, files, options, str(args.spec), kinds)


def build(args: Args) -> AgentTasks:
    """Builds `agents:FILE.toml`; raises DataError with every contradiction in the file."""
    if not args.name:
        raise args.fault("give the world file: agents:FILE.toml")
    options = parse_options(args, AGENTS_FILE)
    kinds = _select(args, options.extra.get("kind"), KINDS, "kind of task")
    load_world(args.name)
    return AgentTasks(AGENTS_FILE, {args.name: Path(args.name)}, options, str(args.spec), kinds)
