"""`truing serve`: serves a model, guarded or not, behind an OpenAI-compatible API."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socket import AF_INET, AF_INET6, create_server, socket
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from truing.cli.parameters import KeyVariables
from truing.cli.serve_flags import AuditFlags, ServeFlags
from truing.cli.tables import print_text
from truing.core.errors import PlanError
from truing.core.lineage import find_judge_conflict
from truing.core.protocols import Judge, Model
from truing.specs.extras import needs_extra
from truing.specs.resolve import resolve
from truing.stats.sequential import HarmRateAlarm

if TYPE_CHECKING:
    from litestar import Litestar

    from truing.serve.openai.admission import AdmissionControl
    from truing.serve.openai.approvals import Approvals
    from truing.serve.openai.audit import HarmAudit
    from truing.serve.openai.limits import ServerLimits
    from truing.serve.openai.model_router import AskPerson, ModelRouter
    from truing.serve.openai.shared_state import SharedState
    from truing.serve.openai.worker_processes import WorkerLink

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
# Requests that wait for a worker, per worker; beyond that the server answers 429.
WAITING_PER_WORKER = 4
MAX_WORKERS = 256
MAX_GRACE = 600
_BACKLOG = 2048  # connections that wait for a process to accept them; uvicorn's default


def command(
    *,
    model: str | None = None,
    rails: Path | None = None,
    port: int = 8000,
    trust_code: bool = False,
    allow_key_env: KeyVariables = None,
    flags: ServeFlags | None = None,
    auditing: AuditFlags | None = None,
) -> int:
    """Serves a model with an OpenAI-compatible API.

    The routes are /v1/chat/completions, /v1/models, /v1/moderations, /v1/checks, /v1/rails/configs
    and /metrics.

    Parameters
    ----------
    model
        Spec of the model. Default: the `models:` of the rails configuration.
    rails
        A rails configuration, or a folder of them; requests name one in guardrails.config_id.
    port
        Port to listen on.
    trust_code
        Run the code of --rails, such as actions.py (`truing rails check` lists it).
    allow_key_env
        An environment variable with a key that --rails may send to the address that it names.
    """
    job = ServeJob(
        model,
        rails,
        port,
        trust_code,
        tuple(allow_key_env or ()),
        flags or ServeFlags(),
        auditing or AuditFlags(),
    )
    with needs_extra("truing serve", "serve"):
        import uvicorn  # noqa: F401 - named here, before processes start
    job.check()
    if job.flags.workers is None:
        _serve(job)
        return 0
    return _serve_by_workers(job)


@dataclass(frozen=True)
class ServeJob:
    """What is served, and how; each worker process builds its own app of it."""

    model: str | None
    rails: Path | None
    port: int
    trust_code: bool
    key_variables: tuple[str, ...]
    flags: ServeFlags
    auditing: AuditFlags

    @property
    def keys(self) -> list[str]:
        """The API keys; raises PlanError if --keys-env names a variable without any."""
        return _read_keys(self.flags.keys_env)

    def check(self) -> None:
        """Raises PlanError for flags that do not go together; warns of an open port."""
        flags, keys = self.flags, self.keys
        _read_limits(flags)
        if not 0 <= flags.grace <= MAX_GRACE:
            raise PlanError(f"serve: --grace {flags.grace:g}: 0 to {MAX_GRACE} seconds")
        if flags.workers is not None:
            _check_workers(flags)
        if flags.host not in LOCAL_HOSTS and not keys:
            print_text(
                f"truing: {flags.host} is reachable from other machines and --keys-env is not "
                f"given: anybody may use the model",
                file=sys.stderr,
            )

    def build_app(self) -> tuple[Any, ModelRouter, AdmissionControl]:
        """Returns the ASGI app, what it serves, and its admission; raises PlanError with all
        faults.
        """
        from truing.serve.openai.app import ask_people, share_state
        from truing.serve.openai.local_host import LocalHostOnly
        from truing.serve.openai.shared_state import open_shared_state

        flags, keys = self.flags, self.keys
        is_private = flags.host in LOCAL_HOSTS and not keys
        approver_keys = _read_approver_keys(flags)
        shared = open_shared_state(flags.redis) if flags.redis else None
        # Without Redis a question waits in the process that asks it: no other could answer it.
        may_ask = (shared is not None or (flags.workers or 1) == 1) and (
            bool(approver_keys) or is_private
        )
        approvals = _make_approvals(approver_keys, shared) if may_ask else None
        router = _build_router(
            self.model,
            self.rails,
            self.trust_code,
            self.key_variables,
            approvals.ask if approvals is not None else None,
        )
        app = _build_app(router, flags, self.auditing, [*keys, *approver_keys])
        if approvals is not None:
            ask_people(app, approvals)
        if shared is not None:
            share_state(app, shared)
        admission: AdmissionControl = app.state.chat.admission
        return (LocalHostOnly(app) if is_private else app), router, admission


def _serve(
    job: ServeJob, sockets: list[socket] | None = None, link: WorkerLink | None = None
) -> None:
    """Serves until a signal: on the job's port, or as a worker on the sockets of its parent."""
    import uvicorn

    from truing.serve.openai.graceful_server import GracefulServer
    from truing.serve.openai.http_protocol import bounded_protocol
    from truing.serve.openai.request_log import log_to_stderr

    flags = job.flags
    app, router, admission = job.build_app()
    if flags.request_log:
        log_to_stderr()
    _print_skipped(router)
    if link is None:
        _print_served(job, router)

    config = uvicorn.Config(
        app,
        host=flags.host,
        port=job.port,
        http=bounded_protocol(_read_limits(flags)),
        ws="none",
        # uvicorn's own warnings repeat what clients send; the log of requests takes their place.
        log_level="error",
        access_log=False,
        proxy_headers=False,  # nothing here reads the client's address or the scheme
        server_header=False,
        # Answers that are being generated at a shutdown may finish.
        timeout_graceful_shutdown=int(flags.timeout),
    )
    GracefulServer(config, admission, flags.grace, link).run(sockets)


