#!/bin/bash
# mtl tile or extract in a SLURM array: each task does one share of the slides and scans (docs/cluster-extract.md).
#   job=$(sbatch --parsable shards.sh extract cohort=mine backbone=uni)
#   sbatch --dependency=afterany:$job --cpus-per-task=8 --wrap "mtl extract cohort=mine backbone=uni"
# The second keeps what the first made, makes what is missing, and writes the tables of patients.
#SBATCH --job-name=mtl-shards
#SBATCH --array=0-15
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --output=%x-%A_%a.log
# Add what your cluster asks for, and a GPU where the backbone wants one: --account, --partition, --gres=gpu:1
set -euo pipefail
shares=${MTL_SHARES:-16} # as --array above; the same when single tasks are repeated: sbatch --array=3,7 ...
[ $# -gt 0 ] || { echo "usage: sbatch shards.sh tile|extract [KEY=VALUE]..." >&2; exit 2; }
verb=$1
shift
exec srun mtl "$verb" "$@" engine=shard "shard.index=$SLURM_ARRAY_TASK_ID" "shard.count=$shares"
