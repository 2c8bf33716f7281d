# Base root file systems: the read-only lower layer of every host, and the root of the PostgreSQL image.
#
# A base is named by its suite and a hash of its recipe (the package list and the code that builds
# it), so that a changed recipe builds anew and clones of different ages can share one cache. It
# appears under its name only when it is whole (rename), and a lock makes a second builder wait for
# the first.

COMMON_PACKAGES=(podman crun criu netavark aardvark-dns slirp4netns uidmap fuse-overlayfs
    golang-github-containers-common skopeo containers-storage buildah btrfs-progs xfsprogs e2fsprogs
    openssh-server openssh-client ca-certificates iproute2 nftables iptables busybox-static jq
    systemd systemd-sysv libpam-systemd dbus dbus-user-session libcap2-bin attr acl catatonit procps
    sqlite3 rsync zstd)

# What a base is made of: the suite to take packages from, then the packages.
base_recipe() {
    case $1 in
        trixie) echo "$1" "${COMMON_PACKAGES[@]}" libcriu2 passt docker-registry sudo ;;
        sid) echo "$1" "${COMMON_PACKAGES[@]}" libcriu2 passt ;;
        # crun 1.8.1 cannot set RLIMIT_MEMLOCK on cgroup2 without CAP_SYS_RESOURCE: runc runs there.
        bookworm) echo "$1" "${COMMON_PACKAGES[@]}" runc ;;
        postgres) echo bookworm postgresql sqlite3 python3-minimal ;;
        # A host in which QEMU runs, and the root file system of the guest as well.
        zfs) echo trixie "${COMMON_PACKAGES[@]}" linux-image-cloud-amd64 linux-headers-cloud-amd64 \
            zfs-dkms zfsutils-linux kmod udev qemu-system-x86 qemu-utils ;;
        *) die "no base '$1': trixie, bookworm, sid, postgres or zfs" ;;
    esac
}

# The function that fills it. Not an argument more of the other: each base is named by its builder's text,
# and all would have to be built again.
base_builder() { case $1 in zfs) echo contrib_base ;; *) echo debootstrap_base ;; esac; }

# Where the base lies, or will lie once it is built.
base_path() {
    local hash
    hash=$({ base_recipe "$1"; declare -f "$(base_builder "$1")"; } | sha256sum | cut -c1-16)
    printf '%s/%s-%s' "$CACHE" "$1" "$hash"
}

# The mirror that this machine's own apt uses.
mirror() {
    if [ -n "${DEBIAN_MIRROR:-}" ]; then echo "$DEBIAN_MIRROR"; return; fi
    grep -m1 -E '/debian/?$' < <(apt-get indextargets --format '$(REPO_URI)') \
        || die "apt on this machine names no Debian mirror; set DEBIAN_MIRROR"
}

# Fills DIR: debootstrap_base SUITE PACKAGES DIR. Its mounts and processes end with it, also when it is
# killed. sid's release file may count as expired on a mirror that lags; documentation and translations
# only cost time and space.
debootstrap_base() {
    unshare --mount --pid --fork --kill-child --mount-proc \
        mmdebstrap --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' \
        --aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --include="${2// /,}" "$1" "$3" "$(mirror)"
}

# The same with Debian's section contrib, where the sources of ZFS are. Its module is built by the
# installation itself, which takes ten minutes on two cores.
contrib_base() {
    nice unshare --mount --pid --fork --kill-child --mount-proc \
        mmdebstrap --variant=minbase --components=main,contrib \
        --aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --include="${2// /,}" "$1" "$3" "$(mirror)"
}

lab_base() {
    [ $# -ge 1 ] || usage
    local name
    for name in "$@"; do build_base "$name"; done
}

# Builds a base unless it is there; prints its path.
build_base() {
    local recipe suite packages path
    recipe=$(base_recipe "$1"); read -r suite packages <<< "$recipe"
    path=$(base_path "$1")
    mkdir -p "$CACHE"
    exec 8> "$path.lock"
    flock 8
    if [ ! -d "$path" ]; then
        # What a killed build left.
        rm -rf --one-file-system "$path.part"
        # The builder inherits the lock: a second one waits for it even when this script was killed.
        if ! "$(base_builder "$1")" "$suite" "$packages" "$path.part" > "$path.log" 2>&1; then
            tail -n 20 "$path.log" >&2
            rm -rf --one-file-system "$path.part"
            die "cannot build the base $1; the whole log is $path.log"
        fi
        # Written out before it gets its name: a power cut must not leave a hollow base for ever.
        sync -f "$path.part"
        mv "$path.part" "$path"
    fi
    exec 8>&-
    echo "$path"
}
