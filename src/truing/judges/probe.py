"""`probe:DIR`: linear probes of `truing train probe` as a judge.

    probe:DIR                            the verdict of the folder's only question
    probe:DIR,question=harmful           the verdict of one of several
    probe:DIR,harmful=-1,helpful=1       a value: the weighted sum of logits, to choose by
    probe:smollm2,...                    the probes that come with truing, of the embedded model

A verdict is true above the probability that had the best F1 on held-out answers (`threshold=` sets
another). The value has no unit and answers no question: `best-of:8,by=(probe:DIR,harmful=-1,
helpful=1)` chooses by it. A probe reads the states of the base that it was trained on, which is
found by name and must have the same weights; `base=` names a folder that was moved. Further
arguments: `dtype` (float32), `device`, `batch` (tokens at once).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from truing.core.errors import UserError, did_you_mean
from truing.core.input_files import read_input_bytes
from truing.core.lineage import digest
from truing.core.types import Judgement, Lineage, Response, Sample
from truing.hf.answer_states import (
    AnswerStateEncoder,
    AnswerTokens,
    shared_answer_encoder,
)
from truing.hf.chat_tokens import AnswerTooLong
from truing.hf.weights import Weights, find_weights, sha256_file
from truing.judges.call_batcher import CallBatcher
from truing.judges.verdicts import (
    check_missing_text,
    make_judgement,
    make_unscored,
    text_of_message,
)
from truing.specs.resolve import Args

SHIPPED_FOLDER = Path(__file__).parents[1] / "resources" / "weights" / "probes"
"""The probes that come with the package, in one folder for each base."""
PROBE_FILE = "probe.json"
CARD_FILE = "truing.json"
ARGUMENTS = frozenset({"question", "threshold", "base", "dtype", "device", "batch"})
"""The arguments of the spec beside the weights: no question may have such a name."""


class QuestionProbe(Struct, frozen=True, kw_only=True):
    """A linear function of an answer's state: the logit that a question is true of it.

    The verdict is true above the logit `threshold`.
    """

    weights: tuple[float, ...]
    bias: float
    threshold: float


class Probes(Struct, frozen=True, kw_only=True):
    """`probe.json`: the layer after which the base is read, and a probe for each question."""

    layer: int
    max_length: int
    questions: dict[str, QuestionProbe]


class ProbeCard(Struct):
    """The fields of `truing.json` that the judge needs."""

    kind: str
    base: str
    base_sha256: str
    lineage: Lineage = Lineage()


class ProbeJudge:
    """One question's probe as a judge with a verdict, or a weighted sum of several as a value.

    With `weights`, by question, the judge gives a value; without, the verdict on `question`, true
    above the probability `threshold`.
    """

    def __init__(
        self,
        name: str,
        probes: Probes,
        encoder: AnswerStateEncoder,
        lineage: Lineage,
        *,
        question: str = "",
        weights: Mapping[str, float] | None = None,
        threshold: float | None = None,
    ) -> None:
        self.name, self.encoder, self.lineage = name, encoder, lineage
        self.gives_verdict = weights is None
        # A sum of several logits answers no question: it only orders answers, as a reward does.
        self.question = question if self.gives_verdict else "reward"
        self.threshold = threshold
        weights = weights or {question: 1.0}
        self._direction = sum(
            weight * np.array(probes.questions[name].weights) for name, weight in weights.items()
        )
        self._bias = sum(weight * probes.questions[name].bias for name, weight in weights.items())
        self._batched: CallBatcher[AnswerTokens, float] = CallBatcher(self._values)

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        """Returns the judgement of the whole answer.

        An empty or failed answer, and one that does not fit into the window with its prompt, is
        unscored.
        """
        missing = check_missing_text(self, sample, response)
        if missing is not None:
            return missing
        try:
            row = self.encoder.encode(
                sample.conversation,
                text_of_message(response.message),
                is_cut=response.finish_reason == "length",
            )
        except AnswerTooLong:
            message = f"prompt and answer are longer than {self.encoder.window} tokens"
            return make_unscored(self, sample, response, "too-long", message)
        except UserError as error:
            return make_unscored(self, sample, response, "template", str(error))
        try:
            value = await self._batched(row)
        except RuntimeError as error:
            return make_unscored(self, sample, response, "model", str(error))
        if not math.isfinite(value):
            return make_unscored(self, sample, response, "not-finite", f"the probe gave {value}")
        if self.threshold is None:
            return make_judgement(self, sample, response, None, value=value)
        probability = _sigmoid(value)
        is_true = probability > self.threshold
        return make_judgement(self, sample, response, is_true, score=probability)

    def _values(self, rows: Sequence[AnswerTokens]) -> list[float]:
        values = self.encoder.states(rows).astype(np.float64) @ self._direction + self._bias
        return [float(value) for value in values]


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))


def locate_probes(name: str | Path) -> Path:
    """Returns the folder of a path, or that of the package's probes of this name."""
    path = Path(name).expanduser()
    if not (path / CARD_FILE).is_file() and str(name) in list_shipped_probes():
        return SHIPPED_FOLDER / name
    return path


