# Runs inside a host after each boot: settle.sh SUITE MODE
#
# Waits until the host is ready, and writes the settings that a machine of this kind needs.
set -eu
suite=$1 mode=$2

cgroups=cgroupfs events=file
if [ "$mode" = systemd ]; then
    cgroups=systemd events=journald
    # "degraded" is ready as well: a unit that failed for want of a device harms no test.
    for _ in $(seq 300); do
        case $(systemctl is-system-running 2>/dev/null || true) in running | degraded) break ;; esac
        sleep 0.1
    done
    systemctl is-active -q multi-user.target
fi

{
    echo "[containers]"
    # The machine's cgroup2 tree may have no pids controller, and it may lack CAP_SYS_RESOURCE.
    [ "$mode" = v1 ] && [ -d /sys/fs/cgroup/pids ] || echo "pids_limit = 0"
    nofile=$(ulimit -Hn) nproc=$(ulimit -Hu)
    limits="\"nofile=$nofile:$nofile\""
    [ "$nproc" = unlimited ] || limits+=", \"nproc=$nproc:$nproc\""
    echo "default_ulimits = [$limits]"
    [ "$events" = journald ] || echo 'log_driver = "k8s-file"'
    echo "[engine]"
    echo "cgroup_manager = \"$cgroups\""
    echo "events_logger = \"$events\""
    [ "$suite" != bookworm ] || [ -d /sys/fs/cgroup/pids ] || echo 'runtime = "runc"'
} > /etc/containers/containers.conf

# Podman 4.3 warns about a CNI network that it does not use.
rm -f /etc/cni/net.d/87-podman-bridge.conflist

if ! id u > /dev/null 2>&1; then
    useradd -m -s /bin/bash -u 1000 u
    grep -q ^u: /etc/subuid || echo u:100000:65536 >> /etc/subuid
    grep -q ^u: /etc/subgid || echo u:100000:65536 >> /etc/subgid
fi
if [ "$mode" = systemd ]; then
    loginctl enable-linger u
    for _ in $(seq 100); do [ ! -S /run/user/1000/bus ] || break; sleep 0.1; done
    [ -S /run/user/1000/bus ]
else
    install -d -m 700 -o u -g u /run/user/1000
fi
