"""The config texts of a dev cluster: slurm.conf, gres.conf, slurmdbd.conf, my.cnf and the first SQL.

Waits are as short as two cores allow, so that a test sees a requeue in seconds where a real site takes
minutes. Nodes claim more than the machine has (`config_overrides`), because what is tested is scheduling.
"""

from __future__ import annotations

import getpass
import os
import socket

from slurm.devcluster.layout import Layout

CLUSTER_NAME = "elmdev"
ACCOUNT = "elm"
CPUS_PER_NODE = 16
MEMORY_PER_NODE_MIB = 16000
GPUS_PER_NODE = 4
PARTITIONS = ("low", "grace", "high")


def slurm_conf(layout: Layout) -> str:
    """The text of slurm.conf, read by every daemon and client."""
    root = layout.root
    user = getpass.getuser()
    listening = "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny" if layout.loopback_only else ""
    node_lines = "\n".join(
        f"NodeName={name} NodeHostname=localhost NodeAddr={layout.address} Port={port} "
        f"CPUs={CPUS_PER_NODE} Sockets=1 CoresPerSocket={CPUS_PER_NODE} ThreadsPerCore=1 "
        f"RealMemory={MEMORY_PER_NODE_MIB} Gres=gpu:h100:{GPUS_PER_NODE} State=UNKNOWN"
        for name, port in zip(layout.node_names, layout.node_ports, strict=True)
    )
    return f"""\
# Written by `python -m slurm.devcluster up`; the next `up` overwrites it.
ClusterName={CLUSTER_NAME}
SlurmctldHost={socket.gethostname()}({layout.address})
SlurmctldPort={layout.controller_port}
SlurmUser={user}
SlurmdUser={user}
{listening}

AuthType=auth/munge
# Credentials that live five seconds let a requeued job start again after twenty seconds, not two minutes.
AuthInfo=socket={layout.munge_socket},cred_expire=5
CredType=cred/munge

StateSaveLocation={root}/state
SlurmdSpoolDir={layout.socket_folder}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd-%n.pid
SlurmdLogFile={layout.logs}/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
MailProg=/bin/true

ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmctldTimeout=10
SlurmdTimeout=15
InactiveLimit=0
KillWait={layout.kill_wait}
MinJobAge=300
MaxJobCount=30000
MaxArraySize=20001
JobRequeue=1

SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,bf_window=1440
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PriorityType=priority/multifactor
PriorityWeightAge=1000
PriorityWeightQOS=10000
PriorityMaxAge=1-0

JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={layout.address}
AccountingStoragePort={layout.accounting_port}
# With munge, this "password" is the socket used towards slurmdbd; AuthInfo's is not looked at there.
AccountingStoragePass={layout.munge_socket}
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits,qos
# Without it sacct does not know the comment that names a job's run folder.
AccountingStoreFlags=job_comment

GresTypes=gpu
{node_lines}
PartitionName=DEFAULT Nodes=ALL DefaultTime=10:00 MaxTime=1-0 State=UP
PartitionName=low Default=YES PriorityTier=1 PreemptMode=REQUEUE
PartitionName=grace PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high PriorityTier=10 PreemptMode=OFF
"""


def gres_conf(layout: Layout) -> str:
    """Fake GPUs: Slurm wants one character device per GPU and takes a link to any."""
    names = ",".join(layout.node_names)
    return f"NodeName={names} Name=gpu Type=h100 File={layout.root}/devices/gpu[0-{GPUS_PER_NODE - 1}]\n"


def slurmdbd_conf(layout: Layout) -> str:
    """The text of slurmdbd.conf (mode 0600: it holds the database password)."""
    listening = "CommunicationParameters=NoInAddrAny" if layout.loopback_only else ""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={layout.munge_socket}
DbdHost={socket.gethostname()}
DbdAddr={layout.address}
DbdPort={layout.accounting_port}
{listening}
SlurmUser={getpass.getuser()}
DebugLevel=info
PidFile={layout.root}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={layout.database_port}
StorageUser=slurm
StoragePass={layout.database_password}
StorageLoc=slurm_acct_db
"""


def my_cnf(layout: Layout) -> str:
    """MariaDB's options: small, on loopback, and careless of a power cut."""
    return f"""\
[mariadbd]
user={getpass.getuser()}
datadir={layout.root}/database
socket={layout.database_socket}
pid_file={layout.root}/run/mariadb.pid
bind_address=127.0.0.1
port={layout.database_port}
init_file={layout.root}/init.sql
skip_name_resolve=ON
innodb_buffer_pool_size=64M
innodb_log_file_size=16M
innodb_flush_log_at_trx_commit=0
innodb_doublewrite=OFF
innodb_lock_wait_timeout=900
performance_schema=OFF
"""


def init_sql(layout: Layout) -> str:
    """SQL that MariaDB runs at each start: the database and its one user."""
    return f"""\
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE OR REPLACE USER 'slurm'@'127.0.0.1' IDENTIFIED BY '{layout.database_password}';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';
"""


def daemon_environment(layout: Layout) -> dict[str, str]:
    """The whole environment of the daemons: nothing of the caller's reaches them."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        "SLURM_CONF": str(layout.slurm_conf),
        "ELM_DEVCLUSTER": str(layout.root),
    }
