#!/bin/bash
# The first process of the virtual machine that guest.sh boots: makes what a host's init.sh makes, and
# loads ZFS.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/{pts,shm,mqueue}
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p /run/{sshd,lock}
mount --make-rshared /

# Processes leave the root of the tree, so that its controllers can be given to what is below.
mkdir /sys/fs/cgroup/init
while read -r pid; do echo "$pid" > /sys/fs/cgroup/init/cgroup.procs; done < /sys/fs/cgroup/cgroup.procs
echo "+cpu +memory +pids" > /sys/fs/cgroup/cgroup.subtree_control

for module in virtio_net overlay zfs loop; do modprobe -q $module || echo "no module $module"; done
hostname guest
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up

# In a file: for a whole disk, zpool waits for udev.
truncate -s 8G /var/tmp/tank.img
zpool create -f -m none -O acltype=posixacl -O xattr=sa tank /var/tmp/tank.img
zfs create -o mountpoint=legacy tank/storage
mkdir -p /var/lib/containers/storage
mount -t zfs tank/storage /var/lib/containers/storage

/usr/sbin/sshd
echo "the guest is ready" > /dev/ttyS0
exec catatonit -P
