"""Everything of `python launch/serve.py`: models behind one OpenAI-compatible address."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from conf.errors import require
from conf.limits import Count, Positive, Within
from conf.schema.cluster import ClusterConfig
from conf.schema.run import Command, RunConfig

Port = Annotated[int, Within(ge=1, le=65535)]
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass
class ServeConfig(Command):
    """Everything of `python launch/serve.py`.

    Attributes:
        run: the run being written: the key, and a status file of how much was asked.
        source: a run or a Hugging Face folder, or a list of two or more that are served side by side.
        host: address that the server listens on; another one than loopback is open to the network.
        port: its port; null is 8600 on this machine and any free one in a Slurm job.
        idle_minutes: stop after so many minutes without a request; null never does.
        at_once: requests of one model that are answered at the same time; more of them wait.
        dtype: of the GGUF file that llama.cpp reads: f32, f16, q8_0; null is what the run trained in.
    """

    run: RunConfig
    source: str | list[str]
    host: str = "127.0.0.1"
    port: Port | None = None
    idle_minutes: Positive | None = 60.0
    at_once: Count = 4
    dtype: Literal["f32", "f16", "q8_0"] | None = None
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    dry_run: bool = False
    notify: list[str] = field(default_factory=list)

    @property
    def sources(self) -> list[str]:
        """The models, in the order given."""
        return [self.source] if isinstance(self.source, str) else self.source

    @property
    def engine(self) -> str:
        """What computes: the extra of setup.cfg that brings it."""
        return "vllm" if self.cluster.device == "gpu" else "llamacpp"

    def check(self) -> None:
        """Refuse sources that are none or are given twice."""
        super().check()
        require(len(self.sources) > 0, "source=[]: give at least one model.")
        require(
            len(set(self.sources)) == len(self.sources), f"source={self.sources}: a model is given twice."
        )
        gpu = self.engine == "vllm"
        require(not (gpu and self.dtype), f"dtype={self.dtype}: is of llama.cpp's file, and GPUs use vLLM.")

    def job_cluster(self) -> ClusterConfig:
        """One process, on a GPU where the cluster has any; without GPUs on the CPU partition."""
        if self.engine == "vllm":
            return self.cluster.for_one_process()
        return replace(self.cluster.without_gpus(), tasks_per_node=None)
