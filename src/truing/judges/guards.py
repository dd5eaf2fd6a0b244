"""`guard:NAME,model=(SPEC)`: published guard models, each with its own prompt and reply format.

    guard:llama-guard-3,model=(openai:meta-llama/Llama-Guard-3-8B,base_url=http://localhost:8000/v1)
    guard:qwen3guard,mode=loose,model=(local:Qwen/Qwen3Guard-Gen-0.6B)
    guard:gpt-oss-safeguard,policy=POLICY.md,model=(openai:openai/gpt-oss-safeguard-20b,...)
    guard:harmaug,path=hbseong/HarmAug-Guard

A generative guard is any model behind `model=` whose chat template is the guard's own (vLLM,
`local:`); `guard_catalog.py` lists what is sent and how the reply is parsed. A reply that is not
in the documented form leaves the answer unscored. Classifiers are loaded from `path=`.
"""

from __future__ import annotations

import asyncio
import math
from copy import copy

from truing.core.errors import did_you_mean
from truing.core.lineage import digest
from truing.core.protocols import Judge, Model, TurnReadingModel
from truing.core.taxonomy import load_crosswalk
from truing.core.types import (
    Answer,
    Conversation,
    Judgement,
    Lineage,
    Response,
    Sample,
    Sampling,
    TokenLogprob,
)
from truing.judges.answer_streams import AnswerStream
from truing.judges.guard_catalog import GUARD_NAMES, find_format
from truing.judges.guard_encoders import ENCODERS, EncoderGuard, SequenceClassifier
from truing.judges.guard_formats import PROMPT_QUESTIONS, GuardFormat, GuardReading
from truing.judges.guard_nim import build_jailbreak_judge
from truing.judges.verdicts import (
    check_failed_response,
    make_judgement,
    make_unscored,
    text_of_message,
)
from truing.specs.resolve import Args


