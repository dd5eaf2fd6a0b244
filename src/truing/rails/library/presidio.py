"""Personal data for which truing has no pattern, by Presidio where it is installed.

Names, places and organisations need one of spaCy's English models. What Presidio finds by pattern
and check sum (passports, licences, dates, wallets) needs none: without a model, a blank English
pipeline splits the text into words.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from truing.core.errors import PlanError
from truing.rails.library.pii import SPACY_ENTITIES, EntitySpan
from truing.specs.resolve import load_object

_PREFERRED_MODELS = ("en_core_web_lg", "en_core_web_md", "en_core_web_sm")
_IGNORED_LABELS = [
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


def installed_spacy_model() -> str | None:
    """Returns the largest installed English model of spaCy, or None. Nothing is downloaded."""
    installed = load_object("spacy.util:get_installed_models")()
    preferred = [name for name in _PREFERRED_MODELS if name in installed]
    other_models = sorted(name for name in installed if name.startswith("en_"))
    return next(iter([*preferred, *other_models]), None)


def _set_lemmas(doc: Any) -> Any:
    """A spaCy component: Presidio looks for context words ("passport") among the lemmas."""
    for token in doc:
        token.lemma_ = token.lower_
    return doc


@lru_cache(maxsize=2)
def _load_analyzer(model: str | None) -> Any:
    """Returns Presidio's analyzer with a spaCy model, or with a blank English pipeline."""
    # It warns of each recogniser of another language.
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    models = [{"lang_code": "en", "model_name": model or "blank"}]
    if model is not None:
        provider = load_object("presidio_analyzer.nlp_engine:NlpEngineProvider")(
            nlp_configuration={
                "nlp_engine_name": "spacy",
                "models": models,
                "ner_model_configuration": {"labels_to_ignore": _IGNORED_LABELS},
            }
        )
        engine = provider.create_engine()
    else:
        engine = load_object("presidio_analyzer.nlp_engine:SpacyNlpEngine")(models=models)
        blank = load_object("spacy:blank")("en")
        load_object("spacy.language:Language").component("truing_lower", func=_set_lemmas)
        blank.add_pipe("truing_lower")
        engine.nlp = {"en": blank}  # else the engine would download the model of that name
    return load_object("presidio_analyzer:AnalyzerEngine")(nlp_engine=engine)


def find_presidio_spans(
    text: str, entities: Iterable[str], threshold: float = 0.4
) -> list[EntitySpan]:
    """Returns the spans that Presidio finds with a score of at least `threshold`.

    Raises MissingExtra without Presidio, PlanError without a spaCy model where one is needed; the
    rail then blocks with that reason.
    """
    requested = list(entities)
    load_object(
        "presidio_analyzer:AnalyzerEngine"
    )  # names the missing extra before the missing model
    model = installed_spacy_model()
    need_model = SPACY_ENTITIES & set(requested)
    if model is None and need_model:
        raise PlanError(
            f"{', '.join(sorted(need_model))}: needs an English model of spaCy, and none is "
            "installed: python -m spacy download en_core_web_sm"
        )
    results = _load_analyzer(model).analyze(
        text=text, language="en", entities=requested, score_threshold=threshold
    )
    return [EntitySpan(r.entity_type, r.start, r.end) for r in results]
