"""Which specs a page may start: a short list of shapes, whatever else is written into them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.annotation.store import RequestRejected
from truing.core.errors import UserError
from truing.judges.shipped_classifiers import SHIPPED_NAMES
from truing.serve.ui.judge_choices import SUGGESTED, JudgeChoices, is_harmless
from truing.specs.catalogue import JUDGE_KINDS
from truing.specs.parser import Spec, parse_spec
from truing.specs.resolve import resolve

REFUSED = (
    "python:os:system",
    "panel:,of=(python:os:system)",
    'llm:harm,model="python:os:system"',
    'llm:harm,model=(agent,of=(scripted:echo),tools="mcp:sh -c id",allow=x)',
    "llm:harm,model=(guarded:rails,trust_code=true,of=(scripted:echo))",
    r'llm:harm,model="prompted:hhh,of=\"\u0070ython:m:f\""',
    "llm:policy,file=/home/someone/.ssh/id_rsa,model=(openai:x,base_url=http://host/v1)",
    "llm:harm,model=(openai:x,base_url=https://host/v1,api_key_env=ANY)",
    "openai-moderation:x,base_url=https://host/v1",
    "transcript,of=(rules:refusal)",
    "panel:majority,j1=(rules:refusal),j2=(rules:degenerate)",
    "keywords:/etc/passwd",
    "keywords:words.txt",
    "keywords:,file=words.txt",
    "moderation:./default",
    "moderation:/srv/model",
    "moderation:default,engine=x",
    "moderation:default,question=(python:m:f)",
    "rules:refusal,of=(python:m:f)",
    "rules:refusal,cut=(python:m:f)",
    "rules:https://host/?token=abc",
    "tone:rails",
    "reward:model",
    "guard:llama-guard-3,model=(local:x)",
    "state:harm",
    "plugin-of-somebody:x",
    "RULES:refusal",
)


@pytest.mark.parametrize("text", REFUSED)
def test_what_reads_or_runs_something_else_is_refused(text: str) -> None:
    parse_spec(text)
    with pytest.raises(RequestRejected, match="From a page"):
        JudgeChoices().read(text)


@pytest.mark.parametrize("text", ["", " ", "x" * 2001, "rules:((", "p" + "=(x" * 600])
def test_what_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(RequestRejected, match="spec of a judge"):
        JudgeChoices().read(text)


@pytest.mark.parametrize(
    "text", [*SUGGESTED, "rules:degenerate,cut=false", "moderation:fast,threshold=0.5"]
)
def test_shipped_judges_are_offered(text: str) -> None:
    assert is_harmless(parse_spec(text))
    assert str(JudgeChoices().read(f" {text} ")) == text.removesuffix(":")


@pytest.mark.parametrize("text", [t for t in SUGGESTED if not t.startswith("moderation")])
def test_suggestions_are_judges(text: str) -> None:
    assert resolve(text, "judge").name


def test_the_shipped_classifiers_are_known() -> None:
    assert all(is_harmless(parse_spec(f"moderation:{name}")) for name in SHIPPED_NAMES)


_names = st.sampled_from(["", "refusal", "default", "harm", "/etc/passwd", "os:system"])
_keys = st.sampled_from(["of", "model", "file", "cut", "question", "threshold", "base_url"])
_specs = st.recursive(
    st.builds(Spec, st.sampled_from(sorted(JUDGE_KINDS)), _names),
    lambda inner: st.builds(
        Spec,
        st.sampled_from(sorted(JUDGE_KINDS)),
        _names,
        st.dictionaries(_keys, inner | inner.map(str) | _names, min_size=1, max_size=2),
    ),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None)
@given(_specs)
def test_only_the_known_shapes_pass(spec: Spec) -> None:
    if is_harmless(spec):
        assert spec.kind in ("rules", "moderation", "keywords")
        assert set(spec.args) <= {"cut", "question", "threshold"}
        assert not any(isinstance(value, Spec) for value in spec.args.values())
        assert spec.kind == "rules" or spec.name in ("", "default")


def test_the_operators_judges_are_taken_as_a_whole(tmp_path: Path) -> None:
    named = f"llm:policy,file={tmp_path}/policy.md,model=(scripted:echo)"
    choices = JudgeChoices([named])
    assert choices.named == (named,)
    assert choices.read(named) == parse_spec(named)
    for other in (f"{named},n=2", named.replace("policy.md", "other.md"), f"panel:x,of=({named})"):
        with pytest.raises(RequestRejected, match="truing ui --judge SPEC"):
            choices.read(other)


def test_a_secret_of_the_operators_judge_is_not_shown() -> None:
    def judge(token: str) -> str:
        headers = json.dumps(json.dumps({"authorization": f"Bearer {token}"}))
        return f"llm:harm,model=(openai:x,base_url=https://host.example/v1,headers={headers})"

    choices = JudgeChoices([judge("hidden-word")])
    (shown,) = choices.named
    assert "hidden-word" not in shown
    assert "hidden-word" in choices.read(shown).reveal()
    with pytest.raises(UserError, match="differ only in a secret"):
        JudgeChoices([judge("hidden-word"), judge("another-word")])
