"""Chat models from elsewhere: their added tokens, their template and their end of an answer survive."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conf.errors import InputError
from elm_megatron.chat.examples import Encoder
from elm_megatron.chat.template import Dialogue, Template, Turn
from elm_megatron.hf import tokenizer_writer
from elm_megatron.sources import tokenizer_files
from elm_megatron.sources.weights import FolderWeights
from tests.elm_megatron import model_jobs as cases
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.tune import configs as tuning
from tests.elm_megatron.tune import rank_functions

gguf = pytest.importorskip("gguf", reason="needs the hf extra")

ROWS = 512
START, END = 501, 502  # <|im_start|>, <|im_end|>; the tokenizer has 501 pieces
CHATML = (
    "{%- for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)
MESSAGES = [{"role": "user", "content": "Waar is de haven?"}]


def added(text: str) -> dict[str, Any]:
    return {"content": text, "special": True, "lstrip": False, "rstrip": False, "normalized": False}


def chat_model(folder: Path, corpus: Path, template_file: bool = True, **config: Any) -> Path:
    """A ChatML model with a tokenizer.json, as people publish them."""
    import torch
    from tokenizers import AddedToken, Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {
        "vocab_size": ROWS, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "bos_token_id": START, "eos_token_id": END, "pad_token_id": END,
    }  # fmt: skip
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(folder)
    if config:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    shutil.copy(corpus / "tokenizer.model", folder)
    fast = Tokenizer.from_file(str(corpus / "tokenizer.json"))
    fast.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ("<|im_start|>", "<|im_end|>")]
    )
    fast.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>",
        "added_tokens_decoder": {str(START): added("<|im_start|>"), str(END): added("<|im_end|>")},
        "model_max_length": 256,
    }  # fmt: skip
    if template_file:
        (folder / "chat_template.jinja").write_text(CHATML)
    else:
        settings["chat_template"] = CHATML
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def chat_ids(folder: Path) -> list[int]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token_id == END
    return tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)


@pytest.mark.parametrize("template_file", [True, False])
def test_import_and_exports_keep_tokens_and_template(
    template_file: bool, ranks: RankPool, corpus: Path, tmp_path: Path
) -> None:
    source = chat_model(tmp_path / "hf", corpus, template_file)
    ranks.run(1, cases.import_hf, config=cases.import_config(tmp_path / "imported", source))
    ranks.run(1, cases.export, config=cases.export_config(tmp_path / "out", tmp_path / "imported"))
    model = tmp_path / "out" / "model"
    assert json.loads((model / "config.json").read_text())["eos_token_id"] == END
    assert chat_ids(model) == chat_ids(source)
    assert chat_ids(model)[0] == START
    config = cases.export_config(tmp_path / "gguf", tmp_path / "imported", format="gguf", dtype="f32")
    ranks.run(1, cases.export, config=config)
    fields = gguf.GGUFReader(tmp_path / "gguf" / "model.gguf").fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert tokens[START : END + 1] == ["<|im_start|>", "<|im_end|>"] and len(set(tokens)) == ROWS
    assert set(kinds[START : END + 1]) == {gguf.TokenType.CONTROL}
    assert fields["tokenizer.ggml.eos_token_id"].contents() == END
    assert fields["tokenizer.chat_template"].contents() == CHATML


@pytest.mark.parametrize("template_file", [True, False])
def test_a_tuned_one_answers_to_the_template_of_its_tuning(
    template_file: bool, corpus: Path, tmp_path: Path
) -> None:
    """transformers takes it as the default; the base's stays under its name."""
    from transformers import AutoTokenizer

    source = chat_model(tmp_path / "hf", corpus, template_file)
    tuned = replace(tokenizer_files.of_folder(source), tuned=True)
    (tmp_path / "out").mkdir()
    tokenizer_writer.write(tuned, tmp_path / "out", 256)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    assert text == Template.load("alpaca").prompt(Dialogue((Turn(MESSAGES[0]["content"], "", ""),)), 0)
    base = tokenizer.apply_chat_template(MESSAGES, chat_template="base", tokenize=False)
    assert base.startswith("<|im_start|>user")
    more = [*MESSAGES, {"role": "assistant", "content": "Daar."}, *MESSAGES]
    ids = tokenizer.apply_chat_template(more, return_dict=False)
    assert ids.count(END) == 1 and "Daar.<|im_end|>" in tokenizer.decode(ids)


