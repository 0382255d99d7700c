"""What can be set for data preparation, with types and the checks that need no data.

The same names stand in ``conf/preprocess.yaml``, ``conf/corpus/`` and ``conf/tokenizer/``. Importing this
module also registers the ``folder_name`` and ``licence_of`` resolvers which those files use.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path

from conf.errors import InputError
from conf.names import PACKAGE
from conf.refusal import require
from conf.schema.cluster import ClusterConfig
from conf.schema.run import RunConfig

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
HOST = re.compile(r"[A-Za-z0-9.-]+(:\d+)?")
ADDRESS = re.compile(rf"https?://{HOST.pattern}(/[!-~]*)?")
MEGABYTE = 10**6  # what `_mb` in a key counts
FORMATS = ("txt", "pdf")
LANGUAGES = ("nl", "en", "other")
SMALLEST_VOCAB = 261  # four special pieces, 256 bytes, and one more


@dataclass
class HarvestSource:
    """One OAI-PMH server.

    Attributes:
        name: short name; starts the ids of its works.
        url: the base URL of the server.
        prefix: metadata format to ask for.
        set: OAI set, or empty for everything.
        hosts: other hosts from which the works of this server may be fetched.
        assume_open: records without a statement on access are open, as on a server that lists nothing else.
    """

    name: str = ""
    url: str = ""
    prefix: str = "oai_dc"
    set: str = ""
    hosts: list[str] = field(default_factory=list)
    assume_open: bool = False

    def check(self, key: str) -> None:
        """Check every value; `key` is the source's own, such as ``corpus.harvest.sources[0]``."""
        _within(f"{key}.name", NAME.fullmatch(self.name), self.name, "letters, digits, '.', '_' and '-'")
        _within(f"{key}.url", ADDRESS.fullmatch(self.url), self.url, "an address such as https://host/oai")
        _within(f"{key}.prefix", self.prefix, self.prefix, "a metadata format such as oai_dc")
        for host in self.hosts:
            _within(f"{key}.hosts", HOST.fullmatch(host), host, "names, with a port if need be")


@dataclass
class HarvestConfig:
    """Fetching new works before a build. Dates are ``YYYY-MM-DD``, inclusive, compared by the server."""

    enabled: bool = False
    sources: list[HarvestSource] = field(default_factory=list)
    from_date: str | None = None
    until_date: str | None = None
    requests_per_second: float = 1.0
    timeout_seconds: float = 60.0
    retries: int = 5
    max_answer_mb: int = 32
    max_file_mb: int = 100
    user_agent: str = "elm-suite (research corpus; contact the data steward of the university)"

    def check(self) -> None:
        """Check every value on its own and against the others, as `PreprocessConfig.check` does."""
        names = [source.name for source in self.sources]
        for number, source in enumerate(self.sources):
            source.check(f"corpus.harvest.sources[{number}]")
            if names.count(source.name) > 1:
                raise InputError(f"corpus.harvest.sources: more than one source has the name {source.name}.")
        for key in ("from_date", "until_date"):
            value = getattr(self, key)
            _within(f"corpus.harvest.{key}", value is None or _is_date(value), value, "YYYY-MM-DD or null")
        since, until = self.from_date or "", self.until_date or "9999"
        _within("corpus.harvest.until_date", since <= until, until, f"from_date={since} or later")
        for key, most in (("requests_per_second", 1000), ("timeout_seconds", 3600)):
            value = getattr(self, key)
            _within(f"corpus.harvest.{key}", 0 < value <= most, value, f"more than 0 and at most {most}")
        for key, least in (("retries", 0), ("max_answer_mb", 1), ("max_file_mb", 1)):
            _at_least(f"corpus.harvest.{key}", getattr(self, key), least)
        agent = self.user_agent
        sound = agent.strip() and agent.isascii() and agent.isprintable()
        _within("corpus.harvest.user_agent", sound, ascii(agent), "one line of ASCII")


