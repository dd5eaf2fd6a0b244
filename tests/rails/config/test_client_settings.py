"""What a configuration lets clients do, as a refusal tells them."""

from __future__ import annotations

from typing import Any

import pytest

from truing.rails.config.client_settings import ClientSettings


@pytest.mark.parametrize(
    ("allowed", "output_vars", "message"),
    [
        ([], True, "output_vars: this configuration lets clients read no variable"),
        ([], ["mood"], "output_vars: this configuration does not let clients read mood"),
        (["note"], ["note", "mood"], "does not let clients read mood"),
    ],
)
def test_the_variables_that_a_client_may_not_read_are_named(
    allowed: list[str], output_vars: Any, message: str
) -> None:
    settings = ClientSettings.of({"client_options": {"output_vars": allowed}})
    with pytest.raises(ValueError, match=message):
        settings.accept_options({"output_vars": output_vars})


def test_all_variables_are_those_that_clients_may_read() -> None:
    settings = ClientSettings.of({"client_options": {"output_vars": ["note", "mood"]}})
    accepted = settings.accept_options({"output_vars": True})
    assert accepted == {"output_vars": ["mood", "note"]}
    assert settings.accept_options({"output_vars": []}) == {"output_vars": []}
