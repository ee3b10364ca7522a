#!/usr/bin/env bash
# Tests workflow/profiles/slurm on a Slurm of its own, one node on loopback: sudo tests/cluster/slurm.sh
#
# For Debian and Ubuntu. What is missing of munge, Slurm and the Python packages is installed; everything else lies in
# a temporary folder, and a configuration in /etc/slurm is neither read nor changed. PYTHON names another interpreter
# than that of .venv; KEEP=1 keeps the folder. Arguments are the targets, by default all.
set -euo pipefail

repository=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-$repository/.venv/bin/python}
targets=("${@:-all}")
cpus=4 # as many as the profile gives to a job; the node may have fewer
controller_port=26817
node_port=26818

fail() {
    echo "slurm.sh: $*" >&2
    exit 1
}

[ "$(id -u)" -eq 0 ] || fail "run it as root: sudo $0"
command -v apt-get >/dev/null || fail "there is no apt-get: it installs Slurm from Debian's or Ubuntu's packages"
[ -x "$python" ] || fail "$python: no such interpreter; install r2m first (README.md), or set PYTHON"

# Slurm's and munge's own services are not used, and not to be started by the installation.
install_packages() {
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e $policy ]; then
        made=$policy
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
    fi
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } >&2 ||
        { rm -f "$made" && fail "apt-get could not install $*"; }
    rm -f "$made"
}

for program in munged slurmctld slurmd; do
    command -v $program >/dev/null || { install_packages munge slurm-wlm && break; }
done
"$python" -c "import snakemake_executor_plugin_slurm, yaml, cv2" 2>/dev/null ||
    "$python" -m pip install -q -c "$repository/constraints.txt" -e "${repository}[slurm,test]"

work=$(mktemp -d /tmp/r2m-slurm.XXXXXX)
chmod 711 "$work" # munge wants its socket reachable for every user
daemons=()
run=
export SLURM_CONF=$work/slurm.conf

# Processes of this Slurm, its jobs and this run: all inherit SLURM_CONF.
processes() (
    unset SLURM_CONF
    grep -lsz "^SLURM_CONF=$work/" /proc/[0-9]*/environ | cut -d/ -f3
)

stop() {
    local status=$? pid
    trap - EXIT
    trap '' INT TERM
    if [ -n "$run" ]; then kill "$run" 2>/dev/null || true; fi
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

host=$(hostname -s)
cat >"$SLURM_CONF" <<EOF
ClusterName=r2m
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller_port
SlurmdPort=$node_port
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
CredType=cred/munge
# No system-wide folder, service or control group is used.
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
# Ended jobs are looked at when everything is done.
MinJobAge=86400
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
mkdir "$work/state" "$work/spool"
(umask 077 && head -c 1024 /dev/urandom >"$work/munge.key")

start munged "munge -n --socket $work/munge.socket | unmunge --socket $work/munge.socket" \
    munged --foreground --socket "$work/munge.socket" --key-file "$work/munge.key" --seed-file "$work/munge.seed" \
    --pid-file "$work/munged.pid" --log-file "$work/munged.log"
start slurmctld "scontrol ping | grep -q UP" slurmctld -D -c
start slurmd "sinfo --noheader --format=%t | grep -qx idle" slurmd -D
echo "Slurm $(sinfo --version | cut -d' ' -f2) on $host: $(sinfo --noheader --format='%C CPUs (allocated/idle/other/total), %m MB')"

# In the background, so that a signal ends it at once.
cd "$repository"
"$python" tests/cluster/slurm_run.py "$work" "${targets[@]}" &
run=$!
wait $run
run=
