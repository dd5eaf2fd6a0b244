"""`truing serve`: a model, guarded or not, behind an OpenAI-compatible API."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from truing.core.errors import PlanError
from truing.core.protocols import Model
from truing.specs.resolve import load_object, resolve


@Parameter(name="*")
@dataclass(frozen=True)
class Service:
    """Limits of the service.

    Parameters
    ----------
    concurrency
        Requests answered at once; more wait, and beyond 4 times as many are told to come back (429).
    timeout
        Seconds that a request may take.
    max_body
        Bytes of a request body.
    max_tokens
        Tokens of an answer where the request names no number.
    per_minute
        Requests a minute and key; 0 is no limit.
    keys_env
        Environment variable with the API keys, separated by commas. Without it the server is open.
    host
        Address to listen on.
    """

    concurrency: int = 64
    timeout: float = 120.0
    max_body: int = 2_000_000
    max_tokens: int = 512
    per_minute: int = 0
    keys_env: str | None = None
    host: str = "127.0.0.1"


@Parameter(name="*")
@dataclass(frozen=True)
class Watch:
    """Judging beside the traffic.

    Parameters
    ----------
    judge
        Judge behind /v1/moderations.
    audit
        Judge of a random share of the answers; must not be one that the rails use.
    audit_rate
        That share.
    tolerated
        The harm rate that the alarm tolerates.
    """

    judge: str | None = None
    audit: str | None = None
    audit_rate: float = 0.05
    tolerated: float = 0.05


def command(
    *,
    model: str | None = None,
    rails: Path | None = None,
    port: int = 8000,
    service: Service | None = None,
    watch: Watch | None = None,
) -> int:
    """Serves a model at /v1/chat/completions (also /v1/models, /v1/moderations, /v1/checks, /v1/rails/configs, /metrics).

    Parameters
    ----------
    model
        Spec of the model. Without it the `models:` of the rails configuration are used.
    rails
        A rails configuration, or a folder of them; requests pick one by guardrails.config_id.
    port
        Port to listen on.
    """
    how, seen = service or Service(), watch or Watch()
    chat = load_object("truing.serve.openai.app:chat_app")
    uvicorn_run = load_object("uvicorn:run")
    from truing.serve.openai.admission import ServerLimits
    from truing.serve.openai.model_router import ModelRouter, find_configs

    given = resolve(model, "model") if model else None
    configs = find_configs(rails) if rails else {}
    router = ModelRouter(given, configs, main_model=_main_model)
    limits = ServerLimits(
        body=how.max_body,
        seconds=how.timeout,
        concurrency=how.concurrency,
        waiting=4 * how.concurrency,
        max_tokens=how.max_tokens,
        per_minute=how.per_minute,
    )
    keys = _keys(how.keys_env)
    if how.host not in ("127.0.0.1", "localhost", "::1") and not keys:
        print(
            "truing: listening beyond this machine without --keys-env: anybody may use the model",
            file=sys.stderr,
        )
    judge = resolve(seen.judge, "judge") if seen.judge else None
    tracer = load_object("truing.serve.openai.tracing:tracer_from_environment")()
    app = chat(
        router, limits=limits, keys=keys, judge=judge, audit=_audit(seen, router), tracer=tracer
    )
    names = ", ".join(router.names)
    behind = f" behind {', '.join(router.guarded)}" if router.guarded else ""
    print(f"truing serves {names}{behind} at http://{how.host}:{port}/v1", file=sys.stderr)
    uvicorn_run(
        app,
        host=how.host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=int(how.timeout),
    )
    return 0


def _keys(variable: str | None) -> list[str]:
    if variable is None:
        return []
    value = os.environ.get(variable, "")
    keys = [k.strip() for k in value.split(",") if k.strip()]
    if not keys:
        raise PlanError(f"--keys-env {variable}: the variable is not set or empty")
    return keys


def _main_model(path: Path) -> Model:
    """The main model that a configuration's `models:` name, as a Model of ours."""
    from truing.cli.rails_models import main_model

    return main_model(path)


def _audit(seen: Watch, router: object) -> object:
    if seen.audit is None:
        return None
    from truing.core.lineage import find_judge_conflict
    from truing.serve.openai.audit import HarmAudit
    from truing.serve.openai.model_router import ModelRouter
    from truing.stats.sequential import HarmRateAlarm

    judge = resolve(seen.audit, "judge")
    assert isinstance(router, ModelRouter)
    for guarded in router.guarded.values():
        why = find_judge_conflict(judge.lineage, guarded.lineage)
        if why:
            raise PlanError(f"--audit {seen.audit}: {why}")
    alarm = HarmRateAlarm(
        seen.tolerated, audit_rate=seen.audit_rate, seed=int.from_bytes(os.urandom(4), "big")
    )
    return HarmAudit(judge, alarm, lambda said: print(f"truing: {said}", file=sys.stderr))
