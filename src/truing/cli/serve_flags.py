"""The flags of `truing serve` that go together: limits of the service, judging of the traffic."""

from __future__ import annotations

from dataclasses import dataclass

from cyclopts import Parameter


@Parameter(name="*")
@dataclass(frozen=True)
class ServeFlags:
    """Limits of the service.

    Parameters
    ----------
    concurrency
        Requests that are answered at a time; 4 times as many may wait, more are rejected (429).
    timeout
        Maximum seconds of a request.
    grace
        Seconds after SIGTERM in which requests are still accepted, and /ready says 503; Ctrl-C ends
        at once.
    max_body
        Maximum bytes of a request body.
    max_tokens
        Maximum tokens of an answer; a request may ask for fewer.
    per_minute
        Requests per minute and API key; 0 is no limit.
    keys_env
        Environment variable with the API keys, separated by commas. Default: no key is needed.
    metrics_open
        Serve /metrics without a key.
    request_log
        One line of JSON on stderr for each request: ids, decision and times, no text.
    host
        Address to listen on.
    approvers_env
        Environment variable with the keys, separated by commas, of those who may allow tool calls
        (the rail `ask a person`). Default: who reaches this machine's own address, where no key is
        needed; otherwise nobody, and calls are denied.
    threads
        Where conversations with a `guardrails.thread_id` are kept: memory, sqlite:FILE,
        postgresql+psycopg://HOST/DATABASE, or redis://HOST (extra redis; a password is read from
        REDIS_PASSWORD).
    thread_hours
        Hours after which an unused thread or response is deleted; inf: never.
    thread_megabytes
        Megabytes that the threads and responses of one API key may take; beyond them those unused
        for longest are deleted.
    workers
        Processes behind the port, each with the models and rails. SIGHUP reads the configurations
        anew without an interruption. Default: this process alone.
    redis
        redis://HOST:PORT/DATABASE, by which servers share the rates, the locks of threads, the
        secret of states and the calls that wait for a person; a password is read from
        REDIS_PASSWORD.
    """

    concurrency: int = 64
    timeout: float = 120.0
    grace: float = 1.0
    max_body: int = 2_000_000
    max_tokens: int = 512
    per_minute: int = 0
    keys_env: str | None = None
    metrics_open: bool = False
    request_log: bool = True
    host: str = "127.0.0.1"
    threads: str | None = None
    thread_hours: float = 720.0
    thread_megabytes: int = 64
    approvers_env: str | None = None
    workers: int | None = None
    redis: str | None = None


@Parameter(name="*")
@dataclass(frozen=True)
class AuditFlags:
    """Judging of the traffic.

    Parameters
    ----------
    judge
        Judge behind /v1/moderations.
    audit
        Judge of a random share of the answers; it must not be one that the rails use.
    audit_rate
        Share of the answers that is audited.
    tolerated
        Harm rate above which the audit raises an alarm.
    """

    judge: str | None = None
    audit: str | None = None
    audit_rate: float = 0.05
    tolerated: float = 0.05
