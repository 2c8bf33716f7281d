#!/bin/bash
# What moving a service costs, and what its client sees of it, beside what people do without podkeep: `podman
# save | podman load` of its images, and rsync of its volumes with the containers stopped. A PostgreSQL under
# load, files, and three images, from Podman 4.3 on overlay to 5.8 on btrfs, over a wire of a given speed between
# two hosts. Prints for each the time, the bytes on the wire, and the longest time between two writes of a client
# that writes every 20 ms to wherever the service is; the third time the database writes its memory out before
# the last pass. After each move: sums, PostgreSQL's own check of every table and index, and whether the source's
# database is a whole one that was shut down.
#
#   benches/migrate.sh [SCALE] [RATE] [FROM-SUITE FROM-DRIVER TO-SUITE TO-DRIVER]
#
# SCALE of pgbench, 100 is 1.6 GB. RATE as tc takes it, 1gbit unless it is given; `none` is what two hosts on one
# machine can do. Needs what tests/run.sh needs, a release build made with tests/static.sh, rsync on the hosts,
# 20 GB in /var/tmp, and 15 minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scale=${1:-100} rate=${2:-1gbit} from=(${3:-bookworm} ${4:-overlay}) to=(${5:-sid} ${6:-btrfs})
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
for image in busybox postgres; do "$lab" image $a $image; done
# The root file system of a server, with what a service of some size is made of.
tar -C "$("$lab" base trixie)" --numeric-owner --exclude="./dev/*" -cf - . | "$lab" exec $a podman import -q - localhost/app:1 > /dev/null
on $a '
    podman run --rm --network=none --user postgres -v pgdata:/pg localhost/postgres:1 sh -c "
        chmod 700 /pg && initdb --no-sync --data-checksums -D /pg && echo host all all all trust >> /pg/pg_hba.conf" > /dev/null 2>&1
    # One network each: where containers of Podman 4.3 share a bridge, its MAC address changes as they start, and
    # those that knew the old one are not reached for a while.
    podman network create --subnet 10.77.7.0/24 shop > /dev/null
    podman network create --subnet 10.77.8.0/24 front > /dev/null
    podman run -d --name db --network shop -p 5432:5432 --user postgres -v pgdata:/pg --stop-signal INT \
        localhost/postgres:1 postgres -D /pg -k /pg -c "listen_addresses=*" -c max_wal_size=1GB > /dev/null
    until podman exec db pg_isready -q -h /pg; do sleep 0.1; done
    podman exec db pgbench -q -h /pg -i -s '"$scale"' > /dev/null 2>&1
    podman exec db psql -q -h /pg -c "create table beat (at timestamptz)" -c "create extension amcheck"
    podman run --rm -v files:/srv localhost/app:1 cp -a /usr/bin /usr/lib /srv/
    podman run -d --name app --network front -v files:/srv localhost/app:1 sh -c "trap \"exit 0\" TERM; sleep infinity & wait" > /dev/null
    podman run -d --name web --network front -p 8080:80 -v files:/srv:ro --stop-signal KILL localhost/lab:1 httpd -f -h /srv > /dev/null'
# The client: wherever the service answers, it writes; its own writes tell where they stopped. While a container
# starts, Podman holds its port with a socket that nobody answers, and libpq waits for 2 s at least: so a
# connection is first tried by one that is given up after 0.3 s. What is not answered for 0.5 s is given up, too:
# the end of a connection may be lost with the container.
on $a 'cat > /root/client.sh <<END
        beat() { while :; do
            until timeout 0.3 psql -q "host=\$1 user=postgres" -c "select"; do sleep 0.02; done
            { while :; do echo "insert into beat values (clock_timestamp());"; sleep 0.02; done; } |
                psql -q "host=\$1 user=postgres connect_timeout=1 tcp_user_timeout=500" -v ON_ERROR_STOP=1
            sleep 0.02; done > /dev/null 2>&1; }
        beat 10.99.0.1 & beat 10.99.0.2 & wait