def _serve_in_worker(job: ServeJob, listener: socket, link: WorkerLink) -> None:
    link.end_with_parent()
    _serve(job, [listener], link)


def _serve_by_workers(job: ServeJob) -> int:
    """Serves by processes that this one starts, replaces and ends; returns the exit status."""
    from truing.serve.openai.metrics import PROCESSES_FOLDER
    from truing.serve.openai.worker_processes import WorkerProcesses, forget_metrics

    flags = job.flags
    try:
        listener = create_server(
            (flags.host, job.port),
            family=AF_INET6 if ":" in flags.host else AF_INET,
            backlog=_BACKLOG,
        )
    except OSError as error:
        raise PlanError(f"serve: {flags.host}:{job.port}: {error.strerror or error}") from error

    def report(message: str) -> None:
        print_text(f"truing: {message}", file=sys.stderr)

    with listener, TemporaryDirectory(prefix="truing-metrics-") as metrics_folder:
        os.environ[PROCESSES_FOLDER] = metrics_folder
        workers = WorkerProcesses(
            partial(_serve_in_worker, job, listener),
            flags.workers or 1,
            # uvicorn itself waits as long as an answer may take.
            drain_seconds=flags.grace + flags.timeout + 5,
            report=report,
            on_ended=forget_metrics,
            on_stopping=listener.close,
        )
        print_text(
            f"truing serves http://{flags.host}:{job.port}/v1 with {flags.workers} workers",
            file=sys.stderr,
        )
        return workers.run()


def _check_workers(flags: ServeFlags) -> None:
    """Raises PlanError for flags that would hold in each worker, and not in all together."""
    faults = []
    if not 1 <= (flags.workers or 0) <= MAX_WORKERS:
        faults.append(f"--workers {flags.workers}: 1 to {MAX_WORKERS}")
    elif flags.workers and flags.workers > 1:
        if flags.per_minute and not flags.redis:
            faults.append("--per-minute holds for all workers only with --redis")
        if flags.threads == "memory":
            faults.append("--threads memory is of one worker: give a database")
        if flags.approvers_env and not flags.redis:
            faults.append("--approvers-env works with several workers only with --redis")
    if faults:
        raise PlanError(*(f"serve: {fault}" for fault in faults))


def _print_served(job: ServeJob, router: ModelRouter) -> None:
    """Says what is served where."""
    behind = f" behind {', '.join(router.guarded)}" if router.guarded else ""
    url = f"http://{job.flags.host}:{job.port}/v1"
    print_text(f"truing serves {', '.join(router.names)}{behind} at {url}", file=sys.stderr)


