"""Runs a configuration: conversation state, Colang interpreter, actions, LLM calls, streaming.

`app.Runtime` is built once per configuration and runs turns; `turn_context.TurnContext` is what
actions see of one turn.
"""
