# Ranks start from a copy of the environment on the disk of each node (slurm/packed_environment.py). Where that
# fails, they start from the environment itself.
unpack() {
  local place=${SLURM_TMPDIR:-/tmp}/elm-environments-$UID
  local made=$place/${packed##*/} file=$place/.${packed##*/}.$SLURM_JOB_ID
  on_nodes() { srun -Q --overlap --ntasks-per-node=1 -n "$SLURM_JOB_NUM_NODES" --cpus-per-task=1 --mpi=none bash -c "$1" _ "${@:2}"; }
  # Others may write into /tmp too: only a folder of this user's own is used.
  on_nodes 'mkdir -p -m 700 "$1"; [ -O "$1" ] && [ ! -L "$1" ] && { touch -c "$2"; [ -e "$2/pyvenv.cfg" ]; }' "$place" "$made" ||
    { sbcast -f "$packed" "$file" && on_nodes '
      part=$2.$SLURM_JOB_ID.$SLURM_PROCID
      if [ ! -e "$2/pyvenv.cfg" ] && mkdir -p "$part"; then
        tar -xf "$3" -C "$part" && mv -T "$part" "$2"
        rm -rf "$part"
      fi
      rm -f "$3"
      find "$1" -mindepth 1 -maxdepth 1 -mtime +14 -exec rm -rf {} +
      [ -e "$2/pyvenv.cfg" ]' "$place" "$made" "$file"; } || return 1
  environment=$made
}
unpack || echo "the packed environment is not on every node; ranks start from $environment" >&2