@dataclass
class CorpusConfig:
    """Where the raw works are and under which terms.

    Attributes:
        name: names the data folder and its files.
        path: folder of raw files; ``pkg://data_prep/sample`` is the sample that comes with the code.
        formats: file types that are works, out of ``txt`` and ``pdf``; other files are ignored and counted.
        quarantine: true sets a broken file aside with a reason and goes on, false stops the build there.
        expected_tokens: training tokens expected, for a dry run before the dataset exists.
        source: where works without a record of their own come from.
        licence: the licence of works without a record of their own.
        max_file_mb: larger files are not read (10^6 bytes).
        max_text_mb: a work with more text than this is not a thesis but an accident, and is set aside.
    """

    name: str = "sample"
    path: str = "pkg://data_prep/sample"
    formats: list[str] = field(default_factory=lambda: ["txt"])
    quarantine: bool = False
    expected_tokens: int = 27_000
    source: str = "folder"
    licence: str = "unknown"
    max_file_mb: int = 50
    max_text_mb: int = 10
    harvest: HarvestConfig = field(default_factory=HarvestConfig)

    def folder(self) -> Path:
        """The absolute folder of raw files."""
        if self.path.startswith(PACKAGE):
            package, _, rest = self.path.removeprefix(PACKAGE).partition("/")
            try:
                spec = find_spec(package)
            except (ImportError, ValueError):  # of a.b where there is no package a; of a name that is none
                spec = None
            if spec is None or not spec.submodule_search_locations:
                raise InputError(f"corpus.path={self.path}: there is no package {package!r}.")
            return Path(next(iter(spec.submodule_search_locations))) / rest
        return Path(self.path).expanduser().absolute()


@dataclass
class TokenizerConfig:
    """SentencePiece with Llama's settings; only what may differ between corpora can be set.

    Attributes:
        vocab_size: pieces, the four special and 256 byte pieces included.
        character_coverage: share of character occurrences that get a piece; the rest is spelt in bytes.
        sample_mb: at most this much text (10^6 bytes) trains the tokenizer, whole works chosen by seed.
        seed: chooses the works of that sample.
        model: a `tokenizer.model`, or the folder of a dataset or model that holds one, to take as it is. The
            datasets of a blend share a tokenizer, and so do a run and the one it begins with.
    """

    vocab_size: int = 512
    character_coverage: float = 0.9999
    sample_mb: int = 200
    seed: int = 1
    model: str | None = None


@dataclass
class RedactConfig:
    """Personal data that is replaced by a placeholder and counted; the values are never shown or stored."""

    email: bool = True
    phone: bool = True
    iban: bool = True
    citizen_number: bool = True
    student_number: bool = True
    cover_names: bool = True


@dataclass
class QualityConfig:
    """Rules on a whole document; each is a reason of its own in ``dropped.parquet``, ``null`` is off.

    Attributes:
        min_words: fewer words: ``too_short``.
        max_mean_word: mean word longer than this many characters: ``mean_word_length``.
        min_mean_word: mean word shorter than this many characters: ``mean_word_length``.
        max_symbol_share: larger share of characters that are neither letter, digit, space nor common
            punctuation: ``symbols``.
        max_digit_share: larger share of digits among characters: ``digits``.
        max_repeated_share: larger share of lines that stood earlier in the document: ``repetition``.
        max_damaged_share: more characters lost inside words than this share of words: ``damaged``.
    """

    min_words: int | None = 50
    min_mean_word: float | None = 3.0
    max_mean_word: float | None = 12.0
    max_symbol_share: float | None = 0.10
    max_digit_share: float | None = 0.25
    max_repeated_share: float | None = 0.40
    max_damaged_share: float | None = 0.01


@dataclass
class DedupConfig:
    """Removal of text that stood in an earlier work.

    Attributes:
        exact: drop works with the same cleaned text.
        near: drop works whose estimated Jaccard similarity of 5-word shingles reaches ``threshold``.
        taken_down: drop works that similar to one that was taken down, whose tombstone has its signature.
        blocks: drop blocks that are (nearly) the same as an earlier block, of whatever work.
        threshold: similarity from which two works count as the same.
        block_threshold: similarity from which two blocks count as the same.
        memory_mb: state held in memory; more is spilled to the build folder.
    """

    exact: bool = True
    near: bool = True
    taken_down: bool = True
    blocks: bool = True
    threshold: float = 0.8
    block_threshold: float = 0.9
    memory_mb: int = 512


@dataclass
class CleanConfig:
    """What happens to a work between its raw file and ``documents.parquet``; every rule can be switched off.

    Attributes:
        min_block_tokens: blocks with fewer words (runs without white space) are dropped, as in the
            published model; counted in words since the tokenizer is trained only after cleaning.
        mojibake: repair UTF-8 that was read as Windows-1252 and ligatures written as one character.
        boilerplate: drop covers, tables of contents and declarations, which say nothing of the work.
        references: drop the reference list too.
        languages: keep only works in these languages, out of ``nl``, ``en``, ``other``.
    """

    min_block_tokens: int = 25
    mojibake: bool = True
    boilerplate: bool = True
    references: bool = False
    languages: list[str] = field(default_factory=lambda: ["nl", "en"])
    quality: QualityConfig = field(default_factory=QualityConfig)
    dedup: DedupConfig = field(default_factory=DedupConfig)
    redact: RedactConfig = field(default_factory=RedactConfig)


