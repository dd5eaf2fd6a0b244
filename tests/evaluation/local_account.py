"""A shared account in this process, for workers in threads."""

from __future__ import annotations

import threading
from typing import Any

from truing.core.errors import BudgetExceeded
from truing.evaluation.shared_account import SpendingAccount


class LocalAccount:
    """Calls an account as the workers of a cluster do; `calls_left`: it is gone after so many."""

    def __init__(self, account: SpendingAccount, calls_left: float = float("inf")) -> None:
        self.account = account
        self.calls_left = calls_left
        self._lock = threading.Lock()

    async def ask(self, method: str, *arguments: Any) -> Any:
        with self._lock:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise BudgetExceeded("the account is gone")
            return getattr(self.account, method)(*arguments)

    def tell(self, method: str, *arguments: Any) -> None:
        with self._lock:
            if self.calls_left >= 0:
                getattr(self.account, method)(*arguments)
