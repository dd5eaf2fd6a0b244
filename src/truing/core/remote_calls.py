"""Calls to an object that counts for several processes."""

from __future__ import annotations

from typing import Any, Protocol


class RemoteCalls(Protocol):
    """Calls methods of an object, which may be in another process."""

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Returns the result of a method; raises BudgetExceeded if the object is gone."""
        ...

    def tell(self, method: str, *arguments: Any) -> None:
        """Calls a method without waiting for it; calls arrive in their order."""
        ...
