"""Generation by vLLM, against stand-ins that hold a real model of their own and take only what is pushed to them."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from truing.core.errors import MissingExtra, PlanError, RunError  # noqa: E402
from truing.train.rl.generate import LocalGenerator  # noqa: E402
from truing.train.rl.policy_models import SeparateCrew, SharedCrew  # noqa: E402
from truing.train.rl.settings import RLSettings  # noqa: E402
from truing.train.rl.vllm import LocalEngine, ServerEngine, VllmGenerator  # noqa: E402


class Other:
    """The base model again, elsewhere; adapters are read from their folder, as vLLM reads them."""

    def __init__(self, task: Any) -> None:
        self.base, self.loaded = task.model(0), {}
        self.stale = False

    def load(self, name: str, folder: str) -> None:
        from peft import PeftModel

        if isinstance(self.base, PeftModel):
            self.base.load_adapter(folder, adapter_name=name)
        else:
            self.base = PeftModel.from_pretrained(self.base, folder, adapter_name=name)
        self.loaded[name] = folder

    def draw(self, name: str | None, prompt: list[int], seed: int, longest: int) -> Any:
        if name is not None and not self.stale:
            self.base.set_adapter(name)
        model = self.base if name is None else self.base.get_base_model()
        return LocalGenerator(model.eval(), frozenset({1}))(
            [prompt], np.random.default_rng(seed).random((1, longest))
        )


@pytest.fixture
def server(task: Any) -> Iterator[Any]:
    other, lock = Other(task), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                if self.path == "/v1/load_lora_adapter":
                    other.load(body["lora_name"], body["lora_path"])
                    data = b"Success"
                elif self.path == "/v1/unload_lora_adapter":
                    other.loaded.pop(body["lora_name"])
                    data = b"Success"
                else:
                    assert body["model"] in other.loaded and body["return_token_ids"]
                    made = other.draw(
                        body["model"], body["prompt"], body["seed"], body["max_tokens"]
                    )
                    ids = list(made.ids[0])
                    data = json.dumps(
                        {
                            "choices": [
                                {
                                    "token_ids": ids,
                                    "finish_reason": "stop" if made.ended[0] else "length",
                                    "logprobs": {
                                        "token_logprobs": made.log_probs[0, : len(ids)].tolist()
                                    },
                                }
                            ]
                        }
                    ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{httpd.server_port}", other=other)
    httpd.shutdown()
    httpd.server_close()


def crew_of(task: Any, lora: int) -> Any:
    model = task.model(0)
    return (
        SharedCrew(model, task.tokenizer(), rank=lora)
        if lora
        else SeparateCrew(model, task.tokenizer())
    )


def run_of(trainer: Any, task: Any, engine: Any, lora: int, out: Path) -> Any:
    from truing.train.rl.trainer import Extras

    crew = crew_of(task, lora)
    settings = RLSettings(method="grpo", out=str(out), lora=lora, max_new=6)
    generator = VllmGenerator(crew, settings, engine, [1])
    run = trainer(
        "grpo",
        crew=crew,
        extras=Extras(generator=generator),
        lora=lora,
        out=str(out),
        lr=3e-2,
        max_new=6,
        steps=3,
    )
    return run


def test_a_server_draws_from_the_newest_policy(
    trainer: Any, task: Any, server: Any, tmp_path: Path
) -> None:
    run = run_of(trainer, task, ServerEngine(server.url + "/v1"), 4, tmp_path / "run")
    last = run.run()
    assert (
        last["drift"] < 1e-5 and last["kl_k3"] > 0.01
    )  # the policy has moved, and the server with it
    assert list(server.other.loaded) == ["policy-3"]
    assert sorted(p.name for p in (tmp_path / "run" / "pushed").iterdir()) == [
        "policy-2",
        "policy-3",
    ]


def test_weights_out_of_step_stop_the_run(
    trainer: Any, task: Any, server: Any, tmp_path: Path
) -> None:
    run = run_of(trainer, task, ServerEngine(server.url), 4, tmp_path / "run")
    run.generator.limit = 1e-4
    server.other.stale = True  # the server takes adapters but goes on with the first
    with pytest.raises(RunError, match="out of step"):
        run.run()


def test_a_server_takes_no_whole_weights(task: Any, server: Any, tmp_path: Path) -> None:
    generator = VllmGenerator(
        crew_of(task, 0),
        RLSettings(method="grpo", out=str(tmp_path), lora=0),
        ServerEngine(server.url),
        [1],
    )
    with pytest.raises(PlanError, match="takes adapters"):
        generator([[4]], np.zeros((1, 4)))


def test_a_server_that_is_not_there(task: Any, tmp_path: Path) -> None:
    generator = VllmGenerator(
        crew_of(task, 2),
        RLSettings(method="grpo", out=str(tmp_path), lora=2),
        ServerEngine("http://127.0.0.1:9"),
        [1],
    )
    generator.engine._load.retry_policy = type(generator.engine._load.retry_policy)(retries=0)  # type: ignore[attr-defined]
    with pytest.raises(RunError, match="load_lora_adapter"):
        generator([[4]], np.zeros((1, 4)))


class LLM:
    """What `LocalEngine` uses of `vllm.LLM`."""

    other: Any = None

    def __init__(self, **given: Any) -> None:
        self.given, self.resets = given, 0
        inner = SimpleNamespace(
            load_weights=lambda pairs: self.other.base.load_state_dict(dict(pairs), strict=False)
        )
        self.llm_engine = SimpleNamespace(
            model_executor=SimpleNamespace(
                driver_worker=SimpleNamespace(model_runner=SimpleNamespace(model=inner))
            )
        )

    def reset_prefix_cache(self) -> None:
        self.resets += 1

    def generate(self, prompts: Any, params: Any, *, lora_request: Any, use_tqdm: bool) -> Any:
        name = None
        if lora_request is not None:
            name = lora_request.lora_name
            if name not in self.other.loaded:
                self.other.load(name, lora_request.lora_path)
        for prompt, how in zip(prompts, params):
            made = self.other.draw(name, prompt["prompt_token_ids"], how.seed, how.max_tokens)
            chances = [
                {t: SimpleNamespace(logprob=float(x))}
                for t, x in zip(made.ids[0], made.log_probs[0])
            ]
            one = SimpleNamespace(
                token_ids=made.ids[0],
                logprobs=chances,
                finish_reason="stop" if made.ended[0] else "length",
            )
            yield SimpleNamespace(outputs=[one])


@pytest.mark.parametrize("lora", [4, 0])
def test_the_engine_of_this_process(
    trainer: Any, task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: int
) -> None:
    vllm, inside, request = (
        ModuleType("vllm"),
        ModuleType("vllm.lora"),
        ModuleType("vllm.lora.request"),
    )
    request.LoRARequest = lambda name, number, path: SimpleNamespace(lora_name=name, lora_path=path)  # type: ignore[attr-defined]
    vllm.LLM, vllm.TokensPrompt, vllm.SamplingParams = LLM, dict, SimpleNamespace  # type: ignore[attr-defined]
    for module in (vllm, inside, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    LLM.other = Other(task)
    engine = LocalEngine(RLSettings(method="grpo", out="", lora=lora), "base")
    last = run_of(trainer, task, engine, lora, tmp_path / "run").run()
    assert last["drift"] < 1e-5 and last["kl_k3"] > 0.01
    assert engine._llm.given.get("max_lora_rank") == (8 if lora else None)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtra, match=r"truing\[vllm\]"):
        LocalEngine(RLSettings(method="grpo", out=""), "base")
