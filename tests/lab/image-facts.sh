# What the images of a host's Podman are, told by Podman, by the files of containers/storage and by `find`
# in the mounted image. Goes before the scripts of a test; bash.

images() { podman images -a -q --no-trunc | sort -u; }
root() { podman info --format '{{.Store.GraphRoot}}/{{.Store.GraphDriverName}}'; }
# Of each image one line: ID, digest, names, names by digest, layers, what is in its big data.
identity() {
    local id
    for id in $(images); do
        podman image inspect "$id" --format \
            '{{.Id}} {{.Digest}} {{.RepoTags}} {{.RepoDigests}} {{.RootFS.Layers}} {{.NamesHistory}}' \
            2>/dev/null || echo "$id list"
        (cd "$(root)-images/${id#sha256:}" && sha256sum -- * | sort -k 2)
    done
}
# The mounted files of one image. Folders have no size, and their times are the driver's business.
files() {
    local at
    at=$(podman image mount "$1")
    (cd "$at" && find . -type d -printf '%p %y %m %U:%G\n' -o -printf '%p %y %m %U:%G %s %T@ %l\n' \
        | LC_ALL=C sort
     find . -type f -exec sha256sum {} + | LC_ALL=C sort -k 2
     getfattr -R -h -d -m '^user|^security.capability' . 2>/dev/null)
    podman image unmount "$1" > /dev/null
}
# A layer that writes through a link of a lower one is unpacked beside the link by overlay, and through
# it by the other drivers: of that image only what a container sees is the same everywhere.
all_files() {
    local id link
    link=$(podman image inspect --format '{{.Id}}' localhost/odd/link:1)
    for id in $(images); do
        echo "== $id"
        case $id in
            *$link) podman run --rm --network=none "$id" /bin/cat /lib/c.so | sha256sum ;;
            *) files "$id" 2>/dev/null || echo none ;;
        esac
    done
}
wipe() { podman rmi -a -f > /dev/null; [ -z "$(images)" ]; }
