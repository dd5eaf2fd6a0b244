"""GLiNER in this process, with a stand-in of the package that has its classes and methods."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from library_cases import ask, decisive_ruling, guard, rails

from truing.core.errors import MissingExtra, PlanError
from truing.rails.library import gliner_model
from truing.rails.library.gliner_model import find_spans, load_gliner, split_text

GLINER_WORD = re.compile(r"\w+(?:[-_]\w+)*|\S")  # of gliner.data_processing.tokenizer (0.2.29)
MAX_WORDS = 384  # of a model's configuration: the rest of a text is left out with a warning


class GLiNER:
    """Finds words in capitals, as the package's class finds entities; reads 384 words."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.asked: list[tuple[list[str], float]] = []

    @classmethod
    def from_pretrained(cls, model_id: str, *, local_files_only: bool) -> GLiNER:
        assert local_files_only
        return cls(model_id)

    def predict_entities(
        self, text: str, labels: list[str], *, threshold: float
    ) -> list[dict[str, Any]]:
        self.asked.append((labels, threshold))
        words = list(GLINER_WORD.finditer(text))[:MAX_WORDS]
        read = text[: words[-1].end()] if words else ""
        return [
            {"start": m.start(), "end": m.end(), "text": m[0], "label": labels[0], "score": 0.9}
            for m in re.finditer(r"(?<![A-Z])[A-Z]{3,}(?![A-Z])", read)
        ]


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("gliner")
    module.GLiNER = GLiNER  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gliner", module)
    load_gliner.cache_clear()


def _config(path: Path, *flows: str, **block: Any) -> dict[str, Any]:
    stage = {flow.rpartition(" ")[2]: [flow] for flow in flows}
    config = rails(**stage)
    config["rails"]["config"] = {"gliner": block}
    return {**config, "truing": {"gliner": {"path": str(path)}}}


def test_entities_are_masked_and_blocked(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    settings = {"input": {"entities": ["person"]}, "threshold": 0.7}
    flow = "gliner mask pii on input"
    bot = guard(tmp_path / "mask", _config(model, flow, **settings))
    answer = ask(bot, "hello ANNA and BERT")
    assert answer.text == "hello [PERSON] and [PERSON]"
    assert load_gliner(str(model)).asked == [(["person"], 0.7)]
    assert "gliner:model" in {judge.name for judge in bot.lineage.judges}
    blocking = guard(tmp_path / "detect", _config(model, "gliner detect pii on input", **settings))
    assert ask(blocking, "hello ANNA").finish_reason == "blocked"
    assert ask(blocking, "hello").text == "hello"


def test_a_long_text_is_read_to_its_end() -> None:
    words = ["word"] * 1000
    for position in (0, 199, 200, 201, 500, 999):
        text = " ".join([*words[:position], "ANNA", *words[position:]])
        ((start, end, label),) = find_spans(GLiNER(""), text, ["person"], 0.5)
        assert (text[start:end], label) == ("ANNA", "person")


@pytest.mark.parametrize("filler", ["a.b/c@d!", "\U0001f600", "見", "_-_", "word-word_word "])
def test_a_text_of_few_spaces_is_read_to_its_end(filler: str) -> None:
    text = f"{filler * 2000}ANNA"
    spans = find_spans(GLiNER(""), text, ["person"], 0.5)
    assert [text[start:end] for start, end, _ in spans] == ["ANNA"]


def test_no_piece_is_read_after_the_deadline() -> None:
    model = GLiNER("")
    with pytest.raises(TimeoutError):
        find_spans(model, "word " * 1000, ["person"], 0.5, deadline=0.0)
    assert model.asked == []


@pytest.mark.parametrize(
    "text", ["", "   ", "a", "a " * 199, "a " * 200, "b" * 100_000, "a.b" * 999, "見" * 999]
)
def test_pieces_cover_the_text(text: str) -> None:
    covered = set[int]()
    for offset, piece in split_text(text):
        assert text[offset : offset + len(piece)] == piece
        assert len(GLINER_WORD.findall(piece)) <= 200 and len(piece) <= 200 * 9
        covered |= set(range(offset, offset + len(piece)))
    assert all(text[i].isspace() for i in range(len(text)) if i not in covered)


def test_a_model_that_fails_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **named: Any) -> Any:
        raise MemoryError("too large")

    monkeypatch.setattr(GLiNER, "predict_entities", fail)
    flow, settings = "gliner mask pii on output", {"output": {"entities": ["person"]}}
    answer = ask(guard(tmp_path, _config(tmp_path, flow, **settings)), "hello ANNA")
    assert answer.finish_reason == "blocked" and "ANNA" not in answer.text
    assert "could not tell" in (decisive_ruling(answer).reason or "")


def test_faults_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = "gliner mask pii on input"
    with pytest.raises(PlanError, match="needs rails.config.gliner.input.entities"):
        guard(tmp_path / "a", _config(tmp_path, flow))
    settings = {"input": {"entities": ["person"]}}
    with pytest.raises(PlanError, match="there is no model folder"):
        guard(tmp_path / "a", _config(tmp_path / "missing", flow, **settings))
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(PlanError, match="holds code or pickles: pytorch_model.bin"):
        guard(tmp_path / "a", _config(folder, flow, **settings))
    monkeypatch.setitem(sys.modules, "gliner", None)
    gliner_model.load_gliner.cache_clear()
    with pytest.raises(MissingExtra, match=r"truing\[gliner\]"):
        guard(tmp_path / "a", _config(tmp_path, flow, **settings))