@dataclass
class BuildConfig:
    """How the dataset is made; only ``valid_fraction`` changes a byte of the ``.bin`` and ``.idx``.

    Attributes:
        ranks: processes; more than one needs MPI (``mpiexec -n ranks`` here, ``srun`` on Slurm).
        chunk_mb: text per rank and round (10^6 bytes), the unit of memory and of restart.
        valid_fraction: share of works whose hash puts them in the validation split.
    """

    ranks: int = 1
    chunk_mb: float = 8.0
    valid_fraction: float = 0.05


@dataclass
class DataConfig:
    """``data.dir``: the dataset's folder, relative to the caller's folder."""

    dir: str = "data/sample"


@dataclass
class PreprocessConfig:
    """Everything ``data_prep.job.Preprocess`` reads; a launcher adds ``run`` and ``cluster``.

    Attributes:
        remove: id of a work to take down instead of building.
        runs_dir: folder of the runs that a take-down searches for lineage.
    """

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    clean: CleanConfig = field(default_factory=CleanConfig)
    preprocess: BuildConfig = field(default_factory=BuildConfig)
    data: DataConfig = field(default_factory=DataConfig)
    remove: str | None = None
    runs_dir: str = "runs"

    def data_dir(self) -> Path:
        """The absolute dataset folder."""
        return Path(self.data.dir).expanduser().absolute()

    def check(self) -> None:
        """Check every value on its own and against the others.

        Raises:
            InputError: naming the key, what was found and what is allowed.
        """
        corpus, tok, clean, build = self.corpus, self.tokenizer, self.clean, self.preprocess
        _within("corpus.name", NAME.fullmatch(corpus.name), corpus.name, "letters, digits, '.', '_' and '-'")
        _within("corpus.formats", corpus.formats, corpus.formats, f"a list out of {', '.join(FORMATS)}")
        for item in corpus.formats:
            _within("corpus.formats", item in FORMATS, item, f"out of {', '.join(FORMATS)}")
        _at_least("corpus.max_file_mb", corpus.max_file_mb, 1)
        _at_least("corpus.max_text_mb", corpus.max_text_mb, 1)
        _at_least("corpus.expected_tokens", corpus.expected_tokens, 1)
        corpus.harvest.check()
        _at_least("tokenizer.vocab_size", tok.vocab_size, SMALLEST_VOCAB)
        _at_least("tokenizer.sample_mb", tok.sample_mb, 1)
        coverage = tok.character_coverage
        _within("tokenizer.character_coverage", 0.9 <= coverage <= 1, coverage, "between 0.9 and 1")
        _at_least("clean.min_block_tokens", clean.min_block_tokens, 0)
        for item in clean.languages:
            _within("clean.languages", item in LANGUAGES, item, f"out of {', '.join(LANGUAGES)}")
        for key in ("threshold", "block_threshold"):
            value = getattr(clean.dedup, key)
            _within(f"clean.dedup.{key}", 0.5 <= value <= 1, value, "between 0.5 and 1")
        _at_least("clean.dedup.memory_mb", clean.dedup.memory_mb, 1)
        _at_least("preprocess.ranks", build.ranks, 1)
        _within(
            "preprocess.chunk_mb", 0.01 <= build.chunk_mb <= 1024, build.chunk_mb, "between 0.01 and 1024"
        )
        share = build.valid_fraction
        _within("preprocess.valid_fraction", 0 < share < 1, share, "between 0 and 1")


def _within(key: str, good: object, found: object, allowed: str) -> None:
    if not good:
        raise InputError(f"{key}={found}: must be {allowed}.")


def _is_date(value: str) -> bool:
    try:
        return datetime.date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def _at_least(key: str, found: float, least: int) -> None:
    _within(key, found >= least, found, f"at least {least}")


@dataclass
class PreprocessCommand(PreprocessConfig):
    """Everything of `python launch/preprocess.py`: the build's own keys, and where it runs."""

    run: RunConfig = field(default_factory=lambda: RunConfig("preprocess", "runs/preprocess"))
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    dry_run: bool = False

    def check(self) -> None:
        """Refuse what the build or the cluster would refuse."""
        super().check()
        require(
            self.preprocess.ranks % self.cluster.nodes == 0,
            f"preprocess.ranks={self.preprocess.ranks}: must be a multiple of "
            f"cluster.nodes={self.cluster.nodes}, so that every node has as many.",
        )

    def building(self) -> PreprocessConfig:
        """The build's part alone, which a rank reads."""
        return PreprocessConfig(**{item.name: getattr(self, item.name) for item in fields(PreprocessConfig)})
