"""Kinds of personal data that truing has no pattern for, by Presidio, where it is installed.

Names, places and organisations need one of spaCy's English models. What Presidio finds by pattern and check sum
(passports, licences, dates, wallets) needs none: where no model is there, a blank English pipeline reads the text.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from truing.core.errors import PlanError
from truing.rails.library.pii import NAMED, Span
from truing.specs.resolve import load_object

_PREFERRED = ("en_core_web_lg", "en_core_web_md", "en_core_web_sm")


def _model() -> str | None:
    """The best English model of spaCy that is installed, or none. Nothing is downloaded."""
    installed = load_object("spacy.util:get_installed_models")()
    return next(
        iter(
            [
                *(m for m in _PREFERRED if m in installed),
                *sorted(m for m in installed if m.startswith("en_")),
            ]
        ),
        None,
    )


def _lower(doc: Any) -> Any:
    for token in doc:
        token.lemma_ = (
            token.lower_
        )  # Presidio looks for words of context ("passport") among the lemmas
    return doc


@lru_cache(maxsize=2)
def _engine(model: str | None) -> Any:
    logging.getLogger("presidio-analyzer").setLevel(
        logging.ERROR
    )  # it warns of each recogniser of another language
    named = [{"lang_code": "en", "model_name": model or "blank"}]
    if model is not None:
        mapping = {
            "labels_to_ignore": [
                "CARDINAL",
                "ORDINAL",
                "QUANTITY",
                "PERCENT",
                "MONEY",
                "LANGUAGE",
                "LAW",
                "EVENT",
                "PRODUCT",
                "WORK_OF_ART",
            ]
        }
        given = {"nlp_engine_name": "spacy", "models": named, "ner_model_configuration": mapping}
        engine = load_object("presidio_analyzer.nlp_engine:NlpEngineProvider")(
            nlp_configuration=given
        ).create_engine()
    else:
        engine = load_object("presidio_analyzer.nlp_engine:SpacyNlpEngine")(models=named)
        blank = load_object("spacy:blank")("en")
        load_object("spacy.language:Language").component("truing_lower", func=_lower)
        blank.add_pipe("truing_lower")
        engine.nlp = {"en": blank}
    return load_object("presidio_analyzer:AnalyzerEngine")(nlp_engine=engine)


def find_by_model(text: str, entities: Iterable[str], threshold: float = 0.4) -> list[Span]:
    """What Presidio finds of these kinds; MissingExtra without it, PlanError without a model where one is needed, so that the
    rail blocks with the reason."""
    wanted = list(entities)
    load_object("presidio_analyzer:AnalyzerEngine")  # the extra first, then its model
    model = _model()
    if model is None and NAMED & set(wanted):
        kinds = ", ".join(sorted(NAMED & set(wanted)))
        raise PlanError(
            f"{kinds}: needs an English model of spaCy, and none is installed: python -m spacy download en_core_web_sm"
        )
    found = _engine(model).analyze(
        text=text, language="en", entities=wanted, score_threshold=threshold
    )
    return [Span(r.entity_type, r.start, r.end) for r in found]
