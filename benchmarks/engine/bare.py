"""The bare client: aiohttp, a worker pool, a line of JSON for each answer, retries that honour Retry-After. Nothing else."""

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
    """Takes rows until there are none."""
    while queue:
        row = queue.pop()
        body = {"model": "mock", "messages": [{"role": "user", "content": row["prompt"]}]}
        for attempt in range(8):
            async with session.post(url, json=body) as reply:
                if reply.status == 200:
                    made = await reply.json()
                    text = made["choices"][0]["message"]["content"]
                    stream.write(
                        json.dumps({**row, "response": text, "usage": made["usage"]}) + "\n"
                    )
                    break
                wait = float(reply.headers.get("retry-after", 0.1 * 2**attempt))
            await asyncio.sleep(wait)


async def main(a: argparse.Namespace) -> None:
    """Asks everything."""
    queue = [json.loads(line) for line in Path(a.data).read_text().splitlines()][::-1]
    Path(a.out).mkdir(parents=True)
    connector = aiohttp.TCPConnector(limit=a.concurrency)
    with (Path(a.out) / "results.jsonl").open("w") as stream:
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"{a.base_url}/chat/completions"
            await asyncio.gather(
                *(worker(queue, session, url, stream) for _ in range(a.concurrency))
            )


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    for name, kind in (("data", str), ("concurrency", int), ("base-url", str), ("out", str)):
        p.add_argument(f"--{name}", type=kind, required=True)
    asyncio.run(main(p.parse_args()))
