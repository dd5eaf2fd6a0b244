"""What it costs to serve many configurations from one process: time to load, memory.

    python benchmarks/rails/many_configs.py --n 1000

Each has a self check of input and output, twenty canonical forms with flows and messages, and names
its own model. They are built as `truing serve --rails DIR` builds them.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from truing.models.scripted import ScriptedModel
from truing.serve.openai.model_router import ModelRouter, find_configs

CONFIG = """\
rails:
  input: {{flows: [self check input]}}
  output: {{flows: [self check output]}}
prompts:
  - {{task: self_check_input, content: "Bot {number}. Block? {{{{ user_input }}}}"}}
  - {{task: self_check_output, content: "Bot {number}. Block? {{{{ bot_response }}}}"}}
"""


def write_configs(folder: Path, count: int) -> None:
    """Writes the configurations, each in a folder of its own."""
    for number in range(count):
        config = folder / f"bot_{number:04d}"
        config.mkdir()
        (config / "config.yml").write_text(CONFIG.format(number=number))
        forms = [
            f'define user ask {topic}\n  "tell me about {topic}"\n\n'
            f'define bot tell {topic}\n  "About {topic} of bot {number}."\n\n'
            f"define flow about {topic}\n  user ask {topic}\n  bot tell {topic}\n"
            for topic in (f"topic {letter}" for letter in "abcdefghijklmnopqrst")
        ]
        (config / "rails.co").write_text("\n".join(forms))


def measure(count: int) -> None:
    """Prints the seconds to load and the resident memory before and after."""
    with tempfile.TemporaryDirectory() as name:
        write_configs(Path(name), count)
        model = ScriptedModel("No")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        started, cpu = time.perf_counter(), time.process_time()
        router = ModelRouter(model, find_configs(Path(name)))
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{len(router.guarded)} configurations: {seconds:.1f} s ({cpu_seconds:.1f} s of CPU, "
        f"{1000 * cpu_seconds / count:.1f} ms each), {before:.0f} MB before, {after:.0f} MB after "
        f"({1024 * (after - before) / count:.0f} kB each)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--n", type=int, default=1000)
    measure(parser.parse_args().n)
