#!/bin/bash

# Parameters
#SBATCH --comment=elm:/home/elm/runs/snellius_container
#SBATCH --cpus-per-task=16
#SBATCH --error=/home/elm/runs/snellius_container/logs/%j_0_log.err
#SBATCH --gpus-per-node=4
#SBATCH --job-name=pretrain-large-eur
#SBATCH --mem=720G
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=/home/elm/runs/snellius_container/logs/%j_0_log.out
#SBATCH --partition=gpu_h100
#SBATCH --requeue
#SBATCH --signal=USR2@300
#SBATCH --time=1-00:00:00

# setup
umask 077
export PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=16
export NCCL_SOCKET_IFNAME=eno2np0
export GLOO_SOCKET_IFNAME=eno2np0

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /home/elm/runs/snellius_container/logs/%j_%t_log.out --error /home/elm/runs/snellius_container/logs/%j_%t_log.err --open-mode=append --kill-on-bad-exit=1 --mpi=none --cpus-per-task=16 apptainer exec --nv --bind /suite --bind /home/elm/project --bind /home/elm/runs/snellius_container --env PYTHONPATH=/suite --pwd /home/elm/project /images/elm.sif python -u -m submitit.core._submit /home/elm/runs/snellius_container/logs


# teardown
status=$?
meeting=/home/elm/runs/snellius_container/rendezvous/"$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"
ask() {
  for pause in 1 5 10 20 40 80; do
    scontrol "$@" "$SLURM_JOB_ID" && return
    sleep $pause  # the controller is being restarted
  done
  return 1
}
if [ -e "$meeting/hold" ]; then ask requeuehold; exit; fi
if [ -e "$meeting/requeue" ]; then ask requeue; exit; fi
if [ -e "$meeting/stopped" ]; then
  shown=$(ask -o show job)
  if [[ "$shown" =~ JobState=RUNNING\ .*\ PreemptTime=[0-9] ]]; then ask requeue; exit; fi
  exit 143
fi
exit $status