"""`truing ui`: pages over a folder of runs, for the browser of this machine."""

from __future__ import annotations

import getpass
import ipaddress
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from truing.cli.parameters import AddressFlags
from truing.cli.tables import print_text
from truing.core.errors import UserError
from truing.specs.extras import needs_extra

PASSWORD_VARIABLE = "TRUING_UI_PASSWORD"
_MIN_PASSWORD, _MAX_PASSWORD = 10, 200


@Parameter(name="*")
@dataclass(frozen=True)
class UiAddressFlags(AddressFlags):
    """Where the app listens.

    Parameters
    ----------
    port
        Port to listen on.
    host
        Address to listen on. One that other machines reach needs a password: it is read from
        TRUING_UI_PASSWORD, or asked for.
    """

    port: int = 8200


def command(
    folder: Path = Path("."),
    /,
    *,
    address: UiAddressFlags | None = None,
    show: Annotated[bool, Parameter(name="--open", negative="")] = False,
    judge: Annotated[list[str] | None, Parameter(negative="")] = None,
) -> int:
    """Serves pages over the runs in a folder: figures, rows side by side, filters, search.

    Parameters
    ----------
    folder
        The folder that holds the runs, at any depth up to six.
    show
        Open the pages in the browser.
    judge
        A judge that the pages may start besides rules, the shipped moderation classifiers and
        keywords, with the files, keys and addresses that it names; can be repeated.
    """
    address = address or UiAddressFlags()
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder")
    address.check()
    with needs_extra("truing ui", "serve"):
        import uvicorn

        from truing.annotation.people import hash_phrase
        from truing.serve.ui.app import create_app
        from truing.serve.ui.app_state import UiOptions, UiState

    password = None if _serves_this_machine_only(address.host) else _read_password()
    password_hash = None if password is None else hash_phrase(password)
    options = UiOptions(password_hash=password_hash, port=address.port, judges=tuple(judge or ()))
    state = UiState(folder, options)
    link = address.url if password_hash else f"{address.url}?token={state.link_token}"
    print_text(f"truing ui: {state.folder} at {link} (Ctrl-C stops)", file=sys.stderr)
    if password_hash:
        print_text(
            f"truing: {address.host} is reachable from other machines, and passwords and texts "
            "are sent unencrypted: put a proxy that speaks https in front",
            file=sys.stderr,
        )
    if show:
        import webbrowser

        webbrowser.open(link)
    # Indexes are built in a thread; with the default interval of 5 ms it would delay each page.
    sys.setswitchinterval(0.0005)
    uvicorn.run(
        create_app(state),
        host=address.host,
        port=address.port,
        log_level="warning",
        # Addresses of pages hold what people search for.
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    return 0


def _serves_this_machine_only(host: str) -> bool:
    # Not keys.is_loopback: to connect to 0.0.0.0 reaches this machine, to listen there all others.
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read_password() -> str:
    """Returns the password of the app; raises UserError without a usable one."""
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if not password and sys.stdin.isatty():
        password = getpass.getpass("A password for the pages: ")
    if not _MIN_PASSWORD <= len(password) <= _MAX_PASSWORD:
        raise UserError(
            f"other machines reach this address, so the pages need a password of {_MIN_PASSWORD} "
            f"to {_MAX_PASSWORD} characters: set {PASSWORD_VARIABLE}"
        )
    return password
