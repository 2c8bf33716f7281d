# Hosts: booting, entering, cutting their power, removing them.
#
# State of a host, in RUN/hosts/NAME:
#   upper work   the overlay over the base: the host's root file system
#   data/        home, var-tmp and storage, on the machine's own file system, since Podman's overlay
#                driver refuses an overlay underneath; with a driver that needs another file system,
#                storage.img, mounted by the host itself through a loop device that the kernel frees
#                with the host's mount namespace
#   settings     SUITE DRIVER MODE BASE
#   owner        pid and start time of the process that the host belongs to, if it has one
#   share        a link to the folder that the host sees as /share, if it has one
#   cgroups-v1   in mode v1: the host's cgroups in the hierarchies of version 1
#   pid          the host's first process and its start time; absent when it is down

lab_up() {
    [ $# -ge 1 ] && [ $# -le 4 ] || usage
    local name=$1 suite=${2:-} driver=${3:-overlay} mode=${4:-systemd} base h
    check_name "$name"
    h=$(host_dir "$name")
    remove_orphans
    if host_pid "$name" >/dev/null; then die "host $name is already up"; fi
    if [ -z "$suite" ]; then
        [ -s "$h/settings" ] || die "there is no host $name to boot again; name a suite"
        read -r suite driver mode base < "$h/settings"
        settle_down "$name" || die "host $name has not left the machine yet"
    else
        [[ $driver =~ ^(overlay|vfs|btrfs|xfs)$ ]] || die "no driver '$driver'"
        [[ $mode =~ ^(systemd|bare|v1)$ ]] || die "no mode '$mode'"
        base=$(build_base "$suite")
        # What a run that was killed left under this name.
        lab_down "$name"
        make_disk "$h" "$driver"
        echo "$suite $driver $mode $base" > "$h/settings"
        if [ -n "${PODKEEP_LAB_OWNER:-}" ]; then
            echo "$PODKEEP_LAB_OWNER $(start_time "$PODKEEP_LAB_OWNER")" > "$h/owner"
        fi
        if [ -n "${PODKEEP_LAB_SHARE:-}" ]; then
            [ -d "$PODKEEP_LAB_SHARE" ] || die "no folder '$PODKEEP_LAB_SHARE' to share"
            ln -sn "$(realpath "$PODKEEP_LAB_SHARE")" "$h/share"
        fi
    fi
    boot "$name" "$suite" "$driver" "$mode" "$base"
}

# Removes the hosts of every clone whose owner is gone.
remove_orphans() {
    local owner h
    for owner in "$RUNS"*/hosts/*/owner "$RUN"/hosts/*/owner; do
        [ -s "$owner" ] || continue
        living "$owner" > /dev/null && continue
        h=${owner%/owner}
        # Two starters may find the same orphan; the second finds the folder locked or gone.
        (
            exec 7< "$h" || exit 0
            flock -n 7 && [ -d "$h" ] || exit 0
            RUN=${h%/hosts/*}
            lab_down "${h##*/}"
            remove_empty_run
        ) 2>/dev/null || printf 'lab: cannot remove the abandoned host %s\n' "$h" >&2
    done
}

# An empty disk for a new host.
make_disk() {
    local h=$1 driver=$2
    mkdir -p "$h"/{upper,work,root,data/storage,data/home,data/var-tmp}
    case $(stat -f -c %T "$h") in
        overlayfs | tmpfs) rm -rf "$h"; die "$RUN must lie on a real file system: set PODKEEP_LAB_RUN" ;;
    esac
    chmod 1777 "$h/data/var-tmp"
    case $driver in
        btrfs) truncate -s 16G "$h/data/storage.img"; mkfs.btrfs -q "$h/data/storage.img" > "$h/mkfs.log" 2>&1 ;;
        xfs) truncate -s 16G "$h/data/storage.img"; mkfs.xfs -q -m reflink=1 "$h/data/storage.img" > "$h/mkfs.log" 2>&1 ;;
    esac || { cat "$h/mkfs.log" >&2; die "cannot make the host's $driver file system"; }
}

boot() {
    local name=$1 suite=$2 driver=$3 mode=$4 base=$5 h cgroup unshare_pid pid=''
    h=$(host_dir "$name"); cgroup=$(host_cgroup "$name")
    mkdir -p "$cgroup"
    if [ "$mode" = v1 ]; then make_cgroups_v1 "$name" "$h"; fi
    # The cgroup first, then a cgroup namespace rooted there. It lies below a folder of its own so
    # that no controller which something else enables at the root reaches the host.
    ( join_cgroups "$h" "$cgroup"
      exec setsid unshare --mount --pid --uts --ipc --net --cgroup --fork \
          bash "$LAB/init.sh" "$name" "$h" "$base" "$mode" "$driver" ) </dev/null >"$h/console.log" 2>&1 &
    unshare_pid=$!
    # Booted when the script that prepared the namespaces has become the host's init.
    booted() {
        kill -0 "$unshare_pid" 2>/dev/null || return 0
        pid=$(pgrep -P "$unshare_pid") && [[ $(cat "/proc/$pid/comm") =~ ^(systemd|catatonit)$ ]]
    }
    if ! await 30 "host $name to boot" booted || [ -z "$pid" ] || ! kill -0 "$pid" 2>/dev/null; then
        cat "$h/console.log" >&2
        kill -9 "$unshare_pid" 2>/dev/null || true
        die "host $name did not boot"
    fi
    disown "$unshare_pid"
    echo "$pid $(start_time "$pid")" > "$h/pid"
    lab_exec "$name" bash -s "$suite" "$mode" < "$LAB/settle.sh" \
        || die "host $name booted but could not be set up"
}

