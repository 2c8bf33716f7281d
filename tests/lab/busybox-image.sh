# Runs inside a host: makes localhost/lab:1 from the host's static busybox. One shell entry point, a
# user 1000, and a folder /seed owned by 1000:1000 with mode 0700 and one file in it: what a new
# volume mounted there is seeded with and re-owned to.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir -p root/{bin,etc,seed,tmp,proc,sys,dev}
cp /bin/busybox root/bin/
for applet in $(/bin/busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "root/bin/$applet"
done
printf 'root:x:0:0:root:/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n' > root/etc/passwd
printf 'root:x:0:\napp:x:1000:\n' > root/etc/group
chmod 1777 root/tmp
echo seeded > root/seed/from-image
chmod 700 root/seed
chown -R 1000:1000 root/seed
tar -C root --numeric-owner -cf - . \
    | podman import -q --change 'CMD ["/bin/sleep","infinity"]' - localhost/lab:1 > /dev/null
