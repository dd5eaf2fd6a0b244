"""Builds `agent:` and `scripted-agent:` specs.

agent:local:smollm2                                a model without arguments may stand as the name
agent,of=(openai:NAME,base_url=URL),tools=mail     a shipped world
agent,of=(MODEL),tools=library.toml,max_turns=8    a world file
guarded:DIR,of=(agent,of=(MODEL),on_block=continue)  a blocked call is denied, the agent goes on
agent,of=(MODEL),tools=python:pkg.mod:f|g,allow=f  Python functions: trusted code, real effects
agent,of=(MODEL),tools="mcp:python server.py",allow=f  an MCP server over stdio: the same; with
                                                   env=NAME|NAME these environment variables too
"""

from __future__ import annotations

import msgspec

from truing.agents.agent import AgentModel
from truing.agents.episode_run import AgentLimits, OnBlock
from truing.agents.function_tools import FunctionTools
from truing.agents.mcp_tools import McpTools
from truing.agents.scripted import AgentScript, ScriptedAgent
from truing.agents.toolsets import SimulatedTools, ToolSource
from truing.core.errors import SpecError
from truing.core.protocols import Model
from truing.specs.keys import read_variables
from truing.specs.parser import parse_spec
from truing.specs.python_objects import load_function
from truing.specs.resolve import Args, resolve
from truing.worlds.files import load_world


def build_agent(args: Args) -> AgentModel:
    """Returns the model of an `agent:` spec."""
    on_block = args.text("on_block", "end")
    if on_block not in ("end", "continue"):
        raise args.fault(f"on_block={on_block}: end or continue")
    behaviour: OnBlock = "continue" if on_block == "continue" else "end"
    return AgentModel(_read_model(args), _read_tools(args), _read_limits(args), on_block=behaviour)


def _read_model(args: Args) -> Model:
    if not args.name:
        model: Model = args.required("of", "model")
        return model
    if "of" in args.spec.args:
        raise args.fault("the model stands twice, as the name and in of=")
    model = resolve(args.name, "model")
    return model


def _read_tools(args: Args) -> ToolSource:
    tools = args.text("tools")
    if tools is not None and tools.startswith("python:"):
        return _read_functions(args, tools)
    if tools is not None and tools.startswith("mcp:"):
        names = [name for name in args.text("env", "").split("|") if name]
        try:
            variables = read_variables(names)
        except SpecError as error:
            raise args.fault(str(error)) from error
        command = tools.removeprefix("mcp:")
        return McpTools(command, allow=_read_allow(args), variables=variables)
    if tools is not None and tools.startswith("'"):
        raise args.fault(f"tools={tools}: a value with commas or spaces stands in double quotes")
    return SimulatedTools(load_world(tools) if tools else None)


def _read_allow(args: Args) -> list[str]:
    return [name for name in args.text("allow", "").split("|") if name]


def _read_functions(args: Args, tools: str) -> FunctionTools:
    """Returns the functions of `tools=python:package.module:a|b`, of which `allow=a|b` are used."""
    module, _, names = tools.removeprefix("python:").rpartition(":")
    specs = [parse_spec(f"python:{module}:{name}") for name in names.split("|")]
    functions = [load_function(Args(spec)) for spec in specs]
    return FunctionTools(functions, allow=_read_allow(args), name=tools)


def _read_limits(args: Args) -> AgentLimits:
    defaults = AgentLimits()
    limits = AgentLimits(
        max_turns=args.integer("max_turns", defaults.max_turns),
        max_calls=args.integer("max_calls", defaults.max_calls),
        max_tokens=args.integer("max_tokens", defaults.max_tokens),
        max_result=args.integer("max_result", defaults.max_result),
        max_text=args.integer("max_text", defaults.max_text),
        call_timeout=args.number("call_timeout", defaults.call_timeout),
    )
    too_small = [name for name, value in msgspec.structs.asdict(limits).items() if not value > 0]
    if too_small:
        raise args.fault(f"{', '.join(too_small)}: above 0")
    return limits


def build_scripted(args: Args) -> ScriptedAgent:
    """Returns the model of a `scripted-agent:` spec."""
    defaults = AgentScript()
    shares = {name: args.number(name, getattr(defaults, name)) for name in _SHARES}
    outside = [name for name, share in shares.items() if not 0 <= share <= 1]
    if outside:
        raise args.fault(f"{', '.join(outside)}: a share, from 0 to 1")
    return ScriptedAgent(AgentScript(**shares), name=str(args.spec))


_SHARES = AgentScript.__struct_fields__
