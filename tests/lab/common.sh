# Paths, names and messages that every part of the laboratory shares.
#
# The hosts of one clone are one folder, the run. Everything that a run makes on the machine outside
# that folder (cgroups) carries the run's id, so that runs of different clones never meet, and all of
# it is found again without looking at anything that the run did not make.

RUNS=/var/tmp/podkeep-lab-
CACHE=${PODKEEP_LAB_CACHE:-/var/cache/podkeep-lab}
RUN=${PODKEEP_LAB_RUN:-$RUNS$(printf %s "$LAB" | sha256sum | cut -c1-8)}

# The unified hierarchy; on a machine that mixes both cgroup versions it lies one level deeper.
CGROUPS=/sys/fs/cgroup/unified
[ -d "$CGROUPS" ] || CGROUPS=/sys/fs/cgroup

die() { printf 'lab: %s\n' "$*" >&2; exit 1; }

# Refuses a name that could leave the run's folder or break a host name.
check_name() { [[ $1 =~ ^[a-z][a-z0-9-]{0,40}$ ]] || die "bad host name '$1': use a-z, 0-9 and -"; }

# Runs a command until it succeeds: await SECONDS WHAT CMD...
await() {
    local deadline=$((SECONDS + $1)) what=$2; shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || { printf 'lab: gave up waiting: %s\n' "$what" >&2; return 1; }
        sleep 0.05
    done
}

# The id of this run, made on first use.
run_id() {
    mkdir -p "$RUN"
    if [ ! -s "$RUN/id" ]; then
        (set -o noclobber; od -An -N4 -tx1 /dev/urandom | tr -d ' \n' > "$RUN/id") 2>/dev/null || true
    fi
    await 5 "the id of $RUN" test -s "$RUN/id" || exit 1
    cat "$RUN/id"
}

host_dir() { printf '%s/hosts/%s' "$RUN" "$1"; }
host_cgroup() { printf '%s/podkeep-lab-%s/%s' "$CGROUPS" "$(run_id)" "$1"; }

# The folders of this run in each hierarchy of version 1, with the name under which a host mounts it and the
# options that takes: FOLDER NAME OPTIONS. At the top: the cgroup of whoever calls goes with that.
run_cgroups_v1() {
    local controllers name
    while IFS=: read -r _ controllers _; do
        name=${controllers#name=}
        [ -z "$name" ] || [ ! -d "/sys/fs/cgroup/$name" ] || echo "/sys/fs/cgroup/$name/podkeep-lab-$(run_id)" \
            "$name" "$([ "$name" = "$controllers" ] || echo none,)$controllers"
    done < /proc/self/cgroup
}

# Prints the pid in a file of "PID START_TIME" while that process lives; the start time tells a pid
# that the kernel gave out again.
living() {
    local pid start
    [ -s "$1" ] || return 1
    read -r pid start < "$1"
    [ -n "$start" ] && [ "$(start_time "$pid")" = "$start" ] || return 1
    printf '%s' "$pid"
}
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# The host's first process, or nothing when it is not up.
host_pid() { living "$(host_dir "$1")/pid"; }