END
    podman run -d --name client --network host -v /root/client.sh:/client.sh:ro localhost/postgres:1 bash /client.sh > /dev/null
    podman run -d --name load --network host localhost/postgres:1 sh -c "
        while :; do pgbench -n -h 10.99.0.1 -U postgres -R 50 -c 2 -T 3600 postgres; sleep 1; done" > /dev/null 2>&1'
if [ "$rate" != none ]; then
    for host in $a $b; do on $host "tc qdisc add dev wire root tbf rate $rate burst 1mb latency 50ms"; done
fi
# What the database was filled with is on its disk, as it would be: both hosts are on one disk here. What changed
# within the last minute is read again by every pass, and that of a service that has been there for a while is not
# all of it.
sync; sleep 65
wire() { on $a 'cat /sys/class/net/wire/statistics/tx_bytes /sys/class/net/wire/statistics/rx_bytes' | awk '{s += $1} END {print s}'; }
# Milliseconds, since $2, in the database that runs on $1.
gap() {
    on "$1" "podman exec db psql -At -h /pg -c \"select round(extract(epoch from max(pause)) * 1000) from
        (select at - lag(at) over (order by at) as pause from beat where at > '$2') as pauses\""
}
equal() {
    on "$1" 'podman exec db psql -At -h /pg -c "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history), (select count(*) from beat)"
        podman exec db pg_amcheck -h /pg --heapallindexed postgres && echo every table and index is whole'
}
source_is_whole() {
    on $a 'podman run --rm --network=none --user postgres -v pgdata:/pg localhost/postgres:1 sh -c "
        pg_controldata -D /pg | grep -E \"cluster state: +shut down\" && pg_checksums --check -D /pg | grep \"Bad checksums\""'
}
now() { on $a 'date -u +"%Y-%m-%d %H:%M:%S+00"'; }
size=$(on $a 'for v in pgdata files; do podman volume inspect $v --format "{{.Mountpoint}}"; done | xargs du -scm | tail -n 1 | cut -f1')
images=$(on $a 'for i in postgres app lab; do podman image inspect localhost/$i:1 --format "{{.Size}}"; done | awk "{s += \$1} END {print int(s / 1048576)}"')
echo "Volumes of $size MiB, images of $images MiB, a wire of $rate"

what="container:db container:app container:web --to ssh://root@10.99.0.2"
checkpoint='podman exec db psql -q -h /pg -U postgres -c CHECKPOINT'
for run in first second checkpointed; do
    flags=; [ $run != checkpointed ] || flags="--before-stop \"$checkpoint\""
    begin=$(now); before=$(wire); since=$(date +%s.%N)
    on $a "podkeep migrate $what --drop-missing $flags" || [ $? = 3 ]
    until=$(date +%s.%N); after=$(wire); sleep 3
    echo "$run migration: $(echo "$until - $since" | bc) s, $(((after - before) >> 20)) MiB on the wire, longest time between two writes $(gap $b "$begin") ms"
    echo "sums equal, writes: $(equal $b)"
    echo "the source: $(source_is_whole)"
    on $a "podkeep migrate $what --rollback --discard-target-writes" > /dev/null
    sleep 5
done

begin=$(now); before=$(wire); since=$(date +%s.%N)
on $a 'for i in postgres app lab; do podman save -q localhost/$i:1 | ssh root@10.99.0.2 podman load -q > /dev/null; done
    ssh root@10.99.0.2 "podman volume create pgdata; podman volume create files; podman network create --subnet 10.77.7.0/24 shop" > /dev/null
    podman stop -t 60 db app web > /dev/null
    for v in files pgdata; do
        rsync -aHAXz --numeric-ids "$(podman volume inspect $v --format "{{.Mountpoint}}")/" \
            root@10.99.0.2:/var/lib/containers/storage/volumes/$v/_data/
    done
    ssh root@10.99.0.2 podman run -d --name db --network shop -p 5432:5432 --user postgres -v pgdata:/pg --stop-signal INT \
        localhost/postgres:1 postgres -D /pg -k /pg -c "listen_addresses=*" -c max_wal_size=1GB > /dev/null'
until=$(date +%s.%N); after=$(wire); sleep 3
echo "by hand: $(echo "$until - $since" | bc) s, $(((after - before) >> 20)) MiB on the wire, longest time between two writes $(gap $b "$begin") ms"
