#!/bin/bash
# What moving a PostgreSQL under load costs, and what its client sees of it, beside what people do
# without podkeep: `podman save | podman load`, and rsync of the volume with the container stopped. From Podman
# 4.3 on overlay to 5.8 on btrfs, over a wire between two hosts. Prints for each the time, the bytes on
# the wire, and the longest time between two writes of a client that writes every 20 ms to wherever the
# service is; the third time the database writes its memory out before the last pass.
#
#   benches/migrate.sh [SCALE] [FROM-SUITE FROM-DRIVER TO-SUITE TO-DRIVER]
#
# SCALE of pgbench, 100 is 1.6 GB. Needs what tests/run.sh needs, a release build made with
# tests/static.sh, rsync on the hosts, 15 GB in /var/tmp, and 10 minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scale=${1:-100} from=(${2:-bookworm} ${3:-overlay}) to=(${4:-sid} ${5:-btrfs})
lab=tests/lab/lab a=migrate-a b=migrate-b
export PODKEEP_LAB_OWNER=$$
podkeep=${PODKEEP_BINARY:-${CARGO_TARGET_DIR:-target}/static/podkeep}
trap '"$lab" down $a; "$lab" down $b' EXIT
"$lab" up $a "${from[@]}"; "$lab" up $b "${to[@]}"; "$lab" link $a $b
on() { "$lab" exec "$1" bash -euo pipefail -c "$2"; }
key=$(on $a 'mkdir -m 700 -p /root/.ssh; ssh-keygen -q -t ed25519 -N "" -f /root/.ssh/id_ed25519; cat /root/.ssh/id_ed25519.pub')
on $b "mkdir -m 700 -p /root/.ssh /run/sshd; echo '$key' > /root/.ssh/authorized_keys; ssh-keygen -A > /dev/null; /usr/sbin/sshd"
on $a 'for try in $(seq 50); do ssh-keyscan 10.99.0.2 2> /dev/null > /root/.ssh/known_hosts; [ -s /root/.ssh/known_hosts ] && exit; sleep 0.1; done; exit 1'
"$lab" put $a "$podkeep" /usr/local/bin/podkeep
"$lab" image $a postgres
on $a '
    podman run --rm --network=none --user postgres -v pgdata:/pg localhost/postgres:1 sh -c "
        chmod 700 /pg && initdb --no-sync -D /pg && echo host all all all trust >> /pg/pg_hba.conf" > /dev/null 2>&1
    podman network create --subnet 10.77.7.0/24 shop > /dev/null
    podman run -d --name db --network shop -p 5432:5432 --user postgres -v pgdata:/pg --stop-signal INT \
        localhost/postgres:1 postgres -D /pg -k /pg -c "listen_addresses=*" -c max_wal_size=1GB > /dev/null
    until podman exec db pg_isready -q -h /pg; do sleep 0.1; done
    podman exec db pgbench -q -h /pg -i -s '"$scale"' > /dev/null 2>&1
    podman exec db psql -q -h /pg -c "create table beat (at timestamptz)"'
# The client: wherever the service answers, it writes; its own writes tell where they stopped. While a container
# starts, Podman holds its port with a socket that nobody answers, and libpq waits for 2 s at least: so a
# connection is first tried by one that is given up after 0.3 s.
on $a 'cat > /root/client.sh <<END
        beat() { while :; do
            until timeout 0.3 psql -q -h \$1 -U postgres -c "select"; do sleep 0.02; done
            { while :; do echo "insert into beat values (clock_timestamp());"; sleep 0.02; done; } |
                PGCONNECT_TIMEOUT=1 psql -q -h \$1 -U postgres -v ON_ERROR_STOP=1
            sleep 0.02; done > /dev/null 2>&1; }
        beat 10.99.0.1 & beat 10.99.0.2 & wait
END
    podman run -d --name client --network host -v /root/client.sh:/client.sh:ro localhost/postgres:1 bash /client.sh > /dev/null
    podman run -d --name load --network host localhost/postgres:1 sh -c "
        while :; do pgbench -n -h 10.99.0.1 -U postgres -R 50 -c 2 -T 3600 postgres; sleep 1; done" > /dev/null 2>&1'
# What the database was filled with is on its disk, as it would be: both hosts are on one disk here.
sync; sleep 5
wire() { on $a 'cat /sys/class/net/wire/statistics/tx_bytes /sys/class/net/wire/statistics/rx_bytes' | awk '{s += $1} END {print s}'; }
# Milliseconds, since $2, in the database that runs on $1.
gap() {
    on "$1" "podman exec db psql -At -h /pg -c \"select round(extract(epoch from max(pause)) * 1000) from
        (select at - lag(at) over (order by at) as pause from beat where at > '$2') as pauses\""
}
equal() { on "$1" 'podman exec db psql -At -h /pg -c "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history), (select count(*) from beat)"'; }
now() { on $a 'date -u +"%Y-%m-%d %H:%M:%S+00"'; }

checkpoint='podman exec db psql -q -h /pg -U postgres -c CHECKPOINT'
for run in first second checkpointed; do
    flags=; [ $run != checkpointed ] || flags="--before-stop \"$checkpoint\""
    begin=$(now); before=$(wire); since=$(date +%s.%N)
    on $a "podkeep migrate container:db --to ssh://root@10.99.0.2 --drop-missing $flags" || [ $? = 3 ]
    until=$(date +%s.%N); after=$(wire); sleep 3
    size=$(on $a 'du -sm "$(podman volume inspect pgdata --format "{{.Mountpoint}}")" | cut -f1')
    echo "$run migration: $(echo "$until - $since" | bc) s, $(((after - before) >> 20)) MiB on the wire for a volume of $size MiB, longest time between two writes $(gap $b "$begin") ms"
    echo "sums equal, writes: $(equal $b)"
    on $a 'podkeep migrate container:db --to ssh://root@10.99.0.2 --rollback --discard-target-writes' > /dev/null
    sleep 5
done

begin=$(now); before=$(wire); since=$(date +%s.%N)
on $a 'podman save -q localhost/postgres:1 | ssh root@10.99.0.2 podman load -q > /dev/null
    ssh root@10.99.0.2 "podman volume create pgdata; podman network create --subnet 10.77.7.0/24 shop" > /dev/null
    podman stop -t 60 db > /dev/null
    rsync -aHAXz --numeric-ids "$(podman volume inspect pgdata --format "{{.Mountpoint}}")/" \
        root@10.99.0.2:/var/lib/containers/storage/volumes/pgdata/_data/
    ssh root@10.99.0.2 podman run -d --name db --network shop -p 5432:5432 --user postgres -v pgdata:/pg --stop-signal INT \
        localhost/postgres:1 postgres -D /pg -k /pg -c "listen_addresses=*" -c max_wal_size=1GB > /dev/null'
until=$(date +%s.%N); after=$(wire); sleep 3
echo "by hand: $(echo "$until - $since" | bc) s, $(((after - before) >> 20)) MiB on the wire, longest time between two writes $(gap $b "$begin") ms"
