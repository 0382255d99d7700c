#!/bin/bash

# Parameters
#SBATCH --comment=elm:/home/elm/runs/snellius_8_nodes
#SBATCH --cpus-per-task=16
#SBATCH --error=/home/elm/runs/snellius_8_nodes/logs/%j_0_log.err
#SBATCH --gpus-per-node=4
#SBATCH --job-name=pretrain-large-eur
#SBATCH --mem=720G
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=/home/elm/runs/snellius_8_nodes/logs/%j_0_log.out
#SBATCH --partition=gpu_h100
#SBATCH --requeue
#SBATCH --signal=USR2@300
#SBATCH --time=1-00:00:00

# setup
umask 077
trap : TERM  # srun hands it to the ranks; the lines after it still have to run
run=/home/elm/runs/snellius_8_nodes
logs=$run/logs restart=${SLURM_RESTART_COUNT:-0}
errors=$logs/${SLURM_JOB_ID}_0_log.err seen=$(stat -c %s "$logs/${SLURM_JOB_ID}_0_log.err")
export PYTHONUNBUFFERED=1
export OMP_NUM_THREADS=16
export NCCL_SOCKET_IFNAME=eno2np0
export GLOO_SOCKET_IFNAME=eno2np0
export PYTHONPATH=/home/elm/runs/.code/0123456789abcdef${PYTHONPATH:+:$PYTHONPATH}
python_here() { /suite/.venv/bin/python -P "$@"; }

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /home/elm/runs/snellius_8_nodes/logs/%j_%t_log.out --error /home/elm/runs/snellius_8_nodes/logs/%j_%t_log.err --open-mode=append --kill-on-bad-exit=1 --mpi=none --distribution=block:block --cpus-per-task=16 /suite/.venv/bin/python -P -u -m submitit.core._submit /home/elm/runs/snellius_8_nodes/logs


# teardown
status=$?
meeting=$run/rendezvous/$SLURM_JOB_ID-$restart
# What follows the ranks. The job starts again, is held, or ends with the status that tells the truth.
# run.json is told after the fact.
tell() { python_here -m slurm.jobs.outcome "$run" "$SLURM_JOB_ID" "$restart" "$@" || true; }

# scontrol's answer. A controller that is being restarted is asked again, one that refuses is not.
ask() {
  local pause said
  for pause in 1 5 10 20 40 80; do
    if said=$(scontrol "$@" "$SLURM_JOB_ID" 2>&1); then printf '%s' "$said"; return 0; fi
    case $said in *disabled*|*denied*|*ermission*|*nvalid*|*"not supported"*) break ;; esac
    sleep $pause
  done
  printf '%s\n' "$said" >&2
  return 1
}

# The first field of that name in `scontrol show job`.
field() { [[ " $shown" =~ \ $1=([^ ]*) ]] && printf '%s' "${BASH_REMATCH[1]}"; }

# again REASON [NODES]: start this job again under its id, without those nodes. Where Slurm refuses, a successor
# goes on.
again() {
  trap '' TERM  # a job that is requeued is told to end
  if ! ask requeue; then succeed "$@"; fi
  if [ -n "$2" ] && enough_without "$2"; then
    scontrol update "JobId=$SLURM_JOB_ID" "ExcNodeList=$(excluded "$2")"
  fi
  tell requeued "$1" $not_started
  exit 0
}

# succeed REASON [NODES]: hand in the same script for the same run. What waits for this job waits for that one.
succeed() {
  trap '' TERM
  local options=(--parsable "--dependency=afterany:$SLURM_JOB_ID") new job dependency left=0
  if [ -n "$2" ] && enough_without "$2"; then options+=("--exclude=$(excluded "$2")"); fi
  new=$(
    conf=$SLURM_CONF
    unset "${!SLURM_@}" "${!SBATCH_@}" "${!SRUN_@}" CUDA_VISIBLE_DEVICES
    if [ -n "$conf" ]; then export SLURM_CONF=$conf; fi
    sbatch "${options[@]}" "$0"
  )
  new=${new%%;*}
  if [ -z "$new" ]; then
    tell failed "$1; Slurm does not start this job again and took no other: give the command again"
    exit 75
  fi
  cp "$logs/${SLURM_JOB_ID}_submitted.pkl" "$logs/${new}_submitted.pkl"
  while read -r job dependency; do
    dependency=$(sed -E "s/\([a-z]*\)//g; s/:$SLURM_JOB_ID\b/:$new/g" <<< "$dependency")
    if [ "$job" != "$new" ]; then scontrol update "JobId=$job" "Dependency=$dependency" || left=75; fi
  done < <(squeue -h -u "$UID" -t PENDING -o '%i %E' | grep -E ":$SLURM_JOB_ID\b")
  tell requeued "$1; Slurm does not start this job again, job $new goes on" --successor "$new" $not_started
  exit $left  # what still waits for this job must not take its end for success
}