# A host of mode v1 has a cgroup in each hierarchy of version 1, too: h/cgroups-v1 names them, and what a
# host mounts them as. It is empty on a machine that has none of them: there version 2 has the freezer.
make_cgroups_v1() {
    local name=$1 h=$2 folder controller options
    run_cgroups_v1 | while read -r folder controller options; do
        mkdir -p "$folder/$name"
        if [ "$controller" = cpuset ]; then
            for level in "$folder" "$folder/$name"; do
                for file in cpuset.cpus cpuset.mems; do cat "$level/../$file" > "$level/$file"; done
            done
        fi
        echo "$folder/$name $controller $options"
    done > "$h/cgroups-v1"
}

# Puts this process into the cgroups of a host.
join_cgroups() {
    local h=$1 scope=$2 folder
    echo $BASHPID > "$scope/cgroup.procs" || exit 1
    [ -s "$h/cgroups-v1" ] || return 0
    while read -r folder _; do echo $BASHPID > "$folder/cgroup.procs" || exit 1; done < "$h/cgroups-v1"
}

lab_exec() {
    local user=root name pid scope mode
    if [ "${1:-}" = --user ]; then user=${2:-}; shift 2; fi
    [ $# -ge 2 ] || usage
    name=$1; shift
    check_name "$name"
    pid=$(host_pid "$name") || die "host $name is not up"
    read -r _ _ mode _ < "$(host_dir "$name")/settings"
    scope=$(host_cgroup "$name")
    # systemd owns the root of the host's cgroup tree, and a cgroup with children holds no process.
    if [ "$mode" = systemd ]; then scope+=/lab-exec.scope; mkdir -p "$scope"; fi
    # The caller's environment stays outside: a host answers the same whoever asks.
    local env=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM=dumb)
    [ "$mode" != v1 ] || env+=(PODMAN_IGNORE_CGROUPSV1_WARNING=1)
    local enter=(nsenter -t "$pid" -m -u -i -n -p -C --)
    (
        join_cgroups "$(host_dir "$name")" "$scope"
        if [ "$user" = root ]; then
            exec "${enter[@]}" env -i -C /root "${env[@]}" HOME=/root USER=root "$@"
        fi
        exec "${enter[@]}" env -i "${env[@]}" bash -c 'user=$1; shift
            id=$(id -u "$user"); home=$(getent passwd "$user" | cut -d: -f6); cd "$home"
            exec setpriv --reuid "$user" --regid "$user" --init-groups \
                env HOME="$home" USER="$user" XDG_RUNTIME_DIR=/run/user/"$id" \
                DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/"$id"/bus "$@"' lab "$user" "$@"
    )
}

# The wire goes with either host, also in a power cut: laid again, it replaces what is left.
lab_link() {
    [ $# = 2 ] || usage
    local pids=() name number=0
    for name in "$@"; do
        check_name "$name"
        pids+=("$(host_pid "$name")") || die "host $name is not up"
    done
    for name in "${pids[@]}"; do
        nsenter -t "$name" -n ip link delete wire 2> /dev/null || true
    done
    ip link add wire netns "${pids[0]}" type veth peer name wire netns "${pids[1]}"
    for name in "${pids[@]}"; do
        number=$((number + 1))
        nsenter -t "$name" -n ip address add "10.99.0.$number/24" dev wire
        nsenter -t "$name" -n ip link set wire up
    done
}

lab_put() {
    [ $# = 3 ] || usage
    if [ -d "$2" ]; then
        tar -C "$2" --numeric-owner --xattrs --xattrs-include='*' --sparse -cf - . \
            | lab_exec "$1" sh -euc 'mkdir -p "$1"; exec tar -C "$1" --numeric-owner --xattrs \
                --xattrs-include="*" --sparse -xpf -' put "$3"
        return
    fi
    [ -f "$2" ] || die "no file or folder '$2'"
    # Renamed into place, so that a binary can be replaced while an old run of it lives.
    lab_exec "$1" sh -euc 'cat > "$2.part"; chmod "$1" "$2.part"; mv -f "$2.part" "$2"' \
        put "$(stat -c %a "$2")" "$3" < "$2"
}

lab_image() {
    [ $# = 2 ] || usage
    local base
    case $2 in
        busybox) lab_exec "$1" bash -s < "$LAB/busybox-image.sh" ;;
        postgres)
            # /run/postgresql is made at boot and so is not there: servers take `-k /tmp`.
            base=$(build_base postgres)
            tar -C "$base" --numeric-owner --exclude="./dev/*" -cf - . | lab_exec "$1" podman import -q \
                --change 'ENV PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
                --change 'ENV PGHOST=/tmp' - localhost/postgres:1 > /dev/null ;;
        *) die "no image '$2': busybox or postgres" ;;
    esac
}

