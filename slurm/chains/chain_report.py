"""What a finished chain shows: its stages, the loss before and after, and a sentence the model writes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conf.schema.pipeline import PipelineConfig
from elm_megatron.run.folder import RunFolder
from slurm.chains.chain import Link, Row, Stage

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
LOSSES = {
    "pretrain": "pretraining",
    "finetune": "tuning, on the held-out answers",
    "dpo": "preferences, on the held-out pairs",
}


def show(config: PipelineConfig, rows: list[Row]) -> int:
    """Print the table, the losses and a generated sentence; returns the exit status of the latter."""
    table = Table("stage", "input", "output", "seconds")
    for row in rows:
        seconds = f"{row.seconds:.0f}" + (" (reused)" if row.reused else "")
        table.add_row(row.stage.verb, row.stage.source, row.stage.output, seconds)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for verb, what in LOSSES.items():
        if verb in config.verbs:
            print(losses(RunFolder(config.stage_run(verb).dir), what))
    if "export" not in config.verbs:
        return 0
    status = speak(config)
    print(f"\nask it in your browser: {chat_page(config)}", flush=True)
    return status


def chat_page(config: PipelineConfig) -> str:
    """The command that opens the chat page on the model that a chain has made."""
    words = [LAUNCH.parent / ".venv" / "bin" / "python", LAUNCH / "community.py"]
    command = [str(Path(os.path.relpath(word))) if word.exists() else "python" for word in words]
    return " ".join([*command, f"source={config.stage_run('export').name}"])


def show_queue(links: list[Link]) -> int:
    """Print what stands in the queue; returns the exit status 0."""
    table = Table("stage", "job", "state", "waits for", "output")
    for link in links:
        stage = link.stage
        table.add_row(stage.verb, link.job or "-", link.state(), link.waits or "nothing", stage.output)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0


def show_plan(stages: list[Stage]) -> int:
    """Print what a chain would do; returns the exit status 0."""
    table, there = Table("stage", "input", "output", "there"), True
    for stage in stages:
        there = there and stage.finished()  # behind a stage that is made anew nothing stays valid
        table.add_row(stage.verb, stage.source, stage.output, "yes, valid" if there else "no")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0


def this_host() -> str:
    """What another computer calls this one, as far as this one knows."""
    return socket.getfqdn() if "." in socket.getfqdn() else socket.gethostname()


def losses(run: RunFolder, what: str) -> str:
    """A run's validation loss before and after, and the split's own entropy beside it where it is known."""
    record = run.read()
    before, after = record.get("valid_loss_first"), record.get("valid_loss")
    if before is None or after is None:
        return f"validation loss, {what}: not recorded in {run.run_json}"
    text = f"validation loss, {what}: {before:.3f} before, {after:.3f} after (nats per token)"
    entropy = record.get("unigram_entropy")
    if entropy:
        text += (
            f"; unigram entropy of the same split {entropy:.3f}, {100 * (1 - after / entropy):.0f}% below it"
        )
    return text


def speak(config: PipelineConfig) -> int:
    """Let the exported model continue `prompt`, through the same command a person would use."""
    source = config.stage_run("export").dir
    command = [sys.executable, str(LAUNCH / "generate.py"), f"source={source}"]
    command += ["temperature=0.5", f"max_new_tokens={config.max_new_tokens}", "chat=false"]
    print("\nthe model goes on:", flush=True)
    return subprocess.run(
        command, input=config.prompt + "\n", encoding="utf-8", errors="replace", check=False
    ).returncode
