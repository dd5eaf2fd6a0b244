"""The prompts of tasks: which one is chosen, how it is rendered, which parser reads the reply."""

from __future__ import annotations

from typing import Any

import pytest

from truing.rails.config.entries import PromptEntry
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.prompts import (
    BUILT_IN_PROMPTS,
    MAX_PROMPT_CHARACTERS,
    PromptManager,
    _match_score,
    built_in_parser,
)
from truing.rails.runtime.templates import PromptError


def manager(yaml: str = "models: []\n") -> PromptManager:
    return PromptManager(RailsConfig.from_text(yaml))


@pytest.mark.parametrize(
    ("models", "model", "score"),
    [
        ((), "openai/gpt-4", 0.2),
        (("openai/gpt-4",), "openai/gpt-4", 1.0),
        (("meta/llama",), "nim/meta/llama-3", 0.9),
        (("meta/llama-3",), "nim/meta/llama-3", 0.8),
        (("openai",), "openai/gpt-4", 0.5),
        (("gpt-4",), "openai/gpt-4", 0.8),
        (("gpt",), "openai/gpt-4", 0.4),
        (("mistral",), "openai/gpt-4", 0.0),
        (("mistral", "openai"), "openai/gpt-4", 0.5),
    ],
)
def test_prompts_are_scored_by_model(models: tuple[str, ...], model: str, score: float) -> None:
    entry = PromptEntry(task="t", content="x", models=models)
    assert _match_score(entry, model, "standard") == score


def test_a_prompt_of_another_mode_counts_half_or_not_at_all() -> None:
    standard = PromptEntry(task="t", content="x")
    compact = PromptEntry(task="t", content="x", mode="compact")
    assert _match_score(standard, "m", "compact") == 0.1
    assert _match_score(compact, "m", "compact") == 0.2
    assert _match_score(compact, "m", "standard") == 0.0


def test_the_last_of_equal_prompts_is_used() -> None:
    prompts = manager("prompts:\n  - {task: t, content: one}\n  - {task: t, content: two}\n")
    assert prompts.render_task_prompt("t") == "two"


def test_tasks_without_a_prompt_are_errors() -> None:
    prompts = manager()
    assert not prompts.has_prompt("my_task")
    assert all(prompts.has_prompt(task) for task in (*BUILT_IN_PROMPTS, "general"))
    with pytest.raises(PromptError, match="there is no prompt for the task 'my_task'"):
        prompts.render_task_prompt("my_task")


def test_variables_extra_context_and_messages() -> None:
    prompts = manager(
        "prompts:\n  - task: t\n    messages:\n      - {type: system, content: 'Be {{ mood }}.'}\n"
        "      - {type: user, content: '{{ question }}'}\n      - {type: user, content: '{{ "
        "nothing }}'}\n"
    )
    prompts.extra_context["mood"] = lambda: "kind"
    assert prompts.render_task_prompt("t", {"question": "Why?"}) == [
        {"type": "system", "content": "Be kind."},
        {"type": "user", "content": "Why?"},
    ]


def test_a_text_can_be_forced_into_a_message() -> None:
    prompts = manager("prompts: [{task: t, content: hello}]\n")
    assert prompts.render_task_prompt("t", force_string_to_message=True) == [
        {"type": "user", "content": "hello"}
    ]


def user_messages(count: int) -> list[dict[str, Any]]:
    return [{"type": "UserMessage", "text": f"message {index}"} for index in range(count)]


def long_user_messages(count: int) -> list[dict[str, Any]]:
    return [{"type": "UserMessage", "text": f"{index} " + "x" * 98} for index in range(count)]


def test_the_oldest_events_are_left_out_of_long_prompts() -> None:
    yaml = "prompts: [{task: t, content: '{{ history | colang }}', max_length: 350}]\n"
    prompt = manager(yaml).render_task_prompt("t", events=long_user_messages(10))
    assert len(prompt) <= 350
    assert 'user "9 x' in prompt
    assert 'user "0 x' not in prompt
    with pytest.raises(PromptError, match="longer than 3 characters even without history"):
        manager("prompts: [{task: t, content: 'four', max_length: 3}]\n").render_task_prompt("t")


def test_the_general_prompt_is_the_chat_with_facts() -> None:
    prompts = manager("instructions: [{type: general, content: Be brief.}]\n")
    events = [*user_messages(1), {"type": "StartUtteranceBotAction", "script": "Yes."}]
    assert prompts.render_task_prompt("general", {"relevant_chunks": "A fact."}, events) == [
        {"type": "system", "content": "Be brief.\n\nFacts to rely on:\nA fact."},
        {"type": "user", "content": "message 0"},
        {"type": "assistant", "content": "Yes."},
    ]
    long = [{"type": "UserMessage", "text": "x" * MAX_PROMPT_CHARACTERS}, *user_messages(1)]
    assert len(prompts.render_task_prompt("general", {}, long)) == 2


@pytest.mark.parametrize(
    ("model", "task", "parser"),
    [
        ("unknown", "generate_user_intent", None),
        ("openai/gpt-4o", "generate_user_intent", "user_intent"),
        ("openai/gpt-4o", "generate_value", None),
        ("nim/deepseek-r1", "generate_user_intent", None),
        ("nim/mixtral", "generate_next_steps", "verbose_v1"),
        ("nim/mixtral", "generate_intent_steps_message", None),
        ("nim/meta/llama-3", "generate_intent_steps_message", "verbose_v1"),
    ],
)
def test_replies_are_read_by_model(model: str, task: str, parser: str | None) -> None:
    assert built_in_parser(model, task) == parser


def test_parsers_stop_texts_and_lengths_of_a_task() -> None:
    prompts = manager(
        "prompts: [{task: t, content: x, output_parser: is_content_safe, stop: [End], max_tokens: "
        "3}]\n"
    )
    assert prompts.parse_task_output("t", "unsafe S1") == [False, "S1"]
    assert prompts.has_output_parser("t")
    assert prompts.get_stop_tokens("t") == ["End"]
    assert prompts.get_max_tokens("t") == 3
    assert prompts.get_stop_tokens("general") is None
    prompts.parsers["upper"] = str.upper
    assert prompts.parse_task_output("general", "a", "upper") == "A"