def test_an_answer_is_closed_with_the_models_own_end(corpus: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_files.of_folder(chat_model(tmp_path / "hf", corpus)).load()
    example = Encoder.of(tokenizer, Template.load("alpaca"), 256)(Dialogue((Turn("A?", "", "B"),)))
    assert example.ids[-1] == END and example.answer[-1]


@pytest.mark.slow
def test_one_is_tuned_and_exported_with_its_tokens(ranks: RankPool, corpus: Path, tmp_path: Path) -> None:
    """From a folder to a folder: what is learnt is what transformers writes for the exported template."""
    from transformers import AutoTokenizer

    source = chat_model(tmp_path / "hf", corpus)
    imported = cases.import_config(tmp_path / "imported", source)
    ranks.run(1, cases.import_hf, config=imported)
    config = tuning.finetune_config(tmp_path / "tuned", tmp_path / "imported", model=imported.model, steps=2)
    tuning.folder_of(config)
    assert ranks.run(1, rank_functions.finetune, config=config) == ["done"]
    ranks.run(1, cases.export, config=cases.export_config(tmp_path / "out", tmp_path / "tuned"))
    exported = AutoTokenizer.from_pretrained(tmp_path / "out" / "model")
    assert exported.eos_token_id == END and exported.convert_tokens_to_ids("<|im_start|>") == START
    own = tokenizer_files.of_folder(source).load()
    dialogue = Dialogue((Turn(MESSAGES[0]["content"], "", "Daar."),))
    example = Encoder.of(own, Template.load("dialogue"), 256)(dialogue)
    prompt = exported.apply_chat_template(MESSAGES, return_dict=False)
    assert example.ids.tolist()[: len(prompt)] == prompt and example.ids[-1] == END
    base = exported.apply_chat_template(MESSAGES, chat_template="base", tokenize=False)
    assert base.startswith("<|im_start|>user")


@pytest.mark.parametrize("token", ["<|im_start|>", "<|im_end|>"])
def test_a_template_with_special_tokens_of_the_model_is_refused(
    token: str, corpus: Path, tmp_path: Path
) -> None:
    tokenizer = tokenizer_files.of_folder(chat_model(tmp_path / "hf", corpus)).load()
    template = replace(Template.load("alpaca"), between=f"{token}\n")
    with pytest.raises(InputError, match=r"tune\.template: has .*a special token of the model"):
        Encoder.of(tokenizer, template, 256)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"eos_token_id": 600}, "eos_token_id=600 is no row of the vocabulary of 512"),
        ({"eos_token_id": -1}, "eos_token_id=-1 is no row"),
        ({"eos_token_id": [600, 2]}, "eos_token_id=600 is no row"),
        ({"eos_token_id": "</s>"}, "eos_token_id='</s>' is no row"),
        (
            {"vocab_size": 502, "bos_token_id": 1, "eos_token_id": 2},
            "the added token '<|im_end|>' has the id 502",
        ),
    ],
)
def test_ids_without_a_row_are_refused(
    config: dict[str, Any], message: str, corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"\.$") as refusal:
        tokenizer_files.of_folder(chat_model(tmp_path / "hf", corpus, **config))
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("added_tokens.json", {"<x>": "many"}),
        ("added_tokens.json", ["<x>"]),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "<x>"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"7": "<x>"}}),
        ("tokenizer_config.json", {"added_tokens_decoder": ["<x>"]}),
        ("tokenizer_config.json", {"chat_template": {"default": "x"}}),
        ("tokenizer_config.json", {"chat_template": ["x"]}),
    ],
)
def test_strange_tokenizer_files_are_a_sentence(
    name: str, value: object, corpus: Path, tmp_path: Path
) -> None:
    folder = chat_model(tmp_path / "hf", corpus, template_file=False)
    (folder / name).write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"\.$") as refusal:
        tokenizer_files.of_folder(folder)
        tokenizer_files.chat_template(folder)
    assert name in str(refusal.value)


@pytest.mark.parametrize("head", ["same", "other", "half", "smaller"])
def test_a_tied_head_that_differs_is_refused(head: str, corpus: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = chat_model(tmp_path / "hf", corpus, tie_word_embeddings=True)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    embedding = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = {
        "same": embedding.clone(),
        "other": embedding + 1,
        "half": embedding.half(),
        "smaller": embedding[:5].clone(),
    }[head]
    save_file(tensors, path, metadata={"format": "pt"})
    if head == "same":
        assert torch.equal(
            FolderWeights(folder).part("embedding")["embedding.word_embeddings.weight"], embedding
        )
        return
    with pytest.raises(InputError, match=r"tie_word_embeddings=True, and the weights hold another lm_head"):
        FolderWeights(folder)
