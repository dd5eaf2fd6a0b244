"""The OpenAI-compatible server: chat completions, moderations and checks, with rails or without."""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "admission": "AdmissionControl",
        "app": "ask_people chat_app keep_threads share_state show_chat_page",
        "approvals": "Approvals",
        "audit": "HarmAudit",
        "graceful_server": "GracefulServer",
        "http_protocol": "bounded_protocol",
        "limits": "ServerLimits",
        "local_host": "LocalHostOnly names_this_machine",
        "metrics": "PROCESSES_FOLDER",
        "model_router": "AskPerson ModelRouter find_configs",
        "request_log": "log_to_stderr",
        "shared_approvals": "SharedApprovals",
        "shared_state": "SharedState open_shared_state",
        "stored_threads": "ThreadBounds",
        "thread_stores": "open_thread_store",
        "tracing": "tracer_from_environment",
        "worker_processes": "WorkerLink WorkerProcesses forget_metrics",
    },
)
