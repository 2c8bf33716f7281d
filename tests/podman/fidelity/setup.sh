# What the containers of options.txt stand on: networks, secrets, volumes, files, devices, images, and a pod
# and containers to join.
mkdir -p /srv/fidelity/bind /srv/fidelity/root /srv/fidelity/hooks; echo bound > /srv/fidelity/bind/file
echo a > /srv/fidelity/hosts
printf 'FROM_FILE=1\nOTHER=a b\n' > /srv/fidelity/env; printf 'from=file\n' > /srv/fidelity/labels
printf '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]}' \
    > /srv/fidelity/seccomp.json
[ -e /dev/fidelity ] || mknod /dev/fidelity c 1 3
export FROM_HOST='of the host'
podman network create --subnet 10.74.1.0/24 --ipv6 --subnet fd00:74:1::/64 fixed >/dev/null
podman network create --subnet 10.74.2.0/24 named >/dev/null
podman network create --subnet 10.74.3.0/24 --internal inner >/dev/null
printf 'top secret' | podman secret create token - >/dev/null
printf 'another' | podman secret create other - >/dev/null
podman volume create --label of=fidelity data >/dev/null
mkdir "$(podman volume inspect data --format '{{.Mountpoint}}')/part"
mkdir /srv/fidelity/root/bin; cp /bin/busybox /srv/fidelity/root/bin/sleep
podman run -d --name base --network named -v data:/shared -v /anonymous $I >/dev/null
podman run -d --name joined --network named --ipc shareable $I >/dev/null
podman pod create --name group --share net,ipc,uts --hostname in-pod -p 127.0.0.1:18200:80 >/dev/null
