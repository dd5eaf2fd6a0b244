"""A bare client: aiohttp, a worker pool, a line of JSON per answer, retries with Retry-After."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp


async def worker(
    queue: list[dict[str, Any]], session: aiohttp.ClientSession, url: str, stream: Any
) -> None:
    """Sends rows of the queue until it is empty; a row is given up after eight attempts."""
    while queue:
        row = queue.pop()
        body = {"model": "mock", "messages": [{"role": "user", "content": row["prompt"]}]}
        for attempt in range(8):
            async with session.post(url, json=body) as reply:
                if reply.status == 200:
                    completion = await reply.json()
                    text = completion["choices"][0]["message"]["content"]
                    line = {**row, "response": text, "usage": completion["usage"]}
                    stream.write(json.dumps(line) + "\n")
                    break
                wait = float(reply.headers.get("retry-after", 0.1 * 2**attempt))
            await asyncio.sleep(wait)


async def main(arguments: argparse.Namespace) -> None:
    """Sends all rows."""
    queue = [json.loads(line) for line in Path(arguments.data).read_text().splitlines()][::-1]
    Path(arguments.out).mkdir(parents=True)
    connector = aiohttp.TCPConnector(limit=arguments.concurrency)
    with (Path(arguments.out) / "results.jsonl").open("w") as stream:
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"{arguments.base_url}/chat/completions"
            await asyncio.gather(
                *(worker(queue, session, url, stream) for _ in range(arguments.concurrency))
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in (("data", str), ("concurrency", int), ("base-url", str), ("out", str)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    asyncio.run(main(parser.parse_args()))
