"""Templates are filled in one pass, so that a text cannot move another into its own place."""

from __future__ import annotations

import pytest

from truing.core.types import Conversation
from truing.judges.guard_beaver import TEMPLATE
from truing.judges.guard_formats import build_shieldgemma_prompts, build_wildguard_prompt
from truing.judges.prompt_templates import fill_placeholders


def test_filled_in_text_is_not_read_again() -> None:
    values = {"prompt": "{response} {prompt}", "response": "{prompt}"}
    assert fill_placeholders("U: {prompt} A: {response} {other}", values) == (
        "U: {response} {prompt} A: {prompt} {other}"
    )
    assert fill_placeholders(TEMPLATE, values).endswith(
        "USER: {response} {prompt} ASSISTANT:{prompt}"
    )


@pytest.mark.parametrize("build", [build_wildguard_prompt, build_shieldgemma_prompts])
def test_placeholders_in_a_users_message_stay(build: object) -> None:
    assert callable(build)
    user_text = "a {response} b {answer} c {prompt} d {guideline}"
    for prompt in build(Conversation.of(user_text), "THE RESPONSE"):
        text = prompt.messages[-1].content
        assert text.count(user_text) == 1
        assert text.count("THE RESPONSE") == 1
        assert text.index("THE RESPONSE") > text.index(user_text)
