#!/bin/bash
# mtl tile or extract on all nodes of one SLURM job, by Ray (docs/cluster-extract.md).
#   sbatch --nodes=4 ray.sh extract cohort=mine backbone=uni engine.cpus=8 engine.gpus=1
# Nodes are taken whole: at the end `ray stop` ends all that this user runs of Ray on them. To end it tidily before its
# time: scancel --batch --signal=TERM JOB.
#SBATCH --job-name=mtl-ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=%x-%j.log
# Add what your cluster asks for: --account, --partition, --gpus-per-node
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: sbatch ray.sh tile|extract [KEY=VALUE]..." >&2; exit 2; }
verb=$1
shift
interface=${MTL_INTERFACE:-} # the network that nodes speak over, for example ib0; empty = that of their names
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | awk 'NR == 1')
if [ -n "$interface" ]; then
    address=$(srun --nodes=1 --ntasks=1 -w "$head" ip -4 -o addr show dev "$interface" | awk 'NR == 1 {sub("/.*", "", $4); print $4}')
else
    address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk 'NR == 1 {print $1}')
fi
case $address in
    "" | 127.*) echo "node $head has the address '$address', where others do not reach it: set MTL_INTERFACE" >&2; exit 2 ;;
esac
address=$address:$((20000 + SLURM_JOB_ID % 10000))
# Whoever reaches a Ray without a token runs code as its user, and its ports are open to the network of the nodes.
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
process=$(mktemp) # of mtl on the head, where this script runs as well: its end is the end of all
trap 'kill -TERM "$(cat "$process")" 2> /dev/null || true' TERM
# Only the head knows of a dashboard, which is left out.
srun bash -c '
    address=$1 process=$2
    shift 2
    head_only=()
    [ "$SLURM_NODEID" != 0 ] || head_only=(--include-dashboard=false)
    exec ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" "${head_only[@]}" \
        --object-store-memory=100000000 \
        -- bash -c "echo \$\$ > \"\$0\"; exec mtl \"\$@\"" "$process" "$@" engine=ray "engine.address=$address"
' ray.sh "$address" "$process" "$verb" "$@" &
step=$!
code=0
wait "$step" || code=$?
while kill -0 "$step" 2> /dev/null; do # a signal ends the first wait
    code=0
    wait "$step" || code=$?
done
rm -f "$process"
exit "$code"
