from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import MissingExtra, SpecError
from truing.specs.builders import BUILDERS
from truing.specs.parser import Spec, parse_spec
from truing.specs.resolve import Args, list_kinds, load_object, resolve, share_instances


def test_nesting_and_quoting() -> None:
    spec = parse_spec("best-of:4,by=(cost:DIR),of=(prompted:hhh,of=(local:smollm2))")
    assert (spec.kind, spec.name) == ("best-of", "4")
    assert spec.args["by"] == Spec("cost", "DIR")
    assert spec.args["of"].args["of"] == Spec("local", "smollm2")
    quoted = parse_spec('prompted:"Be kind, please.",system="a \\"b\\", c"')
    assert quoted.name == "Be kind, please." and quoted.args["system"] == 'a "b", c'


def test_urls_and_dashes() -> None:
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
def test_the_text_of_a_spec_reads_back(spec: Spec) -> None:
    assert parse_spec(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "expected a kind"),
        (":x", "expected a kind"),
        ("local:a,b", "expected key=value"),
        ("local:a,b=1,b=2", "stands twice"),
        ("best-of:4,of=(local:x", "is not closed"),
        ('local:"x', "not closed"),
        ("local:a)", "unexpected ')'"),
        ("best-of:(local:x)", "a name is text"),
    ],
)
def test_faults_say_where(text: str, word: str) -> None:
    with pytest.raises(SpecError, match=word.replace("(", r"\(").replace(")", r"\)")):
        parse_spec(text)


@given(st.text(max_size=40))
def test_any_text_parses_or_is_a_spec_error(text: str) -> None:
    with contextlib.suppress(SpecError):
        assert isinstance(parse_spec(text), Spec)


def test_unknown_kind_and_argument_name_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'scripted'"):
        resolve("scriptd:mixed", "model")
    with pytest.raises(SpecError, match=r"unknown argument 'tekst'.*did you mean 'text'"):
        resolve("scripted:say,text=a,tekst=b", "model")


def test_secrets_never_stand_in_a_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="api_key_env=NAME") as caught:
        Args(parse_spec("openai:m,api_key=sk-123")).secret()
    assert "sk-123" not in str(caught.value)
    monkeypatch.setenv("MY_KEY", "v")
    assert Args(parse_spec("openai:m,api_key_env=MY_KEY")).secret() == "v"
    assert Args(parse_spec("openai:m")).secret() is None
    with pytest.raises(SpecError, match="NOT_SET is not set"):
        Args(parse_spec("openai:m,api_key_env=NOT_SET")).secret()


def test_arguments_by_type() -> None:
    args = Args(parse_spec("k:n,i=3,f=0.5,b=true,t=x"))
    assert (args.integer("i"), args.number("f"), args.flag("b"), args.text("t")) == (
        3,
        0.5,
        True,
        "x",
    )
    assert (args.integer("none", 7), args.flag("no")) == (7, False)
    for call in (lambda a: a.integer("t"), lambda a: a.number("t"), lambda a: a.flag("t")):
        with pytest.raises(SpecError, match="t='x'"):
            call(Args(parse_spec("k:n,t=x")))


def test_a_missing_extra_is_one_sentence_with_the_install_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import importlib

    def gone(name: str) -> object:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(importlib, "import_module", gone)
    with pytest.raises(MissingExtra, match=r"pip install 'truing\[local\]'"):
        load_object("truing.models.local:build")


def test_every_path_of_the_table_leads_somewhere() -> None:
    missing = []
    for role in BUILDERS:
        for kind, path in list_kinds(role).items():  # type: ignore[arg-type]
            try:
                if not callable(load_object(path)):
                    missing.append(kind)
            except MissingExtra:
                pass
            except (ImportError, AttributeError) as error:
                missing.append(f"{role} {kind}: {error}")
    assert missing == []


def test_sharing_resolves_a_spec_once() -> None:
    with share_instances():
        a, b = resolve("scripted:mixed", "model"), resolve("scripted:mixed", "model")
        assert a is b
    assert resolve("scripted:mixed", "model") is not a