lab_crash() {
    [ $# = 1 ] || usage
    check_name "$1"
    local pid h
    h=$(host_dir "$1")
    [ -d "$h" ] || die "there is no host $1"
    detach_loops "$1"
    if pid=$(host_pid "$1"); then kill -9 "$pid"; fi
    settle_down "$1" || die "host $1 does not die"
    rm -f "$h/pid"
}

# Kills what is left of a host and waits until nothing holds its disk any more: a second mount of a
# storage.img that the dying host still has mounted would destroy the file system in it.
settle_down() {
    local h cgroup
    h=$(host_dir "$1"); cgroup=$(host_cgroup "$1")
    if [ -d "$cgroup" ]; then
        # Also the processes that were put into the cgroup but not into the host's pid namespace, and
        # those of a boot that was cut off.
        echo 1 > "$cgroup/cgroup.kill"
        # What a freezer of version 1 holds does not die.
        thaw_v1() {
            [ -s "$h/cgroups-v1" ] || return 0
            awk '$2 == "freezer" {print $1}' "$h/cgroups-v1" | while read -r folder; do
                [ ! -d "$folder" ] || find "$folder" -name freezer.state \
                    -exec sh -c 'echo THAWED > "$1"' thaw {} \; 2>/dev/null || true
            done
        }
        thaw_v1
        emptied() { thaw_v1; find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null; [ ! -d "$cgroup" ]; }
        await 30 "the processes of host $1 to die" emptied || return 1
    fi
    if [ -s "$h/cgroups-v1" ]; then
        emptied_v1() {
            local folder
            while read -r folder _; do
                [ ! -d "$folder" ] || find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null || return 1
            done < "$h/cgroups-v1"
        }
        await 30 "the version 1 cgroups of host $1 to be empty" emptied_v1 || return 1
    fi
    if [ -e "$h/data/storage.img" ]; then
        freed() { [ -z "$(losetup -j "$h/data/storage.img")" ]; }
        await 30 "the disk of host $1 to be released" freed || return 1
    fi
}

# Detaches the loop devices over the host's files: those that a test made inside it would outlive it
# and hold the files' space. The host's root is known by its device number only while the host lives.
detach_loops() {
    local h device number inode root='' disk pid
    h=$(host_dir "$1"); disk=$(stat -c %Hd:%Ld "$h")
    if pid=$(host_pid "$1"); then root=$(stat -c %Hd:%Ld "/proc/$pid/root/"); fi
    while read -r device number inode; do
        if [ "$number" = "$root" ] || { [ "$number" = "$disk" ] \
            && [ -n "$(find "$h" -xdev -inum "$inode" -type f -print -quit)" ]; }; then
            losetup -d "$device"
        fi
    done < <(losetup -nO NAME,BACK-MAJ:MIN,BACK-INO)
}

lab_down() {
    [ $# = 1 ] || usage
    check_name "$1"
    local h
    h=$(host_dir "$1")
    [ -d "$h" ] || return 0
    lab_crash "$1"
    # Immutable and append-only files cannot be removed.
    rm -rf --one-file-system "$h" 2>/dev/null \
        || { chattr -R -f -ia "$h" || true; rm -rf --one-file-system "$h"; }
}

lab_down_all() {
    [ $# = 0 ] || usage
    local h
    for h in "$RUN"/hosts/*/; do
        [ ! -d "$h" ] || lab_down "$(basename "$h")"
    done
    remove_empty_run
}

# Removes the run's folder and cgroup, unless there is still a host.
remove_empty_run() {
    if [ -d "$RUN/hosts" ] && ! rmdir "$RUN/hosts" 2>/dev/null; then return; fi
    if [ -s "$RUN/id" ]; then
        rmdir "$CGROUPS/podkeep-lab-$(cat "$RUN/id")" 2>/dev/null || true
        run_cgroups_v1 | while read -r folder _; do
            [ ! -d "$folder" ] || rmdir "$folder" 2>/dev/null || true
        done
    fi
    rm -rf --one-file-system "$RUN"
}

lab_list() {
    [ $# = 0 ] || usage
    local h name suite driver mode state
    for h in "$RUN"/hosts/*/; do
        [ -s "$h/settings" ] || continue
        name=$(basename "$h")
        read -r suite driver mode _ < "$h/settings"
        state=down; if host_pid "$name" >/dev/null; then state=up; fi
        echo "$name $suite $driver $mode $state"
    done
}
