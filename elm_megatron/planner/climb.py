"""What `launch/ladder.py` does after its runs: reads their losses, fits the law, keeps and shows it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from conf.errors import InputError
from conf.schema.ladder import LadderConfig
from conf.schema.pretrain import PretrainConfig
from data_prep import files
from elm_megatron.planner.ladder import LEAST, Law, Rung
from elm_megatron.planner.rungs import target_tokens, weights
from elm_megatron.run.folder import RunFolder

FILE = "ladder.json"


def trained(runs: Sequence[PretrainConfig]) -> tuple[list[Rung], list[str]]:
    """The rungs whose runs are done, and the names of the others."""
    done, missing = [], []
    for config in runs:
        record = RunFolder(config.run.dir).read()
        loss = record.get("valid_loss")
        if record.get("state") != "done" or loss is None:
            missing.append(config.run.name)
            continue
        tokens = config.train.consumed(config.train.steps or 0) * config.train.seq_length
        done.append(Rung(config.run.name, weights(config.model), tokens, float(loss)))
    return done, missing


def show_runs(runs: Sequence[PretrainConfig], estimated: Sequence[tuple[str, str]]) -> None:
    """The runs before they start.

    Args:
        runs: of the ladder.
        estimated: hours and budget of each, in words.
    """
    table = Table(box=SIMPLE, pad_edge=False)
    for head in ("run", "hidden", "layers", "weights", "steps", "batch", "learning rate", "time", "budget"):
        table.add_column(head, justify="left" if head in ("run", "time", "budget") else "right")
    for config, (time, budget) in zip(runs, estimated, strict=True):
        model, train = config.model, config.train
        table.add_row(
            config.run.name,
            str(model.hidden_size),
            str(model.num_layers),
            f"{weights(model):,}",
            f"{train.steps:,}",
            str(train.global_batch_size),
            f"{train.lr:.2g}",
            time,
            budget,
        )
    Console(width=max(120, Console().width)).print(table)


def conclude(config: LadderConfig, runs: Sequence[PretrainConfig]) -> int:
    """Print and keep the prediction, or what is still missing.

    Returns:
        The exit status, 0.

    Raises:
        InputError: the losses allow no fit.
    """
    rungs, missing = trained(runs)
    if missing:
        print(f"not done yet: {', '.join(missing)}; the same command goes on, and predicts when all are done")
        return 0
    tokens = target_tokens(config)
    law = Law(rungs)
    found = law.predict(weights(config.model), tokens)
    table = Table(box=SIMPLE, pad_edge=False)
    for head in ("run", "weights", "tokens", "loss"):
        table.add_column(head, justify="left" if head == "run" else "right")
    for rung in rungs:
        table.add_row(rung.name, f"{rung.parameters:,}", f"{rung.tokens:,}", f"{rung.loss:.4f}")
    Console(width=max(100, Console().width)).print(table)
    data: dict[str, Any] = {
        "model": config.model.name,
        "corpus": config.corpus.name,
        "weights": weights(config.model),
        "tokens": tokens,
        "loss": found.loss,
        "low": found.low,
        "high": found.high,
        "exponent": law.exponent,
        "rungs": [vars(rung) for rung in rungs],
    }
    if len(rungs) > LEAST:
        *known, largest = rungs
        test = Law(known).predict(largest.parameters, largest.tokens)
        inside = test.low <= largest.loss <= test.high
        data["left_out"] = {"run": largest.name, "loss": test.loss, "low": test.low, "high": test.high}
        print(
            f"{largest.name}, left out: predicted {_interval(test)}, measured {largest.loss:.3f}, "
            f"{'inside' if inside else 'OUTSIDE: do not trust the prediction below'}"
        )
    print(
        f"{config.model.name} on {tokens:,} tokens: validation loss {_interval(found)}, a power of compute "
        f"with exponent {law.exponent:.3f}"
    )
    folder = Path(config.run.dir)
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / FILE, json.dumps(data, indent=1) + "\n")
    print(f"written: {folder / FILE}")
    return 0


def predicted_loss(config: PretrainConfig, tokens: int) -> str | None:
    """What a ladder beside the run's folder says of a model's loss, in words; None where there is none.

    Args:
        config: the run; its ladder is `ladder-<model>-<corpus>`.
        tokens: it would be trained on.

    Raises:
        InputError: the ladder's file cannot be read.
    """
    path = Path(config.run.dir).parent / f"ladder-{config.model.name}-{config.corpus.name}" / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["weights"] != weights(config.model):
            return None
        found = f"{data['loss']:.3f} ({data['low']:.3f} to {data['high']:.3f}) nats per token"
        if abs(tokens / data["tokens"] - 1) > 0.1:
            return f"{found} on {data['tokens']:,} tokens, which is another length than this run's ({path})"
        return f"{found}, predicted from {len(data['rungs'])} smaller models ({path})"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it to plan without a ladder.") from error


def _interval(found: Any) -> str:
    return f"{found.loss:.3f} ({found.low:.3f} to {found.high:.3f})"
