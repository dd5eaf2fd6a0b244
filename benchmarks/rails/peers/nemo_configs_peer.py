"""Loads configurations with nemoguardrails and holds scripted conversations; for nemo_configs.py.

Reads {"folders", "replies", "turns"} as JSON from stdin and prints, in the last line, for each
folder whether it loads, why not, and the bot's texts. The embedding model is replaced by a bag of
words, because no model is downloaded.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import zlib
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

from langchain_core.language_models.llms import LLM  # noqa: E402
from nemoguardrails import LLMRails, RailsConfig  # noqa: E402
from nemoguardrails.embeddings.providers import fastembed  # noqa: E402

SIZE = 512


def _encode(self: Any, documents: list[str]) -> list[list[float]]:
    rows = []
    for document in documents:
        row = [0.0] * SIZE
        for word in document.lower().split():
            row[zlib.crc32(word.strip("?!.,\"'").encode()) % SIZE] += 1.0
        rows.append(row)
    return rows


async def _encode_async(self: Any, documents: list[str]) -> list[list[float]]:
    return _encode(self, documents)


def _init(self: Any, embedding_model: str, **parameters: Any) -> None:
    self.model, self.embedding_size = None, SIZE


fastembed.FastEmbedEmbeddingModel.__init__ = _init
fastembed.FastEmbedEmbeddingModel.encode = _encode
fastembed.FastEmbedEmbeddingModel.encode_async = _encode_async


class FixedLLM(LLM):
    """A LangChain model that says the same in every call."""

    text: str = ""

    @property
    def _llm_type(self) -> str:
        return "fixed"

    def _call(self, prompt: str, stop: Any = None, run_manager: Any = None, **_: Any) -> str:
        return self.text


def _text_of(message: Any) -> str:
    if isinstance(message, dict):
        content = message.get("content")
        return content if isinstance(content, str) else f"EXCEPTION {content.get('type')}"
    return str(message)


def _converse(folder: str, reply: str, turns: list[str]) -> list[str]:
    config = RailsConfig.from_path(folder)
    llm = FixedLLM(text=reply)
    # The models of single tasks are made by their engines: take them out, and pass the fixed one.
    others = [entry for entry in config.models if entry.type not in ("main", "embeddings")]
    config.models = [entry for entry in config.models if entry not in others]
    rails = LLMRails(config, llm=llm)
    llms = {entry.type: llm for entry in others}
    rails.runtime.register_action_param("llms", llms)
    for name in llms:
        rails.runtime.register_action_param(f"{name}_llm", llm)
    texts: list[str] = []
    history: list[dict[str, Any]] = []
    if config.colang_version == "2.x":
        return _converse_with_state(rails, turns)
    for turn in turns:
        history.append({"role": "user", "content": turn})
        try:
            message = rails.generate(messages=list(history))
        except Exception as error:
            return [*texts, f"error: {type(error).__name__}"]
        text = _text_of(message)
        is_error = text.startswith("I'm sorry, an internal error has occurred")
        texts.append("error: internal" if is_error else text)
        history.append(message)
    return texts


def _converse_with_state(rails: Any, turns: list[str]) -> list[str]:
    """Colang 2 takes no earlier messages, but the state that the last turn returned."""
    texts: list[str] = []
    state: Any = {}
    for turn in turns:
        try:
            response = rails.generate(messages=[{"role": "user", "content": turn}], state=state)
        except Exception as error:
            return [*texts, f"error: {type(error).__name__}"]
        state = response.state
        texts.append(_text_of(response.response[0]))
    return texts


def main() -> None:
    request = json.load(sys.stdin)
    results: dict[str, Any] = {}
    with contextlib.redirect_stdout(sys.stderr):
        for folder in request["folders"]:
            result: dict[str, Any] = {"loads": False, "reason": "", "texts": []}
            try:
                for reply in request["replies"]:
                    result["texts"].append(_converse(folder, reply, request["turns"]))
                result["loads"] = True
            except (Exception, SystemExit) as error:
                result["reason"] = f"{type(error).__name__}: {str(error)[:300]}"
            results[folder] = result
            print(folder, result["loads"], result["reason"][:100], flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
