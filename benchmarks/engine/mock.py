"""A fast mock of an OpenAI-compatible endpoint, for measuring clients.

    python benchmarks/engine/mock.py --port 8399 --latency lognormal:200:0.5 --p429 0.02 --p500 0.01

Standard library only, loopback only. POST /v1/chat/completions (n choices, usage, `stream`), POST
/v1/completions (echo and log-probabilities), GET /v1/models, GET /stats, POST /reset. Latency in
ms: const:MS, lognormal:MEDIAN:SIGMA, uniform:LOW:HIGH. A prompt fails at most once, so that every
client gets the same failures whatever its retries. The answer depends on the prompt alone.
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
WORDS = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi "
    "rho sigma tau"
)
ANSWER = f"Here is a general overview of the topic that you asked about. {WORDS} {WORDS}"


class MockEndpoint:
    """Answers, failures and counters of the server."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.reset()

    def reset(self, turn: int = 0) -> None:
        """Zeroes the counters and seeds the generator.

        The turn is added to the seed: how long a run takes depends on which request fails last.
        """
        self.rng = random.Random(self.arguments.seed + turn)
        self.requests = self.in_flight = self.max_in_flight = 0
        self.first_request_at = 0.0  # Unix time
        self.by_status: dict[int, int] = {}
        self.failed: set[bytes] = set()
        self.prompts: set[bytes] = set()
        kind, *numbers = self.arguments.latency.split(":")
        parameters = [float(number) for number in numbers]
        draw = {
            "const": lambda: parameters[0],
            "uniform": lambda: self.rng.uniform(*parameters),
            "lognormal": lambda: self.rng.lognormvariate(math.log(parameters[0]), parameters[1]),
        }[kind]
        self.draw_latency = lambda: draw() / 1000  # in seconds

    def stats(self) -> dict[str, Any]:
        """Returns the body of /stats."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "requests": self.requests,
            "by_status": {str(k): v for k, v in sorted(self.by_status.items())},
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "distinct_prompts": len(self.prompts),
            "first_request_at": self.first_request_at,
            "server_cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
        }

    def chat(self, body: dict[str, Any], prompt: str, key: bytes) -> dict[str, Any]:
        """Returns the body of a chat completion; half of the prompts are refused."""
        text = REFUSAL if key[0] < 128 else ANSWER
        n = int(body.get("n") or 1)
        # About four characters per token.
        prompt_tokens, answer_tokens = max(1, len(prompt) // 4), max(1, len(text) // 4) * n
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
                "prompt_tokens": prompt_tokens,
                "completion_tokens": answer_tokens,
                "total_tokens": prompt_tokens + answer_tokens,
            },
        }

    @staticmethod
    def completion(body: dict[str, Any], prompt: str) -> dict[str, Any]:
        """Returns the body of a completion that echoes the prompt.

        The log-probability of a word is a function of the word.
        """
        tokens = [w if i == 0 else " " + w for i, w in enumerate(prompt.split(" "))]
        offsets = [0]
        for token in tokens[:-1]:
            offsets.append(offsets[-1] + len(token))
        hashes = (hashlib.blake2b(t.encode(), digest_size=1).digest()[0] for t in tokens)
        scores: list[float | None] = [-0.1 - h / 64 for h in hashes]
        scores[0] = None
        logprobs = {"tokens": tokens, "token_logprobs": scores, "text_offset": offsets}
        return {
            "object": "text_completion",
            "model": body.get("model", "mock"),
            "choices": [
                {"index": 0, "text": prompt, "finish_reason": "length", "logprobs": logprobs}
            ],
        }


class HttpConnection(asyncio.Protocol):
    """One keep-alive connection. A small parser is enough, and cheaper than a framework."""

    def __init__(self, mock: MockEndpoint) -> None:
        self.mock = mock
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            header = head.find(b"\r\ncontent-length:")
            length = int(head[header + 17 :].split(b"\r\n", 1)[0]) if header >= 0 else 0
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
        mock.first_request_at = mock.first_request_at or time.time()
        mock.in_flight += 1
        mock.max_in_flight = max(mock.max_in_flight, mock.in_flight)
        key = hashlib.blake2b(prompt.encode(), digest_size=8).digest()
        mock.prompts.add(key)
        uniform = mock.rng.random()
        if key not in mock.failed and uniform < mock.arguments.p429 + mock.arguments.p500:
            mock.failed.add(key)
            status = 429 if uniform < mock.arguments.p429 else 500
            mock.in_flight -= 1
            return self.finish(
                status,
                {"error": {"message": "mock trouble", "type": "mock", "code": "mock"}},
                b"Retry-After: %d\r\n" % mock.arguments.retry_after,
            )
        send = self.stream if chat and request.get("stream") else self.finish_ok

        def answer() -> None:
            # Built only now: thousands of waiting requests hold no bodies.
            send(mock.chat(request, prompt, key) if chat else mock.completion(request, prompt))

        delay = mock.draw_latency()
        if delay <= 0:
            return answer()
        asyncio.get_running_loop().call_later(delay, answer)

    def finish(self, status: int, data: Any, extra: bytes = b"") -> None:
        self.mock.by_status[status] = self.mock.by_status.get(status, 0) + 1
        self.reply(status, data, extra)

    def finish_ok(self, data: Any) -> None:
        self.mock.in_flight -= 1
        if not self.transport.is_closing():
            self.finish(200, data)

    def stream(self, completion: dict[str, Any]) -> None:
        self.mock.in_flight -= 1
        self.mock.by_status[200] = self.mock.by_status.get(200, 0) + 1
        write = self.transport.write
        write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        words = completion["choices"][0]["message"]["content"].split(" ")
        chunks = [w if i == 0 else " " + w for i, w in enumerate(words)]
        events = [{"choices": [{"index": 0, "delta": {"content": c}}]} for c in chunks]
        events.append(
            {
                "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
                "usage": completion["usage"],
            }
        )
        for event in [*map(json.dumps, events), "[DONE]"]:
            line = b"data: " + event.encode() + b"\n\n"
            write(b"%x\r\n%s\r\n" % (len(line), line))
        write(b"0\r\n\r\n")


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=8399, help="0: a free port")
    parser.add_argument("--latency", default="const:0")
    parser.add_argument("--p429", type=float, default=0.0)
    parser.add_argument("--p500", type=float, default=0.0)
    parser.add_argument("--retry-after", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser


async def serve(arguments: argparse.Namespace) -> None:
    """Serves until it is stopped; the first line on standard output names the base URL."""
    mock = MockEndpoint(arguments)
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpConnection(mock), "127.0.0.1", arguments.port, backlog=4096
    )
    port = server.sockets[0].getsockname()[1]
    print(
        f"mock http://127.0.0.1:{port}/v1 latency={arguments.latency}",
        flush=True,
    )
    await server.serve_forever()


if __name__ == "__main__":
    # Each connection takes a file descriptor.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 65536, hard)
    )
    try:
        asyncio.run(serve(build_parser().parse_args()))
    except KeyboardInterrupt:
        sys.exit(0)
