"""The services that a configuration's rails call: their addresses and the keys that they get.

NeMo's rails of vendors read their block under ``rails.config``; a service of one's own stands under
``truing: services:`` and is asked by ``service check input $service=NAME``. The list is read by
`trust` (which keys may be sent where) and by the rails themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from truing.core.errors import PlanError
from truing.core.redaction import is_secret_name
from truing.rails.colang.ast import CallFlow, ExecuteAction, Flow
from truing.rails.colang.flow_reference import parse_flow_name, parse_flow_parameters
from truing.rails.colang.parser import walk_steps
from truing.rails.config.loader import RailsConfig, iterate_stages
from truing.rails.config.schema import ANY_KEYS, find_schema_faults
from truing.rails.config.vendor_addresses import VENDOR_RAILS, ServiceAddress

SERVICE_RAILS = ("service check input", "service check output", "service check retrieval")
OWN_SERVICES = "services"  # under `truing:`
_OWN_SCHEMA: dict[str, Any] = {
    "url": str,
    "headers": ANY_KEYS,
    "api_key_env": str,
    "api_key_header": str,
    "api_key_prefix": str,
    "allow_http": bool,
    "request": object,
    "blocked": str,
    "reason": str,
    "rewrite": str,
    "reply": str,
    "timeout": float,
    "retries": int,
    "cache": int,
}


def find_service_addresses(config: RailsConfig) -> list[ServiceAddress]:
    """Returns the services that the configuration's rails call, each once.

    Raises PlanError, with all faults, for a service without an address and for one that does not
    exist.
    """
    addresses: dict[str, ServiceAddress] = {}
    faults: list[str] = []
    for place, rail in _iterate_rails(config):
        try:
            address = _find_address(config, rail, place)
        except PlanError as error:
            faults += error.faults
            continue
        if address is not None:
            addresses.setdefault(address.service, address)
    if faults:
        raise PlanError(*dict.fromkeys(faults))
    return list(addresses.values())


def list_used_rails(config: RailsConfig) -> frozenset[str]:
    """Returns the names of the rails of the stages, and of those that own flows run by ``do``."""
    return frozenset(parse_flow_name(rail) for _, rail in _iterate_rails(config))


def _iterate_rails(config: RailsConfig) -> Iterator[tuple[str, str]]:
    """Yields (place, rail) of the stages, and of the shipped rails that own flows run by ``do``."""
    own_flows: dict[str, Flow] = {}
    for flow in config.flows:
        own_flows.setdefault(flow.name, flow)  # of one name the first runs
    named_calls: set[tuple[str, str]] = set()  # calls of rails whose service a stage names
    for name, stage in iterate_stages(config):
        for index, reference in enumerate(stage.flows):
            place = config.locate("key", f"rails.{name}.flows.{index}")
            yield place, reference
            service = parse_flow_parameters(reference).get("service")
            for call in _iterate_reached_calls(own_flows, parse_flow_name(reference)):
                if call[1] in SERVICE_RAILS:
                    named_calls.add(call)
                    yield place, f"{call[1]} $service={service or ''}"
    for flow in config.flows:
        for call in _iterate_calls(flow):
            if call[1] not in own_flows and call not in named_calls:
                yield call


def _iterate_reached_calls(own_flows: Mapping[str, Flow], name: str) -> Iterator[tuple[str, str]]:
    """Yields (place, flow) of what an own flow, and the own flows that it runs, run by ``do``."""
    to_read, read = [name], set[str]()
    while to_read:
        flow_name = to_read.pop()
        if flow_name in own_flows and flow_name not in read:
            read.add(flow_name)
            calls = list(_iterate_calls(own_flows[flow_name]))
            to_read += [called for _, called in calls]
            yield from calls


def _iterate_calls(flow: Flow) -> Iterator[tuple[str, str]]:
    """Yields (place, flow) of the steps that run another flow, by its name or by its action."""
    for step in walk_steps(flow.steps):
        place = f"{flow.file or 'config'}:{step.line}"
        if isinstance(step, CallFlow):
            yield place, parse_flow_name(step.flow)
        elif isinstance(step, ExecuteAction) and step.action == "alignscore_check_facts":
            yield place, "alignscore check facts"


def _find_address(config: RailsConfig, rail: str, place: str) -> ServiceAddress | None:
    name = parse_flow_name(rail)
    if name in SERVICE_RAILS:
        service = str(parse_flow_parameters(rail).get("service") or "").strip("'\"")
        return _own_address(config, service, place)
    make_address = VENDOR_RAILS.get(name)
    address = make_address(config) if make_address is not None else None
    if address is None:
        return None
    if urlsplit(address.url).scheme not in ("http", "https"):
        raise PlanError(f"{place}: the rail {name!r} needs an http address in {address.key}")
    return address


def own_services(config: RailsConfig) -> Mapping[str, Any]:
    """Returns the services under ``truing: services:``."""
    services = config.truing.get(OWN_SERVICES)
    return services if isinstance(services, dict) else {}


def _own_address(config: RailsConfig, service: str, place: str) -> ServiceAddress:
    services = own_services(config)
    if service not in services:
        known = ", ".join(map(str, services)) or "none"
        raise PlanError(
            f"{place}: there is no service {service!r} under truing: {OWN_SERVICES}: (there are "
            f"{known}); name one with $service=NAME"
        )
    settings = services[service]
    key = f"truing.{OWN_SERVICES}.{service}"
    service_place = config.locate("key", key)
    faults = [message for _, message in find_schema_faults(settings, _OWN_SCHEMA)]
    if not faults:
        faults = [f"{name} is missing" for name in ("url", "blocked") if not settings.get(name)]
    if not faults and urlsplit(settings["url"]).scheme not in ("http", "https"):
        faults.append("url is no http or https address")
    if not faults:
        faults += [
            f"headers: {name} may hold a secret; use api_key_env and api_key_header"
            for name in settings.get("headers") or {}
            if is_secret_name(str(name))
        ]
    if not faults and settings.get("reply") not in (None, "json", "lines"):
        faults.append("reply is json or lines")
    if faults:
        raise PlanError(*(f"{service_place}: the service {service!r}: {f}" for f in faults))
    return ServiceAddress(
        service=service,
        url=settings["url"],
        key=f"{key}.url",
        variable=settings.get("api_key_env"),
        header=settings.get("api_key_header") or "Authorization",
        prefix=settings.get("api_key_prefix", "Bearer "),
        allow_http=bool(settings.get("allow_http")),
    )
