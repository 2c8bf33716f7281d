# The first process of a host: init.sh NAME HOST_DIR BASE MODE DRIVER
#
# Runs in fresh namespaces, makes the host's root file system from its base and its disk, leaves the
# machine's own root behind (pivot_root), and becomes the host's init.
set -eu
name=$1 h=$2 base=$3 mode=$4 driver=$5
root=$h/root

mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$base,upperdir=$h/upper,workdir=$h/work" "$root"
mkdir -p "$root/var/lib/containers"
if [ -e "$h/data/storage.img" ]; then
    # Mounted here, not on the machine: the kernel then frees the loop device when the host dies.
    mount -o loop "$h/data/storage.img" "$root/var/lib/containers"
else
    mount --bind "$h/data/storage" "$root/var/lib/containers"
fi
mount --bind "$h/data/home" "$root/home"
mount --bind "$h/data/var-tmp" "$root/var/tmp"
if [ -e "$h/share" ]; then
    mkdir -p "$root/share"
    mount --bind "$h/share/" "$root/share"
fi

# A fresh proc: the machine's may be masked in places, and rootless Podman refuses such a one.
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
if [ "$mode" = v1 ] && [ -s "$h/cgroups-v1" ]; then
    mount -t tmpfs -o mode=755 cgroup "$root/sys/fs/cgroup"
    while read -r _ controller options; do
        mkdir "$root/sys/fs/cgroup/$controller"
        mount -t cgroup -o "$options" cgroup "$root/sys/fs/cgroup/$controller"
    done < "$h/cgroups-v1"
else
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
fi

mount -t tmpfs -o mode=755,nosuid dev "$root/dev"
while read -r node major minor; do
    mknod -m 666 "$root/dev/$node" c "$major" "$minor"
done <<'NODES'
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
kmsg 1 11
tty 5 0
fuse 10 229
loop-control 10 237
btrfs-control 10 234
NODES
mkdir "$root"/dev/{net,pts,shm,mqueue}
mknod -m 666 "$root/dev/net/tun" c 10 200
for i in $(seq 0 31); do mknod -m 660 "$root/dev/loop$i" b 7 "$i"; done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"; ln -s fd/1 "$root/dev/stdout"; ln -s fd/2 "$root/dev/stderr"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
mount -t mqueue mqueue "$root/dev/mqueue"
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mkdir -p "$root"/run/{user,lock}

hostname "$name"
echo "$name" > "$root/etc/hostname"
echo "127.0.0.1 localhost $name" > "$root/etc/hosts"
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward

cd "$root"
mkdir -p old
pivot_root . old
umount -l /old
rmdir /old || true
mount --make-rshared /

# Before anything can run podman: a unit that does at boot would make a database of its default driver.
[ "$driver" != xfs ] || driver=overlay
cat > /etc/containers/storage.conf <<CONF
[storage]
driver = "$driver"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
CONF

if [ "$mode" = systemd ]; then
    # Units that would reach for the machine's devices, kernel or terminals, and a registry that tests
    # start as they need it.
    for unit in docker-registry.service systemd-udevd.service getty@tty1.service console-getty.service \
        systemd-modules-load.service e2scrub_reap.service proc-sys-fs-binfmt_misc.automount \
        dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount; do
        ln -sf /dev/null "/etc/systemd/system/$unit"
    done
    # As on a server; what is wanted by default.target (Podman's restart service) starts with it.
    ln -sf /usr/lib/systemd/system/multi-user.target /etc/systemd/system/default.target
    exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /usr/lib/systemd/systemd \
        --log-target=console --show-status=false
fi
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin /usr/bin/catatonit -P
