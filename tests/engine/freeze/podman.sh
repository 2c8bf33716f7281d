#!/bin/sh
# A podman of two containers, which are files in the folder of this script: `status-ID` says what a
# container does, `calls` keeps what was asked for. What stands in `at-VERB` is run when a container
# is paused, unpaused, stopped or started, like a process of it that runs on until then, or from then
# on. `fail-VERB` makes the verb fail.
D=$(dirname "$0")
V=$D/volumes
status() { cat "$D/status-$1"; }
verb() {
    [ ! -e "$D/fail-$1" ] || { echo "Error: cannot $1" >&2; exit 125; }
    new=$2 verb=$1; shift 2
    [ "$verb" != pause ] && [ "$verb" != stop ] || [ ! -e "$D/at-$verb" ] || . "$D/at-$verb"
    for id in "$@"; do echo "$new" > "$D/status-$id"; done
    [ "$verb" != unpause ] && [ "$verb" != start ] || [ ! -e "$D/at-$verb" ] || . "$D/at-$verb"
}
volume() { echo "{\"Name\":\"$1\",\"Driver\":\"local\",\"Mountpoint\":\"$V/$1/_data\"}"; }
container() {
    echo "{\"Id\":\"$1\",\"Name\":\"$2\",\"State\":{\"Status\":\"$(status "$1")\",\"ConmonPid\":0},
        \"Mounts\":[{\"Type\":\"volume\",\"Name\":\"$3\"},{\"Type\":\"volume\",\"Name\":\"shared\"}],
        \"Config\":{\"Labels\":$(cat "$D/labels-$1" 2>/dev/null || echo null)},
        \"HostConfig\":{\"AutoRemove\":$4,\"NetworkMode\":\"bridge\"},\"NetworkSettings\":{}}"
}
case "$1 $2" in
    "info --format")
        echo "{\"store\":{\"graphDriverName\":\"none\",\"volumePath\":\"$V\"},
            \"version\":{\"Version\":\"5.4.2\"}}" ;;
    "volume ls") echo "[$(volume db),$(volume files),$(volume shared)]" ;;
    "ps -a") echo '[{"Id":"aaa"},{"Id":"bbb"}]' ;;
    "container inspect") echo "[$(container aaa db db false),$(container bbb web files true)]" ;;
    *)
        case $1 in pause | unpause | stop | start | exec) echo "$*" >> "$D/calls" ;; esac
        case $1 in
            pause) shift; verb pause paused "$@" ;;
            unpause) shift; verb unpause running "$@" ;;
            stop) shift; verb stop exited "$@" ;;
            start) shift; verb start running "$@" ;;
            exec) [ ! -e "$D/fail-exec" ] || { echo "Error: no such command" >&2; exit 127; } ;;
            *) echo "Error: unknown command $1" >&2; exit 125 ;;
        esac ;;
esac
