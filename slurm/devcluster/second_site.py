"""The slurm.conf of a second dev cluster, which is another kind of site than the first.

It shares munge and slurmdbd with the first one, and differs where sites differ: no job is requeued unless it
asks, and one partition of each kind that a job may meet:

    plain     the default one; no DefaultTime, so that a job without a limit gets MaxTime
    cancel    a job in `urgent` ends its jobs for good (PreemptMode=CANCEL)
    grace     the same, twenty seconds after SIGTERM
    suspend   a job in `urgent` suspends its jobs (PreemptMode=SUSPEND)
    short     DefaultTime and MaxTime of five minutes
    limited   a partition QOS of the name `limited`, whose limits a test sets
    urgent    preempts the others

Accounting keeps no comments and tracks no GPUs. A job that asks for more than its partition allows is
accepted, and waits for ever (EnforcePartLimits=NO).
"""

from __future__ import annotations

from slurm.devcluster import texts
from slurm.devcluster.layout import Layout

CLUSTER_NAME = "elmtwo"
QOS = "limited"
PARTITIONS = ("plain", "cancel", "grace", "suspend", "short", "limited", "urgent")
CHANGED = {
    "ClusterName": CLUSTER_NAME,
    "JobRequeue": "0",
    "EnforcePartLimits": "NO",
    "PreemptMode": "SUSPEND,GANG",
    "DefMemPerCPU": "",
    "AccountingStorageTRES": "",
    "AccountingStoreFlags": "",
    "AccountingStorageEnforce": "associations,limits,qos",
}
PARTITION_LINES = """\
PartitionName=DEFAULT Nodes=ALL MaxTime=1-0 State=UP OverSubscribe=NO
PartitionName=plain Default=YES PriorityTier=1 PreemptMode=OFF
PartitionName=cancel PriorityTier=1 PreemptMode=CANCEL
PartitionName=grace PriorityTier=1 PreemptMode=CANCEL GraceTime=20
PartitionName=suspend PriorityTier=1 PreemptMode=SUSPEND OverSubscribe=FORCE:1
PartitionName=short PriorityTier=1 PreemptMode=OFF DefaultTime=5:00 MaxTime=5:00
PartitionName=limited PriorityTier=1 PreemptMode=OFF QOS=limited
PartitionName=urgent PriorityTier=10 PreemptMode=OFF
"""


def slurm_conf(layout: Layout) -> str:
    """The text of slurm.conf: that of the first cluster, with what is different here."""
    lines = []
    for line in texts.slurm_conf(layout).splitlines():
        key = line.partition("=")[0]
        if key == "PartitionName":
            continue
        if key in CHANGED:
            line = f"{key}={CHANGED[key]}" if CHANGED[key] else f"# no {key}"
        lines.append(line)
    missing = [f"{key}={value}" for key, value in CHANGED.items() if value and f"{key}={value}" not in lines]
    return "\n".join([*lines, *missing, PARTITION_LINES])
