"""Training plans: all faults together with key paths, order of the steps, presets."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.cli.train import DPOFlags
from truing.core.errors import PlanError
from truing.plan.step_inputs import RLInputs, SampledInputs
from truing.plan.training_plan import (
    list_presets,
    parse_training_plan,
    read_preset,
    replace_references,
)
from truing.train.settings import TrainingSettings

PLAN = """
title = "chain"
base = "smollm2"
[defaults]
lora = 4
seed = 7
[steps.policy]
kind = "grpo"
base = "{steps.sft}"
data = ["file:rows.jsonl"]
reward = ["reward:{steps.reward}"]
cost = ["rules:refusal"]
threshold = 1
[steps.reward]
kind = "reward"
base = "{steps.sft}"
data = ["trl:pairs.jsonl"]
[steps.sft]
kind = "sft"
data = ["trl:pairs.jsonl"]
chosen = true
steps = 3
seed = 1
[evaluate.models]
base = "local:smollm2"
policy = "local:{steps.policy}"
[evaluate.data]
safety = "builtin:safety"
"""


def test_steps_follow_those_that_they_build_on() -> None:
    plan = parse_training_plan(PLAN)
    assert list(plan.steps) == ["sft", "reward", "policy"]
    assert plan.steps["policy"].references == ("sft", "reward")
    assert plan.evaluate is not None and plan.evaluate.baseline_variant == "base"


def test_defaults_reach_the_steps_that_have_them_and_a_step_overrides_them() -> None:
    steps = parse_training_plan(PLAN).steps
    assert [steps[name].settings.seed for name in ("sft", "reward", "policy")] == [1, 7, 7]
    assert {step.settings.lora for step in steps.values()} == {4}
    policy = steps["policy"]
    assert isinstance(policy.inputs, RLInputs) and policy.inputs.cost == ("rules:refusal",)
    assert policy.settings.n == 4  # type: ignore[union-attr]  # group methods compare answers


def test_all_faults_of_a_plan_together() -> None:
    text = """
    titel = "x"
    base = 3
    [defaults]
    loar = 4
    batch = "eight"
    [steps.one]
    kind = "sftt"
    [steps.two]
    kind = "sft"
    dta = ["a"]
    lr = "fast"
    schedule = "linaer"
    [steps.three]
    kind = "ppo-lag"
    data = ["file:x"]
    base = "{steps.tow}"
    lr = -1.0
    [steps.four]
    kind = "best-of-sft"
    data = "file:x"
    [evaluate]
    models = {a = "local:{steps.six}"}
    [evaluate.run]
    judge = ["rules:refusal"]
    """
    with pytest.raises(PlanError) as caught:
        parse_training_plan(text, "p.toml")
    shown = str(caught.value)
    for words in (
        "p.toml:2: titel: unknown key; did you mean 'title'?",
        "p.toml:3: base: expected str, got 3",
        "p.toml:5: defaults.loar: unknown key; did you mean 'lora'?",
        "p.toml:6: defaults.batch: expected int, got 'eight'",
        "p.toml:8: steps.one.kind: there is no training of kind 'sftt'; did you mean 'sft'?",
        "p.toml:11: steps.two.dta: unknown key of sft; did you mean 'data'?",
        "p.toml:12: steps.two.lr: expected float or int, got 'fast'",
        "p.toml:13: steps.two.schedule: 'linaer' is not a valid choice; did you mean 'linear'?",
        "p.toml:18: steps.three.lr = -1.0",
        "p.toml:14: steps.three.ppo-lag needs a cost",
        "p.toml:14: steps.three.reward: none given",
        "p.toml:21: steps.four.data: expected list, got 'file:x'",
        "p.toml:25: evaluate.run.judge: unknown key; did you mean 'judges'?",
        "p.toml:22: evaluate.data: none given",
    ):
        assert words in shown


def test_a_step_of_dpo_on_own_answers() -> None:
    text = """
    [steps.own]
    kind = "iterative-dpo"
    data = ["file:x"]
    by = "rules:refusal"
    rounds = 3
    sft_weight = 1.0
    """
    step = parse_training_plan(text).steps["own"]
    assert step.settings.kind == "dpo"
    assert isinstance(step.inputs, SampledInputs) and step.inputs.rounds == 3
    bad = text.replace("rounds = 3", "rounds = 0\nn = 1").replace('by = "rules:refusal"', "")
    with pytest.raises(PlanError) as caught:
        parse_training_plan(bad)
    faults = " ".join(caught.value.faults)
    assert "by: missing" in faults and "rounds = 0: at least 1" in faults and "n = 1" in faults


def test_references_that_name_no_step() -> None:
    text = PLAN.replace("reward:{steps.reward}", "reward:{steps.rewrad}")
    with pytest.raises(PlanError, match=r"steps.policy: there is no step 'rewrad'; did you mean"):
        parse_training_plan(text)
    with pytest.raises(PlanError, match=r"evaluate: there is no step 'polcy'"):
        parse_training_plan(PLAN.replace("local:{steps.policy}", "local:{steps.polcy}"))


def test_a_circle_is_named() -> None:
    text = PLAN.replace('kind = "sft"', 'kind = "sft"\nbase = "{steps.reward}"')
    with pytest.raises(PlanError, match="policy, reward, sft build on each other in a circle"):
        parse_training_plan(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "plan: steps: none given"),
        ("steps = 3", "plan:1: steps: none given"),
        ("[steps]\na = 1", "plan:2: steps.a: expected a table with the key kind, got 1"),
        (
            '[steps."../x"]\nkind = "sft"\ndata = ["a"]',
            "plan:1: steps.../x: '../x' cannot name a folder",
        ),
        (
            'defaults = 1\n[steps.a]\nkind = "sft"\ndata = ["a"]',
            "plan:1: defaults: expected a table, got 1",
        ),
        (
            'evaluate = 1\n[steps.a]\nkind = "sft"\ndata = ["a"]',
            "plan:1: evaluate: expected a table with models and data, got 1",
        ),
        (
            '[steps.a]\nkind = "sft"\ndata = ["a"]\nbase = "{steps.a}"',
            "plan: steps: a build on each other in a circle",
        ),
        (
            '[steps.a]\nkind = ["sft"]\ndata = ["a"]',
            "plan:2: steps.a.kind: there is no training of kind ['sft']; did you mean 'sft'?",
        ),
        ("[steps", "plan:1: Expected ']' at the end of a table declaration"),
    ],
)
def test_nonsense_is_a_plan_error(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=f"^{re.escape(message)}"):
        parse_training_plan(text)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(_VALUES, st.sampled_from(["data", "lr", "kind", "base", "reward", "weight", "loss", "n"]))
def test_any_value_of_a_key_is_a_plan_or_a_plan_error(value: object, key: str) -> None:
    from truing.plan import training_plan

    for kind in ("dpo", "grpo", "distil"):
        table = {"kind": kind, "data": ["file:x"], "reward": ["rules:refusal"], key: value}
        if kind != "grpo" and key != "reward":
            del table["reward"]
        faults: list[str] = []
        toml = {"steps": {"a": table}}
        steps = training_plan._read_steps(toml, "smollm2", "plan", faults)
        assert bool(steps) != bool(faults)


@pytest.mark.parametrize("name", list_presets())
def test_presets_are_plans(name: str) -> None:
    plan = parse_training_plan(read_preset(name), name)
    assert "policy" in plan.steps and plan.evaluate is not None
    assert plan.evaluate.baseline_variant == "base"


def test_an_unknown_preset_names_the_nearest() -> None:
    assert list(list_presets()) == ["beaver", "dpo-safe", "grpo-lag", "sft-safe"]
    with pytest.raises(PlanError, match="did you mean 'beaver'"):
        read_preset("bever")


def test_references_are_replaced_at_any_depth() -> None:
    value = {"a": ["x:{steps.b}", ("{steps.b}/{steps.c}", 3)]}
    replaced = replace_references(value, {"b": "B", "c": "C"})
    assert replaced == {"a": ["x:B", ("B/C", 3)]}


@pytest.mark.parametrize("kind", ["dpo", "iterative-dpo"])
@pytest.mark.parametrize(("loss", "beta"), [("", 0.1), ("ipo", 0.1), ("orpo", 0.1), ("simpo", 2.0)])
def test_the_default_beta_is_that_of_the_command_line(kind: str, loss: str, beta: float) -> None:
    step = f'[steps.own]\nkind = "{kind}"\ndata = ["file:x"]\n'
    step += 'by = "rules:refusal"\n' if kind == "iterative-dpo" else ""
    step += f'loss = "{loss}"\n' if loss else ""
    flags = DPOFlags(loss=loss) if loss else DPOFlags()
    settings = parse_training_plan(step).steps["own"].settings
    of_flags = TrainingSettings(kind="dpo", out="a", **flags.settings())
    assert settings.loss_beta == of_flags.loss_beta == beta
    assert parse_training_plan(step + "beta = 0.7").steps["own"].settings.loss_beta == 0.7
