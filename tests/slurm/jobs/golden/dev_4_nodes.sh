#!/bin/bash

# Parameters
#SBATCH --comment=elm:/home/elm/runs/dev_4_nodes
#SBATCH --error=/home/elm/runs/dev_4_nodes/logs/%j_0_log.err
#SBATCH --job-name=pretrain-tiny-sample
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/home/elm/runs/dev_4_nodes/logs/%j_0_log.out
#SBATCH --partition=low
#SBATCH --requeue
#SBATCH --signal=USR2@30
#SBATCH --time=0:10:00

# setup
umask 077
export PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=1
export CUDA_VISIBLE_DEVICES=''

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /home/elm/runs/dev_4_nodes/logs/%j_%t_log.out --error /home/elm/runs/dev_4_nodes/logs/%j_%t_log.err --open-mode=append --kill-on-bad-exit=1 --mpi=none /suite/.venv/bin/python -u -m submitit.core._submit /home/elm/runs/dev_4_nodes/logs


# teardown
status=$?
meeting=/home/elm/runs/dev_4_nodes/rendezvous/"$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"
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