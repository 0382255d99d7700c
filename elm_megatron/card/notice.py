"""Who must be told when a work is taken down or opts out: ``python launch/preprocess.py notice=<id>``.

A notice names the datasets that held the work, the tokenizers that were trained on it, the models and
adapters that learnt from it, and the exported folders with the people who got them. It is written to
``<folder of the datasets>/notices/`` as text and as JSON. A take-down writes it by itself, so does a build
that leaves out a work which the build before held; both bring the cards of exported folders up to date.
"""

from __future__ import annotations

from collections.abc import Sequence

from conf.schema.preprocess import PreprocessConfig


def command(config: PreprocessConfig) -> int:
    """Write and show the notice of every work that ``notice`` means; deletes and changes nothing else.

    Raises:
        InputError: no work has that name; the sentence holds the ids that are near.
    """
    from elm_megatron.card.notice_search import Known, write

    config.check()
    known = Known(config)
    for identifier in known.named():
        for line in write(known, known.notice(identifier)):
            print(line)
    return 0


def follow_up(config: PreprocessConfig, ids: Sequence[str]) -> None:
    """After a take-down or opt-outs: write the notices, bring the cards of exported folders up to date."""
    from elm_megatron.card.notice_search import Known, write

    known = Known(config)
    for identifier in ids:
        notice = known.notice(identifier)
        for line in write(known, notice):
            print(line)
        for folder in known.refresh_cards(notice):
            print(f"card refreshed    {folder}")
