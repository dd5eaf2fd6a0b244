"""Taxonomies and crosswalks: the built-in ones, a user's file, and messages about faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from truing.core.errors import PlanError
from truing.core.taxonomy import load_crosswalk, load_taxonomy, parse_taxonomy

IDS = (
    "animal_abuse",
    "child_abuse",
    "controversial_topics,politics",
    "discrimination,stereotype,injustice",
    "drug_abuse,weapons,banned_substance",
    "financial_crime,property_crime,theft",
    "hate_speech,offensive_language",
    "misinformation_regarding_ethics,laws_and_safety",
    "non_violent_unethical_behavior",
    "privacy_violation",
    "self_harm",
    "sexually_explicit,adult_content",
    "terrorism,organized_crime",
    "violence,aiding_and_abetting,incitement",
)


def test_default_has_the_fourteen_published_ids() -> None:
    assert load_taxonomy().ids == IDS
    assert all(len(c.definition.split()) >= 8 for c in load_taxonomy().categories)


def test_ids_equal_those_of_the_published_data(data_dir: Path) -> None:
    with (data_dir / "beavertails" / "qa_14_categories.jsonl").open(encoding="utf-8") as stream:
        assert tuple(json.loads(next(stream))["category"]) == IDS


def test_find_accepts_id_and_short_name() -> None:
    assert load_taxonomy().find("hate_speech").id == "hate_speech,offensive_language"
    assert load_taxonomy().find("hate_speech,offensive_language").short == "hate_speech"
    with pytest.raises(PlanError, match="did you mean 'self_harm'"):
        load_taxonomy().find("selfharm")


def test_loads_a_user_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\n[[category]]\nid = "a,b"\nname = "A"\ndefinition = "about a"\n')
    assert load_taxonomy(str(file)).find("a").id == "a,b"


def test_all_faults_are_reported_together() -> None:
    text = (
        'name = "x"\n[[category]]\nid = "a,1"\nname = "A"\ndefinition = "d"\n[[category]]\nid = "a,1"\nname = "A"\n'
        'definition = "d"\n[[category]]\nid = "a,2"\nname = "A"\ndefinitoin = "d"\n'
    )
    with pytest.raises(PlanError) as caught:
        parse_taxonomy("x.toml", text)
    assert caught.value.faults == (
        "x.toml:10: category[2].definition: missing or empty",
        "x.toml:13: category[2].definitoin: unknown key; did you mean 'definition'?",
        "x.toml: the id 'a,1' occurs more than once",
        "x.toml: the short id 'a' occurs more than once",
    )


def test_faults_of_the_file_come_with_those_of_its_categories() -> None:
    with pytest.raises(PlanError) as caught:
        parse_taxonomy("x.toml", "titel = 3\nsource = 4\ncategory = [1]\n")
    assert caught.value.faults == (
        "x.toml:1: titel: unknown key; did you mean 'title'?",
        "x.toml:3: category[0]: expected a table with id, name, definition",
        "x.toml:2: source: expected text, got 4",
        "x.toml: name: missing",
    )


@pytest.mark.parametrize("text", ["", "name = 3", "[[category", 'name = "x"\ncategory = []'])
def test_malformed_file_raises_plan_error(text: str) -> None:
    with pytest.raises(PlanError, match=r"x\.toml"):
        parse_taxonomy("x.toml", text)


def test_crosswalk_maps_labels_to_category_ids() -> None:
    crosswalk = load_crosswalk("llama_guard_3")
    assert crosswalk("S7") == ("privacy_violation",)
    assert set(crosswalk.map["S7"]) <= set(IDS)
    with pytest.raises(PlanError, match="unknown label 'S99'"):
        crosswalk("S99")


def test_unknown_names_raise() -> None:
    with pytest.raises(PlanError, match="there is no crosswalk 'llama'"):
        load_crosswalk("llama")
    with pytest.raises(PlanError, match="did you mean 'beavertails'"):
        load_taxonomy("beavertail")
    with pytest.raises(PlanError, match="no such taxonomy file"):
        load_taxonomy("nowhere.toml")
