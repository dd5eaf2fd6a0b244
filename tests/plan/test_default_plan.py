"""The plan of `truing run` without a plan: its recording is of its variants, its sets are mild."""

from __future__ import annotations

from truing.cli.run import load_default_plan
from truing.core.lineage import find_judge_conflict
from truing.core.measurement_set import is_frozen
from truing.hf.named_weights import NAMED_SOURCES
from truing.models.recorded import find_recording_mark, read_recording
from truing.plan.recorded_answers import data_sampling, describe_origin, locate_recording
from truing.specs.parser import parse_spec
from truing.specs.resolve import resolve


def test_the_recording_is_of_these_variants() -> None:
    # After a change of a variant: python benchmarks/alignment/record_default_run.py
    plan = load_default_plan()
    data = plan.data["safety"]
    recording = read_recording(locate_recording(data.recorded))
    assert recording.header.sampling == data_sampling(plan, data)
    assert list(recording.header.variants) == list(plan.models)
    prompts = [row.sample.conversation for row in resolve("builtin:benign", "data").rows()]
    for name, spec in plan.models.items():
        recorded = recording.header.variants[name]
        assert recorded.spec == str(parse_spec(spec))
        assert recorded.weights == NAMED_SOURCES["smollm2"].sha256
        # The prompts and rails around the model, without loading its weights.
        model = resolve(spec.replace("local:smollm2", "scripted:comply"), "model")
        assert recorded.settings == describe_origin(spec, model).settings
        assert recording.count_recorded(name, prompts) == len(prompts)
    assert len(prompts) > 400


def test_every_prompt_measures_and_trains_nothing() -> None:
    plan = load_default_plan()
    assert plan.data["article"].shown
    for data in plan.data.values():
        frozen = [is_frozen(row.sample.prompt) for row in resolve(data.spec, "data").rows()]
        assert all(frozen), data.spec


def test_the_judge_of_harm_is_unrelated_to_every_variant() -> None:
    plan = load_default_plan()
    judge = resolve("moderation:default", "judge")
    for spec in plan.models.values():
        model = resolve(spec.replace("local:smollm2", "scripted:comply"), "model")
        assert find_judge_conflict(judge.lineage, model.lineage) is None
        assert find_recording_mark(model.name) is None
