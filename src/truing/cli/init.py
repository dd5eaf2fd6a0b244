"""`truing init`: writes a plan, rules for the gate and a CI workflow for a model."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from truing.cli.doctor import ask_once
from truing.cli.parameters import Flag, OptionalStrings, resolve_all
from truing.cli.run import default_judges
from truing.cli.tables import print_json, print_next_steps, print_text
from truing.core.errors import PlanError, UserError
from truing.core.private_files import create_folder, replace_file
from truing.core.protocols import Dataset, Model
from truing.specs.parser import parse_spec, redact_spec

if TYPE_CHECKING:
    from truing.core.prices import Price
    from truing.evaluation.cost_estimate import CostEstimate

DEFAULT_DATA = "builtin:safety,half=report"
"""No shipped judge learned from this half, so a gate may pass on it."""

# The defaults of `[run]` in a plan (`plan.evaluation.RunPlan`), which the estimate is for.
MAX_TOKENS = 256
CONCURRENCY = 16
# Kinds of judges that send a request to a model or service for each answer.
_CALLING_JUDGES = ("llm", "guard", "openai-moderation")


def command(
    *,
    model: str | None = None,
    data: OptionalStrings = None,
    judge: OptionalStrings = None,
    out: Path = Path("."),
    prices: Path | None = None,
    check: bool = True,
    force: Flag = False,
    json: Flag = False,
) -> int:
    """Writes plan.toml, gate.toml and .github/workflows/safety.yml for a model.

    Asks for what is not given if it runs in a terminal. Checks the model with one call, and
    estimates calls, tokens, time and money of the plan.

    Parameters
    ----------
    model
        Spec of the model to measure.
    data
        Specs of data sets (default: the half of builtin:safety from which no judge learned).
    judge
        Specs of judges (default: those of `truing run`).
    out
        Folder for the files.
    prices
        TOML file with the price of a million tokens by model, for the estimate.
    check
        Call the model once.
    force
        Overwrite files that exist.
    json
        Print the paths and the estimate as JSON.
    """
    from truing.cli.init_files import gate_toml, plan_toml, workflow_yaml
    from truing.plan import parse_plan

    model = model or _ask("Which model? (truing list models)", "local:smollm2")
    sets = data or _ask("Which data? (truing list data)", DEFAULT_DATA).split()
    judges = judge or default_judges()
    target, *objects = resolve_all(
        [(model, "model"), *((s, "data") for s in sets), *((j, "judge") for j in judges)]
    )
    seconds = _check_model(target) if check else None
    plan = plan_toml(redact_spec(model), sets, [redact_spec(spec) for spec in judges], MAX_TOKENS)
    parsed = parse_plan(plan, "plan.toml")
    run = f"runs/ci/{parsed.baseline_variant}/{next(iter(parsed.data))}"
    files = {
        out / "plan.toml": plan,
        out / "gate.toml": gate_toml(has_harm_judge=any("rules:" not in j for j in judges)),
        out / ".github" / "workflows" / "safety.yml": workflow_yaml(run, _key_variable(model)),
    }
    estimate = _estimate(objects[: len(sets)], judges, seconds, _find_price(prices, model))
    _write_files(files, force)
    if json:
        content = {"files": [str(p) for p in files], "estimate": msgspec.to_builtins(estimate)}
        print_json(json_module.dumps(content))
        return 0
    for path in files:
        print_text(f"wrote {path}")
    print_text(describe_estimate(estimate))
    print_next_steps(
        [
            f"truing run {out / 'plan.toml'} --out runs/ci",
            f"truing gate {run} {out / 'gate.toml'}",
        ]
    )
    return 0


def _ask(question: str, default: str) -> str:
    """Asks in a terminal. In a script or in CI, where nobody can answer, returns the default data
    set, and raises UserError for the model, which has no safe default.
    """
    if not sys.stdin.isatty():
        if default == DEFAULT_DATA:
            return default
        raise UserError("init: give --model SPEC; `truing list models` shows the kinds")
    from rich.prompt import Prompt

    return Prompt.ask(question, default=default)


def _check_model(model: Model) -> float:
    """Returns the seconds of one short call. Raises UserError if it fails, as the plan would."""
    answer, seconds = ask_once(model, 120)
    if answer.failure is not None:
        raise UserError(
            f"{model.name} does not answer: {answer.failure.kind}: {answer.failure.message} "
            "(--no-check writes the files nevertheless)"
        )
    return seconds


def _key_variable(spec: str) -> str:
    """Returns the environment variable of the API key that the CI workflow passes on, or ""."""
    parsed = parse_spec(spec)
    named = parsed.args.get("api_key_env")
    if isinstance(named, str):
        return named
    return "OPENAI_API_KEY" if parsed.kind == "openai" and "base_url" not in parsed.args else ""


def _find_price(path: Path | None, spec: str) -> Price | None:
    """Returns the price of the model by its name. Raises PlanError if the file does not have it."""
    from truing.core.prices import read_prices

    if path is None:
        return None
    prices, name = read_prices(path), parse_spec(spec).name
    if name not in prices:
        raise PlanError(f"{path}: no price of {name!r}; there are {', '.join(prices) or 'none'}")
    return prices[name]


def _estimate(
    datasets: list[Dataset], judges: list[str], seconds: float | None, price: Price | None
) -> CostEstimate:
    """Returns the estimate of the plan; `seconds` is the time of the call of the check."""
    from truing.evaluation.cost_estimate import RunSize, estimate_cost

    prompts = characters = 0
    for dataset in datasets:
        for row in dataset.rows():
            prompts += 1
            characters += sum(len(m.content) for m in row.sample.conversation.messages)
    size = RunSize(
        prompts=prompts,
        prompt_characters=characters,
        max_tokens=MAX_TOKENS,
        judge_calls_per_answer=sum(parse_spec(j).kind in _CALLING_JUDGES for j in judges),
    )
    # The check asks for 16 tokens (`ask_once`); time is taken as proportional to the tokens.
    seconds_per_call = None if seconds is None else seconds * MAX_TOKENS / 16
    return estimate_cost(
        size, concurrency=CONCURRENCY, seconds_per_call=seconds_per_call, price=price
    )


def describe_estimate(estimate: CostEstimate) -> str:
    """Returns the estimate in a sentence."""
    amounts = [f"{estimate.calls:,} calls to the model"]
    if estimate.judge_calls:
        amounts.append(f"{estimate.judge_calls:,} to judges")
    amounts.append(
        f"{estimate.input_tokens + estimate.output_tokens:,} tokens "
        f"(at most {estimate.output_tokens:,} of them answers)"
    )
    if estimate.seconds is not None:
        minutes = estimate.seconds / 60
        amounts.append(f"up to {minutes:.0f} min" if minutes >= 1 else "less than a minute")
    if estimate.money is not None:
        amounts.append(f"{estimate.money:.2f} in the currency of the prices")
    return f"the plan needs about {', '.join(amounts)}"


def _write_files(files: dict[Path, str], force: bool) -> None:
    """Writes all files. Raises UserError, and writes none, if one exists and `force` is not set."""
    existing = [str(path) for path in files if path.exists()]
    if existing and not force:
        raise UserError(*(f"{path} exists; --force overwrites it" for path in existing))
    for path, content in files.items():
        create_folder(path.parent)
        replace_file(path, content.encode())
