"""The plan of `truing run` without a plan: its recording is of its variants, its sets are mild."""

from __future__ import annotations

from msgspec.structs import replace

from truing.cli.run import load_default_plan
from truing.core.licences import collect_licences, find_unfree
from truing.core.lineage import find_judge_conflict
from truing.core.measurement_set import is_frozen
from truing.core.types import Lineage
from truing.hf.named_weights import NAMED_SOURCES
from truing.judges.probe import locate_probes
from truing.models.recorded import find_recording_mark, read_recording
from truing.plan.recorded_answers import data_sampling, describe_origin, locate_recording
from truing.specs.parser import parse_spec
from truing.specs.resolve import resolve
from truing.train.model_card import read_model_card


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
    # The full plan's best-of-4 is tested below, without loading the probe's base.
    for spec in plan.models.values():
        model = resolve(spec.replace("local:smollm2", "scripted:comply"), "model")
        assert find_judge_conflict(judge.lineage, model.lineage) is None
        assert find_recording_mark(model.name) is None


def test_the_full_plan_adds_what_takes_longer() -> None:
    plan, full = load_default_plan(), load_default_plan(full=True)
    assert list(full.models) == [*plan.models, "best-of-4"]
    assert full.data["safety"].not_recorded == ("best-of-4",)
    assert full.data["safety"].recorded == plan.data["safety"].recorded
    assert (full.run, full.baseline) == (plan.run, plan.baseline)
    assert "probes" in full.about != plan.about
    # Of four answers of the plain variant, whose words it has.
    assert full.models["best-of-4"].endswith(f",of=({plan.models['plain']})")


def test_the_shipped_probe_is_free_and_unrelated_to_what_measures() -> None:
    card = read_model_card(locate_probes("smollm2"))
    assert card is not None
    assert find_unfree(collect_licences(card.lineage)) == ()
    assert card.measurement_prompts == 0
    assert card.base_sha256 == NAMED_SOURCES["smollm2"].sha256
    judge = resolve("moderation:default", "judge")
    model = replace(Lineage(name="best-of-4"), judges=(card.lineage,))
    assert find_judge_conflict(judge.lineage, model) is None
