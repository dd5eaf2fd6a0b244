"""Runs a configuration: conversation state, Colang interpreter, actions, LLM calls, streaming."""
