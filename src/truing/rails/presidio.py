"""Names, places and organisations by Presidio, where it is installed; with a blank engine where its model is missing."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from truing.errors import MissingExtra
from truing.rails.recognise import Span
from truing.registry import load


@lru_cache(maxsize=1)
def _engine() -> Any:
    provider = load("presidio_analyzer.nlp_engine:NlpEngineProvider")
    spacy = load("spacy.util:is_package")
    for model in ("en_core_web_lg", "en_core_web_md", "en_core_web_sm"):
        if spacy(model):
            made = provider(nlp_configuration={"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": model}]})
            return load("presidio_analyzer:AnalyzerEngine")(nlp_engine=made.create_engine())
    raise MissingExtra("presidio", "names and places (a spaCy model: python -m spacy download en_core_web_sm)")


def find_by_model(text: str, entities: list[str], threshold: float = 0.4) -> list[Span]:
    """What Presidio finds of these kinds; MissingExtra without it or its model, so that the rail blocks with the reason."""
    found = _engine().analyze(text=text, language="en", entities=entities, score_threshold=threshold)
    return [Span(r.entity_type, r.start, r.end) for r in found]
