"""The gateway before an engine: prompts as ids, as the model was tuned; vLLM's command against a stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from conf.errors import InputError
from conf.schema.cluster import ClusterConfig
from conf.schema.run import RunConfig
from conf.schema.serve import ServeConfig
from elm_megatron.chat.template import Template
from elm_megatron.serve import status
from elm_megatron.serve.chat import Prompts, dialogue_of
from elm_megatron.serve.counts import Counts
from elm_megatron.serve.engines import Engine, Served
from elm_megatron.serve.gateway import Gateway, Model
from elm_megatron.sources.places import locate

STAND_IN = Path(__file__).parents[2] / "stand_ins" / "vllm"
EOS = 9999


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.fixture
def prompts() -> Prompts:
    """Letters as ids, so that a test reads what came."""
    letters = SimpleNamespace(begin=[], eos_id=EOS, encode=lambda text: [ord(letter) for letter in text])
    return Prompts(letters, Template.load("alpaca"))  # type: ignore[arg-type]


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine of kind vllm, which is a stand-in."""
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))
    engine = Engine("vllm", Served("elm", "nowhere", "/a/model"), "the-key", tmp_path, 2)
    try:
        engine.wait(lambda: False)
        yield engine
    finally:
        engine.stop()


def test_a_conversation_becomes_the_ids_it_was_tuned_with(prompts: Prompts) -> None:
    ids = prompts.chat([user("Who </s>?"), {"role": "assistant", "content": "Me."}, user("Why?")])
    cut = ids.index(EOS)
    first, second = ("".join(map(chr, part)) for part in (ids[:cut], ids[cut + 1 :]))
    template = Template.load("alpaca")
    dialogue = dialogue_of([user("Who </s>?"), {"role": "assistant", "content": "Me."}, user("Why?")])
    assert first == template.prompt(dialogue, 0) + "Me." and second == template.prompt(dialogue, 1)
    assert ids.count(EOS) == 1  # of the answer before, never of a text


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "at least one message"),
        ("hello", "at least one message"),
        ([{"role": "assistant", "content": "x"}], "must take turns"),
        ([user("a"), user("b")], "must take turns"),
        ([user("a"), {"role": "assistant", "content": "x"}], "last one must be of the user"),
        ([{"role": "system", "content": "x"}], "last one must be of the user"),
        ([{"role": "user"}], "needs a `role` and a `content`"),
        ([{"role": "user", "content": [{"type": "image"}]}], "needs a `role` and a `content`"),
        ([3], "needs a `role` and a `content`"),
    ],
)
def test_what_is_no_conversation_is_refused(messages: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        dialogue_of(messages)


def test_vllm_gets_ids_and_the_key(vllm: Engine, prompts: Prompts) -> None:
    gateway = Gateway([Model("elm", vllm.url, prompts)], "the-key")
    with TestClient(gateway.app) as client:
        headers = {"authorization": "Bearer the-key"}
        asked = {"messages": [user("Hi")], "max_tokens": 4}
        answer = client.post("/v1/chat/completions", json=asked, headers=headers)
        path, ids = json.loads(answer.json()["choices"][0]["message"]["content"])
        assert path == "/v1/completions" and "Hi" in "".join(map(chr, ids))
        text = client.post("/v1/completions", json={"prompt": "abc"}, headers=headers).json()
        assert json.loads(text["choices"][0]["text"])[1] == [97, 98, 99]
        assert (gateway.counts.requests, gateway.counts.failed, gateway.counts.tokens) == (2, 0, 6)
        vllm.stop()
        gone = client.post("/v1/completions", json={"prompt": "abc"}, headers=headers)
        assert gone.status_code == 502 and "the engine does not answer" in gone.text
        assert gateway.counts.failed == 1 and gateway.counts.open == 0


def test_the_device_decides_on_the_engine() -> None:
    gpu = ClusterConfig(name="x", executor="slurm", device="gpu", gpus_per_node=4, cpu_partition="rome")
    serve = ServeConfig(RunConfig("serve-x", "runs/serve-x"), "x", cluster=gpu)
    assert serve.engine == "vllm" and serve.job_cluster().gpus_per_node == 1
    here = ServeConfig(RunConfig("serve-x", "runs/serve-x"), "x")
    assert here.engine == "llamacpp" and here.job_cluster().gpus_per_node == 0
    for config, said in (
        (ServeConfig(RunConfig("x", "runs/x"), []), "at least one model"),
        (ServeConfig(RunConfig("x", "runs/x"), ["a", "a"]), "given twice"),
        (ServeConfig(RunConfig("x", "runs/x"), "a", dtype="f16", cluster=gpu), "GPUs use vLLM"),
    ):
        with pytest.raises(InputError, match=said):
            config.check()


def test_idle_is_since_the_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counts(last=0.0)
    assert counts.idle_seconds > 1000
    with counts.request() as one:
        one.tokens = 5
        assert counts.idle_seconds == 0 and counts.open == 1
    assert counts.idle_seconds < 1 and counts.shown()["tokens"] == 5
    with pytest.raises(ValueError), counts.request():
        raise ValueError
    assert (counts.requests, counts.failed, counts.open) == (2, 1, 0)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key = status.key_of(tmp_path)
    assert status.key_of(tmp_path) == key and len(key) > 40
    (tmp_path / status.KEY_FILE).chmod(0o640)
    with pytest.raises(InputError, match="others can read the key"):
        status.key_of(tmp_path)


def test_a_source_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(InputError, match="source=nowhere"):
        locate("nowhere")