def _build_app(
    router: ModelRouter,
    flags: ServeFlags,
    auditing: AuditFlags,
    keys: list[str],
) -> Litestar:
    """Returns the app; raises PlanError for a judge or a store that cannot be opened."""
    from truing.serve.openai.app import chat_app, keep_threads, show_chat_page
    from truing.serve.openai.stored_threads import ThreadBounds
    from truing.serve.openai.thread_stores import open_thread_store
    from truing.serve.openai.tracing import tracer_from_environment

    app = chat_app(
        router,
        limits=_read_limits(flags),
        keys=keys,
        judge=resolve(auditing.judge, "judge") if auditing.judge else None,
        audit=_make_audit(auditing, router),
        tracer=tracer_from_environment(),
        metrics_open=flags.metrics_open,
    )
    if router.guarded and (flags.host in LOCAL_HOSTS or keys):
        # Beyond this machine only for who has a key.
        show_chat_page(app, needs_key=bool(keys))
    if flags.threads:
        bounds = ThreadBounds.of_flags(flags.thread_hours, flags.thread_megabytes)
        keep_threads(app, open_thread_store(flags.threads, bounds))
    return app


def _print_skipped(router: ModelRouter) -> None:
    """Says which configurations are not served, and why."""
    for config_id, faults in router.skipped.items():
        for fault in faults:
            print_text(f"truing: {config_id} is not served: {fault}", file=sys.stderr)


def _build_router(
    model: str | None,
    rails: Path | None,
    trust_code: bool,
    key_variables: Sequence[str],
    ask_person: AskPerson | None,
) -> ModelRouter:
    """Returns the models that are served; raises PlanError, with the faults of all."""
    from truing.cli.rails_models import load_main_model
    from truing.serve.openai.model_router import ModelRouter, find_configs

    served_model: Model | None = resolve(model, "model") if model else None
    return ModelRouter(
        served_model,
        find_configs(rails) if rails else {},
        main_model=partial(load_main_model, trust_code=trust_code, key_variables=key_variables),
        trust_code=trust_code,
        key_variables=key_variables,
        ask_person=ask_person,
    )


def _read_limits(flags: ServeFlags) -> ServerLimits:
    """Returns the limits of the flags; raises PlanError for one that is not positive."""
    from truing.serve.openai.limits import ServerLimits

    try:
        return ServerLimits(
            body=flags.max_body,
            seconds=flags.timeout,
            concurrency=flags.concurrency,
            waiting=WAITING_PER_WORKER * flags.concurrency,
            max_tokens=flags.max_tokens,
            per_minute=flags.per_minute,
        )
    except ValueError as error:
        raise PlanError(f"serve: {error}") from error


def _read_keys(variable: str | None, flag: str = "--keys-env") -> list[str]:
    """Returns the API keys in an environment variable; raises PlanError if it holds none."""
    if variable is None:
        return []
    keys = [key.strip() for key in os.environ.get(variable, "").split(",") if key.strip()]
    if not keys:
        raise PlanError(f"{flag} {variable}: the variable is not set or empty")
    return keys


def _read_approver_keys(flags: ServeFlags) -> list[str]:
    """Returns the keys of --approvers-env; raises PlanError where clients need none."""
    if flags.approvers_env is None:
        return []
    if flags.keys_env is None:
        raise PlanError("--approvers-env needs --keys-env: without keys clients are not told apart")
    return _read_keys(flags.approvers_env, "--approvers-env")


def _make_approvals(keys: list[str], shared: SharedState | None) -> Approvals:
    """Returns where calls wait for a person: in this process, or in Redis."""
    from truing.serve.openai.approvals import Approvals
    from truing.serve.openai.shared_approvals import SharedApprovals

    return Approvals(keys) if shared is None else SharedApprovals(shared.connection, keys)


def _make_audit(flags: AuditFlags, router: ModelRouter) -> HarmAudit | None:
    """Returns the audit of --audit; raises PlanError if its judge is one that the rails use."""
    if flags.audit is None:
        return None
    from truing.serve.openai.audit import HarmAudit

    judge: Judge = resolve(flags.audit, "judge")
    for guarded in router.guarded.values():
        conflict = find_judge_conflict(judge.lineage, guarded.lineage)
        if conflict:
            raise PlanError(f"--audit {flags.audit}: {conflict}")
    # A random seed: clients could otherwise tell which answers are audited.
    seed = int.from_bytes(os.urandom(4), "big")
    alarm = HarmRateAlarm(flags.tolerated, audit_rate=flags.audit_rate, seed=seed)
    return HarmAudit(
        judge, alarm, lambda message: print_text(f"truing: {message}", file=sys.stderr)
    )
