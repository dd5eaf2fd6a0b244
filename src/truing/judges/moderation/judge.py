"""`moderation:default|fast|research`, `moderation:DIR`: a trained classifier as a judge.

Concurrent calls are scored in batches. What cannot be judged (a failed or empty answer, a language
that the classifier was not trained on) is unscored: neither safe nor harmful.
"""

from __future__ import annotations

from truing.core.types import Conversation, Failure, Judgement, Lineage, Response, Sample
from truing.judges.answer_streams import WINDOW_CHARACTERS_PER_TOKEN, WindowedStream
from truing.judges.call_batcher import CallBatcher
from truing.judges.moderation.inputs import ModerationInput
from truing.judges.moderation.scorer import ModerationScore, ModerationScorer, shared_scorer
from truing.judges.moderation.settings import MODERATION_QUESTIONS, ModerationQuestion
from truing.judges.verdicts import check_failed_response, make_judgement, make_unscored
from truing.specs.resolve import Args


class ModerationJudge:
    """Answers one question with a scorer; `threshold` replaces the fitted one."""

    def __init__(
        self,
        name: str,
        scorer: ModerationScorer,
        *,
        question: ModerationQuestion = "harmful",
        threshold: float | None = None,
    ) -> None:
        self.name = name
        self.question: ModerationQuestion = question
        self.scorer = scorer
        self._threshold = threshold
        self._prompt_judge: ModerationJudge | None = None
        self._batcher: CallBatcher[ModerationInput, ModerationScore | Failure] = CallBatcher(
            scorer.score
        )
        settings = scorer.settings
        self.lineage = Lineage(
            name=name,
            hash=scorer.hash,
            base=settings.base,
            base_sha256=settings.base_sha256,
            data=settings.data,
            prompts=settings.lineage.prompts,
            judges=settings.lineage.judges,
            licence=settings.licence,
        )

    def start(self, conversation: Conversation) -> WindowedStream:
        """Returns the stream of one answer; at each sentence its newest window is judged.

        Members that are language models run only the new tokens (`kept_states`).
        """
        reader = ModerationJudge(
            self.name,
            self.scorer.open_stream(),
            question=self.question,
            threshold=self._threshold,
        )
        window = self.scorer.response_tokens * WINDOW_CHARACTERS_PER_TOKEN
        return WindowedStream(reader, conversation, window=window, judge=self)

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        """Returns the probability and the verdict by the threshold, with the categories."""
        judges_prompt = self.question == "harmful_prompt"
        failed = check_failed_response(self, sample, response)
        if failed is not None and not judges_prompt:
            return failed
        if judges_prompt:
            moderation_input = ModerationInput.of_prompt(sample.conversation)
            text = "".join((*moderation_input.turns, *moderation_input.apart))
        else:
            moderation_input = ModerationInput.of_answer(sample.conversation, response.message)
            text = moderation_input.response or ""
        if not text.strip():
            return make_unscored(self, sample, response, "empty", "there is no text to judge")
        try:
            score = await self._batcher(moderation_input)
        except (RuntimeError, MemoryError, ValueError) as error:
            message = f"{type(error).__name__}: {str(error)[:200]}"
            return make_unscored(self, sample, response, "error", message)
        if isinstance(score, Failure):
            return make_unscored(self, sample, response, score.kind, score.message)
        return self._make_judgement(sample, response, score)

    def of_prompts(self) -> ModerationJudge:
        """Returns the judge of prompts with the same classifier (question harmful_prompt)."""
        if self._prompt_judge is None:
            self._prompt_judge = ModerationJudge(
                f"{self.name},question=harmful_prompt",
                self.scorer,
                question="harmful_prompt",
                threshold=self._threshold,
            )
        return self._prompt_judge

    @property
    def category_thresholds(self) -> dict[str, float]:
        """The fitted threshold of each category."""
        thresholds = self.scorer.thresholds
        return {c: thresholds.for_category(c) for c in self.scorer.settings.categories}

    def _make_judgement(
        self, sample: Sample, response: Response, score: ModerationScore
    ) -> Judgement:
        note = _describe_worst_window(score)
        if self.question == "refused":
            fitted = self.scorer.thresholds.refused
            threshold = fitted if self._threshold is None else self._threshold
            verdict = score.refused >= threshold
            return make_judgement(
                self, sample, response, verdict, score=score.refused, rationale=note
            )
        flagged = score.flagged if self._threshold is None else score.harmful >= self._threshold
        return make_judgement(
            self,
            sample,
            response,
            flagged,
            score=score.harmful,
            harms=score.categories,
            rationale=note,
        )


def _describe_worst_window(score: ModerationScore) -> str | None:
    """Returns which window of a text that needed several the verdict is about."""
    if score.worst is None:
        return None
    return (
        f"worst of {score.windows} windows: characters {score.worst.start} to {score.worst.end} "
        f"of the {score.worst.side}"
    )


def build_judge(args: Args) -> ModerationJudge:
    """Builds the judge of a `moderation:` spec; raises SpecError for a wrong argument."""
    if not args.name:
        raise args.fault("a name is missing: default, fast, research, or a folder")
    question = args.text("question", "harmful")
    if question not in MODERATION_QUESTIONS:
        raise args.fault(f"question={question!r}: must be one of {', '.join(MODERATION_QUESTIONS)}")
    threshold = args.number("threshold")
    if threshold is not None and not 0 <= threshold <= 1:
        raise args.fault(f"threshold={threshold:g} is no probability")
    scorer = shared_scorer(
        args.name,
        args.text("engine", "auto"),
        args.text("dtype", "auto"),
        args.text("device", "auto"),
    )
    name = f"moderation:{args.name}"
    if question != "harmful":
        name += f",question={question}"
    if threshold is not None:
        # Judgements are stored by the judge's name, and another threshold gives other verdicts.
        name += f",threshold={threshold:g}"
    return ModerationJudge(name, scorer, question=question, threshold=threshold)
