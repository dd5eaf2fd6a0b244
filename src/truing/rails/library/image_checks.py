"""Images in the user's message, for a guard model that reads them.

The main model gets an image only where a guard has let the very same one pass: so an image is the
``data:`` address itself, not a link, behind which the guard and the model may see two pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from truing.core.protocols import Judge, Model
from truing.rails.runtime.chat_messages import ChatMessage, ModelPrompt, image_addresses
from truing.rails.runtime.turn_context import TurnContext

IMAGE_PREFIX = "data:image/"


def find_new_images(turn: TurnContext) -> tuple[str, ...]:
    """Returns the addresses of the images in the message that the input rails read."""
    return image_addresses(turn.state.context.get("user_message"))


def find_image_fault(images: Sequence[str], model: Model, judge: Judge | None) -> str | None:
    """Returns why a guard cannot read images, or None."""
    if judge is not None:
        return "the guard reads no images: give it a prompt of your own, and a model that does"
    if not getattr(model, "reads_images", False):
        return f"the guard model {model.name} reads no images"
    if not all(image.startswith(IMAGE_PREFIX) for image in images):
        return "an image is checked only if the message holds it, as a data: address"
    return None


def add_images(prompt: ModelPrompt, images: Sequence[str]) -> ModelPrompt:
    """Returns a prompt with the images in its last message of the user."""
    if not images:
        return prompt
    rows: list[Any]
    if isinstance(prompt, str):
        rows = [{"type": "user", "content": prompt}]
    else:
        rows = [row.to_dict() if isinstance(row, ChatMessage) else dict(row) for row in prompt]
    users = [i for i, row in enumerate(rows) if (row.get("type") or row.get("role")) == "user"]
    if not users:
        rows.append({"type": "user", "content": ""})
    target = rows[users[-1] if users else -1]
    text = target.get("content")
    parts = list(text) if isinstance(text, list) else [{"type": "text", "text": str(text or "")}]
    parts += [{"type": "image_url", "image_url": {"url": image}} for image in images]
    target["content"] = parts
    return rows
