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
if [ -e "$meeting/hold" ]; then exec scontrol requeuehold "$SLURM_JOB_ID"; fi
if [ -e "$meeting/requeue" ]; then exec scontrol requeue "$SLURM_JOB_ID"; fi
exit $status