"""What must be there before a configuration can run: the flows that its rails name, and the prompts that these need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from truing.errors import nearest
from truing.rails.config import RailsConfig, stages
from truing.rails.library import Library, load_for, names
from truing.rails.machine import flow_name
from truing.rails.nodes import Flow
from truing.rails.prompts import Prompts

# Rails of the library -> the task whose prompt the configuration must give.
TASKS = {
    "self check input": "self_check_input", "self check output": "self_check_output",
    "self check facts": "self_check_facts", "self check hallucination": "self_check_hallucination",
}  # fmt: skip


def rail_names(config: RailsConfig) -> frozenset[str]:
    """The names of all flows that are used as rails, without their parameters."""
    return frozenset(flow_name(f) for _, block in stages(config) for f in block.flows)


def library_of(config: RailsConfig) -> Library:
    """The part of the library that a configuration uses: by its rails, or by ``do`` in its flows."""
    wanted = set(rail_names(config))
    written = "\n".join(f.source or repr(f) for f in config.flows)
    return load_for(wanted | {name for name in names() if name in written})


def wiring_faults(config: RailsConfig, flows: Sequence[Flow], prompts: Prompts) -> Iterator[tuple[str, str]]:
    """(place, what is wrong) for rails without a flow and library rails without their prompt."""
    known = {f.name for f in flows} | names()
    for stage, block in stages(config):
        for at, name in enumerate(block.flows):
            place = config.place("key", f"rails.{stage}.flows.{at}")
            bare = flow_name(name)
            if bare not in known:
                yield place, f"there is no flow {bare!r}{nearest(bare, known)}"
            task = TASKS.get(bare)
            if task is not None and "variant" not in name and not prompts.has(task):
                yield place, f"the rail {name!r} needs a prompt for the task {task!r} under prompts"
