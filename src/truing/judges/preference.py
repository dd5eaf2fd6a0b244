"""`reward:DIR` (also `preference:DIR`) and `cost:DIR`: trained reward and cost models as judges,
your own or published ones.

A reward is a value in its own unit and answers no yes-or-no question (`verdict` is None); a cost
above 0 means *harmful*, and σ(cost) is its probability. Scores are computed in float32 and do not
depend on what is judged beside a response, on padding or on order (reward-bench #137). Arguments:
`dtype` (float32), `device`, `batch` (tokens at once).
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from msgspec import Struct

from truing.core.errors import UserError
from truing.core.input_files import read_input_bytes
from truing.core.lineage import digest
from truing.core.types import Conversation, Judgement, Lineage, Response, Sample
from truing.hf.chat_tokens import AnswerTooLong, ChatTokenizer
from truing.hf.loading import (
    ScalarModel,
    batch_by_length,
    context_length,
    load_scalar_model,
    pad_rows,
)
from truing.hf.weights import find_weights, sha256_folder
from truing.judges.verdicts import (
    check_missing_text,
    make_judgement,
    make_unscored,
    text_of_message,
)
from truing.specs.resolve import Args

Kind = Literal["reward", "cost"]


class _ModelCard(Struct):
    """The fields of `truing.json` that a judge needs."""

    kind: str
    lineage: Lineage = Lineage()
    template: str = "auto"
    max_length: int = 512


class ScalarScorer:
    """Scores conversations with an answer in forward passes over rows of similar length."""

    def __init__(
        self, model: ScalarModel, turns: ChatTokenizer, window: int, *, tokens: int = 4096
    ) -> None:
        self.model, self.turns, self.window, self.tokens = model, turns, window, tokens
        # Judging and ranking may run in different threads; torch releases the GIL.
        self._lock = threading.Lock()

    def row(self, conversation: Conversation, text: str, *, end: bool = True) -> list[int]:
        """Returns the token ids of prompt and answer, with or without the end token. Raises
        AnswerTooLong if the answer does not fit.
        """
        return self.turns.encode_row(conversation.messages, text, self.window, end=end)

    def scores(
        self, rows: Sequence[Sequence[int]], *, side: Literal["left", "right"] = "right"
    ) -> list[float]:
        """Returns the value at the last token of each row, in the order of the rows."""
        row_values = [0.0] * len(rows)
        pad_id = self.turns.tokenizer.pad_token_id or 0
        device = next(self.model.parameters()).device
        with self._lock, torch.inference_mode():
            for batch in batch_by_length([len(r) for r in rows], tokens=self.tokens):
                ids, mask = pad_rows([rows[k] for k in batch], pad_id, side=side)
                ends = self.model.last_token_values(
                    self.model(ids.to(device), mask.to(device)), mask.to(device)
                )
                for k, value in zip(batch, ends.float().tolist()):
                    row_values[k] = value
        return row_values


class _ScoreBatcher:
    """Collects concurrent calls of one event loop for 2 ms and scores them together in a thread."""

    def __init__(self, scorer: ScalarScorer) -> None:
        self.scorer = scorer
        self.waiting: list[tuple[list[int], asyncio.Future[float]]] = []
        self.task: asyncio.Task[None] | None = None

    async def score(self, row: list[int]) -> float:
        """Returns the value of one row."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.waiting.append((row, future))
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        # Judges of a run are called for many answers at once; the wait lets them join the first
        # batch. Later batches collect while one is scored.
        await asyncio.sleep(0.002)
        while self.waiting:
            batch, self.waiting = self.waiting[:256], self.waiting[256:]
            try:
                values = await asyncio.to_thread(self.scorer.scores, [row for row, _ in batch])
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
                continue
            for (_, future), value in zip(batch, values):
                if not future.done():
                    future.set_result(value)


