"""Hypothesis strategies: messages and conversations with tool calls, in any text that UTF-8 holds."""

from __future__ import annotations

from hypothesis import strategies as st

from truing.core.messages import Conversation, Message, ToolCall

texts = st.text(st.characters(codec="utf-8"), max_size=30)
calls = st.builds(ToolCall, texts, texts, texts.map(lambda t: t or "{}"))
messages = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    texts,
    st.lists(calls, max_size=2).map(tuple),
    st.none() | texts,
)
conversations = st.builds(Conversation, st.lists(messages, max_size=4).map(tuple))
