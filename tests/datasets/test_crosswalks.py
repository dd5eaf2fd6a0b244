"""Every label of every source is mapped onto the 14 categories, or is explicitly unmapped."""

from __future__ import annotations

import csv
import json
from importlib.resources import files
from pathlib import Path

import pytest

from truing.core.taxonomy import load_crosswalk, load_taxonomy
from truing.datasets.do_not_answer import harm_name
from truing.datasets.moderation_sets import OPENAI_LABELS
from truing.judges.guard_encoders import ENCODERS
from truing.judges.guard_formats_multilingual import QWEN_CATEGORIES
from truing.judges.guard_formats_nvidia import SAFETY_CATEGORIES

CODES = [f"S{n}" for n in range(1, 15)]
LABELS: dict[str, list[str]] = {
    "llama_guard_1": [f"O{n}" for n in range(1, 7)],
    "llama_guard_2": CODES[:11],
    "llama_guard_3": CODES,
    "llama_guard_4": CODES,
    "polyguard": CODES,
    "qwen3guard": list(QWEN_CATEGORIES),
    "aegis_2": list(SAFETY_CATEGORIES),
    "duoguard": list(ENCODERS["duoguard"].labels),
    "openai_moderation_2022": list(OPENAI_LABELS),
    "openai_moderation_api": [
        "harassment",
        "harassment/threatening",
        "hate",
        "hate/threatening",
        "illicit",
        "illicit/violent",
        "self-harm",
        "self-harm/intent",
        "self-harm/instructions",
        "sexual",
        "sexual/minors",
        "violence",
        "violence/graphic",
    ],
    "ailuminate": [
        "vcr",
        "ncr",
        "src",
        "cse",
        "iwp",
        "ssh",
        "hte",
        "prv",
        "dfm",
        "ipv",
        "spc",
        "sxc",
    ],
    "jailbreakbench": [
        "Harassment/Discrimination",
        "Malware/Hacking",
        "Physical harm",
        "Economic harm",
        "Fraud/Deception",
        "Disinformation",
        "Sexual/Adult content",
        "Privacy",
        "Expert advice",
        "Government decision-making",
    ],
}
UNMAPPED = {
    "duoguard": {"Jailbreak prompts"},
    "polyguard": {"S14"},
    "qwen3guard": {"Jailbreak"},
    "llama_guard_3": {"S14"},
    "llama_guard_4": {"S14"},
    "do_not_answer": {"Treat Chatbot as a Human"},
    "wildguard": {"benign", "others"},
    "aegis_2": {"Needs Caution", "Other"},
    "or_bench": {"harmful"},
}


def names() -> list[str]:
    root = files("truing") / "resources" / "taxonomies" / "crosswalks"
    return sorted(p.name[:-5] for p in root.iterdir() if p.name.endswith(".toml"))


@pytest.mark.parametrize("name", names())
def test_targets_and_the_explicitly_unmapped(name: str) -> None:
    walk = load_crosswalk(name)
    assert walk.source == name and walk.target == "beavertails"
    assert {i for ids in walk.map.values() for i in ids} <= set(load_taxonomy().ids)
    assert {k for k, ids in walk.map.items() if not ids} == UNMAPPED.get(name, set())


@pytest.mark.parametrize("name", LABELS)
def test_published_label_sets(name: str) -> None:
    assert set(LABELS[name]) <= set(load_crosswalk(name).map)


@pytest.mark.parametrize("name", ["qwen3guard", "duoguard", "polyguard"])
def test_a_guards_crosswalk_has_no_other_label(name: str) -> None:
    assert set(load_crosswalk(name).map) == set(LABELS[name])


def test_pku_has_19() -> None:
    assert len(load_crosswalk("pku_saferlhf").map) == 19


def test_codes_shift_between_versions_of_llama_guard() -> None:
    two, three = load_crosswalk("llama_guard_2"), load_crosswalk("llama_guard_3")
    assert two("S6") == three("S7") == ("privacy_violation",)
    assert two("S10") == three("S11") == ("self_harm",)
    assert two("S9") == three("S10") and two("S8") == three("S9")
    assert load_crosswalk("llama_guard_1")("O6") == ("self_harm",)


def test_labels_of_the_data_folder(data_dir: Path) -> None:
    def lines(path: str) -> list[dict[str, str]]:
        return [
            json.loads(x)
            for x in (data_dir / path).read_text(encoding="utf-8").split("\n")
            if x.strip()
        ]

    dna = lines("do_not_answer/responses_human_labels.jsonl")
    walk = load_crosswalk("do_not_answer").map
    assert {r["type_of_harm"] for r in dna} <= set(walk)
    specific = {harm_name(r["specific_harm"]) for r in dna}
    extra = set(walk) - {r["type_of_harm"] for r in dna}
    assert extra <= specific, f"heads that no row has: {sorted(extra - specific)}"
    assert {r["hazard"] for r in lines("ailuminate/demo_en_us.jsonl")} <= set(
        load_crosswalk("ailuminate").map
    )
    dia = json.loads((data_dir / "diasafety/train.json").read_text(encoding="utf-8"))
    assert {r["category"] for r in dia} == set(load_crosswalk("diasafety").map)
    with (data_dir / "harmbench/behaviors_val.csv").open(encoding="utf-8", newline="") as stream:
        assert {r["SemanticCategory"] for r in csv.DictReader(stream)} <= set(
            load_crosswalk("harmbench").map
        )
