"""From the blocks of a raw work to the text that may be learnt from.

`RULES` is the list of the rules, in their order: characters are repaired first; personal data is redacted
while the cover is still there to tell the names; then boilerplate and short blocks are left out; the language
and the quality of what remains are judged last. A rule is one function and one entry here. Its settings are
the field of `CleanConfig` that has the rule's name. Every rule counts what it does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from conf.schema.preprocess import CleanConfig
from data_prep.account import Counts
from data_prep.boilerplate import drop_boilerplate, reference_blocks
from data_prep.characters import DAMAGED_KIND, normalise, repair, settle_control
from data_prep.language import identify
from data_prep.people import TooManyPeople
from data_prep.quality import reason_to_drop
from data_prep.redact import redact

BLOCK_BREAK = "\n\n"  # between the blocks of a document; inside a block lines end in one line break


@dataclass
class Cleaned:
    """A work while it is cleaned, and after.

    Attributes:
        blocks: the blocks that are left.
        counts: what the rules did.
        reason: why the whole work is dropped, or empty; no rule is applied after that.
        language: ``nl``, ``en`` or ``other``; empty before it is judged.
    """

    blocks: list[str]
    counts: Counts = field(default_factory=Counts)
    reason: str = ""
    language: str = ""

    def keep_without(self, reasons: list[str]) -> None:
        """Drop the blocks that have a reason, and count them."""
        self.counts.dropped.update(filter(None, reasons))
        self.blocks = [block for block, reason in zip(self.blocks, reasons, strict=True) if not reason]

    def text(self) -> str:
        """The text as it goes into the dataset."""
        return BLOCK_BREAK.join(self.blocks)


@dataclass(frozen=True)
class Rule:
    """One step of cleaning.

    Attributes:
        key: the rule's field in `CleanConfig`; the rule is off where its value is false or zero.
        apply: changes the work.
        version: raise it when the rule gives other text for the same work and settings.
    """

    key: str
    apply: Callable[[Cleaned, CleanConfig], None]
    version: int = 1


def repair_characters(work: Cleaned, config: CleanConfig) -> None:
    """Mojibake and ligatures are set right."""
    work.blocks = repair(work.blocks, work.counts.repairs)


def normalise_blocks(work: Cleaned, config: CleanConfig) -> None:
    """No control characters, one form of Unicode, one space between words."""
    work.blocks = [normalise(block) for block in settle_control(work.blocks, work.counts.repairs)]


def redact_people(work: Cleaned, config: CleanConfig) -> None:
    """Personal data is replaced by placeholders."""
    try:
        work.blocks, work.counts.redactions = redact(work.blocks, config.redact)
    except TooManyPeople:
        work.reason = "too_many_names"


def leave_out_boilerplate(work: Cleaned, config: CleanConfig) -> None:
    """Covers, tables of contents and declarations go."""
    work.keep_without(drop_boilerplate(work.blocks))


def leave_out_references(work: Cleaned, config: CleanConfig) -> None:
    """The reference list goes."""
    places = reference_blocks(work.blocks)
    work.keep_without(["references" if place in places else "" for place in range(len(work.blocks))])


def leave_out_short_blocks(work: Cleaned, config: CleanConfig) -> None:
    """Blocks with fewer words go; a work without any block left goes as a whole."""
    least = max(config.min_block_tokens, 1)
    work.keep_without(["short" if len(block.split()) < least else "" for block in work.blocks])
    if not work.blocks:
        work.reason = "no_block_left"


def judge_language(work: Cleaned, config: CleanConfig) -> None:
    """Works in other languages go."""
    work.language = identify(work.text())
    if work.language not in config.languages:
        work.reason = "language"


def judge_quality(work: Cleaned, config: CleanConfig) -> None:
    """Works that are no running text go."""
    work.reason = reason_to_drop(work.text(), config.quality, work.counts.repairs[DAMAGED_KIND])


ALWAYS = ""
RULES = (
    Rule("mojibake", repair_characters, version=4),
    Rule(ALWAYS, normalise_blocks, version=2),
    Rule("redact", redact_people, version=4),
    Rule("boilerplate", leave_out_boilerplate, version=3),
    Rule("references", leave_out_references),
    Rule(ALWAYS, leave_out_short_blocks),
    Rule(ALWAYS, judge_language, version=2),
    Rule("quality", judge_quality),
)


def is_on(rule: Rule, config: CleanConfig) -> bool:
    """Whether the settings switch a rule on."""
    return rule.key == ALWAYS or bool(getattr(config, rule.key))


def versions(config: CleanConfig) -> dict[str, int]:
    """The versions of the rules that are on; a part of a dataset's key."""
    return {rule.apply.__name__: rule.version for rule in RULES if is_on(rule, config)}


def clean(blocks: list[str], config: CleanConfig) -> Cleaned:
    """Apply every rule that is switched on to the blocks of one work."""
    work = Cleaned(blocks, Counts(blocks=len(blocks), dropped=Counter()))
    for rule in RULES:
        if is_on(rule, config):
            rule.apply(work, config)
        if work.reason:
            break
    return work
