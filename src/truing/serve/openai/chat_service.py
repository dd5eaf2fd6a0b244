"""What the route handlers share: the models, admission, metrics, and the way from a conversation to
answers that are counted, logged and audited.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from litestar import Request
from msgspec.structs import replace

from truing.core.errors import PlanError, UserError
from truing.core.ids import stream_seed
from truing.core.protocols import Judge, Model, iterate_models
from truing.core.types import Answer, Conversation, Failure, Sampling
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.conversation_check import CheckResult, NoStageError
from truing.serve.openai.admission import AdmissionControl, RequestRefused
from truing.serve.openai.approvals import CURRENT_CLIENT, Approvals, Client
from truing.serve.openai.audit import HarmAudit
from truing.serve.openai.chat_page.pages import ChatPage
from truing.serve.openai.conversation_memory import ConversationMemory
from truing.serve.openai.metrics import ServerMetrics
from truing.serve.openai.model_router import ModelRouter, UnknownConfig
from truing.serve.openai.request_checks import ClientTurn
from truing.serve.openai.request_log import RequestRecord, record_of
from truing.serve.openai.shared_state import SharedState
from truing.serve.openai.tracing import TurnTracer

MAX_COMBINED = 8  # configurations of one request


def answer_for_client(model: Model, answer: Answer) -> Answer:
    """Returns an answer without the evidence in its rulings that clients may not see."""
    rulings = answer.rulings
    for inner in iterate_models(model):  # the rails of an agent stand inside of it
        if isinstance(inner, GuardedModel):
            rulings = inner.rulings_for_clients(rulings)
    return replace(answer, rulings=rulings)


class ChatService:
    """State shared by the route handlers (stored in app.state.chat)."""

    def __init__(
        self,
        router: ModelRouter,
        admission: AdmissionControl,
        *,
        judge: Judge | None = None,
        audit: HarmAudit | None = None,
        tracer: TurnTracer | None = None,
    ) -> None:
        self.router, self.admission, self.judge = router, admission, judge
        self.audit, self.tracer = audit, tracer
        self.shared: SharedState | None = None
        self.memory = ConversationMemory()
        self.approvals: Approvals | None = None
        self.page: ChatPage | None = None
        self.metrics = ServerMetrics()

    async def find_obstacle(self) -> str:
        """Returns why this process should get no requests now; "" if it should."""
        if self.admission.draining or self.admission.leaving:
            return "draining"
        for shared in (self.shared, self.memory.store):
            fault = "" if shared is None else await shared.find_fault()
            if fault:
                return fault
        return ""

    async def select_model(self, config_ids: Sequence[str]) -> Model:
        """Returns the model of a request. Raises RequestRefused for an unknown configuration (404),
        and for several that cannot be combined (400).
        """
        try:
            if len(config_ids) < 2:
                return self.router.select(next(iter(config_ids), None))
            if len(config_ids) > MAX_COMBINED:
                raise PlanError(f"at most {MAX_COMBINED} configurations are combined")
            # In a thread: the rails of a new combination are built.
            return await asyncio.to_thread(self.router.combine, config_ids)
        except UnknownConfig as error:
            param = "guardrails.config_ids" if len(config_ids) > 1 else "guardrails.config_id"
            raise RequestRefused(404, str(error), param=param) from error
        except UserError as error:
            raise RequestRefused(400, str(error), param="guardrails.config_ids") from error

    async def take_slot(self, request: Request[Any, Any, Any]) -> None:
        """Waits for a slot and holds it until the request is over, its stream included, or its
        client has left. Raises RequestRefused (429) where none becomes free.
        """
        record = record_of(request.scope)
        # For the rail `ask a person`, which runs in the tasks of this request.
        CURRENT_CLIENT.set(Client(record.tenant, record.config or ""))
        stack = record.stack
        await stack.enter_async_context(self.admission.slot())
        stack.enter_context(self.metrics.in_flight.track_inprogress())

    async def generate_answers(
        self,
        model: Model,
        conversation: Conversation,
        sampling: Sampling,
        client: ClientTurn,
        record: RequestRecord,
        explicit_fields: frozenset[str] | None = None,
    ) -> tuple[Answer, ...]:
        """Returns the answers of a model. Raises RequestRefused at a time-out (504) or a failure of
        the model (502).

        `explicit_fields` are the sampling fields set by the request (defaults do not override the
        configuration).
        """
        started_ns = time.time_ns()
        answers: tuple[Answer, ...]
        try:
            async with asyncio.timeout(self.admission.limits.seconds):
                if isinstance(model, GuardedModel):
                    answers = await self._generate_guarded(
                        model, conversation, sampling, client, record.tenant, explicit_fields
                    )
                else:
                    answers = await model.generate(conversation, sampling)
        except TimeoutError:
            seconds = self.admission.limits.seconds
            raise RequestRefused(504, f"no answer in {seconds:g} s", "timeout_error") from None
        self.record_answers(model, conversation, answers, record, started_ns)
        return tuple(answer_for_client(model, answer) for answer in answers)

    async def check_conversation(
        self,
        model: GuardedModel,
        conversation: Conversation,
        sampling: Sampling,
        client: ClientTurn,
        record: RequestRecord,
    ) -> CheckResult:
        """Returns whether the rails allow a conversation. Raises RequestRefused where it contains
        no stage (400), and at a time-out (504).
        """
        try:
            async with asyncio.timeout(self.admission.limits.seconds):
                decision = await model.check(
                    conversation, tools=sampling.tools, context=client.context
                )
        except TimeoutError:
            seconds = self.admission.limits.seconds
            raise RequestRefused(504, f"no decision in {seconds:g} s", "timeout_error") from None
        except NoStageError as error:
            raise RequestRefused(400, str(error), param="messages") from error
        record.decision = {True: "allow", False: "block", None: "incomplete"}[decision.allowed]
        return replace(decision, rulings=model.rulings_for_clients(decision.rulings))

    async def _generate_guarded(
        self,
        model: GuardedModel,
        conversation: Conversation,
        sampling: Sampling,
        client: ClientTurn,
        session: str,
        explicit_fields: frozenset[str] | None,
    ) -> tuple[Answer, ...]:
        """Each of the n answers is a turn of its own through all rails."""
        seeds = [sampling.seed]
        if sampling.n > 1:
            seeds = [stream_seed(sampling.seed, i) for i in range(sampling.n)]
            if explicit_fields is not None:
                # A seed in the configuration would make all n answers the same.
                explicit_fields |= {"seed"}
        turns = [
            model.answer(
                conversation,
                replace(sampling, n=1, seed=seed),
                options=client.options,
                context=client.context,
                session=session,
                explicit_fields=explicit_fields,
                record=client.record,
            )
            for seed in seeds
        ]
        if len(turns) == 1:  # without a task of its own
            return (await turns[0],)
        return tuple(await asyncio.gather(*turns))

    def record_answers(
        self,
        model: Model,
        conversation: Conversation,
        answers: tuple[Answer, ...],
        record: RequestRecord,
        started_ns: int,
    ) -> None:
        """Traces, counts, logs and audits answers. Raises RequestRefused where one of them
        failed.
        """
        record.note_answers(answers, (time.time_ns() - started_ns) / 1e6)
        if self.tracer is not None:
            for answer in answers:
                self.tracer.record_turn(model.name, answer, started_ns)
        failure = next((a.failure for a in answers if a.failure is not None), None)
        if failure is not None:
            raise _failure_refusal(failure)
        self.metrics.count_answers(answers)
        if self.audit is not None:
            self.audit.observe(conversation, answers[0])


def _failure_refusal(failure: Failure) -> RequestRefused:
    if failure.kind == "options":
        return RequestRefused(400, failure.message, param="guardrails.options")
    status = 504 if failure.kind == "timeout" else 502
    return RequestRefused(status, f"{failure.kind}: {failure.message}", "upstream_error")
