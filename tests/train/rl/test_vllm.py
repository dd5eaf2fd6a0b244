"""Generation by vLLM, against stand-ins that hold a model of their own and use pushed weights."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
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
from truing.train.rl.policy_models import SeparateModels, SharedBackboneModels  # noqa: E402
from truing.train.rl.settings import RLSettings  # noqa: E402
from truing.train.rl.trainer import TrainerOptions  # noqa: E402
from truing.train.rl.vllm import (  # noqa: E402
    InProcessEngine,
    VllmAnswer,
    VllmGenerator,
    VllmServerEngine,
    _parse_completion,
)

END_ID = 1


class ServedModel:
    """A second copy of the base model; adapters are read from their folders, as vLLM does.

    With `ignores_new_adapters` it goes on with the first adapter.
    """

    def __init__(self, task: Any) -> None:
        self.model = task.model(0)
        self.adapter_folders: dict[str, str] = {}
        self.ignores_new_adapters = False

    def load_adapter(self, name: str, folder: str) -> None:
        from peft import PeftModel

        if isinstance(self.model, PeftModel):
            self.model.load_adapter(folder, adapter_name=name)
        else:
            self.model = PeftModel.from_pretrained(self.model, folder, adapter_name=name)
        self.adapter_folders[name] = folder

    def sample(self, adapter: str | None, prompt: list[int], seed: int, max_tokens: int) -> Any:
        """Returns (ids, log-probabilities, finish reason) of one answer."""
        if adapter is not None and not self.ignores_new_adapters:
            self.model.set_adapter(adapter)
        model = self.model if adapter is None else self.model.get_base_model()
        generator = LocalGenerator(model.eval(), frozenset({END_ID}))
        answers = generator([prompt], np.random.default_rng(seed).random((1, max_tokens)))
        ids = list(answers.ids[0])
        log_probs = answers.log_probs[0, : len(ids)].tolist()
        return ids, log_probs, "stop" if answers.ended[0] else "length"


@pytest.fixture
def server(task: Any) -> Iterator[Any]:
    """An HTTP server with the routes of `vllm serve --enable-lora`."""
    served, lock = ServedModel(task), threading.Lock()

    def answer(path: str, body: dict[str, Any]) -> bytes:
        if path == "/v1/load_lora_adapter":
            served.load_adapter(body["lora_name"], body["lora_path"])
            return b"Success"
        if path == "/v1/unload_lora_adapter":
            del served.adapter_folders[body["lora_name"]]
            return b"Success"
        assert body["model"] in served.adapter_folders
        assert body["return_token_ids"]
        ids, log_probs, finish_reason = served.sample(
            body["model"], body["prompt"], body["seed"], body["max_tokens"]
        )
        choice = {
            "token_ids": ids,
            "finish_reason": finish_reason,
            "logprobs": {"token_logprobs": log_probs},
        }
        return json.dumps({"choices": [choice]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                data = answer(self.path, body)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{http_server.server_port}", served=served)
    http_server.shutdown()
    http_server.server_close()


@pytest.fixture
def open_engine() -> Iterator[Callable[[str], VllmServerEngine]]:
    """Returns a function that connects to a server; the connections end with the test."""
    with ExitStack() as engines:
        yield lambda url: engines.enter_context(closing(VllmServerEngine(url)))


def build_models(task: Any, lora: int) -> Any:
    model, tokenizer = task.model(0), task.tokenizer()
    if lora:
        return SharedBackboneModels(model, tokenizer, rank=lora)
    return SeparateModels(model, tokenizer)


def build_generator(task: Any, engine: Any, out: Path, lora: int) -> VllmGenerator:
    settings = RLSettings(method="grpo", out=str(out), lora=lora, max_new=6)
    return VllmGenerator(build_models(task, lora), settings, engine, [END_ID])


def build_trainer(make_trainer: Any, task: Any, engine: Any, out: Path, lora: int) -> Any:
    generator = build_generator(task, engine, out, lora)
    return make_trainer(
        "grpo",
        models=generator.models,
        options=TrainerOptions(generator=generator),
        lora=lora,
        out=str(out),
        lr=3e-2,
        max_new=6,
        steps=3,
    )


def test_a_server_samples_from_the_newest_policy(
    make_trainer: Any, task: Any, server: Any, open_engine: Any, tmp_path: Path
) -> None:
    engine = open_engine(server.url + "/v1")
    last = build_trainer(make_trainer, task, engine, tmp_path / "run", 4).run().values
    assert last["drift"] < 1e-5
    assert last["kl_k3"] > 0.01  # the policy has moved, and the server with it
    assert list(server.served.adapter_folders) == ["policy-3"]
    pushed = sorted(path.name for path in (tmp_path / "run" / "pushed").iterdir())
    assert pushed == ["policy-2", "policy-3"]


def test_old_weights_in_the_server_stop_the_run(
    make_trainer: Any, task: Any, server: Any, open_engine: Any, tmp_path: Path
) -> None:
    engine = open_engine(server.url)
    trainer = build_trainer(make_trainer, task, engine, tmp_path / "run", 4)
    trainer.sampler.generator.max_drift = 1e-4
    server.served.ignores_new_adapters = True
    with pytest.raises(RunError, match="out of step"):
        trainer.run()


def test_a_server_takes_no_whole_weights(
    task: Any, server: Any, open_engine: Any, tmp_path: Path
) -> None:
    generator = build_generator(task, open_engine(server.url), tmp_path, 0)
    with pytest.raises(PlanError, match="takes adapters"):
        generator([[4]], np.zeros((1, 4)))


def test_an_unreachable_server_is_named(task: Any, open_engine: Any, tmp_path: Path) -> None:
    engine = open_engine("http://127.0.0.1:9")
    endpoint = engine._load_adapter
    endpoint.retry_policy = type(endpoint.retry_policy)(retries=0)
    with pytest.raises(RunError, match="load_lora_adapter"):
        build_generator(task, engine, tmp_path, 2)([[4]], np.zeros((1, 4)))


def test_an_answer_without_token_ids_needs_a_newer_server() -> None:
    with pytest.raises(ValueError, match=r"vLLM 0\.10\.2"):
        _parse_completion(b'{"choices": [{"text": "gold"}]}')


def test_a_missing_end_token_is_added(task: Any, tmp_path: Path) -> None:
    class EngineWithoutEndTokens:
        def push_weights(self, *_: Any) -> None:
            pass

        def sample(self, *_: Any) -> list[VllmAnswer]:
            return [
                VllmAnswer([4], [-0.5], True),
                VllmAnswer([4, END_ID], [-0.5, -0.7], True),
                VllmAnswer([5], [-0.2], False),
            ]

    generator = build_generator(task, EngineWithoutEndTokens(), tmp_path, 0)
    answers = generator([[4]] * 3, np.zeros((3, 4)))
    assert answers.ids == ((4, END_ID), (4, END_ID), (5,))
    assert answers.ended == (True, True, False)
    assert answers.log_probs.shape == (3, 2)


class FakeLLM:
    """The part of `vllm.LLM` that `InProcessEngine` uses."""

    served: Any = None

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.cache_resets = 0
        model = SimpleNamespace(load_weights=self.load_weights)
        worker = SimpleNamespace(model_runner=SimpleNamespace(model=model))
        executor = SimpleNamespace(driver_worker=worker)
        self.llm_engine = SimpleNamespace(model_executor=executor)

    def load_weights(self, named_weights: Any) -> None:
        self.served.model.load_state_dict(dict(named_weights), strict=False)

    def reset_prefix_cache(self) -> None:
        self.cache_resets += 1

    def generate(self, prompts: Any, params: Any, *, lora_request: Any, use_tqdm: bool) -> Any:
        adapter = None
        if lora_request is not None:
            adapter = lora_request.name
            if adapter not in self.served.adapter_folders:
                self.served.load_adapter(adapter, lora_request.path)
        for prompt, sampling in zip(prompts, params):
            ids, log_probs, finish_reason = self.served.sample(
                adapter, prompt["prompt_token_ids"], sampling.seed, sampling.max_tokens
            )
            candidates = [
                {token: SimpleNamespace(logprob=log_prob)}
                for token, log_prob in zip(ids, log_probs)
            ]
            completion = SimpleNamespace(
                token_ids=ids, logprobs=candidates, finish_reason=finish_reason
            )
            yield SimpleNamespace(outputs=[completion])


@pytest.fixture
def fake_vllm(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a package `vllm` with `FakeLLM` into sys.modules."""
    package: Any = ModuleType("vllm")
    request: Any = ModuleType("vllm.lora.request")
    package.LLM, package.TokensPrompt, package.SamplingParams = FakeLLM, dict, SimpleNamespace
    request.LoRARequest = lambda name, number, path: SimpleNamespace(name=name, path=path)
    for module in (package, ModuleType("vllm.lora"), request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    FakeLLM.served = ServedModel(task)


@pytest.mark.parametrize(("lora", "max_lora_rank"), [(4, 8), (0, None)])
@pytest.mark.usefixtures("fake_vllm")
def test_the_engine_of_this_process_samples_from_the_newest_policy(
    make_trainer: Any, task: Any, tmp_path: Path, lora: int, max_lora_rank: int | None
) -> None:
    engine = InProcessEngine(RLSettings(method="grpo", out="", lora=lora), "base")
    last = build_trainer(make_trainer, task, engine, tmp_path / "run", lora).run().values
    assert last["drift"] < 1e-5
    assert last["kl_k3"] > 0.01
    assert engine._llm.options.get("max_lora_rank") == max_lora_rank
    assert engine._llm.cache_resets == (0 if lora else 3)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtra, match=r"truing\[vllm\]"):
        InProcessEngine(RLSettings(method="grpo", out=""), "base")
