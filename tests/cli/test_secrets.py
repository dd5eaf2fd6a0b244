"""No secret of a spec is in anything that a command writes, whatever a server sends back."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from tests.cli.command_line import truing
from tests.servers import Request, serving

CANARIES = {
    place: f'canary-{place}/+"0123456789' if place != "key" else "canary-key_0123456789"
    for place in ("key", "header", "body", "query")
}


def written_forms(secret: str) -> set[str]:
    """A secret as it could stand in a file."""
    forms = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
    forms |= {json.dumps(form)[1:-1] for form in list(forms)}
    # The digits that do not depend on the neighbours, at each of the three offsets.
    for offset in range(3):
        digits = base64.b64encode(b"x" * offset + secret.encode()).decode().rstrip("=")
        forms.add(digits[4:-4])
    return forms


def completion_of(text: str) -> bytes:
    """A successful answer; the shape that each of the models reads."""
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "answer": text}).encode()


async def echo(request: Request) -> None:
    """Sends all that it was sent back, in another form and with another status at each request."""
    everything = [*request.headers.values(), request.path, request.body.decode()]
    encoded = [base64.b64encode(text.encode()).decode() for text in everything]
    quoted = [quote(text, safe="") for text in everything]
    text = " | ".join([*everything, *encoded, *quoted])
    split = "\n".join(text[i : i + 7] for i in range(0, len(text), 7))
    replies: list[tuple[int, bytes]] = [
        (400, text.encode()),
        (400, json.dumps({"error": {"message": text}}).encode()),
        (401, json.dumps({"detail": split}).encode()),
        (404, json.dumps(encoded).encode()),
        (422, json.dumps(json.dumps(everything)).encode()),
        (200, json.dumps(dict.fromkeys(everything, 1)).encode()),
        (200, text.encode()),
        (200, completion_of(json.dumps(everything))),
        (307, b""),
    ]
    status, body = replies[request.number % len(replies)]
    location = {"Location": f"http://127.0.0.1:9{request.path}"}
    await request.send(status, body, headers=location)


def specs(url: str) -> dict[str, str]:
    """Specs with a secret in each place that can hold one."""
    query = quote(CANARIES["query"], safe="")
    headers = json.dumps({"X-Team-Pass": CANARIES["header"], "Accept": "*/*"})
    body = json.dumps({"prompt": "{{prompt}}", "password": CANARIES["body"]})
    extra = json.dumps({"user": "me", "access_token": CANARIES["body"]})
    options = "api_key_env=CANARY_KEY,retries=0"
    address = json.dumps(f"{url}/v1?api_key={query}&version=2")
    return {
        "http": f"http:{address},headers={json.dumps(headers)},body={json.dumps(body)},"
        f"auth_header=x-api-key,{options}",
        "openai": f"openai:m,base_url={address},body={json.dumps(extra)},{options}",
        "stream": f"openai:m,base_url={address},body={json.dumps(extra)},stream=true,{options}",
        "judge": f"openai-moderation:m,base_url={address},{options}",
    }


def assert_no_canary(text: str, where: str) -> None:
    for place, secret in CANARIES.items():
        for form in written_forms(secret):
            assert form.lower() not in text.lower(), f"{where}: the secret of the {place}"
    # Not in parts either: no ten characters of one.
    for place, secret in CANARIES.items():
        squeezed = re.sub(r"\s+", "", text)
        assert secret[:12] not in squeezed, f"{where}: a part of the secret of the {place}"


@pytest.mark.parametrize("kind", ["http", "openai", "stream"])
def test_a_whole_evaluation_writes_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("CANARY_KEY", CANARIES["key"])
    run = tmp_path / "run"
    with serving(echo) as server:
        named = specs(server.url)
        results = [
            truing(
                "evaluate --data builtin:safety --limit 9 --concurrency 1 --model",
                *[named[kind], "--judge", named["judge"], "--judge", "rules:refusal", "--out", run],
            ),
            truing("show", run),
            truing("evaluate --data builtin:safety --model", named[kind] + ",(", "--out", run),
            truing(
                "evaluate --data builtin:safety --model", named[kind] + ",tekst=1", "--out", run
            ),
        ]
        sent = json.dumps([r.path + r.body.decode() + str(r.headers) for r in server.requests])
    assert all(place in sent for place in ("canary-key", "canary-query", "canary-body"))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"manifest.json", "responses.jsonl"} <= {path.name for path in files}
    assert "***" in (run / "manifest.json").read_text(encoding="utf-8")
    for path in files:
        assert_no_canary(path.read_text(encoding="utf-8"), path.name)
    for result in results:
        assert_no_canary(result.out, "stdout")
        assert_no_canary(result.err, "stderr")


def test_a_plan_and_its_report_write_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", CANARIES["key"])
    plan = tmp_path / "plan.toml"
    with serving(echo) as server:
        named = specs(server.url)
        models = "\n".join(f"{k} = {json.dumps(v)}" for k, v in named.items() if k != "judge")
        plan.write_text(
            f"[models]\n{models}\n[data]\nsafety = 'builtin:safety'\n"
            f"[run]\nlimit = 3\njudges = ['rules:refusal', {json.dumps(named['judge'])}]\n"
        )
        result = truing("run", plan, "--out", tmp_path / "out")
    assert (tmp_path / "out" / "report.html").is_file()
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert_no_canary(path.read_text(encoding="utf-8"), path.name)
    assert_no_canary(result.out + result.err, "the terminal")
