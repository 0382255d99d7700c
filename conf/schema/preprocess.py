"""What can be set for data preparation, with types and the checks that need no data."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from conf import typed
from conf.errors import InputError, require
from conf.limits import Count, Fits, Natural, Within
from conf.names import PACKAGE
from conf.schema.cluster import ClusterConfig
from conf.schema.institution import Institution
from conf.schema.run import Command, RunConfig

MEGABYTE = 10**6  # what `_mb` in a key counts
SMALLEST_VOCAB = 261  # four special pieces, 256 bytes, and one more
_HOST = r"[A-Za-z0-9.-]+(:\d+)?"

Name = Annotated[str, Fits(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", "letters, digits, '.', '_' and '-'")]
Host = Annotated[str, Fits(_HOST, "names, with a port if need be")]
Address = Annotated[str, Fits(rf"https?://{_HOST}(/[!-~]*)?", "an address such as https://host/oai")]
Prefix = Annotated[str, Fits(r".+", "a metadata format such as oai_dc")]
Agent = Annotated[str, Fits(r"(?=.*[!-~])[ -~]+", "one line of ASCII")]
Similarity = Annotated[float, Within(ge=0.5, le=1, allowed="between 0.5 and 1")]


@dataclass
class HarvestSource:
    """One server: of OAI-PMH, or of pages by number.

    Attributes:
        name: short name; starts the ids of its works.
        url: the base URL of the server; of pages the address of one, with `<id>` for its number.
        kind: `oai`, or `pages` for a server without OAI-PMH: its robots.txt counts, and no more than one
            request a second goes out.
        prefix: metadata format to ask for.
        set: OAI set, or empty for everything.
        hosts: other hosts from which the works of this server may be fetched.
        assume_open: records without a statement on access are open, as on a server that lists nothing else.
        rights_basis: on which legal basis its works are used; empty is that of the corpus.
        robots: a file that its server's robots.txt refuses is an opt-out; false where an agreement with the
            server says otherwise. Pages always follow robots.txt.
        first_id: number of the first page.
        last_id: number of the last page; null goes on until a long gap.
    """

    name: Name = ""
    url: Address = ""
    prefix: Prefix = "oai_dc"
    set: str = ""
    hosts: list[Host] = field(default_factory=list)
    assume_open: bool = False
    kind: Literal["oai", "pages"] = "oai"
    rights_basis: str = ""
    robots: bool = True
    first_id: Natural = 1
    last_id: int | None = None


@dataclass
class HarvestConfig:
    """Fetching new works before a build. Dates are `YYYY-MM-DD`, inclusive, compared by the server.

    A change to a source's settings, or to max_file_mb, lists all of it again and decides anew on what was
    refused. Compute nodes are often offline: harvest on a login node, then build with enabled=false.

    Attributes:
        enabled: whether a build begins with a harvest.
        sources: the servers, as HarvestSource describes one.
        from_date: first day; null goes on where the last harvest without a date stopped.
        until_date: last day; null is today.
        requests_per_second: to one server, at most.
        timeout_seconds: for one answer.
        retries: of a request that failed.
        max_answer_mb: longer lists of records are refused (10^6 bytes).
        max_file_mb: larger works are refused (10^6 bytes).
        user_agent: how the harvester names itself.
    """

    enabled: bool = False
    sources: list[HarvestSource] = field(default_factory=list)
    from_date: str | None = None
    until_date: str | None = None
    requests_per_second: Annotated[float, Within(gt=0, le=1000, allowed="more than 0 and at most 1000")] = 1.0
    timeout_seconds: Annotated[float, Within(gt=0, le=3600, allowed="more than 0 and at most 3600")] = 60.0
    retries: Natural = 5
    max_answer_mb: Count = 32
    max_file_mb: Count = 100
    user_agent: Agent = "elm-suite (research corpus; contact the data steward of the university)"

    def check(self) -> None:
        """Refuse two sources of one name, and dates that are none or out of order."""
        names = [source.name for source in self.sources]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"corpus.harvest.sources: more than one source has the name {name}.")
        for number, source in enumerate(self.sources):
            good = source.kind == "oai" or "<id>" in source.url
            require(good, f"corpus.harvest.sources[{number}].url={source.url}: must have <id> in it.")
        for key in ("from_date", "until_date"):
            value = getattr(self, key)
            good = value is None or _is_date(value)
            require(good, f"corpus.harvest.{key}={value}: must be YYYY-MM-DD or null.")
        since, until = self.from_date or "", self.until_date or "9999"
        rule = f"must be from_date={since} or later"
        require(since <= until, f"corpus.harvest.until_date={until}: {rule}.")


@dataclass
class CorpusConfig:
    """Where the raw works are and under which terms.

    Attributes:
        name: names the data folder and its files.
        path: folder of raw files; `pkg://data_prep/sample` is the sample that comes with the code.
        formats: file types that are works, out of `txt` and `pdf`; other files are ignored and counted.
        quarantine: true sets a broken file aside with a reason and goes on, false stops the build there.
        expected_tokens: training tokens expected, for a dry run before the dataset exists.
        source: where works without a record of their own come from.
        licence: the licence of works without a record of their own.
        rights_basis: on which legal basis works are used whose source names none.
        opt_out: a file with the works that may not be used: ids, addresses, DOIs or handles, one a line, or a
            table (CSV, TSV, XLSX); they leave the dataset and are not harvested.
        max_file_mb: larger files are not read (10^6 bytes).
        max_text_mb: a work with more text than this is not a thesis but an accident, and is set aside.
    """

    name: Name = typed.follows("${folder_name:${corpus.path}}", "sample")
    path: str = "pkg://data_prep/sample"
    formats: list[Literal["txt", "pdf"]] = field(default_factory=lambda: ["txt"])
    quarantine: bool = False
    expected_tokens: Count = 27_000
    source: str = "folder"
    licence: str = "unknown"
    rights_basis: str = "unknown"
    opt_out: str | None = None
    max_file_mb: Count = 50
    max_text_mb: Count = 10
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

    vocab_size: Annotated[int, Within(ge=SMALLEST_VOCAB)] = 512
    character_coverage: Annotated[float, Within(ge=0.9, le=1, allowed="between 0.9 and 1")] = 0.9999
    sample_mb: Count = 200
    seed: int = 1
    model: str | None = None


@dataclass
class RedactConfig:
    """Personal data that is replaced by a placeholder and counted; the values are never shown or stored.

    Attributes:
        email: addresses of mail.
        phone: telephone numbers.
        iban: bank accounts, by their check digits.
        citizen_number: Dutch and Belgian citizen numbers, by their check digit, and numbers of passports.
        student_number: numbers beside a word such as "student number".
        address: home addresses: a street with a house number in front of a postcode or behind a label.
        birth_date: dates behind a label such as "date of birth".
        profile: ORCID iDs, and pages of people on networks such as LinkedIn.
        secret: tokens and passwords, also in web addresses.
        cover_names: the people whom the cover names, in all forms and in the whole work.
        names: names in acknowledgements and lists of interviews: ``rules``, ``ner`` (the rules and a model)
            or ``off``.
        ner_model: folder of the spaCy or GLiNER model for ``names=ner``.
    """

    email: bool = True
    phone: bool = True
    iban: bool = True
    citizen_number: bool = True
    student_number: bool = True
    address: bool = True
    birth_date: bool = True
    profile: bool = True
    secret: bool = True
    cover_names: bool = True
    names: Literal["rules", "ner", "off"] = "rules"
    ner_model: str | None = None

    def check(self) -> None:
        """Refuse a stage that needs a model where there is none."""
        folder = self.ner_model
        require(
            self.names != "ner" or (folder is not None and Path(folder).expanduser().is_dir()),
            f"clean.redact.ner_model={folder}: must be the folder of a spaCy or GLiNER model.",
        )


@dataclass
class QualityConfig:
    """Rules on a whole document; each is a reason of its own in `dropped.parquet`, `null` is off.

    Attributes:
        min_words: fewer words: `too_short`.
        max_mean_word: mean word longer than this many characters: `mean_word_length`.
        min_mean_word: mean word shorter than this many characters: `mean_word_length`.
        max_symbol_share: larger share of characters that are neither letter, digit, space nor common
            punctuation: `symbols`.
        max_digit_share: larger share of digits among characters: `digits`.
        max_repeated_share: larger share of lines that stood earlier in the document: `repetition`.
        max_damaged_share: more characters lost inside words than this share of words: `damaged`.
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
        near: drop works whose estimated Jaccard similarity of 5-word shingles reaches `threshold`.
        taken_down: drop works that similar to one that was taken down, whose tombstone has its signature, or
            to one that opted out.
        blocks: drop blocks that are (nearly) the same as an earlier block, of whatever work.
        threshold: similarity from which two works count as the same.
        block_threshold: similarity from which two blocks count as the same.
        memory_mb: state held in memory; more is spilled to the build folder.
    """

    exact: bool = True
    near: bool = True
    taken_down: bool = True
    blocks: bool = True
    threshold: Similarity = 0.8
    block_threshold: Similarity = 0.9
    memory_mb: Count = 512


@dataclass
class CleanConfig:
    """What happens to a work between its raw file and `documents.parquet`; every rule can be switched off.

    Attributes:
        min_block_tokens: blocks with fewer words (runs without white space) are dropped, as in the
            published model; counted in words since the tokenizer is trained only after cleaning.
        mojibake: repair UTF-8 that was read as Windows-1252 and ligatures written as one character.
        boilerplate: drop covers, tables of contents and declarations, which say nothing of the work.
        references: drop the reference list too.
        languages: keep only works in these languages, out of `nl`, `en`, `other`.
    """

    min_block_tokens: Natural = 25
    mojibake: bool = True
    boilerplate: bool = True
    references: bool = False
    languages: list[Literal["nl", "en", "other"]] = field(default_factory=lambda: ["nl", "en"])
    quality: QualityConfig = field(default_factory=QualityConfig)
    dedup: DedupConfig = field(default_factory=DedupConfig)
    redact: RedactConfig = field(default_factory=RedactConfig)


@dataclass
class BuildConfig:
    """How the dataset is made; only `valid_fraction` changes a byte of the `.bin` and `.idx`.

    Attributes:
        ranks: processes; more than one needs MPI (`mpiexec -n ranks` here, `srun` on Slurm).
        chunk_mb: text per rank and round (10^6 bytes), the unit of memory and of restart.
        valid_fraction: share of works whose hash puts them in the validation split.
    """

    ranks: Count = 1
    chunk_mb: Annotated[float, Within(ge=0.01, le=1024, allowed="between 0.01 and 1024")] = 8.0
    valid_fraction: Annotated[float, Within(gt=0, lt=1, allowed="between 0 and 1")] = 0.05


@dataclass
class DataConfig:
    """The dataset.

    Attributes:
        dir: its folder; a relative one starts at the caller's folder.
    """

    dir: str = typed.follows("data/${corpus.name}", "data/sample")


@dataclass
class PreprocessConfig:
    """Everything `data_prep.job.Preprocess` reads; a launcher adds `run` and `cluster`.

    Attributes:
        remove: id of a work to take down instead of building; ``file:ids.txt`` takes down every id of a file,
            one a line; ``number:12`` the work with that number in ``report.html``.
        notice: a work by its id, its address, DOI or handle (or as ``remove`` names works): writes who must
            be told about it, and builds and deletes nothing.
        runs_dir: folder of the runs that a take-down and a notice search for lineage.
        look_in: further folders of datasets, runs and models that a notice searches.
    """

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    clean: CleanConfig = field(default_factory=CleanConfig)
    preprocess: BuildConfig = field(default_factory=BuildConfig)
    data: DataConfig = field(default_factory=DataConfig)
    institution: Institution = field(default_factory=Institution)
    remove: str | None = None
    notice: str | None = None
    runs_dir: str = "runs"
    look_in: list[str] = field(default_factory=list)

    def data_dir(self) -> Path:
        """The absolute dataset folder."""
        return Path(self.data.dir).expanduser().absolute()

    def check(self) -> None:
        """Check every value on its own and against the others.

        Raises:
            InputError: naming the key, what was found and what is allowed.
        """
        typed.check(self)
        require(bool(self.corpus.formats), "corpus.formats=[]: must be a list out of txt, pdf.")
        require(
            self.remove is None or self.notice is None,
            f"notice={self.notice}: remove={self.remove} writes the notice itself; give one of the two.",
        )
        self.corpus.harvest.check()
        self.clean.redact.check()


def _is_date(value: str) -> bool:
    try:
        return datetime.date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


@dataclass
class PreprocessCommand(PreprocessConfig, Command):
    """Everything of `python launch/preprocess.py`: the build's own keys, and where it runs."""

    meets_over_mpi: ClassVar[bool] = True

    run: RunConfig = field(kw_only=True)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    dry_run: bool = False
    notify: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Refuse what the build or the cluster would refuse."""
        super().check()
        self.cluster.check()
        require(
            self.preprocess.ranks % self.cluster.nodes == 0,
            f"preprocess.ranks={self.preprocess.ranks}: must be a multiple of "
            f"cluster.nodes={self.cluster.nodes}, so that every node has as many.",
        )

    def building(self) -> PreprocessConfig:
        """The build's part alone, which a rank reads."""
        return PreprocessConfig(**{item.name: getattr(self, item.name) for item in fields(PreprocessConfig)})

    def job_cluster(self) -> ClusterConfig:
        """As many nodes as asked for, without their GPUs."""
        return self.cluster.without_gpus(self.cluster.nodes)
