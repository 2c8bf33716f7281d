# Three users of a host: `u` with the subordinate ids 100000 to 165535 and linger, which each host has, and
# two without a session: `bob` with another range, and `eve` with two. Goes before the scripts of a test; bash.

users() {
    local name uid range
    while read -r name uid ranges; do
        useradd -m -s /bin/bash -u "$uid" "$name"
        sed -i "/^$name:/d" /etc/subuid /etc/subgid
        for range in $ranges; do echo "$name:$range" | tee -a /etc/subuid >> /etc/subgid; done
    done <<< $'bob 1001 300000:65536\neve 1002 400000:1000 500000:65536'
}
# Runs a command as a user, as a login would leave it (as root: as it is); without a session there is no XDG_RUNTIME_DIR.
as() {
    local user=$1 uid run=()
    uid=$(id -u "$user"); shift
    [ "$user" != root ] || { "$@"; return; }
    [ ! -d "/run/user/$uid" ] ||
        run=(XDG_RUNTIME_DIR="/run/user/$uid" DBUS_SESSION_BUS_ADDRESS="unix:path=/run/user/$uid/bus")
    setpriv --reuid="$uid" --regid="$uid" --init-groups env -i -C / PATH="$PATH" HOME="/home/$user" \
        USER="$user" PODKEEP_PASSWORD=secret "${run[@]}" "$@"
}
# For the time of one script; podkeep is tried without it.
session() { systemctl start "user@$(id -u "$1")"; }
# Sets the storage driver of a user's Podman that has no store yet, and by which program it mounts.
driver() {
    local folder=/home/$1/.config/containers
    mkdir -p "$folder"
    printf '[storage]\ndriver = "%s"\n' "$2" > "$folder/storage.conf"
    [ $# = 2 ] || printf '[storage.options.overlay]\nmount_program = "%s"\n' "$3" >> "$folder/storage.conf"
    chown -R "$1:" "/home/$1/.config"
}
