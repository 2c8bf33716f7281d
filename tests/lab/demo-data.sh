#!/bin/bash
# Runs inside a host: makes, uses and changes the volumes of the demonstration.
#
#   demo-data.sh make     four volumes: pgdata, sqlite, logs and files, each mounted once
#   demo-data.sh use      starts PostgreSQL and SQLite under load, returns when both have worked
#   demo-data.sh change   a day's changes to logs and files
#   demo-data.sh sums     checks the restored databases and prints their sums
#
# The databases are only ever stopped by a power cut.
set -euo pipefail
volumes=/var/lib/containers/storage/volumes
sqlite=$volumes/sqlite/_data logs=$volumes/logs/_data files=$volumes/files/_data

make_volumes() {
    podman volume create pgdata > /dev/null
    podman volume create --label app=shop sqlite > /dev/null
    podman volume create logs > /dev/null
    podman volume create files > /dev/null
    # Mounted once, as the volumes of a host that is in use are.
    podman run --rm --network=none -v sqlite:/a -v logs:/b -v files:/c localhost/lab:1 /bin/true
    podman run --rm --network=none --user postgres -v pgdata:/pg localhost/postgres:1 \
        sh -c 'chmod 700 /pg && initdb --no-sync -D /pg > /dev/null 2>&1'

    chown 33:33 "$files" "$logs"; chmod 2775 "$files"; chmod 750 "$logs"
    sqlite3 "$sqlite/app.db" 'pragma journal_mode = wal' \
        'create table entry (id integer primary key, body text not null)' > /dev/null
    perl -e '
        my @words = qw(GET POST /index /cart /item /login 200 302 404 500 user session cache miss hit);
        srand 1;
        for my $day (1 .. 4) {
            open my $log, ">", "$ARGV[0]/access.log.$day" or die $!;
            for my $line (1 .. 60_000) {
                printf $log "%02d:%02d:%02d 10.0.%d.%d %s\n", $line / 3600 % 24, $line / 60 % 60,
                    $line % 60, rand 256, rand 256, join " ", map { $words[rand @words] } 1 .. 6;
            }
        }' "$logs"
    # 50,000 small files in 250 folders, with owners and modes of several kinds.
    perl -e '
        my @words = qw(alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi);
        srand 2;
        for my $folder (0 .. 249) {
            my $path = sprintf "%s/%02x/%03d", $ARGV[0], $folder % 16, $folder;
            mkdir $path =~ s,/[^/]*$,,r;
            mkdir $path or die $!;
            for my $file (0 .. 199) {
                open my $out, ">", "$path/$file.txt" or die $!;
                print $out join(" ", $folder, $file, map { $words[rand @words] . int rand 1e6 } 1 .. rand 300), "\n";
                close $out;
                chmod((0644, 0600, 0444, 0755)[$file % 4], "$path/$file.txt");
                chown 1000 + $file % 7, 33, "$path/$file.txt";
            }
        }' "$files"
    odd_files "$files/odd"
    sync
}

# What backup tools lose: odd names, links, holes, attributes, special files, flags.
odd_files() {
    mkdir -p "$1/locked"; cd "$1"
    for name in $'new\nline' $'latin-\xe9' '-rf' 'back\slash' ' spaces ' '..dots' '*'; do
        echo "$name" > "./$name"
    done
    echo linked > first; mkdir other; ln first other/second; ln -s ../first other/link; ln -s /gone dangling
    truncate -s 1G holes; echo end >> holes
    setfattr -n user.origin -v podkeep first
    setfacl -m u:1234:rw,g:77:r first; setfacl -d -m u:1234:rx other
    cp /bin/true capable; setcap cap_net_bind_service+ep capable; cp /bin/true setuid; chmod 4755 setuid
    mkfifo -m 600 fifo; mknod null c 1 3; mknod whiteout c 0 0
    touch -d '1969-12-31 23:59:59.999999999 UTC' before-1970
    echo kept > locked/file; chattr +i locked/file; touch append; chattr +a append
    chmod 700 locked
}

transactions() { podman exec db psql -Atc 'select count(*) from pgbench_history' 2>/dev/null || echo 0; }
entries() { sqlite3 "$sqlite/app.db" 'pragma busy_timeout = 5000' 'select count(*) from entry' | tail -n 1; }

# Runs a test until it holds: until_true SECONDS WHAT CMD...
until_true() {
    local deadline=$((SECONDS + $1)) what=$2; shift 2
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || { echo "gave up waiting: $what" >&2; exit 1; }
        sleep 0.1
    done
}

start_postgres() {
    podman run -d --replace --name db --network=none --user postgres -v pgdata:/pg localhost/postgres:1 \
        postgres -D /pg -k /tmp > /dev/null
    until_true 60 "PostgreSQL to start" podman exec db pg_isready -q
}

use_volumes() {
    local rows lines
    start_postgres
    if ! podman exec db psql -Atc 'select 1 from pgbench_branches limit 1' > /dev/null 2>&1; then
        podman exec db pgbench -q -i -s 8 > /dev/null 2>&1
    fi
    rows=$(transactions); lines=$(entries)
    podman exec -d db pgbench -n -c 4 -T 3600 > /dev/null
    perl -e '
        $| = 1;
        for (my $n = 0; ; $n++) {
            print "begin; insert into entry (body) values (hex(randomblob(500))), (hex(randomblob(500))); commit;\n";
        }' < /dev/null | sqlite3 "$sqlite/app.db" > /dev/null 2>&1 &
    more_transactions() { [ "$(transactions)" -ge $((rows + 1500)) ]; }
    more_entries() { [ "$(entries)" -ge $((lines + 500)) ]; }
    until_true 60 "transactions of pgbench" more_transactions
    until_true 60 "transactions of SQLite" more_entries
}

change_volumes() {
    local n
    rm "$logs/access.log.4"
    for n in 3 2 1; do mv "$logs/access.log.$n" "$logs/access.log.$((n + 1))"; done
    tail -n 2000 "$logs/access.log.2" > "$logs/access.log.1"
    for n in $(seq 0 10 240); do
        local folder; folder=$(printf '%s/%02x/%03d' "$files" $((n % 16)) "$n")
        echo changed >> "$folder/1.txt"; chmod 640 "$folder/5.txt"; rm "$folder/2.txt"
        mv "$folder/3.txt" "$folder/moved.txt"; echo added > "$folder/new.txt"
    done
    setfattr -n user.origin -v changed "$files/odd/first"
    sync
}

sums() {
    local accounts tellers branches history
    start_postgres
    IFS='|' read -r accounts tellers branches history < <(podman exec db psql -Atc 'select
        (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
        (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)')
    if [ "$accounts" != "$tellers" ] || [ "$tellers" != "$branches" ] || [ "$branches" != "$history" ]; then
        echo "PostgreSQL's sums differ: $accounts $tellers $branches $history" >&2; exit 1
    fi
    [ "$(sqlite3 "$sqlite/app.db" 'pragma integrity_check')" = ok ] || { echo "SQLite is damaged" >&2; exit 1; }
    echo "PostgreSQL: four sums of $accounts over $(transactions) transactions; SQLite: $(entries) entries, integrity ok"
}

case $1 in
    make) make_volumes ;;
    use) use_volumes ;;
    change) change_volumes ;;
    sums) sums ;;
    *) exit 2 ;;
esac
