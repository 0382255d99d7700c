"""Where a job runs: the keys of conf/cluster/*.yaml, their meaning, and the pattern each text must fit.

Most of these words end up in an sbatch file or on srun's command line, so none may hold more than it names.
A site is one YAML; `setup` and `env` come only from such a file, never from the command line.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from conf import typed
from conf.durations import seconds
from conf.errors import InputError
from conf.limits import Count, Fits, Natural, NotNegative, Positive, Within

_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_PATH = r"[A-Za-z0-9._/][A-Za-z0-9 ._=+,@~/-]*"
_DURATION = r"(\d{1,3}-\d{1,2}:\d{2}:\d{2}|\d{1,4}:\d{2}:\d{2}|\d{1,6})"
_AFTER = r"(singleton|after[a-z]*(:\d+)+)"
_FEATURES = r"[A-Za-z0-9(\[][A-Za-z0-9_.&|,*()\[\]-]{0,199}"

Word = Annotated[str, Fits(_WORD, "letters, digits and . _ -")]
Words = Annotated[str, Fits(rf"{_WORD}(,{_WORD})*", "names with commas between them")]
Duration = Annotated[str, Fits(_DURATION, "D-HH:MM:SS, HH:MM:SS or minutes", quoted=True)]
Features = Annotated[str, Fits(_FEATURES, "feature names joined by & | or ,")]
Nodes = Annotated[str, Fits(r"[A-Za-z0-9][A-Za-z0-9_.,\[\]-]{0,499}", "node names as Slurm writes them")]
After = Annotated[str, Fits(rf"{_AFTER}([,?]{_AFTER})*", "Slurm's words, as afterok:4711")]
Mail = Annotated[str, Fits(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}", "an address")]
Events = Annotated[str, Fits(r"[A-Z_0-9]+(,[A-Z_0-9]+)*", "Slurm's words, as END,FAIL")]
Mpi = Annotated[str, Fits(r"[a-z0-9_]{1,16}", "a word of `srun --mpi=list`")]
Interface = Annotated[str, Fits(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,31}", "a network interface")]
File = Annotated[str, Fits(_PATH, "a path")]
Image = Annotated[str, Fits(_PATH, "the path of an image")]
Module = Annotated[str, Fits(r"[A-Za-z0-9][A-Za-z0-9._+/-]*", "a module's name, as CUDA/12.4")]
Bind = Annotated[str, Fits(rf"{_PATH}(:{_PATH})?", "a folder, or folder:folder inside")]
Amount = Annotated[int, Within(ge=1, le=1_000_000, allowed="at least 1")]


@dataclass
class SiteConfig:
    """What is known of a site's machines; used for shares, limits and estimates.

    Attributes:
        max_time: longest job, as `time`.
        gpus: of one whole node; 0 is unknown or none.
        cores: of one whole node.
        memory_gb: of one whole node, GiB.
        gpu_memory_gb: of one GPU, GiB.
        gpu_model: the GPU's data sheet, a name of elm_megatron/planner/devices.py; null is the one with this
            peak and memory, or the nearest in their proportion, as for a MIG slice.
        gpu_watts: design power of one GPU, where it is not the sheet's.
        gpu_bandwidth_gb: memory bandwidth of one GPU (or of a CPU node), GB/s, where it is not the sheet's.
        network_gb: bandwidth of one node to the others, GB/s; null is 25.
        peak_tflops: of one GPU (or of one CPU node), bf16 without sparsity.
        mfu: share of that peak that an estimate for CPU nodes assumes; GPUs have a model of their time.
        gpu_hour_rate: budget units for an hour of one GPU; a job pays the largest share of what it holds.
        core_hour_rate: budget units for an hour of one core.
        budget_unit: what the site calls them.
        slurm_cluster: ClusterName of its slurm.conf, for a rate of a partition that other sites have too.
        pue: power usage effectiveness of the data centre; null is 1.19.
        grams_per_kwh: CO2 of a kilowatt-hour of its grid; null is that of the Netherlands in 2023, 268.
        grid: the grid, the year and the source of `grams_per_kwh`.
        scratch: folder whose files are deleted when they are not used.
        scratch_days: after how many days.
        scratch_files: how many files you may have there.
        home_gb: your quota in your home folder, GiB.
        home_files: how many files you may have there.
    """

    max_time: Duration | None = None
    gpus: Natural = 0
    cores: Count | None = None
    memory_gb: Count | None = None
    gpu_memory_gb: Positive | None = None
    gpu_model: str | None = None
    gpu_watts: Positive | None = None
    gpu_bandwidth_gb: Positive | None = None
    network_gb: Positive | None = None
    peak_tflops: Positive | None = None
    mfu: Annotated[float, Within(gt=0, le=1)] = 0.3
    gpu_hour_rate: NotNegative | None = None
    core_hour_rate: NotNegative | None = None
    budget_unit: str = "SBU"
    slurm_cluster: str | None = None
    pue: Annotated[float, Within(ge=1)] | None = None
    grams_per_kwh: NotNegative | None = None
    grid: str | None = None
    scratch: str | None = None
    scratch_days: Count | None = None
    scratch_files: Count | None = None
    home_gb: Positive | None = None
    home_files: Count | None = None


@dataclass
class ClusterConfig:
    """Where ranks run.

    Attributes:
        name: the site's name.
        executor: local (here), slurm (sbatch), or allocation (one srun inside an existing salloc).
        device: cpu or gpu.
        nodes: nodes of the job.
        tasks_per_node: ranks per node; null is what the layout needs, or one per GPU.
        gpus_per_node: GPUs asked for.
        gpu_type: their GRES type, where the site wants it.
        cpus_per_task: cores of a rank; null is the share of the node that goes with the GPUs asked for.
        memory_gb: of a node, GiB; null is the share of the node that goes with the GPUs asked for.
        time: D-HH:MM:SS, HH:MM:SS or minutes; null is the partition's default.
        signal_seconds: how long before the time limit the job saves and requeues itself.
        account: the budget that pays; null is your default one.
        partition: one, or several with commas; null is the cluster's default.
        qos: as sbatch takes it.
        constraint: features of the nodes, joined by & or |.
        reservation: as sbatch takes it.
        exclude: nodes that are not used, as n[1-3],n7.
        dependency: what the job waits for, as afterok:4711.
        mail_user: who gets Slurm's mail about the job.
        mail_type: when there is mail, as END,FAIL.
        cpu_partition: for what uses no GPU (preprocess, export); null is `partition`.
        exclusive: the whole node.
        ear: let the site's Energy Aware Runtime measure the nodes (`eacct -j <job>` tells it afterwards).
        mpi: flavour for MPI stages, a word of `srun --mpi=list`.
        interface: network interface ranks meet over.
        slurm_conf: another cluster's slurm.conf.
        modules: loaded before the start.
        setup: shell lines before the start, from the site's YAML only.
        env: variables of the ranks, from the site's YAML only.
        environment: bare, or packed: ranks start from a copy on each node's own disk, made once by
            `python -m slurm.packed_environment`.
        container: an Apptainer image that the ranks run in.
        binds: folders it sees besides those that the configuration names.
        at_once: points of a sweep that may run at the same time; null is no limit.
        max_stalls: attempts of a job in a row without a new checkpoint, after which it is held.
    """

    name: Word = "local"
    executor: Literal["local", "slurm", "allocation"] = "local"
    device: Literal["cpu", "gpu"] = "cpu"
    nodes: Amount = 1
    tasks_per_node: Amount | None = None
    gpus_per_node: int = 0
    gpu_type: Word | None = None
    cpus_per_task: Amount | None = None
    memory_gb: Amount | None = None
    time: Duration | None = None
    signal_seconds: Amount = 300
    account: Word | None = None
    partition: Words | None = None
    qos: Word | None = None
    constraint: Features | None = None
    reservation: Word | None = None
    exclude: Nodes | None = None
    dependency: After | None = None
    mail_user: Mail | None = None
    mail_type: Events | None = None
    cpu_partition: Words | None = None
    exclusive: bool = False
    ear: bool = False
    mpi: Mpi = "pmi2"
    interface: Interface | None = None
    slurm_conf: File | None = None
    modules: list[Module] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    environment: Literal["bare", "packed"] = "bare"
    container: Image | None = None
    binds: list[Bind] = field(default_factory=list)
    at_once: Amount | None = None
    max_stalls: Amount = 2
    site: SiteConfig = field(default_factory=SiteConfig)

    def without_gpus(self, nodes: int = 1) -> ClusterConfig:
        """The same site for a job on so many CPU nodes."""
        partition = self.cpu_partition or self.partition
        none = {"device": "cpu", "gpus_per_node": 0, "gpu_type": None, "interface": None}
        return replace(self, partition=partition, nodes=nodes, **none)

    def for_one_process(self) -> ClusterConfig:
        """The same site for one process, on one GPU where it has any."""
        return replace(self, nodes=1, tasks_per_node=None, gpus_per_node=min(1, self.gpus_per_node))

    def check(self) -> None:
        """Refuse values that are not what their key names, or that the site cannot give.

        Raises:
            InputError: naming the key, what was found and what is allowed.
        """
        typed.check(self, "cluster")
        for name, value in self.env.items():
            if not (name.isidentifier() and name.isascii() and value.isprintable()):
                raise _refusal(f"env.{name}", value, "must be a variable's name and printable text")
        for line in self.setup:
            if not line.isprintable():
                raise _refusal("setup", line, "must be lines of printable text")
        self._check_limits()

    def _check_limits(self) -> None:
        if self.gpus_per_node < 0 or (self.site.gpus and self.gpus_per_node > self.site.gpus):
            raise _refusal("gpus_per_node", self.gpus_per_node, f"must be 0 to {self.site.gpus or 'many'}")
        if self.executor == "local" and self.nodes != 1:
            raise _refusal("nodes", self.nodes, f"must be 1, cluster={self.name} is one machine")
        if self.ear and self.executor != "slurm":
            raise _refusal("ear", "true", f"must be false, cluster={self.name} hands no job to Slurm")
        if self.environment == "packed" and (self.executor != "slurm" or self.container):
            what = (
                "a container, which is one file"
                if self.container
                else f"cluster={self.name}, which has no sbatch"
            )
            raise _refusal("environment", "packed", f"must be bare with {what}")
        limit = self.site.max_time
        if limit and self.time and seconds(self.time) > seconds(limit):
            raise _refusal("time", self.time, f"must be at most {limit}, the limit of {self.name}")
        if self.executor == "slurm" and self.time and seconds(self.time) <= self.signal_seconds:
            raise _refusal(
                "time", self.time, f"must be longer than cluster.signal_seconds={self.signal_seconds}"
            )

    def check_gpus(self) -> None:
        """Refuse a Slurm job that trains with more ranks than GPUs, or with GPUs that it does not use.

        Raises:
            InputError: naming the key, what was found and what is allowed.
        """
        gpus, ranks = self.gpus_per_node, self.tasks_per_node or 0
        if self.executor != "slurm":
            return
        if self.device == "gpu" and gpus < 1 and not self.exclusive:
            rule = "must be at least 1 with cluster.device=gpu, or with cluster.exclusive=true 0, where GPUs "
            raise _refusal("gpus_per_node", gpus, rule + "are no resource of Slurm's and come with the node")
        if self.device == "gpu" and gpus and ranks > gpus:
            rule = f"must be at most cluster.gpus_per_node={gpus}, since two ranks cannot share a GPU"
            raise _refusal("tasks_per_node", ranks, rule)
        # GPUs of no known memory may be booked: those of a dev cluster do not exist.
        if self.device == "cpu" and gpus and self.site.gpu_memory_gb:
            rule = "must be 0 with cluster.device=cpu, or GPUs are paid for and not used"
            raise _refusal("gpus_per_node", gpus, rule)


def _refusal(key: str, value: object, rule: str) -> InputError:
    return InputError(f"cluster.{key}={value!r}: {rule}.")
