"""Fetching works from servers into the corpus folder.

In that folder are ``records.jsonl``, a journal with one line per record and decision, of which the last line
on an id counts; ``files/``, named by hash and never by the server; ``harvest.json``, the progress of each
source. `oai_harvest.py` fetches from OAI-PMH servers, `page_harvest.py` from servers that only have pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from conf.errors import InputError
from conf.schema.preprocess import CorpusConfig
from data_prep import lock
from data_prep.oai import Damaged
from data_prep.oai_harvest import Harvest
from data_prep.opt_out import listed
from data_prep.page_harvest import PagesHarvest
from data_prep.web import Unreachable

KINDS = {"oai": Harvest, "pages": PagesHarvest}


def harvest(corpus: CorpusConfig, tombstones: set[str], log: Callable[[str], None]) -> Counter[str]:
    """Bring the corpus folder up to date with its servers.

    Args:
        corpus: the folder and the sources.
        tombstones: ids and sha256 of works that may not come back.
        log: told one line per page.

    Returns:
        Decisions of this call: ``kept``, ``unchanged``, ``deleted`` and the reasons of rejections.

    Raises:
        InputError: another process holds the folder; or, after every source had its turn, a server could not
            be reached or a page of its list not be used: what was fetched stays, the same command goes on.
    """
    root = corpus.folder()
    done: Counter[str] = Counter()
    troubles = []
    opted_out = listed(corpus)
    with lock.held(root):
        for source in corpus.harvest.sources:
            try:
                KINDS[source.kind](root, source, corpus.harvest, tombstones, opted_out).run(done, log)
            except Unreachable as error:
                troubles.append(f"{source.url} does not answer ({error})")
            except Damaged as error:
                troubles.append(str(error))
    if troubles:
        raise InputError(
            f"corpus.harvest.sources: {'; '.join(troubles)}; give the same command again to go on, or set "
            "corpus.harvest.enabled=false to build from what is there."
        )
    return done
