#!/usr/bin/env bash
# One command of tokenshift on several machines over ssh; the first one is the main machine:
#
#   PROCESSES_PER_MACHINE=8 accelerate_configs/launch_ssh.sh 10.0.0.1 10.0.0.2 -- train --config mine.yaml
#
# Every machine has this folder and this environment under the same paths, and lets you in without a password.
# CONFIG: the accelerate config (multi_node; zero3, fsdp2, ... take the same options). MAIN_ADDRESS, PORT: where the
# others reach the main machine (the first host, 29500). TOKENSHIFT: the command on every machine. Lines of a
# machine's output begin with its name. Ctrl-C and SIGTERM end all of them; a machine that ends with a fault leaves
# the others GRACE seconds (60). It needs bash 5.1 where it is run.
set -euo pipefail

refuse() {
    echo "launch_ssh.sh: $*" >&2
    exit 2
}

hosts=()
while [[ $# -gt 0 && $1 != -- ]]; do
    hosts+=("$1")
    shift
done
[[ ${#hosts[@]} -gt 0 && $# -gt 1 ]] ||
    refuse "hosts and a command are needed; for example: launch_ssh.sh 10.0.0.1 10.0.0.2 -- train --config mine.yaml"
shift
[[ ${PROCESSES_PER_MACHINE:-} =~ ^[1-9][0-9]*$ ]] ||
    refuse "PROCESSES_PER_MACHINE=${PROCESSES_PER_MACHINE:-} is no number of processes; set it to the GPUs of a machine"
command=$1
shift
words=("${TOKENSHIFT:-$(command -v tokenshift || echo tokenshift)}" "$command" --launch "${CONFIG:-multi_node}")
words+=(--num_machines "${#hosts[@]}" --num_processes "$((PROCESSES_PER_MACHINE * ${#hosts[@]}))")
words+=(--main_process_ip "${MAIN_ADDRESS:-${hosts[0]##*@}}" --main_process_port "${PORT:-29500}" "$@")

environment=() # secrets would be seen among a machine's processes: they belong into its own files
for name in GLOO_SOCKET_IFNAME NCCL_SOCKET_IFNAME OMP_NUM_THREADS HF_HOME HF_HUB_OFFLINE WANDB_MODE; do
    [[ -z ${!name:-} ]] || environment+=("$name=${!name}")
done

tasks=()
# shellcheck disable=SC2317  # the trap calls it
stop() {
    trap '' INT TERM
    kill "${tasks[@]}" 2>/dev/null || true
}
trap stop INT TERM
for rank in "${!hosts[@]}"; do
    # words are quoted for the shell of the other machine; a terminal there (-tt) ends the command with the connection
    task=$(printf '%q ' env "${environment[@]}" "${words[@]}" --machine_rank "$rank")
    ssh -tt -o BatchMode=yes -o ServerAliveInterval=30 "${hosts[rank]}" "cd $(printf '%q' "$PWD") && exec $task" \
        </dev/null > >(sed -u "s/^/${hosts[rank]}: /") 2>&1 &
    tasks+=("$!")
done
status=0
for _ in "${tasks[@]}"; do
    ended=0
    wait -n -p task "${tasks[@]}" || ended=$?
    for rank in "${!tasks[@]}"; do
        if [[ ${tasks[rank]} == "${task:-}" ]]; then
            unset "tasks[rank]"
            [[ $ended -eq 0 || ${#tasks[@]} -eq 0 ]] || echo "launch_ssh.sh: ${hosts[rank]} has ended with status" \
                "$ended; the others have ${GRACE:-60} s to end" >&2
        fi
    done
    [[ $ended -le $status ]] || status=$ended
    if [[ $ended -ne 0 && ${#tasks[@]} -gt 0 && -z ${guard:-} ]]; then
        (sleep "${GRACE:-60}" && kill "${tasks[@]}") >/dev/null 2>&1 &
        guard=$!
    fi
done
[[ -z ${guard:-} ]] || kill "$guard" 2>/dev/null || true
exit "$status"
