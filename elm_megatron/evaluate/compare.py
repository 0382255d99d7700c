"""A tuned model beside the one before it: which of the two agrees more with people, on held-out pairs.

A pair is an answer that people preferred and one that they did not. Each model's margin is the mean
log-probability of the preferred answer's tokens less that of the other's. The model with the larger margin
wins the pair. The win rate is over prompts, so that many votes on one prompt count once; its 95% interval is
Wilson's (1927). The winner is proposed, and a person decides.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from conf.errors import InputError
from conf.names import label
from conf.schema.compare import CompareConfig
from data_prep import files
from elm_megatron.chat.examples import Encoder, Example, held_out, prompt_key
from elm_megatron.chat.read import data_file, preferences
from elm_megatron.chat.template import Dialogue, Preference, Template, Turn
from elm_megatron.evaluate.generate import load
from elm_megatron.model import device as devices
from elm_megatron.run.folder import RunFolder
from elm_megatron.sources.source import resolve

RESULT_FILE = "comparison.json"
NORMAL_95 = 1.959964  # the 97.5% point of the standard normal distribution
EQUAL = 1e-6  # nats per token


@dataclass(frozen=True)
class Comparison:
    """How two models compare.

    Attributes:
        prompts: compared.
        win_rate: of the new model, ties as half.
        low, high: its 95% interval.
        agreement: share of pairs in which each model finds the preferred answer likelier, the new one first.
    """

    prompts: int
    win_rate: float
    low: float
    high: float
    agreement: tuple[float, float]

    @property
    def verdict(self) -> str:
        """new, present, or undecided while the interval holds one half."""
        if self.low > 0.5:
            return "new"
        return "present" if self.high < 0.5 else "undecided"


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share of n."""
    z2 = NORMAL_95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def compared(prompts: Sequence[str], new: Sequence[float], present: Sequence[float]) -> Comparison:
    """Compare two models.

    Args:
        prompts: of each pair.
        new, present: margin of each model on each pair, nats per token.
    """
    wins: dict[str, list[float]] = defaultdict(list)
    for prompt, one, other in zip(prompts, new, present, strict=True):
        wins[prompt].append(0.5 if abs(one - other) <= EQUAL else float(one > other))
    shares = [sum(found) / len(found) for found in wins.values()]
    rate = sum(shares) / len(shares)
    low, high = wilson(rate, len(shares))
    agreement = tuple(sum(one > 0 for one in margins) / len(margins) for margins in (new, present))
    return Comparison(len(shares), rate, low, high, agreement)  # type: ignore[arg-type]


def pairs_of(config: CompareConfig) -> list[Preference]:
    """The pairs that tuning did not see.

    Raises:
        InputError: there are none.
    """
    dpo, counts = config.dpo, Counter[str]()

    def read(name: str) -> list[Preference]:
        return list(preferences(data_file(name, "dpo.files"), dpo.sheet, dpo.min_agreement, counts))

    seen = [pair for name in dpo.files for pair in read(name)]
    keys = [prompt_key(Dialogue((Turn(pair.prompt, "", ""),))) for pair in seen]
    kept = [pair for pair, out in zip(seen, held_out(keys, dpo.valid_fraction), strict=True) if out]
    kept += [pair for name in config.held_out for pair in read(name)]
    if not kept:
        raise InputError(f"dpo.files={dpo.files}: no pair is held out to compare on; at least one is needed.")
    return kept


@torch.inference_mode()
def margins(source: str, pairs: Sequence[Preference]) -> list[float]:
    """How much likelier a model finds each preferred answer, nats per token."""
    device = devices.named(devices.best())
    found = resolve(source)
    model = load(found, device).eval().to(device)
    longest = model.config.max_position_embeddings
    encoder = Encoder.of(found.tokenizer.load(), Template.load(found.tokenizer.template), longest)

    def mean(prompt: str, answer: str) -> float:
        example = encoder(Dialogue((Turn(prompt, "", answer),)))
        return -math.inf if example is None else _mean_log_probability(model, example, device)

    return [mean(pair.prompt, pair.chosen) - mean(pair.prompt, pair.rejected) for pair in pairs]


def _mean_log_probability(model: torch.nn.Module, example: Example, device: torch.device) -> float:
    ids = torch.from_numpy(example.ids).long().to(device)
    scores = model(ids[None]).logits[0, :-1].float().log_softmax(-1)
    said = scores.gather(-1, ids[1:, None])[:, 0]
    return said[torch.from_numpy(example.answer[1:]).to(device)].mean().item()


def compare(config: CompareConfig) -> dict[str, Any]:
    """Write comparison.json and say what is proposed; returns what was written.

    Raises:
        InputError: a model cannot be read, or no pair is held out.
    """
    run = RunFolder(config.run.dir)
    run.update(state="running", started=time.time())
    pairs = pairs_of(config)
    new, present = (margins(source, pairs) for source in config.source)
    keep = [n for n in range(len(pairs)) if math.isfinite(new[n]) and math.isfinite(present[n])]
    if not keep:
        raise InputError(f"dpo.files={config.dpo.files}: every held-out pair is longer than the models read.")
    prompts = [pairs[n].prompt for n in keep]
    found = compared(prompts, [new[n] for n in keep], [present[n] for n in keep])
    names = [label(resolve(source).folder) for source in config.source]
    proposed = {"new": names[0], "present": names[1]}.get(found.verdict)
    result = {
        "new": names[0],
        "present": names[1],
        "pairs": len(keep),
        "too_long": len(pairs) - len(keep),
        **vars(found),
        "verdict": found.verdict,
        "proposed": proposed,
        "decided_by": None,
    }
    files.write(run.path / RESULT_FILE, json.dumps(result, indent=1) + "\n")
    run.update(state="done", comparison=result)
    print(shown(result), flush=True)
    return result


def shown(result: dict[str, Any]) -> str:
    """The result in two sentences."""
    share, low, high = (100 * result[key] for key in ("win_rate", "low", "high"))
    text = (
        f"{result['new']} wins {share:.0f}% (95% interval {low:.0f} to {high:.0f}%) of {result['prompts']} "
        f"held-out prompts against {result['present']}."
    )
    if result["proposed"] is None:
        return f"{text} That decides nothing: neither is proposed."
    return f"{text} Proposed: {result['proposed']}. A person decides."
