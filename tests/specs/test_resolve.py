"""Building objects from specs: typed arguments, secrets, extras, shared instances."""

from __future__ import annotations

import importlib

import pytest

from truing.core.errors import MissingExtra, SpecError
from truing.core.secret import Secret
from truing.specs.parser import parse_spec
from truing.specs.resolve import Args, load_object, resolve, share_instances


def test_unknown_kind_and_argument_suggest_a_name() -> None:
    with pytest.raises(SpecError, match="did you mean 'scripted'"):
        resolve("scriptd:mixed", "model")
    with pytest.raises(SpecError, match=r"unknown argument 'tekst'.*did you mean 'text'"):
        resolve("scripted:say,text=a,tekst=b", "model")


def test_a_secret_in_a_spec_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://example.org/v1"
    with pytest.raises(SpecError, match="api_key_env=NAME") as caught:
        Args(parse_spec("openai:m,api_key=sk-123")).api_key(url)
    assert "sk-123" not in str(caught.value)
    monkeypatch.setenv("MY_KEY", "v")
    assert Args(parse_spec("openai:m,api_key_env=MY_KEY")).api_key(url) == Secret.of("v")
    assert Args(parse_spec("openai:m")).api_key(url) is None
    with pytest.raises(SpecError, match="NOT_SET is not set"):
        Args(parse_spec("openai:m,api_key_env=NOT_SET")).api_key(url)


def test_arguments_are_converted() -> None:
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


def test_missing_extra_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail_to_import(name: str) -> object:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(importlib, "import_module", fail_to_import)
    with pytest.raises(MissingExtra, match=r"pip install 'truing\[local\]'"):
        load_object("truing.models.local:build")


def test_shared_instances_are_built_once() -> None:
    with share_instances():
        first = resolve("scripted:mixed", "model")
        assert resolve("scripted:mixed", "model") is first
        assert resolve("best-of:2,by=(rules:refusal),of=(scripted:mixed)", "model").model is first
    assert resolve("scripted:mixed", "model") is not first


def test_objects_replace_nested_specs() -> None:
    model = resolve("scripted:mixed", "model")
    assert resolve("prompted:hhh", "model", of=model).model is model
    with pytest.raises(SpecError, match=r"of=\(\.\.\.\) is missing"):
        resolve("prompted:hhh", "model")


def test_remaining_arguments_count_as_read() -> None:
    args = Args(parse_spec("k:n,a=1,b=2"))
    assert args.text("a") == "1"
    with pytest.raises(SpecError, match="unknown argument 'b'"):
        args.reject_unknown()
    assert args.take_remaining() == {"b": "2"}
    args.reject_unknown()
