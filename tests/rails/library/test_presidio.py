"""Presidio behind the sensitive-data rails: with a model, with a blank pipeline, without the extra."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml
from tests.requirements import hide_package, require_package

from truing.core.errors import PlanError
from truing.core.types import Answer, Conversation, Sampling
from truing.models.scripted import ScriptedModel
from truing.rails.guarded import GuardedModel
from truing.rails.library import presidio
from truing.rails.static.check import check_rails_config

TEXT = "My US passport number is 912803456, issued in Paris to Anna Smith."


def _ask(folder: Path, stage: str, entities: list[str]) -> Answer:
    config = {
        "rails": {
            "input": {"flows": [f"{stage} sensitive data on input"]},
            "config": {"sensitive_data_detection": {"input": {"entities": entities}}},
        }
    }
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    model = GuardedModel(folder, ScriptedModel(lambda c, s: c.prompt, name="echo"))
    return asyncio.run(model.answer(Conversation.of(TEXT), Sampling()))


def test_without_presidio_the_rail_blocks_and_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_package(monkeypatch, "presidio_analyzer")
    answer = _ask(tmp_path, "mask", ["PERSON"])
    assert answer.finish_reason == "blocked" and "Anna" not in answer.text
    assert "truing[presidio]" in (answer.rulings[0].reason or "")


def test_without_a_model_patterns_are_found_and_names_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_package("presidio_analyzer")
    monkeypatch.setattr(presidio, "installed_spacy_model", lambda: None)
    assert "number is <US_PASSPORT>, issued" in _ask(tmp_path, "mask", ["US_PASSPORT"]).text
    (span,) = presidio.find_presidio_spans(
        "Pay to wallet 16Yeky6GMjeNkAiNcBY7ZhrLoMSgg1BoyZ please", ["CRYPTO", "DATE_TIME"]
    )
    assert (span.entity, span.start, span.end) == ("CRYPTO", 14, 48)
    with pytest.raises(PlanError, match="PERSON: needs an English model of spaCy"):
        presidio.find_presidio_spans(TEXT, ["PERSON", "CRYPTO"])
    blocked = _ask(tmp_path, "mask", ["PERSON"])
    assert blocked.finish_reason == "blocked" and "spaCy" in (blocked.rulings[0].reason or "")


def test_with_a_model_names_and_places_are_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spacy = require_package("spacy")
    # spaCy's own English models are on no registry: a pipeline of rules stands in for one.
    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns(
        [{"label": "PERSON", "pattern": "Anna Smith"}, {"label": "GPE", "pattern": "Paris"}]
    )
    pipeline.to_disk(tmp_path / "model")
    monkeypatch.setattr(presidio, "installed_spacy_model", lambda: str(tmp_path / "model"))
    text = _ask(tmp_path, "mask", ["PERSON", "LOCATION"]).text
    assert text == "My US passport number is 912803456, issued in <LOCATION> to <PERSON>."
    assert _ask(tmp_path, "detect", ["PERSON"]).finish_reason == "blocked"


def test_an_unknown_entity_is_an_error_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(
        "rails:\n  input: {flows: [mask sensitive data on input]}\n  config:\n    "
        "sensitive_data_detection:\n      input:\n"
        "        entities:\n          - PERSON\n          - EMAIL_ADRESS\ntruing:\n  sensitive: "
        "{entities: [US_PASSPORTS]}\n"
    )
    assert [(f.place, f.what.partition("; ")[2]) for f in check_rails_config(tmp_path).errors] == [
        ("config.yml:8", "did you mean 'EMAIL_ADDRESS'?"),
        ("config.yml:10", "did you mean 'US_PASSPORT'?"),
    ]