class GuardJudge:
    """Asks a guard model about an answer, or about the prompt if `question` is about prompts.

    `name` contains the settings of the guard that differ from its defaults.
    """

    def __init__(
        self, name: str, guard_format: GuardFormat, model: Model, *, question: str = ""
    ) -> None:
        self.name = f"guard:{name}({model.name})"
        self.question = question or guard_format.questions[0]
        self._guard_name = name
        self._format = guard_format
        self._model = model
        # A server applies the guard's chat template to finished turns. A local model would continue
        # a last assistant turn, so it needs a reader that closes the turn first.
        self._reader = model.turn_reader() if isinstance(model, TurnReadingModel) else model
        self._crosswalk = (
            load_crosswalk(guard_format.crosswalk).map
            if guard_format.crosswalk
            else guard_format.label_categories
        )
        model_lineage = model.lineage
        self.lineage = Lineage(
            name=self.name,
            hash=digest("guard/1", name, self.question, model_lineage.hash or model.name),
            base=model.name,
            prompts=model_lineage.prompts,
            judges=model_lineage.judges,
        )

    @property
    def labels(self) -> frozenset[str]:
        """The labels that are known to the guard's taxonomy; others are the guard's own words."""
        return frozenset(self._crosswalk)

    def of_prompts(self) -> GuardJudge:
        """Returns the judge of prompts with the same guard model."""
        if self.question in PROMPT_QUESTIONS:
            return self
        question = next(q for q in self._format.questions if q in PROMPT_QUESTIONS)
        return GuardJudge(self._guard_name, self._format, self._model, question=question)

    def start(self, conversation: Conversation) -> AnswerStream:
        """Returns the stream of one answer; a local guard model runs only its new tokens.

        At an endpoint all of the text is sent again at each sentence: in total a number of tokens
        that is quadratic in the answer's length. A server with a cache of prefixes saves the
        computation, not the tokens.
        """
        reader = copy(self)
        if isinstance(self._model, TurnReadingModel):
            reader._reader = self._model.turn_reader(keep_prefix=True)
        return AnswerStream(reader, conversation)

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        """Returns the verdict of one greedy reply (ShieldGemma: one for each policy, any harmful
        one decides).
        """
        judges_prompt = self.question in PROMPT_QUESTIONS
        failed = check_failed_response(self, sample, response)
        if failed is not None and not judges_prompt:
            return failed
        answer_text = text_of_message(response.message)
        prompt_text = "".join(map(text_of_message, sample.conversation.messages))
        if not (prompt_text if judges_prompt else answer_text).strip():
            return make_unscored(self, sample, response, "empty", "there is no text to judge")
        prompts = self._format.ask(sample.conversation, None if judges_prompt else answer_text)
        if not prompts:
            message = "the guard's prompt shows none of these texts"
            return make_unscored(self, sample, response, "empty", message)
        results = await asyncio.gather(*(self._ask_guard(conversation) for conversation in prompts))
        readings = [r for r in results if isinstance(r, GuardReading)]
        if len(readings) < len(results):
            answer, reason = next(r for r in results if not isinstance(r, GuardReading))
            kind = answer.failure.kind if answer.failure else "unparsable"
            return make_unscored(self, sample, response, kind, reason)
        return self._judgement(sample, response, readings)

    async def _ask_guard(self, conversation: Conversation) -> GuardReading | tuple[Answer, str]:
        sampling = Sampling(
            max_tokens=self._format.max_tokens, logprobs=self._format.logprobs or None
        )
        answer = (await self._reader.generate(conversation, sampling))[0]
        if answer.failure is not None:
            return answer, f"guard model: {answer.failure.message}"
        if self._format.needs_end and answer.finish_reason == "length":
            return answer, f"the reply was cut after {self._format.max_tokens} tokens"
        reading = self._format.parse(answer.text)
        if isinstance(reading, str):
            return answer, reading
        labels = reading.labels_for(self.question)
        return GuardReading(reading.answers, labels, self._probability(answer))

    def _probability(self, answer: Answer) -> float | None:
        """Returns the probability of the words for harm against those for none.

        It is read from the first token that is not white space, at the place of the verdict. None
        if the model returns no token probabilities.
        """
        if not answer.logprobs or not self._format.yes:
            return None
        token = self._find_verdict_token(answer.logprobs)
        if token is None:
            return None
        probability = {"yes": 0.0, "no": 0.0}
        for text, logprob in {**dict(token.top), token.token: token.logprob}.items():
            word = text.strip().casefold()
            for key, expected in (("yes", self._format.yes), ("no", self._format.no)):
                # A prefix counts: tokenizers split "unsafe" into "un" and "safe".
                if word and any(name.startswith(word) for name in expected):
                    probability[key] += math.exp(logprob)
        total = probability["yes"] + probability["no"]
        return probability["yes"] / total if total > 0 else None

    def _find_verdict_token(self, tokens: tuple[TokenLogprob, ...]) -> TokenLogprob | None:
        text = ""
        for token in tokens:
            # Llama Guard begins its replies with line breaks.
            if token.token.strip() and text.rstrip().endswith(self._format.score_after):
                return token
            text += token.token
        return None

    def _judgement(
        self, sample: Sample, response: Response, readings: list[GuardReading]
    ) -> Judgement:
        verdicts = [r.answers.get(self.question) for r in readings]
        # WildGuard answers N/A where there is no response.
        if any(v is None for v in verdicts):
            return make_unscored(
                self, sample, response, "unparsable", f"the reply does not answer {self.question!r}"
            )
        scores = [r.score for r in readings if r.score is not None]
        # Labels of a reply that does not object belong to another question, or to a lower level.
        objecting = [r for r in readings if r.answers[self.question]]
        labels = tuple(dict.fromkeys(label for r in objecting for label in r.labels))
        harms: dict[str, float] = {}
        if self.question != "refused" and self._crosswalk:
            # 0 for the others: the guard was asked about every category that it knows.
            harms = {i: 0.0 for ids in self._crosswalk.values() for i in ids}
            harms |= {i: 1.0 for label in labels for i in self._crosswalk.get(label, ())}
        return make_judgement(
            self,
            sample,
            response,
            any(verdicts),
            score=max(scores) if scores else None,
            harms=harms,
            rationale=", ".join(labels) or None,
        )


def build(args: Args) -> Judge:
    """Returns the judge of a `guard:` spec."""
    if args.name == "beaver-dam":
        from truing.judges.guard_beaver import BeaverDam

        path = _required_path(args)
        return BeaverDam(path, dtype=args.text("dtype", "auto"), device=args.text("device", "auto"))
    if args.name == "nemoguard-jailbreak":
        return build_jailbreak_judge(args)
    if args.name in ENCODERS:
        return _build_encoder(args)
    if args.name not in GUARD_NAMES:
        raise args.fault(f"there is no guard {args.name!r}{did_you_mean(args.name, GUARD_NAMES)}")
    name, guard_format = find_format(args)
    question = _read_question(args, guard_format.questions)
    model: Model = args.required("model", "model")
    return GuardJudge(name, guard_format, model, question=question)


def _build_encoder(args: Args) -> EncoderGuard:
    question = _read_question(args, ENCODERS[args.name].questions)
    path = _required_path(args)
    options = {key: args.text(key, "auto") for key in ("dtype", "device")}
    tokenizer = args.text("tokenizer", "")
    # Report a wrong argument before the weights are loaded.
    args.reject_unknown()
    classifier = SequenceClassifier(args.name, path, tokenizer=tokenizer, **options)
    return EncoderGuard(args.name, classifier, question)


def _required_path(args: Args) -> str:
    path = args.text("path")
    if path is None:
        raise args.fault(f"path=... is missing: the folder or hub id of {args.name}")
    return path


def _read_question(args: Args, questions: tuple[str, ...]) -> str:
    question = args.text("question", questions[0])
    if question not in questions:
        raise args.fault(f"question={question!r}: {args.name} answers {', '.join(questions)}")
    return question
