#!/usr/bin/env bash
# One command of tokenshift on all machines of a Slurm job:
#
#   sbatch --nodes 4 --gpus-per-node 8 accelerate_configs/launch_slurm.sh train --config mine.yaml
#
# CONFIG: the accelerate config (multi_node; zero3, fsdp2, ... take the same options). PROCESSES_PER_MACHINE: the
# job's GPUs on a machine where it is not given. MAIN_ADDRESS, PORT: where the main machine is reached. GLOO_SOCKET_IFNAME
# and NCCL_SOCKET_IFNAME name the network interface, where it is not the one that leads to the main machine.
#SBATCH --job-name=tokenshift
#SBATCH --ntasks-per-node=1
# At the time limit the launcher leaves its processes 30 s. A checkpoint of a large model takes longer: what is kept is
# that of the last save_steps, from which --resume_from_checkpoint true goes on.
set -euo pipefail

refuse() {
    echo "launch_slurm.sh: $*" >&2
    exit 2
}

[[ $# -gt 0 ]] || refuse "no command is given; for example: sbatch --nodes 4 launch_slurm.sh train --config mine.yaml"
[[ -n ${SLURM_JOB_NODELIST:-} && -n ${SLURM_JOB_NUM_NODES:-} ]] ||
    refuse "there is no Slurm job (SLURM_JOB_NODELIST is not set): submit it by sbatch, or use launch_ssh.sh"
per_machine=${PROCESSES_PER_MACHINE:-${SLURM_GPUS_ON_NODE:-}}
[[ $per_machine =~ ^[1-9][0-9]*$ ]] ||
    refuse "the processes of a machine are not known: give sbatch --gpus-per-node N, or set PROCESSES_PER_MACHINE"

if [[ -z ${MAIN_ADDRESS:-} ]]; then
    hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST") || refuse "scontrol does not know the hosts of this job"
    MAIN_ADDRESS=${hosts%%$'\n'*}
fi
port=${PORT:-$((20000 + ${SLURM_JOB_ID:-0} % 10000))} # two jobs can share a machine
command=$1
shift

# Each task puts its own number in: single quotes.
# shellcheck disable=SC2016
exec srun --ntasks-per-node=1 --kill-on-bad-exit=1 bash -c 'exec tokenshift "$@" --machine_rank "$SLURM_NODEID"' task \
    "$command" --launch "${CONFIG:-multi_node}" --num_machines "$SLURM_JOB_NUM_NODES" \
    --num_processes "$((per_machine * SLURM_JOB_NUM_NODES))" --main_process_ip "$MAIN_ADDRESS" \
    --main_process_port "$port" "$@"
