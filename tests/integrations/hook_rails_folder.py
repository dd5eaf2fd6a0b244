"""A configuration for the tests of hooks: it blocks the word FORBIDDEN, masks e-mail addresses, and
denies a tool. No rail asks a model.
"""

from __future__ import annotations

from pathlib import Path

CONFIG = """
rails:
  config:
    sensitive_data_detection:
      input: {entities: [EMAIL_ADDRESS]}
      output: {entities: [EMAIL_ADDRESS]}
  input: {flows: [no forbidden input, mask sensitive data on input]}
  output: {flows: [no forbidden output, mask sensitive data on output]}
  tool_output: {flows: [check tool calls]}
  tool_input: {flows: [no forbidden result]}
truing:
  tools: {deny: [drop_table], arguments: {search: {query: {max_length: 40}}}}
"""
FLOWS = """
define bot refuse input
  "I can't talk about that."

define bot refuse output
  "I can't say that."

define bot refuse result
  "I can't use that result."

define subflow no forbidden input
  if "FORBIDDEN" in $user_message
    bot refuse input
    stop

define subflow no forbidden output
  if "FORBIDDEN" in $bot_message
    bot refuse output
    stop

define subflow no forbidden result
  if "FORBIDDEN" in $tool_message
    bot refuse result
    stop
"""
REFUSED_INPUT = "I can't talk about that."
REFUSED_OUTPUT = "I can't say that."
REFUSED_RESULT = "I can't use that result."


def write_rails(folder: Path, *, more: str = "") -> Path:
    """Writes the configuration into a folder, with further settings of `truing:`; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yml").write_text(CONFIG + more)
    (folder / "rails.co").write_text(FLOWS)
    return folder
