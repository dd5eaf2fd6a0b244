"""deploy/: ports, paths and flags are those of the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from truing.cli.serve import ServeFlags, ServeJob
from truing.models.scripted import ScriptedModel
from truing.serve.openai.app import chat_app
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.model_router import ModelRouter
from truing.serve.openai.shared_state import open_shared_state


@pytest.fixture(scope="module")
def manifests(root: Path) -> dict[tuple[str, str], dict[str, Any]]:
    documents = yaml.safe_load_all((root / "deploy/kubernetes/truing.yaml").read_text())
    return {(d["kind"], d["metadata"]["name"]): d for d in documents}


@pytest.fixture(scope="module")
def container(manifests: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    pod = manifests["Deployment", "truing"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return dict(container)


@pytest.fixture(scope="module")
def containerfile(root: Path) -> str:
    return (root / "deploy/Containerfile").read_text()


def read_array(containerfile: str, instruction: str) -> list[str]:
    (line,) = re.findall(rf"^{instruction} (\[.*\])$", containerfile, re.MULTILINE)
    words: list[str] = json.loads(line)
    return words


def flags_of(words: list[str]) -> dict[str, str]:
    """The values of `--name=value` and `--name value`; "" for a flag without one."""
    flags: dict[str, str] = {}
    for word in words:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            flags[name[2:].replace("-", "_")] = value
        else:
            flags[list(flags)[-1]] = word
    return flags


def test_the_flags_are_those_of_serve(container: dict[str, Any], containerfile: str) -> None:
    entry = read_array(containerfile, "ENTRYPOINT")
    assert entry[:2] == ["truing", "serve"]
    image_flags = flags_of(entry[2:])
    assert image_flags == {"host": "0.0.0.0", "port": "8000", "rails": "/rails"}
    flags = flags_of(container["args"])
    fields = ServeFlags.__dataclass_fields__
    assert set(flags) <= set(fields) and set(flags_of(read_array(containerfile, "CMD"))) <= set(
        fields
    )
    values = {
        name: True if not value else int(value) if value.isdigit() else value
        for name, value in flags.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(flags["keys_env"], "a-key")
        flags_object = ServeFlags(**{**values, "host": "0.0.0.0"})  # type: ignore[arg-type]
        job = ServeJob(None, Path("/rails"), 8000, False, (), flags_object, None)  # type: ignore[arg-type]
        job.check()
    assert {e["name"] for e in container["env"]} == {flags["keys_env"]}


def test_ports_and_paths_are_those_of_the_server(
    manifests: dict[tuple[str, str], dict[str, Any]],
    container: dict[str, Any],
    containerfile: str,
) -> None:
    app = chat_app(ModelRouter(ScriptedModel("hello")))
    paths = {route.path for route in app.routes}
    assert container["startupProbe"]["httpGet"]["path"] == "/ready"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        request = container[probe]["httpGet"]
        assert request["path"] in paths and request["port"] == "http"
    annotations = manifests["Service", "truing"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] in paths
    assert "metrics_open" in flags_of(container["args"])  # the scraper has no key
    (port,) = container["ports"]
    exposed = re.findall(r"^EXPOSE (\d+)$", containerfile, re.MULTILINE)
    image_port = flags_of(read_array(containerfile, "ENTRYPOINT")[2:])["port"]
    assert exposed == [str(port["containerPort"])] == [annotations["prometheus.io/port"]]
    assert image_port == exposed[0]


def test_a_pod_ends_later_than_its_requests(
    manifests: dict[tuple[str, str], dict[str, Any]], container: dict[str, Any]
) -> None:
    pod = manifests["Deployment", "truing"]["spec"]["template"]["spec"]
    pause = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    timeout = float(flags_of(container["args"]).get("timeout", ServerLimits().seconds))
    assert pod["terminationGracePeriodSeconds"] >= pause + timeout + 5


def test_redis_is_where_the_flag_says(manifests: dict[tuple[str, str], dict[str, Any]]) -> None:
    deployment = manifests["Deployment", "truing"]["spec"]["template"]["spec"]["containers"][0]
    url = flags_of(deployment["args"])["redis"]
    open_shared_state(url)
    host, port = url.removeprefix("redis://").split("/")[0].split(":")
    service = manifests["Service", host]["spec"]
    assert [p["port"] for p in service["ports"]] == [int(port)]
    pods = manifests["Deployment", "truing-redis"]["spec"]["template"]
    assert service["selector"].items() <= pods["metadata"]["labels"].items()
    assert pods["spec"]["containers"][0]["ports"][0]["containerPort"] == int(port)


def test_the_pods_have_no_more_rights_than_they_need(
    manifests: dict[tuple[str, str], dict[str, Any]], container: dict[str, Any], containerfile: str
) -> None:
    pod = manifests["Deployment", "truing"]["spec"]["template"]["spec"]
    context = container["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    assert context["readOnlyRootFilesystem"] and context["capabilities"] == {"drop": ["ALL"]}
    user = re.findall(r"^USER (\d+)$", containerfile, re.MULTILINE)
    assert user == [str(pod["securityContext"]["runAsUser"])]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    # The processes write the counts of /metrics to a temporary folder.
    assert mounts == {"/rails", "/tmp"}


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_the_manifests_follow_the_schemas_of_kubernetes(root: Path, version: str) -> None:
    """By the published schemas, strictly: an unknown field is an error."""
    text = (root / "deploy/kubernetes/truing.yaml").read_text()
    documents = list(yaml.safe_load_all(text))
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)
    wrong = next(d for d in documents if d["kind"] == "Deployment")
    (container,) = wrong["spec"]["template"]["spec"]["containers"]
    container["readynessProbe"] = container.pop("readinessProbe")
    with pytest.raises(Exception, match="readynessProbe"):
        kubernetes_validate.validate(wrong, version, strict=True)
