#!/usr/bin/env bash
# Tests workflow/profiles/slurm on a Slurm of its own, one node on loopback: sudo tests/cluster/slurm.sh [TARGET...]
#
# For Debian and Ubuntu. What is missing of munge, Slurm and the Python packages is installed; everything else lies in
# a temporary folder. A Slurm that is there already is not touched: this one has a network of its own, and its
# /etc/slurm is another, which only its own processes see. PYTHON names another interpreter than that of .venv;
# KEEP=1 keeps the folder. Targets, by default all, are such as need results/specialists/swap.
set -euo pipefail

repository=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-$repository/.venv/bin/python}

fail() {
    echo "slurm.sh: $*" >&2
    exit 1
}

# Services that come with the packages are not started.
install_packages() {
    local policy=/usr/sbin/policy-rc.d status=0
    [ ! -e $policy ] || policy=$(mktemp)
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    { apt-get update -q && apt-get install -q -y --no-install-recommends "$@"; } >&2 || status=$?
    rm "$policy"
    [ $status -eq 0 ] || fail "apt-get could not install $*"
}

if [ "${1:-}" != --inside ]; then
    [ "$(id -u)" -eq 0 ] || fail "run it as root: sudo $0"
    [ -x "$python" ] || fail "$python: no such interpreter; install r2m first (README.md), or set PYTHON"
    for program in munged slurmctld slurmd ip; do
        command -v $program >/dev/null || { install_packages munge slurm-wlm iproute2 && break; }
    done
    "$python" -c "import snakemake_executor_plugin_slurm, yaml" 2>/dev/null ||
        "$python" -m pip install -q -c "$repository/constraints.txt" -e "${repository}[slurm,test]"
    exec unshare --mount --net -- "$0" --inside "$(mktemp -d /tmp/r2m-slurm.XXXXXX)" "$@"
fi

work=$2
targets=("${@:3}")
daemons=()
run=
export R2M_SLURM_TEST=$work # tells which processes are of this run: their children inherit it

processes() (
    unset R2M_SLURM_TEST
    grep -lsxz "R2M_SLURM_TEST=$work" /proc/[0-9]*/environ | cut -d/ -f3
)

stop() {
    local status=$? pid
    trap - EXIT
    trap '' INT TERM
    if [ -n "$run" ]; then
        kill "$run" 2>/dev/null || true
        wait "$run" 2>/dev/null || true
    fi
    scancel --quiet --user=root 2>/dev/null || true
    for _ in $(seq 30); do
        [ -n "$(squeue --noheader 2>/dev/null)" ] || break
        sleep 1
    done
    for pid in $(printf '%s\n' "${daemons[@]}" | tac); do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    [ -z "$(processes)" ] || sleep 5
    for pid in $(processes); do
        echo "slurm.sh: still running, killed: $pid $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" || true)" >&2
        kill -9 "$pid" 2>/dev/null || true
        status=1
    done
    if [ -n "${KEEP:-}" ]; then echo "Kept: $work"; else rm -rf "$work"; fi
    if [ $status -eq 0 ]; then echo "passed"; else echo "FAILED" >&2; fi
    exit $status
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Start a daemon in the background, and wait until a command succeeds.
start() {
    local name=$1 ready=$2
    shift 2
    "$@" >"$work/$name.out" 2>&1 &
    daemons+=($!)
    for _ in $(seq 60); do
        kill -0 "${daemons[-1]}" 2>/dev/null || break
        if eval "$ready" >/dev/null 2>&1; then return; fi
        sleep 0.5
    done
    tail -n 20 "$work/$name".* >&2
    fail "$name did not start"
}

ip link set lo up
ip address add 127.0.0.2/8 dev lo # of a machine with 127.0.0.1 alone, Slurm thinks that it has no network
chmod 711 "$work" # munge wants every user to reach its socket
mkdir "$work/etc" "$work/state" "$work/spool"
mount --bind "$work/etc" /etc/slurm
host=$(hostname -s)
cat >"$work/etc/slurm.conf" <<EOF
ClusterName=r2m
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
# Neither control groups nor accounting.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# Ended jobs are looked at when everything is done.
MinJobAge=86400
# As many CPUs as the profile gives to a job, whatever the machine has, and a GPU in name only.
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=16000 Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=ALL MaxTime=INFINITE State=UP
EOF
echo "Name=gpu File=/dev/null" >"$work/etc/gres.conf"
(umask 077 && head -c 1024 /dev/urandom >"$work/munge.key")

start munged "munge -n --socket $work/munge.socket | unmunge --socket $work/munge.socket" \
    munged --foreground --socket "$work/munge.socket" --key-file "$work/munge.key" --seed-file "$work/munge.seed" \
    --pid-file "$work/munged.pid" --log-file "$work/munged.log"
start slurmctld "scontrol ping | grep -q UP" slurmctld -D -c
start slurmd "sinfo --noheader --partition=main --format=%t | grep -qx idle" slurmd -D
echo "Slurm $(sinfo --version | cut -d' ' -f2) on $host: $(sinfo --noheader --partition=main --format='%c CPUs, %m MB, %G')"

# In the background, so that a signal ends it at once.
cd "$repository"
"$python" tests/cluster/slurm_run.py "$work" "${targets[@]:-all}" &
run=$!
wait $run
run=
