"""API keys: from which environment variable they come, and to which host they may go.

A key goes only where its owner sent it. A variable that a spec names (`api_key_env=NAME`) goes to
that spec's address; the default variable goes to its vendor's own hosts and nowhere else. A key
leaves this machine encrypted (https), unless the spec says `allow_http=true`.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from truing.core.errors import SpecError
from truing.core.secret import Secret

if TYPE_CHECKING:
    from yarl import URL

OPENAI_VARIABLE = "OPENAI_API_KEY"

_BEDROCK_REGIONS = (
    *("us-east-1", "us-east-2", "us-west-2", "ca-central-1", "sa-east-1", "eu-central-1"),
    *("eu-west-1", "eu-west-2", "eu-west-3", "eu-north-1", "eu-south-1", "ap-south-1"),
    *("ap-northeast-1", "ap-northeast-2", "ap-southeast-1", "ap-southeast-2"),
)
VENDOR_HOSTS: dict[str, tuple[str, ...]] = {
    OPENAI_VARIABLE: ("api.openai.com",),
    "NVIDIA_API_KEY": ("integrate.api.nvidia.com", "ai.api.nvidia.com"),
    "TOGETHER_API_KEY": ("api.together.xyz",),
    "GROQ_API_KEY": ("api.groq.com",),
    "MISTRAL_API_KEY": ("api.mistral.ai",),
    "DEEPSEEK_API_KEY": ("api.deepseek.com",),
    "OPENROUTER_API_KEY": ("openrouter.ai",),
    "FIREWORKS_API_KEY": ("api.fireworks.ai",),
    "AZURE_OPENAI_API_KEY": (
        "openai.azure.com",
        "cognitiveservices.azure.com",
        "services.ai.azure.com",
    ),
    "ANTHROPIC_API_KEY": ("api.anthropic.com",),
    # By region: anybody can have a host under amazonaws.com.
    "AWS_BEARER_TOKEN_BEDROCK": tuple(
        f"bedrock-runtime.{region}.amazonaws.com" for region in _BEDROCK_REGIONS
    ),
    "COHERE_API_KEY": ("api.cohere.ai",),
    "HF_TOKEN": ("router.huggingface.co",),  # an Inference Endpoint may be anybody's
    # Services of guardrails.
    "ACTIVEFENCE_API_KEY": ("apis.activefence.com",),
    "AUTOALIGN_API_KEY": ("autoalign.ai",),
    "CLAVATA_API_KEY": ("gateway.app.clavata.ai",),
    "PAI_API_KEY": ("api.private-ai.com",),
    "PANGEA_API_TOKEN": ("pangea.cloud",),
    "PATRONUS_API_KEY": ("api.patronus.ai",),
    "PS_APP_ID": ("prompt.security",),
    "V1_API_KEY": ("api.xdr.trendmicro.com",),
    "CS_AIDR_TOKEN": ("api.crowdstrike.com",),
    "F5_GUARDRAILS_API_KEY": ("calypsoai.app",),
    "GOOGLE_API_KEY": ("generativelanguage.googleapis.com", "language.googleapis.com"),
    "CLEANLAB_API_KEY": ("api.cleanlab.ai",),
}
"""Environment variable -> the hosts of its vendor; their subdomains (`eu.api.openai.com`) count
too. To these a key may go without the operator's word."""

_ALLOWED_VARIABLES: ContextVar[frozenset[str] | None] = ContextVar(
    "truing_allowed_key_variables", default=None
)


@contextmanager
def allow_key_variables(names: Collection[str]) -> Iterator[None]:
    """Within the context, specs may read no environment variable but these.

    For specs that come from a file that somebody else wrote: it must not choose which of the
    operator's secrets is sent. A context inside another one cannot allow more than that.
    """
    outer = _ALLOWED_VARIABLES.get()
    token = _ALLOWED_VARIABLES.set(
        frozenset(names) & outer if outer is not None else frozenset(names)
    )
    try:
        yield
    finally:
        _ALLOWED_VARIABLES.reset(token)


