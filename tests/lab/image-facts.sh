# What the images of a host's Podman are, told by Podman, by the files of containers/storage and by the
# `listing` of a mounted image. Goes before the scripts of a test; bash, in which no command may fail: what
# cannot be listed must not pass for something empty.

images() { podman images -a -q --no-trunc | sed 's/^sha256://' | sort -u; }
root() { podman info --format '{{.Store.GraphRoot}}/{{.Store.GraphDriverName}}'; }
# IDs of the images that have layers, of which there has to be one. Of a manifest list, which has none,
# nothing can be mounted or run.
with_layers() { jq -r '.[] | select(.layer).id' "$(root)-images/images.json" | sort | grep .; }
# Lines that begin with an image's ID: its record, but for the layers' own IDs; digest, names, names by
# digest and layers as Podman tells them; what is in its big data.
identity() {
    local at ids
    at=$(root)-images
    ids=$(with_layers)
    jq -cS 'sort_by(.id)[] | del(.layer, ."mapped-layers")' "$at/images.json" | sed -E 's/.*"id":"(\w+)".*/\1 &/'
    podman image inspect $ids --format \
        '{{.Id}} {{.Digest}} {{.RepoTags}} {{.RepoDigests}} {{.RootFS.Layers}} {{.NamesHistory}}'
    (cd "$at"; sha256sum -- */* | sed -E 's,^(\w+)  (\w+)/,\2 \1 ,' | sort)
}
# The files below a folder. Times of folders and blocks of files are the driver's business; an overlay
# counts a name that it hides; that a name is the same as itself says nothing.
files() {
    listing "$1" | tr '\0' '\n' | LC_ALL=C sed -E \
        's/^(entry d \S+ \S+) \S+ /\1 /; s/^(entry [^d] .*) links=[0-9]+ /\1 /; /^sparse /d' |
        awk '$1 != "same" || $2 != $3'
}
# The mounted files of all images that have layers, in lines that begin with the image's ID. A layer that
# writes through a link of a lower one is unpacked beside the link by overlay, and through it by the other
# drivers: of these files only what a container sees is the same everywhere.
all_files() {
    local at id ids link list mounts
    ids=$(with_layers)
    link=$(podman image inspect --format '{{.Id}}' localhost/odd/link:1)
    mounts=$(podman image mount --format json $ids | jq -r '.[] | "\(.id) \(.mountpoint)"' | sort)
    diff <(echo "$ids") <(cut -d ' ' -f 1 <<< "$mounts") >&2
    while read -r id at; do
        list=$(files "$at")
        [[ $list == *' ./bin/busybox'* ]] || { echo "$id: no busybox among its files" >&2; return 1; }
        if [[ $link == *$id ]]; then
            list=$(grep -v -E ' \./(usr/)?lib(/|$)' <<< "$list")
            list+=$'\n'$(podman run --rm --network=none "$id" /bin/cat /lib/c.so | sha256sum)
        fi
        LC_ALL=C sed "s/^/$id /" <<< "$list"
    done <<< "$mounts"
    podman image unmount $ids > /dev/null
}
# Each image that has layers runs: below all of them are a shell and its user.
run_all() {
    local id ids seen
    ids=$(with_layers)
    for id in $ids; do
        seen=$(podman run --rm --network=none "$id" /bin/cat /etc/passwd)
        [ "$seen" = root:x:0:0:root:/:/bin/sh ] || { echo "$id: $seen" >&2; return 1; }
    done
}
wipe() {
    local left
    podman rmi -a -f > /dev/null
    left=$(images)
    [ -z "$left" ]
}
