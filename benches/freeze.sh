#!/bin/bash
# What the client of a database sees of a backup: a PostgreSQL of some 5 GB under pgbench and a client
# that writes every 20 ms, on XFS with reflinks and on ext4. Prints for each how long podkeep expected
# them to be paused, how long it says that they were, and the longest time between two writes of the client.
#
#   benches/freeze.sh [SCALE] [DRIVER...]     SCALE of pgbench, 340 is 5 GB; drivers xfs and overlay
#
# Needs what tests/run.sh needs, a release build, 25 GB in /var/tmp, and 15 minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scale=${1:-340}; shift || true
[ $# -gt 0 ] || set -- xfs overlay
lab=tests/lab/lab
export PODKEEP_LAB_OWNER=$$
podkeep=${PODKEEP_BINARY:-${CARGO_TARGET_DIR:-target}/release/podkeep}

for driver in "$@"; do
    host=freeze-$driver
    "$lab" up "$host" trixie "$driver"
    trap '"$lab" down "$host"' EXIT
    "$lab" image "$host" postgres
    "$lab" put "$host" "$podkeep" /usr/local/bin/podkeep
    "$lab" put "$host" tests/lab/mapped-writer.pl /root/mapped-writer.pl
    echo "== $driver, pgbench -s $scale"
    "$lab" exec "$host" bash -euo pipefail -c '
        export PODKEEP_REPO=/var/tmp/repository PODKEEP_PASSWORD=secret
        podman run --rm --network=none --user postgres -v pgdata:/pg localhost/postgres:1 \
            sh -c "chmod 700 /pg && initdb --no-sync -D /pg" > /dev/null 2>&1
        podman run -d --name db --network=none --user postgres -v pgdata:/pg -v client:/client \
            localhost/postgres:1 postgres -D /pg -k /tmp -c max_wal_size=2GB > /dev/null
        until podman exec db pg_isready -q; do sleep 0.1; done
        podman exec db pgbench -q -i -s '"$scale"' > /dev/null 2>&1
        du -sh "$(podman volume inspect pgdata --format "{{.Mountpoint}}")"
        podman run -d --name writer --network=none -v client:/m -v /root:/root:ro \
            localhost/postgres:1 perl /root/mapped-writer.pl /m > /dev/null
        podman exec -d db pgbench -n -c 4 -T 3600
        podkeep init > /dev/null
        # The files get more extents with each backup whose copies they share blocks with.
        for run in first second third fourth; do
            sleep 5
            podman rm -f -t 0 writer > /dev/null
            podman run -d --name writer --network=none -v client:/m -v /root:/root:ro \
                localhost/postgres:1 perl /root/mapped-writer.pl /m > /dev/null
            sleep 1
            podkeep --json backup volume:pgdata volume:client \
                | jq -r "select(.type == \"item\") | \"\(.item): paused \(.freeze_seconds) s, expected \(.freeze_expected) s\""
            sleep 1
            echo "$run backup: longest time between two writes of the client: $(podman logs writer | tail -n 1) ms"
        done
        podman rm -f -t 0 db writer > /dev/null
        podman volume rm pgdata > /dev/null
        podkeep restore latest volume:pgdata > /dev/null
        podman run -d --name db2 --network=none --user postgres -v pgdata:/pg \
            localhost/postgres:1 postgres -D /pg -k /tmp > /dev/null
        until podman exec db2 pg_isready -q; do sleep 0.5; done
        podman exec db2 psql -Atc "select
            (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history),
            (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history),
            (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history)"'
    "$lab" down "$host"
    trap - EXIT
done
