"""A fast mock of an OpenAI-compatible endpoint, for measuring clients. Standard library only, loopback only.

    python benchmarks/engine/mock.py --port 8399 --latency lognormal:200:0.5 --p429 0.02 --p500 0.01

POST /v1/chat/completions (n choices, usage, `stream`), POST /v1/completions (echo and log-probabilities), GET
/v1/models, GET /stats, POST /reset. Latency in ms: const:MS, lognormal:MEDIAN:SIGMA, uniform:LOW:HIGH. A prompt fails
at most once, so that every client sees the same failures whatever its retries. What a prompt is answered depends on
the prompt alone.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import random
import resource
import sys
import time
from typing import Any

REFUSAL = "Sorry, I can't help with this one."
WORDS = """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau""".split()  # noqa: SIM905
ANSWER = "Here is a general overview of the topic that you asked about. " + " ".join(WORDS * 2)


class Mock:
    """What the server does and what it has seen."""

    def __init__(self, a: argparse.Namespace) -> None:
        self.a = a
        self.reset()

    def reset(self, turn: int = 0) -> None:
        """Counters to zero, generator to its seed (plus the turn's number: which request fails last is luck)."""
        self.rng = random.Random(self.a.seed + turn)
        self.requests = self.in_flight = self.most = 0
        self.first = 0.0  # wall clock of the first request
        self.by_status: dict[int, int] = {}
        self.failed: set[bytes] = set()
        self.prompts: set[bytes] = set()
        kind, *numbers = self.a.latency.split(":")
        p = [float(n) for n in numbers]
        draw = {
            "const": lambda: p[0],
            "uniform": lambda: self.rng.uniform(p[0], p[1]),
            "lognormal": lambda: self.rng.lognormvariate(math.log(p[0]), p[1]),
        }[kind]
        self.latency = (lambda: 0.0) if kind == "const" and p[0] == 0 else (lambda: draw() / 1000)

    def stats(self) -> dict[str, Any]:
        """What /stats shows."""
        use = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "requests": self.requests,
            "by_status": {str(k): v for k, v in sorted(self.by_status.items())},
            "in_flight": self.in_flight,
            "max_in_flight": self.most,
            "distinct_prompts": len(self.prompts),
            "first_request_at": self.first,
            "server_cpu_s": round(use.ru_utime + use.ru_stime, 3),
        }

    def chat(self, body: dict[str, Any], prompt: str, key: bytes) -> dict[str, Any]:
        """The answer to a chat request."""
        text = REFUSAL if key[0] < 128 else ANSWER
        n = int(body.get("n") or 1)
        read, written = max(1, len(prompt) // 4), max(1, len(text) // 4) * n
        message = {"role": "assistant", "content": text}
        return {
            "id": "chatcmpl-" + key.hex(),
            "object": "chat.completion",
            "created": 0,
            "model": "mock",
            "choices": [
                {"index": i, "finish_reason": "stop", "message": message} for i in range(n)
            ],
            "usage": {
                "prompt_tokens": read,
                "completion_tokens": written,
                "total_tokens": read + written,
            },
        }

    @staticmethod
    def text(body: dict[str, Any], prompt: str) -> dict[str, Any]:
        """The answer to a completion request: the prompt again, its words with log-probabilities fixed by the word."""
        tokens = [w if i == 0 else " " + w for i, w in enumerate(prompt.split(" "))]
        offsets = [0]
        for token in tokens[:-1]:
            offsets.append(offsets[-1] + len(token))
        hashes = (hashlib.blake2b(t.encode(), digest_size=1).digest()[0] for t in tokens)
        scores: list[float | None] = [-0.1 - h / 64 for h in hashes]
        scores[0] = None
        found = {"tokens": tokens, "token_logprobs": scores, "text_offset": offsets}
        return {
            "object": "text_completion",
            "model": body.get("model", "mock"),
            "choices": [{"index": 0, "text": prompt, "finish_reason": "length", "logprobs": found}],
        }


class Http(asyncio.Protocol):
    """One keep-alive connection; requests of a connection are answered one after the other."""

    def __init__(self, mock: Mock) -> None:
        self.mock = mock
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"\r\ncontent-length:")
            length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            path = head.split(b" ", 2)[1]
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            self.handle(path, body)

    def reply(self, status: int, data: Any, extra: bytes = b"") -> None:
        body = json.dumps(data, separators=(",", ":")).encode()
        self.transport.write(
            b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s"
            % (status, len(body), extra, body)
        )

    def handle(self, path: bytes, body: bytes) -> None:
        mock = self.mock
        if path == b"/stats":
            return self.reply(200, mock.stats())
        if path == b"/reset":
            mock.reset(int(json.loads(body or b"{}").get("turn", 0)))
            return self.reply(200, {})
        if path.endswith(b"/models"):
            return self.reply(200, {"object": "list", "data": [{"id": "mock", "object": "model"}]})
        try:
            request = json.loads(body)
            chat = path.endswith(b"/chat/completions")
            content = request["messages"][-1]["content"] if chat else request["prompt"]
            prompt = (
                content if isinstance(content, str) else "".join(p.get("text", "") for p in content)
            )
        except (ValueError, KeyError, IndexError, TypeError):
            return self.finish(400, {"error": {"message": "bad request"}})
        mock.requests += 1
        mock.first = mock.first or time.time()
        mock.in_flight += 1
        mock.most = max(mock.most, mock.in_flight)
        key = hashlib.blake2b(prompt.encode(), digest_size=8).digest()
        mock.prompts.add(key)
        u = mock.rng.random()
        if key not in mock.failed and u < mock.a.p429 + mock.a.p500:
            mock.failed.add(key)
            status = 429 if u < mock.a.p429 else 500
            mock.in_flight -= 1
            return self.finish(
                status,
                {"error": {"message": "mock trouble", "type": "mock", "code": "mock"}},
                b"Retry-After: %d\r\n" % mock.a.retry_after,
            )
        made = (
            (lambda: mock.chat(request, prompt, key))
            if chat
            else (lambda: mock.text(request, prompt))
        )
        send = self.stream if chat and request.get("stream") else self.finish_ok
        delay = mock.latency()
        if delay <= 0:
            return send(made())
        asyncio.get_running_loop().call_later(delay, lambda: send(made()))

    def finish(self, status: int, data: Any, extra: bytes = b"") -> None:
        self.mock.by_status[status] = self.mock.by_status.get(status, 0) + 1
        self.reply(status, data, extra)

    def finish_ok(self, data: Any) -> None:
        self.mock.in_flight -= 1
        if not self.transport.is_closing():
            self.finish(200, data)

    def stream(self, made: dict[str, Any]) -> None:
        self.mock.in_flight -= 1
        self.mock.by_status[200] = self.mock.by_status.get(200, 0) + 1
        write = self.transport.write
        write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        words = made["choices"][0]["message"]["content"].split(" ")
        pieces = [w if i == 0 else " " + w for i, w in enumerate(words)]
        events = [{"choices": [{"index": 0, "delta": {"content": w}}]} for w in pieces]
        events.append(
            {
                "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
                "usage": made["usage"],
            }
        )
        for event in [*map(json.dumps, events), "[DONE]"]:
            line = b"data: " + event.encode() + b"\n\n"
            write(b"%x\r\n%s\r\n" % (len(line), line))
        write(b"0\r\n\r\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--port", type=int, default=8399, help="0 takes a free one")
    p.add_argument("--latency", default="const:0")
    p.add_argument("--p429", type=float, default=0.0)
    p.add_argument("--p500", type=float, default=0.0)
    p.add_argument("--retry-after", type=int, default=1)
    p.add_argument("--seed", type=int, default=0)
    return p


async def serve(a: argparse.Namespace) -> None:
    """Serves until it is stopped; the first line on standard output names the port."""
    mock = Mock(a)
    server = await asyncio.get_running_loop().create_server(
        lambda: Http(mock), "127.0.0.1", a.port, backlog=4096
    )
    print(
        f"mock http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1 latency={a.latency}",
        flush=True,
    )
    await server.serve_forever()


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 65536, hard)
    )
    try:
        asyncio.run(serve(parser().parse_args()))
    except KeyboardInterrupt:
        sys.exit(0)
