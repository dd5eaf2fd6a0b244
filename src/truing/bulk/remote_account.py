"""The account of a budget in a process of a Ray cluster, as the workers call it."""

from __future__ import annotations

from typing import Any

from truing.core.errors import BudgetExceeded, RunError
from truing.evaluation.shared_account import AccountState

_GONE = (
    "the process that counts what the run spends has ended, so no more is asked; the answers so "
    "far are stored, and the same command continues"
)


class RemoteAccount:
    """An `AccountCalls` to a `SpendingAccount` that is an actor.

    It is sent to the workers. The actor is not started again when it dies: it would not know what
    is reserved.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Returns the result of a method; raises BudgetExceeded if the account is gone."""
        from ray.exceptions import RayError

        try:
            return await getattr(self._actor, method).remote(*arguments)
        except RayError as error:
            raise BudgetExceeded(_GONE) from error

    def tell(self, method: str, *arguments: Any) -> None:
        """Calls a method without waiting for it."""
        # What is told is never a new expense, and whoever asks next learns that the actor is gone.
        getattr(self._actor, method).remote(*arguments)


def read_account(ray: Any, actor: Any) -> AccountState:
    """Returns the state of an account; raises RunError if it is gone."""
    try:
        state: AccountState = ray.get(actor.state.remote())
    except ray.exceptions.RayError as error:
        raise RunError(_GONE) from error
    return state