# The nodes that this job must not use, with more of them.
excluded() {
  local before
  before=$(field ExcNodeList)
  if [ -z "$before" ] || [ "$before" = "(null)" ]; then printf '%s' "$1"; else printf '%s,%s' "$before" "$1"; fi
}

# Whether the partition has nodes enough when some more are excluded.
enough_without() {
  local total bad
  total=$(sinfo -h -N -p "$SLURM_JOB_PARTITION" -o %N | sort -u | wc -l)
  bad=$(scontrol show hostnames "$(excluded "$1")" | sort -u | wc -l)
  [ $((total - bad)) -ge "$SLURM_JOB_NUM_NODES" ]
}

# What srun said since this start of the job.
srun_said() { tail -c +$((seen + 1)) "$errors" 2> /dev/null | grep -E "$1"; }

# The nodes on which no task can be started, with commas between them.
bad_nodes() {
  local named node
  named=$(srun_said '^srun: error: Task launch for .* failed on node' | sed -E 's/.* failed on node ([^: ]+).*/\1/')
  if [ -z "$named" ]; then
    named=$(
      for node in $(scontrol show hostnames); do
        timeout 30 srun -Q --overlap -N1 -n1 --mpi=none -w "$node" true > /dev/null 2>&1 || echo "$node" &
      done
      wait
    )
  fi
  sort -u <<< "$named" | paste -sd, -
}

# No rank came to its job: try elsewhere, three times in all.
start_elsewhere() {
  local bad
  bad=$(bad_nodes)
  mkdir -p "$run/rendezvous"
  echo "$bad" >> "$run/rendezvous/not-started"
  if [ "$(wc -l < "$run/rendezvous/not-started")" -ge 3 ]; then
    rm "$run/rendezvous/not-started"
    tell failed "its ranks could not be started three times${bad:+, the last time on $bad}; see $errors"
    exit $status
  fi
  not_started=--not-started
  again "its ranks could not be started${bad:+ on $bad}" "$bad"
}

if [ -e "$meeting/hold" ]; then
  if ask requeuehold; then exit; fi
  tell failed "no progress, and Slurm does not hold the job; see $logs"
  exit 75
fi
if [ -e "$meeting/requeue" ]; then
  rm -f "$run/rendezvous/not-started"
  again "saved before the time limit, or asked to by USR2"
fi
if [ $status -eq 0 ] && [ ! -e "$meeting/stopped" ]; then exit 0; fi
shown=$(ask -o show job)
case $(field JobState) in
  RUNNING)
    launch='^srun: error: (Task launch for|Application launch failed|Unable to (create step|resolve|confirm))'
    if [ -n "$(srun_said "$launch")" ]; then start_elsewhere; fi
    if [ ! -e "$meeting" ] && [ -z "$(srun_said '^Traceback')" ]; then start_elsewhere; fi
    # Slurm itself would requeue a job that it preempts with a grace time, but only at that time's end.
    if [ -e "$meeting/stopped" ] && [[ $(field PreemptTime) == [0-9]* ]]; then
      again "preempted with a grace time"
    fi ;;
  COMPLETING|PREEMPTED)
    # Where Slurm requeues what it preempts, it has counted the restart already.
    if [[ $(field PreemptTime) == [0-9]* ]] && [ "$(field Restarts)" = "$restart" ]; then succeed "preempted"; fi ;;
esac
if [ -e "$meeting/stopped" ]; then exit 143; fi
if [ ! -e "$meeting" ]; then
  if [ "$(field JobState)" = RUNNING ]; then tell failed "no rank began; see $errors"
  else tell cancelled "the job ended before a rank began"; fi
fi
exit $status