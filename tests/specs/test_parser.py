"""The grammar of spec strings."""

from __future__ import annotations

import contextlib
import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import SpecError
from truing.specs.parser import Spec, parse_spec, redact_spec


def test_nested_and_quoted_values() -> None:
    spec = parse_spec("best-of:4,by=(cost:DIR),of=(prompted:hhh,of=(local:smollm2))")
    assert (spec.kind, spec.name) == ("best-of", "4")
    assert spec.args["by"] == Spec("cost", "DIR")
    assert spec.args["of"].args["of"] == Spec("local", "smollm2")
    quoted = parse_spec('prompted:"Be kind, please.",system="a \\"b\\", c"')
    assert quoted.name == "Be kind, please." and quoted.args["system"] == 'a "b", c'


def test_bare_values_may_be_urls_and_keys_may_have_hyphens() -> None:
    spec = parse_spec("openai:gpt,base_url=http://127.0.0.1:8000/v1,max-tokens=5")
    assert spec.args == {"base_url": "http://127.0.0.1:8000/v1", "max_tokens": "5"}
    assert parse_spec("http:http://h/p?a=1&b=(2)").name == "http://h/p?a=1&b=(2)"


_texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
_kinds = st.from_regex(r"[a-z][a-z0-9\-_.]{0,8}", fullmatch=True)
_keys = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)


def _specs(children: st.SearchStrategy[Spec]) -> st.SearchStrategy[Spec]:
    return st.builds(
        Spec, _kinds, _texts.map(str.strip), st.dictionaries(_keys, _texts | children, max_size=3)
    )


@given(st.recursive(_specs(st.nothing()), _specs, max_leaves=4))
def test_str_of_a_spec_parses_to_an_equal_spec(spec: Spec) -> None:
    assert parse_spec(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a kind"),
        (":x", "expected a kind"),
        ("local:a,b", "expected key=value"),
        ("local:a,b=1,b=2", "is given twice"),
        ("best-of:4,of=(local:x", "is not closed"),
        ('local:"x', "not closed"),
        ("local:a)", "unexpected ')'"),
        ("best-of:(local:x)", "a name is text"),
    ],
)
def test_errors_name_the_problem(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        parse_spec(text)


@given(st.text(max_size=40))
def test_any_text_parses_or_raises_spec_error(text: str) -> None:
    with contextlib.suppress(SpecError):
        assert isinstance(parse_spec(text), Spec)


def test_errors_name_the_position() -> None:
    with pytest.raises(SpecError, match="^spec 'local:a,b', at 8: expected key=value$"):
        parse_spec("local:a,b")
    with pytest.raises(SpecError, match="at 22: the parenthesis opened at 13 is not closed"):
        parse_spec("best-of:4,of=(local:xy")


def test_secrets_are_redacted_wherever_a_spec_is_written_and_revealed_on_demand() -> None:
    headers, body = '{"X-Key": "CANARY"}', '{"password": "CANARY", "n": 1}'
    texts = [
        f"http:h/chat?key=CANARY&n=1,headers={json.dumps(headers)}",
        f"openai:m,base_url=https://h/v1?sig=CANARY,body={json.dumps(body)}",
        "python:m:f,access_token=CANARY",
        f"best-of:4,of=(http:h,headers={json.dumps(headers)})",
        'best-of:4,of="http:h,headers={\\"a\\":\\"CANARY\\"}"',
    ]
    for text in texts:
        spec = parse_spec(text)
        for written in (str(spec), repr(spec), f"{spec}", msgspec.json.encode(spec).decode()):
            assert "CANARY" not in written
        assert "***" in str(spec) and "***" in redact_spec(text)
        assert "CANARY" in spec.reveal() and parse_spec(spec.reveal()) == spec
        assert "CANARY" in str(spec.reveal_values()) or spec.kind == "best-of"
        # A spec that does not parse shows no secret either.
        with pytest.raises(SpecError) as caught:
            parse_spec(f"{text},(")
        assert "CANARY" not in str(caught.value)
        assert "CANARY" not in redact_spec(f"{text},(")


def test_specs_without_secrets_are_written_as_they_are() -> None:
    for text in ("local:smollm2", "file:data-?.jsonl,prompt=key", "openai:m,tokens_key=max_tokens"):
        assert str(parse_spec(text)) == parse_spec(text).reveal() == redact_spec(text) == text
