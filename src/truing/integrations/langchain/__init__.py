"""Rails in LangChain 1.x and LangGraph (the `langchain` extra): `RailsMiddleware` for agents of
`create_agent`, and `GuardedChatModel`, a chat model behind rails for chains and graphs.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "chat_model": "GuardedChatModel",
        "messages": "read_content read_tools",
        "middleware": "RailsMiddleware",
        "turns": "ChatRails",
    },
)
