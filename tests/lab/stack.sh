#!/bin/bash
# Runs inside a host: a small service as people run one with Podman, and what it must be elsewhere.
#
#   stack.sh make             makes it and lets it work; needs localhost/postgres:1
#   stack.sh wait             returns when it answers; needs nothing but its containers
#   stack.sh answers          prints what its two web servers say: a line of the status page, and
#                             `NUMBER|DIGEST` for each entry
#   stack.sh check FILE LEAST looks whether the restored service says at least LEAST lines of FILE (an
#                             output of `answers`), without a gap, and prints how many
#   stack.sh set-up           gives a host what it needs besides Podman for the next boot
#   stack.sh own-files        prints what the worker changed in its own layer
#
# A pod with a web server on two networks, whose page asks PostgreSQL on the inner one; a worker
# (--rm, with files of its own) that adds entries all the time; a Quadlet unit with a volume and an
# environment file of its own, which serves the status page; a secret, as a file and as a variable.
#
# Each entry's digest is over the one before it and a random body: an entry that is the same in two
# databases has the same history in both.
set -euo pipefail

page=http://127.0.0.1:8080/cgi-bin/entries
status=http://127.0.0.1:8081/status.html

get() { busybox wget -q -T 5 -O - "$1"; }
sql() { podman exec database psql -U shop -d postgres -qAt "$@"; }

# Runs a test until it holds: until_true SECONDS WHAT CMD...
until_true() {
    local deadline=$((SECONDS + $1)) what=$2; shift 2
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || { echo "gave up waiting: $what" >&2; exit 1; }
        sleep 0.1
    done
}

# The web server's image: that of the database, with busybox and the page.
make_image() {
    local work; work=$(mktemp -d)
    mkdir -p "$work/www/cgi-bin"
    cp /bin/busybox "$work/busybox"
    cat > "$work/www/cgi-bin/entries" <<'CGI'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
exec psql -h db -U shop -d postgres -qAtc 'select id, digest from entry order by id'
CGI
    chmod 755 "$work/www/cgi-bin/entries"
    cat > "$work/Containerfile" <<'FILE'
FROM localhost/postgres:1
COPY busybox /usr/bin/
COPY www /www
EXPOSE 80
CMD ["busybox", "httpd", "-f", "-v", "-p", "80", "-h", "/www"]
FILE
    podman build -q --layers=false --network=none -t localhost/shop:1 "$work" > /dev/null
    rm -r "$work"
}

make_stack() {
    make_image
    podman network create --subnet 10.87.1.0/24 --label tier=outer front > /dev/null
    podman network create --subnet 10.87.2.0/24 --internal back > /dev/null
    head -c 24 /dev/urandom | base64 | tr -d '\n' | podman secret create shop-password - > /dev/null

    podman run -d --name database --network back:alias=db --restart always --user postgres \
        --secret shop-password -v shop-data:/pg --shm-size 64m --stop-signal SIGINT \
        --health-cmd 'pg_isready -q -U shop -d postgres' --health-interval 2s --health-retries 15 localhost/postgres:1 sh -c '
            [ -s /pg/PG_VERSION ] || {
                chmod 700 /pg
                initdb --no-sync -U shop -A scram-sha-256 --auth-local=trust --pwfile=/run/secrets/shop-password -D /pg
                echo "host all all all scram-sha-256" >> /pg/pg_hba.conf
            }
            exec postgres -D /pg -k /tmp -c "listen_addresses=*"' > /dev/null
    until_true 60 "PostgreSQL to start" sql -c 'select 1'
    sql -c 'create table entry (id bigint primary key, body text not null, digest text not null)' -c "
        create function add_entry() returns void language sql as \$\$
            insert into entry select coalesce(last.id, 0) + 1, new.body, md5(coalesce(last.digest, '') || new.body)
            from (select gen_random_uuid()::text as body) new
                left join (select id, digest from entry order by id desc limit 1) last on true \$\$"

    podman pod create --name shop --network front,back -p 8080:80 --label app=shop > /dev/null
    podman run -d --pod shop --name web --restart always --read-only -e PGCONNECT_TIMEOUT=5 \
        --secret shop-password,type=env,target=PGPASSWORD localhost/shop:1 > /dev/null

    podman run -d --rm --name worker --network back --stop-timeout 2 \
        --secret shop-password,type=env,target=PGPASSWORD localhost/shop:1 sh -c '
            rm -f /etc/issue; [ -e /srv/drawn ] || { chmod 700 /srv; head -c 100000 /dev/urandom > /srv/drawn; }
            while :; do
                while sleep 0.02; do echo "select add_entry();"; done \
                    | psql -h db -U shop -d postgres -qAt > /srv/last
            done' > /dev/null

    mkdir -p /etc/shop /etc/containers/systemd
    echo 'GREETING=open all day' > /etc/shop/status.env
    printf '[Volume]\nLabel=app=shop\n' > /etc/containers/systemd/pages.volume
    cat > /etc/containers/systemd/status.container <<'UNIT'
[Unit]
Description=The status page of the shop
[Container]
Image=localhost/shop:1
Network=front
PublishPort=8081:80
Volume=pages.volume:/pages
EnvironmentFile=/etc/shop/status.env
Exec=busybox httpd -f -p 80 -h /pages
[Service]
Restart=always
[Install]
WantedBy=multi-user.target
UNIT
    systemctl daemon-reload
    systemctl start status
    podman exec systemd-status sh -c 'head -c 48 /dev/urandom | base64 > /pages/status.html'
    wait_until_it_answers
    more_entries() { [ "$(get "$page" | wc -l)" -ge 50 ]; }
    until_true 60 "entries of the worker" more_entries
}

answers() { get "$status"; get "$page"; }

wait_until_it_answers() {
    # Not -q, which would end before wget has written a long page.
    has_entries() { get "$page" | grep '|'; }
    until_true 60 "the shop's page" has_entries
    until_true 60 "the status page" get "$status"
}

check() {
    local truth=$1 least=$2 common
    answers | LC_ALL=C sort > /tmp/found
    LC_ALL=C sort "$truth" | LC_ALL=C comm -12 - /tmp/found > /tmp/common
    common=$(wc -l < /tmp/common)
    [ "$common" -ge "$least" ] || { echo "of $least lines only $common came back" >&2; exit 1; }
    # Entries that came back are the first ones; later ones are this host's own.
    [ "$(sort -n /tmp/common | tail -n 1 | cut -d '|' -f 1)" = $((common - 1)) ] \
        || { echo "among the entries that came back are gaps" >&2; exit 1; }
    [ "$(sql -c "select count(*) from (select digest, id - row_number() over (order by id) as gap,
        md5(coalesce(lag(digest) over (order by id), '') || body) as expected from entry) entry
        where digest <> expected or gap <> 0")" = 0 ] || { echo "the chain of entries is broken" >&2; exit 1; }
    [ "$(podman exec systemd-status sh -c 'echo "$GREETING"')" = "open all day" ] \
        || { echo "the environment file of the status page is another" >&2; exit 1; }
    echo "$common"
}

own_files() {
    podman exec worker sh -c 'stat -c "%n %a %u:%g" /srv /srv/drawn; sha256sum /srv/drawn; ls /etc/issue 2>&1 || true'
}

case $1 in
    make) make_stack ;;
    wait) wait_until_it_answers ;;
    answers) answers ;;
    set-up) systemctl enable -q podman-restart ;;
    check) check "$2" "$3" ;;
    own-files) own_files ;;
    *) exit 2 ;;
esac
