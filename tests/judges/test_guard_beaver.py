"""The labels of beaver-dam's head."""

from __future__ import annotations

import pytest

from truing.core.errors import UserError
from truing.core.taxonomy import load_taxonomy
from truing.judges.guard_beaver import TEMPLATE, read_head_labels

IDS = list(load_taxonomy("beavertails").ids)


def test_labels_follow_the_order_of_the_head() -> None:
    reversed_ids = IDS[::-1]
    # Keys are strings in a JSON config; as strings, "10" would come before "2".
    as_strings = {str(i): name for i, name in enumerate(reversed_ids)}
    assert read_head_labels(as_strings, "folder") == reversed_ids
    assert read_head_labels(dict(enumerate(IDS)), "folder") == IDS


@pytest.mark.parametrize("labels", [IDS[:13], [*IDS[:13], "other"], [*IDS, IDS[0]]])
def test_other_labels_are_refused(labels: list[str]) -> None:
    message = f"folder: its {len(labels)} labels are not the 14 BeaverTails categories"
    with pytest.raises(UserError, match=message):
        read_head_labels(dict(enumerate(labels)), "folder")


def test_the_published_prompt_format() -> None:
    assert TEMPLATE == "BEGINNING OF CONVERSATION: USER: {prompt} ASSISTANT:{response}"