def list_shipped_probes() -> list[str]:
    """Returns the names of the probes that come with the package."""
    return sorted(folder.name for folder in SHIPPED_FOLDER.glob("*") if folder.is_dir())


def read_probes(folder: str | Path) -> tuple[Probes, ProbeCard]:
    """Returns the probes of a folder with its card; raises UserError if they cannot be read."""
    path = locate_probes(folder)
    try:
        card = msgspec.json.decode(read_input_bytes(path / CARD_FILE), type=ProbeCard)
        if card.kind != "probe":
            raise UserError(f"probe:{folder}: this folder holds a {card.kind} model, no probe")
        probes = msgspec.json.decode(read_input_bytes(path / PROBE_FILE), type=Probes)
    except FileNotFoundError as error:
        raise UserError(
            f"probe:{folder}: no {Path(error.filename or CARD_FILE).name} there; `truing train "
            f"probe` writes such folders (shipped: {', '.join(list_shipped_probes())})"
        ) from error
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"probe:{folder}: {error}") from error
    for question, probe in probes.questions.items():
        if not np.isfinite([*probe.weights, probe.bias, probe.threshold]).all():
            raise UserError(f"{path / PROBE_FILE}: the probe of {question!r} is not finite")
    return probes, card


def build(args: Args) -> ProbeJudge:
    """Returns the judge of a `probe:DIR` spec."""
    if not args.name:
        raise args.fault("give the folder of `truing train probe`: probe:DIR")
    probes, card = read_probes(args.name)
    # Each question of the folder may stand as an argument, with its weight.
    weights = {
        question: weight
        for question in probes.questions
        if (weight := args.number(question)) is not None
    }
    question = _chosen_question(args, probes, weights)
    threshold = args.number("threshold")
    dtype, device = args.text("dtype", "float32"), args.text("device", "auto")
    base, tokens = args.text("base", card.base), args.integer("batch", 4096)
    if weights and threshold is not None:
        raise args.fault("threshold= belongs to a verdict, and a weighted sum gives none")
    if threshold is not None and not 0 < threshold < 1:
        raise args.fault(f"threshold={threshold:g}: a probability, above 0 and below 1")
    if not all(map(math.isfinite, weights.values())) or (weights and not any(weights.values())):
        raise args.fault("the weights of the questions are numbers, and not all 0")
    if tokens < 1:
        raise args.fault(f"batch={tokens}: at least 1 token")
    args.reject_unknown()  # report a wrong argument before the weights are loaded

    base_weights = _find_base(args, base, card)
    encoder = shared_answer_encoder(
        base_weights,
        layer=probes.layer,
        dtype=dtype,
        device=device,
        window=probes.max_length,
        tokens=tokens,
    )
    for name, probe in probes.questions.items():
        if len(probe.weights) != encoder.width:
            raise args.fault(
                f"the probe of {name!r} has {len(probe.weights)} weights, and a state of "
                f"{card.base} {encoder.width} numbers"
            )
    folder = locate_probes(args.name)
    terms = [f"{name}={weight:g}" for name, weight in weights.items()] or [f"question={question}"]
    if threshold is not None:
        terms.append(f"threshold={threshold:g}")
    label = f"probe:{folder.resolve().name},{','.join(terms)}"
    lineage_hash = digest("probe", sha256_file(folder / PROBE_FILE), card.base_sha256, *terms)
    if question and threshold is None:
        threshold = _sigmoid(probes.questions[question].threshold)
    return ProbeJudge(
        label,
        probes,
        encoder,
        msgspec.structs.replace(card.lineage, name=label, hash=lineage_hash),
        question=question,
        weights=weights or None,
        threshold=threshold,
    )


def _find_base(args: Args, base: str, card: ProbeCard) -> Weights:
    """Returns the weights of the base; raises SpecError if it is not there, or is another one."""
    try:
        weights = find_weights(base)
    except UserError as error:
        hint = "base=FOLDER names the base if it was moved"
        raise args.fault(f"the probe reads {card.base}: {error}; {hint}") from error
    if weights.sha256 != card.base_sha256:
        raise args.fault(
            f"the probe reads {card.base} (SHA-256 {card.base_sha256[:16]}), and the weights of "
            f"{base} have SHA-256 {weights.sha256[:16]}; base=FOLDER names the right ones"
        )
    return weights


def _chosen_question(args: Args, probes: Probes, weights: Mapping[str, float]) -> str:
    """Returns the question of the verdict, "" for a weighted sum."""
    question = args.text("question")
    names = ", ".join(probes.questions)
    if question is not None and weights:
        raise args.fault("give either question= or weights of questions")
    if weights:
        return ""
    if question is None:
        if len(probes.questions) != 1:
            raise args.fault(
                f"holds probes of {names}: question=NAME gives the verdict of one, weights such as "
                f"{next(iter(probes.questions), 'NAME')}=-1 a value"
            )
        return next(iter(probes.questions))
    if question not in probes.questions:
        raise args.fault(
            f"question={question}: the folder holds {names}"
            f"{did_you_mean(question, probes.questions)}"
        )
    return question
