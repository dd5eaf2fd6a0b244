"""What counts for all workers, in a process of a Ray cluster, as the workers call it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Any

from truing.core.errors import BudgetExceeded, RunError
from truing.evaluation.shared_account import AccountState
from truing.http.limits import SharedBudgets

_CONTINUES = "so no more is asked; the answers so far are stored, and the same command continues"

_SPEC_BUDGET = re.compile(r"\bbudget_(?:requests|tokens)\s*=")


class RemoteAccount:
    """`RemoteCalls` to an actor: a `SpendingAccount`, or the `SharedBudgets` of specs.

    It is sent to the workers. The actor is not started again when it dies: it would not know what
    was counted.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._told: list[Any] = []  # calls whose results nobody has seen

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Returns the result of a method; raises BudgetExceeded if the account is gone, or if this
        call or one that was told before has failed.
        """
        from ray.exceptions import RayError

        told, self._told = self._told, []
        result = getattr(self._actor, method).remote(*arguments)
        try:
            # In the order of the calls: what was told is done when this one is.
            *_, answer = await asyncio.gather(*told, result)
        except RayError as error:
            raise BudgetExceeded(_describe_failure(error)) from error
        return answer

    def tell(self, method: str, *arguments: Any) -> None:
        """Calls a method without waiting for it; the next `ask` raises if it fails."""
        self._told.append(getattr(self._actor, method).remote(*arguments))


def _describe_failure(error: Exception) -> str:
    """Returns what has happened to the process that counts: it has ended, or it raises."""
    from ray.exceptions import RayActorError

    if isinstance(error, RayActorError):
        failure = f"has ended ({type(error).__name__})"
    else:
        cause = getattr(error, "cause", None) or error
        # Without a cause, Ray's text is a whole remote traceback.
        text = (str(cause).strip().splitlines() or [""])[-1]
        failure = f"has failed ({type(cause).__name__}: {text})"
    return f"the process that counts what the run spends {failure}, {_CONTINUES}"


def read_account(ray: Any, actor: Any) -> AccountState:
    """Returns the state of an account; raises RunError if it is gone."""
    try:
        state: AccountState = ray.get(actor.state.remote())
    except ray.exceptions.RayError as error:
        raise RunError(_describe_failure(error)) from error
    return state


def start_counter(ray: Any, kind: type, *arguments: Any) -> Any:
    """Starts an actor of a class that counts for all workers; it is not started again."""
    return ray.remote(num_cpus=0, max_restarts=0)(kind).remote(*arguments)


def share_spec_budgets(ray: Any, specs: Iterable[str | None]) -> RemoteAccount | None:
    """Returns the calls to a process that counts the budgets in specs; None if they have none."""
    if not any(spec and _SPEC_BUDGET.search(spec) for spec in specs):
        return None
    return RemoteAccount(start_counter(ray, SharedBudgets))
