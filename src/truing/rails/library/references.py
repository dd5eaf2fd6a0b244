"""What must be there before a configuration can run: the flows that its rails name, and the prompts that these need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from truing.core.errors import did_you_mean
from truing.rails.colang.ast import Flow
from truing.rails.colang.flow_reference import parse_flow_name
from truing.rails.config.loader import RailsConfig, iterate_stages, list_rail_flow_names
from truing.rails.library.catalog import load_for, names
from truing.rails.runtime.prompts import Prompts
from truing.rails.runtime.rail_library import RailLibrary

# Rails of the library -> the task whose prompt the configuration must give.
TASKS = {
    "self check input": "self_check_input",
    "self check output": "self_check_output",
    "self check facts": "self_check_facts",
    "self check hallucination": "self_check_hallucination",
}


def library_of(config: RailsConfig) -> RailLibrary:
    """The part of the library that a configuration uses: by its rails, or by ``do`` in its flows."""
    wanted = set(list_rail_flow_names(config))
    written = "\n".join(f.source or repr(f) for f in config.flows)
    return load_for(wanted | {name for name in names() if name in written})


def wiring_faults(
    config: RailsConfig, flows: Sequence[Flow], prompts: Prompts
) -> Iterator[tuple[str, str]]:
    """(place, what is wrong) for rails without a flow and library rails without their prompt."""
    known = {f.name for f in flows} | names()
    for stage, block in iterate_stages(config):
        for at, name in enumerate(block.flows):
            place = config.locate("key", f"rails.{stage}.flows.{at}")
            bare = parse_flow_name(name)
            if bare not in known:
                yield place, f"there is no flow {bare!r}{did_you_mean(bare, known)}"
            task = TASKS.get(bare)
            if task is not None and "variant" not in name and not prompts.has(task):
                yield place, f"the rail {name!r} needs a prompt for the task {task!r} under prompts"
