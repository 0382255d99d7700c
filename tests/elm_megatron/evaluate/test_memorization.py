"""Memorization: windows by seed, greedy continuations without generating them, rates with intervals."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.errors import InputError
from conf.schema.hf import DatasetChoice, EvalConfig, Recall
from conf.schema.run import RunConfig
from data_prep.manifest import Manifest
from data_prep.tokenizer import Tokenizer
from elm_megatron.evaluate.memorization import (
    Work,
    drawn,
    measure,
    sample,
    sentences,
    verbatim,
    wilson,
    windows_of,
)
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.tokenizer_files import of_dataset
from tests.elm_megatron import model_jobs
from tests.elm_megatron.configs import pretrain_config, small_model
from tests.elm_megatron.engine import rank_functions
from tests.elm_megatron.rank_pool import RankPool
from tests.elm_megatron.small_dataset import make_text_dataset
from tests.elm_megatron.tune.configs import folder_of


def test_windows_do_not_overlap_and_follow_the_draw() -> None:
    ids = list(range(1000))
    for count in (1, 3, 10, 99):
        found = windows_of(ids, 100, count, 7)
        assert len(found) == min(count, 10)
        assert (np.diff(found, axis=1) == 1).all()
        assert (np.diff(found[:, 0]) >= 100).all()
        assert found[0, 0] >= 0 and found[-1, -1] <= 999
    assert len({windows_of(ids[:950], 100, 1, draw)[0, 0] for draw in range(50)}) > 20
    assert windows_of(list(range(99)), 100, 1, 7).shape == (0, 100)
    assert windows_of(list(range(100)), 100, 5, 7).tolist() == [list(range(100))]


def test_short_works_are_passed_over_and_counted() -> None:
    works = [Work(n, "x" * length) for n, length in enumerate([5, 30, 9, 30, 30, 30])]
    ids, number, short = sample(iter(works), lambda text: [1] * len(text), Recall(3, 2, 5, 5))
    assert (ids.shape, number, short) == ((6, 10), 3, 2)


@pytest.mark.parametrize(
    ("hits", "trials", "expected"),
    [(0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (5, 10, (0.2366, 0.7634)), (1, 200, (0.0009, 0.0278))],
)
def test_wilson(hits: int, trials: int, expected: tuple[float, float]) -> None:
    """Known values of the interval."""
    assert wilson(hits, trials) == pytest.approx(expected, abs=1e-4)


def test_one_pass_is_a_greedy_continuation(made: Callable[[str], model_jobs.Made]) -> None:
    """As many tokens as a greedy `generate` has in common with the text; batches change nothing."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(made("gqa").hf, dtype=torch.float32).eval()
    ids = torch.from_numpy(np.random.default_rng(0).integers(4, 500, (6, 5)))
    settings = {"do_sample": False, "max_new_tokens": 8, "min_new_tokens": 8, "pad_token_id": 3}
    with torch.inference_mode():
        greedy = model.generate(ids, attention_mask=torch.ones_like(ids), **settings).numpy()
    cut = [0, 1, 3, 7, 8, 8]
    for row, right in enumerate(cut):
        if right < 8:  # one token is another than the model's
            greedy[row, 5 + right] = (greedy[row, 5 + right] + 1) % 400
    assert verbatim(model, greedy, 5, []).tolist() == cut
    assert [int(verbatim(model, greedy[row : row + 1], 5, [])[0]) for row in range(6)] == cut


def eval_config(folder: Path, source: Path, **changes: Any) -> EvalConfig:
    """A checked measurement of memorization alone; its run folder is made."""
    values = {"split": None, "tasks": [], "memorization": True, **changes}
    config = EvalConfig(RunConfig("eval", str(folder)), str(source), **values)
    config.check()
    RunFolder(folder).create()
    return config


def test_results_table_and_card(made: Callable[[str], model_jobs.Made], corpus: Path, tmp_path: Path) -> None:
    """Both splits with counts and interval in the results, the table, the card; a run is as its export."""
    from elm_megatron.evaluate.evaluate import evaluate

    folder = tmp_path / "model"
    shutil.copytree(made("gqa").hf, folder)
    recall, data = Recall(works=4, prompt_tokens=20, continued_tokens=10), DatasetChoice(str(corpus))
    results = evaluate(eval_config(tmp_path / "eval", folder, recall=recall, data=data))
    ((name, result),) = results.items()
    found = result["memorization"]
    assert found["train"]["works"] == found["train"]["windows"] == 4
    valid = Manifest.load(corpus).splits["valid"].documents
    assert found["valid"]["works"] == min(4, valid)
    for split in ("train", "valid"):
        one = found[split]
        assert 0 <= one["low"] <= one["rate"] <= one["high"] <= 1
        assert one["verbatim"] == round(one["rate"] * one["windows"])
    assert json.loads((tmp_path / "eval" / "evaluation.json").read_text())[name] == result
    table = (tmp_path / "eval" / "evaluation.md").read_text()
    assert f"| continued verbatim, training works, 95% interval to | {found['train']['high']:.4g} |" in table
    card = (folder / "README.md").read_text()
    assert all(sentence in card for sentence in sentences(found))
    run = made("gqa").run  # trained with tp=2 and pp=2
    again = evaluate(eval_config(tmp_path / "again", run, recall=recall))
    assert again["run"]["memorization"] == found


