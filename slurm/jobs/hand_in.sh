# Hand in a job for each checkpoint that was not evaluated yet. $1: the folder evaluations/ of a run, which has
# the job's script. $2: "again" hands in once more what Slurm no longer has and what was not measured.
shopt -s nullglob
for manifest in "$1"/../checkpoints/step-*/manifest.json; do
  name=$(basename "${manifest%/manifest.json}") mark=$1/$name
  if [[ ! $name =~ ^step-[0-9]{8,}$ ]] || [ -e "$mark.json" ] || [ -e "$mark.failed" ]; then continue; fi
  if [ -e "$mark.job" ]; then
    if [ "$2" != again ] || [ -n "$(squeue -h -j "$(cat "$mark.job")" -o %i 2> /dev/null)" ]; then continue; fi
  fi
  job=$(
    conf=$SLURM_CONF
    unset "${!SLURM_@}" "${!SBATCH_@}" "${!SRUN_@}" CUDA_VISIBLE_DEVICES
    if [ -n "$conf" ]; then export SLURM_CONF=$conf; fi
    sbatch --parsable "$1/job.sh" "$((10#${name#step-}))"
  )
  job=${job%%;*}
  if [ -n "$job" ]; then echo "$job" > "$mark.job.tmp" && mv "$mark.job.tmp" "$mark.job"; fi
done
exit 0
