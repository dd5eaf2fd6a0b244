"""Secrets: no encoder writes them, and they are found in texts in every form."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from urllib.parse import quote, quote_plus

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.core.secret import Scrubber, Secret

VALUE = "sk-CANARY/0123+é"
SECRET = Secret.of(VALUE)


def test_no_way_to_text_gives_the_value() -> None:
    written = [
        str(SECRET),
        repr(SECRET),
        f"{SECRET}",
        f"{SECRET!r:>20}",
        "%s %r" % (SECRET, SECRET),  # noqa: UP031 this form, too
        repr({"key": [SECRET]}),
        str(vars(SECRET)),
        msgspec.json.encode({"key": SECRET}).decode(),
        repr(msgspec.msgpack.encode(SECRET)),
        str(msgspec.to_builtins(SECRET)),
        str(msgspec.structs.asdict(SECRET)),
        repr(pickle.dumps(SECRET)),
    ]
    assert all("CANARY" not in text for text in written)
    assert written[0] == written[2] == "***"
    for refuses in (json.dumps, yaml.safe_dump):
        with pytest.raises(Exception, match="(?i)serializable|represent"):
            refuses(SECRET)


def test_a_copy_keeps_the_value_and_a_pickle_does_not() -> None:
    assert copy.deepcopy([SECRET])[0].reveal() == copy.copy(SECRET).reveal() == VALUE
    assert (Secret.of(VALUE) == SECRET, Secret.of("other") == SECRET) == (True, False)
    assert len({SECRET, Secret.of(VALUE)}) == 1
    restored = pickle.loads(pickle.dumps(SECRET))
    with pytest.raises(ValueError, match="without its value"):
        restored.reveal()


secret_values = st.text(
    st.characters(codec="utf-8", exclude_categories=["Z", "C"], exclude_characters=",;="),
    min_size=8,
    max_size=24,
)


@settings(max_examples=30)
@given(secret_values, st.text(max_size=5), st.text(max_size=5))
def test_every_form_of_a_secret_is_removed(value: str, before: str, after: str) -> None:
    scrubber = Scrubber([Secret.of(f"Bearer {value}")])
    forms = [
        value,
        quote(value, safe=""),
        quote_plus(value),
        quote(value).lower(),
        "".join(f"%{byte:02x}" for byte in value.encode()),
        json.dumps(value, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(value, ensure_ascii=False)),
        "\n".join(value),
        f"{value[:5]} \t{value[5:]}",
    ]
    for form in forms:
        scrubbed = scrubber.scrub(f"<{before}|{form}|{after}>")
        assert "***" in scrubbed, form
        assert value not in scrubbed.replace(before, "").replace(after, "")
    for offset in range(4):
        encoded = base64.b64encode(b"x" * offset + value.encode() + b"yy").decode()
        assert "***" in scrubber.scrub(encoded)


def test_short_values_and_other_text_stay() -> None:
    scrubber = Scrubber([Secret.of("prod"), Secret.of("")])
    assert scrubber.scrub("the prod server") == "the prod server"
    assert Scrubber([SECRET]).scrub("an error of the server") == "an error of the server"


def test_an_answer_loses_the_secret_itself_and_nothing_that_resembles_it() -> None:
    value = 'sk-0123456789"abcdef'
    scrubber = Scrubber([Secret.of(f"Bearer {value}"), Secret.of("blue-team")])
    reply = json.dumps({"text": f"the key is {value}, the team blue-team"}).encode()
    assert json.loads(scrubber.scrub_reply(reply)) == {"text": "the key is ***, the team blue-team"}
    assert scrubber.scrub_reply(b"nothing") == b"nothing"