def test_bad_input(made: Callable[[str], model_jobs.Made], corpus: Path, tmp_path: Path) -> None:
    from elm_megatron.evaluate.evaluate import evaluate

    recall = Recall(prompt_tokens=500, continued_tokens=50)
    config = eval_config(tmp_path / "a", made("gqa").hf, recall=recall, data=DatasetChoice(str(corpus)))
    with pytest.raises(InputError, match=r"longer than the model's longest sequence of 512"):
        evaluate(config)
    shutil.copytree(corpus, tmp_path / "data")
    (tmp_path / "data" / "documents.parquet").unlink()
    config = eval_config(tmp_path / "b", made("gqa").hf, data=DatasetChoice(str(tmp_path / "data")))
    with pytest.raises(InputError, match="memorization=true needs the texts of the dataset"):
        evaluate(config)


def invented(corpus: Path, count: int, tokens: int) -> list[dict[str, str]]:
    """Works of words of the sample corpus in random order, each of so many tokens, every fifth held out."""
    rng, encode = random.Random(1), Tokenizer.load(corpus).encode
    texts = pq.read_table(corpus / "documents.parquet", columns=["text"])["text"].to_pylist()
    known = sorted({word for text in texts for word in text.split() if word.isalpha()})
    works = []
    for n in range(count):
        words: list[str] = []
        while len(encode(" ".join(words))) != tokens:
            words.append(rng.choice(known))
            if len(encode(" ".join(words))) > tokens:
                words.pop()
        split = "valid" if n % 5 == 0 else "train"
        works.append({"id": f"work-{n:02}", "title": f"Work {n}", "split": split, "text": " ".join(words)})
    return works


def test_works_are_drawn_by_seed_and_id(corpus: Path, tmp_path: Path) -> None:
    """The order does not depend on the order of the file; a work that goes leaves the others in order."""
    works = invented(corpus, 12, 130)
    texts = {}
    for name, rows in (("a", works), ("b", works[::-1]), ("c", [w for w in works if w["id"] != "work-03"])):
        manifest = Manifest.load(make_text_dataset(tmp_path / name, corpus, rows))
        texts[name] = [work.text for work in drawn(manifest, "train", 5)]
        assert [work.text for work in drawn(manifest, "train", 6)] != texts[name]
    gone = next(work["text"] for work in works if work["id"] == "work-03")
    assert texts["a"] == texts["b"]
    assert [text for text in texts["a"] if text != gone] == texts["c"]
    assert set(texts["a"]) == {work["text"] for work in works if work["split"] == "train"}


def test_a_work_in_both_splits_is_cut(corpus: Path, tmp_path: Path) -> None:
    """As in the dataset: the first nine tenths were learnt."""
    works = [{**work, "split": "train"} for work in invented(corpus, 2, 130)]
    manifest = Manifest.load(make_text_dataset(tmp_path / "data", corpus, works))
    path = manifest.folder / "documents.parquet"
    table = pq.read_table(path).drop_columns("split").append_column("split", pa.array(["both", "both"]))
    pq.write_table(table, path)
    parts = [{work.text for work in drawn(manifest, split, 1)} for split in ("train", "valid")]
    assert {" ".join(pair) for pair in itertools.product(*parts)} > {work["text"] for work in works}


@pytest.mark.slow
def test_learnt_by_heart_and_not_with_goldfish(ranks: RankPool, corpus: Path, tmp_path: Path) -> None:
    """A model that overfits continues its training works and no others; with Goldfish never over 50 tokens.

    A work with its EOS is one sample, so that no prompt begins elsewhere than in training.
    """
    import torch

    from elm_megatron.evaluate import generate
    from elm_megatron.sources.source import resolve

    data = make_text_dataset(tmp_path / "data", corpus, invented(corpus, 40, 100))
    manifest = Manifest.load(data)
    sizes = {"hidden_size": 128, "ffn_hidden_size": 320, "num_layers": 2, "max_position_embeddings": 128}
    model = small_model(vocab_size=model_jobs.VOCAB, **sizes)
    loop = {"steps": 400, "seq_length": 101, "micro_batch_size": 8, "lr": 5e-3, "min_lr": 1e-4}
    found = {}
    for name, k, prompt in (("plain", 0, 50), ("goldfish", 4, 40)):
        config = pretrain_config(tmp_path / name, data, model=model, goldfish=k, **loop)
        run = folder_of(config)
        run.update(manifest_sha256=manifest.sha256)
        assert ranks.run(1, rank_functions.train, config=config) == ["done"]
        trained = generate.load(resolve(str(run.path)), torch.device("cpu")).eval()
        recall = Recall(works=50, prompt_tokens=prompt, continued_tokens=100 - prompt)
        found[name] = measure(trained, of_dataset(manifest), manifest, recall, 16)
    print(json.dumps(found, indent=1))
    assert found["plain"]["train"]["rate"] > 0.9
    assert found["plain"]["valid"]["rate"] == 0.0
    assert found["goldfish"]["train"]["windows"] == found["plain"]["train"]["windows"] == 32
    assert found["goldfish"]["train"]["longest"] <= 50