def is_loopback(host: str | None) -> bool:
    """Whether a URL's host is this machine; names other than `localhost` are not resolved."""
    name = (host or "").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_own_machine(host: str | None) -> bool:
    """Whether a connection to a URL's host stays on this machine.

    0.0.0.0 does, as the target of a connection. As an address to listen on it is every network, so
    that a server must ask `is_loopback`.
    """
    return is_loopback(host) or (host or "").strip("[]") in ("0.0.0.0", "::")


def resolve_api_key(
    variable: str | None,
    base_url: str,
    *,
    default: str | None = OPENAI_VARIABLE,
    allow_http: bool = False,
) -> Secret | None:
    """Returns the API key for requests to `base_url`, or None if none is to be sent.

    `variable` is the environment variable that the spec names. Without one, the `default` variable
    is read if `base_url` is a host of its vendor (`VENDOR_HOSTS`), else no key is sent. Raises
    SpecError if the named variable is not set, is not allowed (`allow_key_variables`), holds no
    possible header value, or would leave this machine over plain http.
    """
    # The parser of the HTTP client: another one could see another host in the same text. Imported
    # at the first call, because a command without endpoints does not need it.
    from yarl import URL

    url = URL(base_url)
    if variable is None:
        if default is None or not _is_vendor_host(default, url) or not _is_allowed(default):
            return None
        key_text = os.environ.get(default, "").strip()
        name = default
    else:
        name = variable
        if not _is_allowed(name):
            allowed = ", ".join(sorted(_ALLOWED_VARIABLES.get() or ())) or "none"
            raise SpecError(
                f"api_key_env={name}: this variable may not be read here (allowed: {allowed})"
            )
        if name not in os.environ:
            raise SpecError(f"the environment variable {name} is not set")
        key_text = os.environ[name].strip()
    if not key_text:
        return None
    if not key_text.isprintable() or not key_text.isascii() or " " in key_text:
        raise SpecError(
            f"the environment variable {name} holds no API key: a key has no spaces, line breaks "
            "or characters beyond ASCII"
        )
    if url.scheme != "https" and not is_own_machine(url.host) and not allow_http:
        raise SpecError(
            f"the key in {name} would go to {url.host} over plain http; use https, or add "
            "allow_http=true if the network between is trusted"
        )
    return Secret.of(key_text)


def read_variables(names: Collection[str]) -> dict[str, str]:
    """Returns the values of environment variables, for a program that is started with them.

    Raises SpecError for one that is not set, or not allowed (`allow_key_variables`), and for
    NAME=VALUE.
    """
    if any("=" in name for name in names):
        raise SpecError("env= takes the names of environment variables, without their values")
    for name in names:
        if not _is_allowed(name):
            raise SpecError(f"env={name}: this variable may not be read here")
        if name not in os.environ:
            raise SpecError(f"the environment variable {name} is not set")
    return {name: os.environ[name] for name in names}


def _is_vendor_host(variable: str, url: URL) -> bool:
    # With the scheme: over plain http nobody proves that it is the vendor's host.
    host = (url.host or "").rstrip(".").lower()
    return url.scheme == "https" and any(
        host == vendor or host.endswith(f".{vendor}") for vendor in VENDOR_HOSTS.get(variable, ())
    )


def is_vendor_address(variable: str, address: str) -> bool:
    """Returns whether an address is one of the vendor whose key a variable holds, over https."""
    from yarl import URL

    # Parsers disagree on the host of "https://vendor\\@other" and "https://vendor@other".
    if "@" in address or "\\" in address:
        return False
    try:
        return _is_vendor_host(variable, URL(address))
    except ValueError:
        return False


def _is_allowed(variable: str) -> bool:
    allowed = _ALLOWED_VARIABLES.get()
    return allowed is None or variable in allowed


def describe_unsent_key(url: URL) -> str:
    """Returns what to write if a server that got no key asks for one; "" if no key is at hand."""
    if not os.environ.get(OPENAI_VARIABLE) or _is_vendor_host(OPENAI_VARIABLE, url):
        return "no key was sent; name its environment variable: api_key_env=NAME"
    return (
        f"no key was sent: {OPENAI_VARIABLE} goes to {VENDOR_HOSTS[OPENAI_VARIABLE][0]} only; "
        "name the variable for this server: api_key_env=NAME"
    )
