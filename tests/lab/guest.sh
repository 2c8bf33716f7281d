# Runs inside a host of the suite `zfs`: boots a virtual machine of the host's own files, under their own
# kernel, which has ZFS; without network to the outside. Podman's driver there is zfs.
#
# QEMU emulates the processor: it needs nothing of the machine, and takes ten times as long for everything.
# Afterwards `guest CMD...` runs a command in there, as root. It all ends with the host.
set -euo pipefail
home=/var/tmp/guest
kernel=$(echo /boot/vmlinuz-*) initrd=$(echo /boot/initrd.img-*)
mkdir -p $home/tree
cp "$kernel" $home/kernel
cp "$initrd" $home/initrd

chmod +x /root/guest-init.sh
# What built the module is of no use any more, and would be copied.
rm -rf /usr/src /usr/lib/gcc /usr/share/qemu/*.img /boot/*
mkdir -p -m 700 /root/.ssh
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys
ssh-keygen -A > /dev/null
cat > /etc/containers/containers.conf <<'CONF'
[containers]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
cat > /etc/containers/storage.conf <<'CONF'
[storage]
driver = "zfs"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
[storage.options.zfs]
mountopt = "nodev"
fsname = "tank/storage"
CONF
# Without what the host has mounted below.
mount --bind / $home/tree
truncate -s 12G $home/disk
mke2fs -q -t ext4 -O ^has_journal -d $home/tree $home/disk
umount $home/tree

# The oldest processor that has what podkeep's hashes use: the less there is to emulate, the faster.
nice qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu Nehalem -smp 2 -m 2048 \
    -nodefaults -no-reboot -display none -serial file:$home/console \
    -kernel $home/kernel -initrd $home/initrd \
    -append "root=/dev/vda rw init=/root/guest-init.sh console=ttyS0 quiet panic=-1 net.ifnames=0" \
    -drive file=$home/disk,if=none,id=disk,format=raw,cache=unsafe \
    -device virtio-blk-pci,drive=disk -device virtio-rng-pci \
    -netdev user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:2222-:22 \
    -device virtio-net-pci,netdev=net,romfile= \
    -daemonize -pidfile $home/pid

cat > /usr/local/bin/guest <<'GUEST'
#!/bin/bash
exec ssh -q -p 2222 -o BatchMode=yes -o ConnectTimeout=60 -o StrictHostKeyChecking=no \
    -o UserKnownHostsFile=/dev/null root@127.0.0.1 "$(printf '%q ' "$@")"
GUEST
chmod +x /usr/local/bin/guest
# As long as an idle machine takes ten times.
for _ in $(seq 600); do
    if grep -q "the guest is ready" $home/console; then exit 0; fi
    [ -d "/proc/$(cat $home/pid)" ] || break
    sleep 1
done
tail -n 30 $home/console >&2
echo "the guest does not boot" >&2
exit 1