class PreferenceJudge:
    """A reward or cost model as a judge; see the module. `name` is `reward:FOLDER` or
    `cost:FOLDER`.
    """

    def __init__(self, kind: Kind, name: str, scorer: ScalarScorer, lineage: Lineage) -> None:
        self.kind, self.name, self.scorer, self.lineage = kind, name, scorer, lineage
        self.question = "harmful" if kind == "cost" else "reward"
        self.closes_cut_answers = True
        self._batchers: dict[int, tuple[asyncio.AbstractEventLoop, _ScoreBatcher]] = {}

    @classmethod
    def load(
        cls,
        kind: Kind,
        folder: str | Path,
        *,
        dtype: str = "float32",
        device: str = "auto",
        tokens: int = 4096,
    ) -> PreferenceJudge:
        """Loads a folder that `truing train reward` or `cost` wrote, or a published model. Raises
        UserError for others.
        """
        path = Path(folder).expanduser()
        if not (path / "truing.json").is_file():
            # Only `truing train` writes truing.json.
            return cls._published(kind, str(folder), dtype=dtype, device=device, tokens=tokens)
        card = _read_card(path)
        if card.kind != kind:
            raise UserError(
                f"{kind}:{folder}: this folder holds a {card.kind} model, not a {kind} model"
            )
        model, tokenizer = load_scalar_model(path, dtype=dtype, device=device)
        turns = ChatTokenizer(tokenizer, plain=card.template == "plain", name=str(folder))
        lineage_hash = digest(kind, sha256_folder(path))  # not what the card may claim
        lineage = msgspec.structs.replace(
            card.lineage, name=f"{kind}:{path.name}", hash=lineage_hash
        )
        return cls(
            kind,
            f"{kind}:{path.name}",
            ScalarScorer(model, turns, card.max_length, tokens=tokens),
            lineage,
        )

    @classmethod
    def _published(
        cls, kind: Kind, name: str, *, dtype: str, device: str, tokens: int
    ) -> PreferenceJudge:
        """Loads a model that others trained; its lineage holds the weights alone."""
        from truing.judges.published import load_published_model

        weights = find_weights(name)
        model, tokenizer = load_published_model(weights, dtype=dtype, device=device)
        label = f"{kind}:{weights.title or weights.name}"
        lineage = Lineage(
            name=label,
            hash=digest(kind, weights.sha256),
            base=weights.title or weights.name,
            base_sha256=weights.sha256,
            licence=weights.licence,
        )
        return cls(
            kind,
            label,
            ScalarScorer(
                model,
                ChatTokenizer(tokenizer, name=name),
                context_length(model.body),
                tokens=tokens,
            ),
            lineage,
        )

    def without_appended_end(self) -> PreferenceJudge:
        """Returns a copy of this judge for training.

        It scores an answer that was cut at its last sampled token; this judge appends an end token
        to it first.
        """
        judge = PreferenceJudge(self.kind, self.name, self.scorer, self.lineage)
        judge.closes_cut_answers = False
        return judge

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        """Returns one value for the whole answer; an empty, failed or too long answer is
        unscored.
        """
        missing = check_missing_text(self, sample, response)
        if missing is not None:
            return missing
        text = text_of_message(response.message)
        try:
            is_cut = response.finish_reason == "length"
            row = self.scorer.row(
                sample.conversation, text, end=self.closes_cut_answers or not is_cut
            )
        except AnswerTooLong:
            message = (
                f"the answer is longer than the {self.scorer.window} tokens that the model "
                "was trained on"
            )
            return make_unscored(self, sample, response, "too-long", message)
        except UserError as error:
            return make_unscored(self, sample, response, "template", str(error))
        try:
            preference_score = await self._batcher().score(row)
        except RuntimeError as error:
            return make_unscored(self, sample, response, "model", str(error))
        if not math.isfinite(preference_score):
            return make_unscored(
                self, sample, response, "not-finite", f"the model gave {preference_score}"
            )
        if self.kind == "reward":
            # A reward has no zero with a meaning, so no verdict can be read from its sign.
            return make_judgement(self, sample, response, None, value=preference_score)
        return make_judgement(
            self,
            sample,
            response,
            preference_score > 0,
            value=preference_score,
            score=1 / (1 + math.exp(-preference_score)),
        )

    def _batcher(self) -> _ScoreBatcher:
        loop = asyncio.get_running_loop()
        values = self._batchers.get(id(loop))
        # id() of a closed loop may be reused by a new one, hence the identity check.
        if values is None or values[0] is not loop:
            self._batchers = {k: v for k, v in self._batchers.items() if not v[0].is_closed()}
            values = self._batchers[id(loop)] = (loop, _ScoreBatcher(self.scorer))
        return values[1]

    async def rank(self, conversation: Conversation, candidates: Sequence[str]) -> list[float]:
        """Returns a score for each candidate, higher is better (minus the cost); -inf for one that
        does not fit.
        """
        rows: list[list[int] | None] = []
        for text in candidates:
            try:
                rows.append(self.scorer.row(conversation, text))
            except AnswerTooLong:
                rows.append(None)
        values = iter(
            await asyncio.to_thread(self.scorer.scores, [r for r in rows if r is not None])
        )
        sign = -1.0 if self.kind == "cost" else 1.0
        return [-math.inf if r is None else sign * next(values) for r in rows]


def _read_card(path: Path) -> _ModelCard:
    try:
        return msgspec.json.decode(read_input_bytes(path / "truing.json"), type=_ModelCard)
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{path / 'truing.json'}: {error}") from error


def _build(args: Args, kind: Kind) -> PreferenceJudge:
    if not args.name:
        raise args.fault(f"give the folder of a {kind} model: {kind}:DIR")
    options: dict[str, Any] = {
        "dtype": args.text("dtype", "float32"),
        "device": args.text("device", "auto"),
    }
    tokens = args.integer("batch", 4096)
    if tokens < 1:
        raise args.fault(f"batch={tokens}: at least 1 token")
    args.reject_unknown()  # report a wrong argument before the weights are loaded
    return PreferenceJudge.load(kind, args.name, tokens=tokens, **options)


def build_reward(args: Args) -> PreferenceJudge:
    """Returns the judge of a `reward:DIR` or `preference:DIR` spec."""
    return _build(args, "reward")


def build_cost(args: Args) -> PreferenceJudge:
    """Returns the judge of a `cost:DIR` spec."""
    return _build(args, "cost")
