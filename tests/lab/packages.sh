# What the laboratory and a build need of Debian; sourced by the commands that a person starts.

LAB_PACKAGES=(gcc libc6-dev mmdebstrap debian-archive-keyring btrfs-progs xfsprogs e2fsprogs
    util-linux procps iproute2 tar attr acl libcap2-bin)

# Prints the packages that are not installed yet.
missing_packages() {
    local package
    for package in "${LAB_PACKAGES[@]}"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed \
            || echo "$package"
    done
}

# Refuses a machine on which nothing can work, each time with what to do about it.
require_machine() {
    [ "$(id -u)" = 0 ] || die "this makes devices, owners and namespaces: run it as root"
    command -v apt-get > /dev/null \
        || die "the Podman hosts are built with Debian's tools: run this on Debian 12 or later"
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:$HOME/.cargo/bin
    command -v cargo > /dev/null || die "there is no cargo: install Rust, see https://rustup.rs"
}

# Installs packages: install_packages NAME...
install_packages() {
    [ $# -gt 0 ] || return 0
    # A list that is too old names packages that the mirror has dropped, hence the update.
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@"; } < /dev/null > /dev/null \
        || die "cannot install $*"
}
