//! Containers at rest while what they write is saved, on real hosts: what a backup holds, for how long
//! they rested, and that they go on whatever becomes of podkeep.

use crate::lab::{Driver, Image, Suite};
use crate::shell::{Shell, same_lines};

/// Prefix of every script.
const WORDS: &str = concat!(
    include_str!("../lab/until.sh"),
    r#"
export PODKEEP_REPO=/var/tmp/repository PODKEEP_PASSWORD=secret
data() { podman volume inspect "$1" --format '{{.Mountpoint}}'; }
# What each container does, and since when it does it without a break.
states() { podman ps -a --format '{{.Names}} {{.State}} {{.StartedAt}}' | sort; }
run() { local name=$1; shift; podman run -d --name "$name" --network=none "$@" > /dev/null; }
# One application with two volumes: each row of the database comes before its file.
start_app() {
    run app -v app-db:/db -v app-files:/files localhost/postgres:1 bash -c '
        sqlite3 /db/app.db "pragma journal_mode = wal" "create table if not exists entry (id integer)"
        for n in $(seq 1000000); do
            echo "insert into entry values ($n);"; echo ".system touch /files/$n"
        done | sqlite3 /db/app.db'
    until_true 30 test -e "$(data app-files)/100"
}
start_writer() {
    run writer -v mapped:/m -v /root:/root:ro localhost/postgres:1 perl /root/mapped-writer.pl /m
    until_true 30 test -s "$(data mapped)/written"
}
start_postgres() {
    run "$1" --user postgres -v "$2":/pg localhost/postgres:1 postgres -D /pg -k /tmp
    until_true 60 podman exec "$1" pg_isready -q
}
# Longest time between two rounds of the writer, in milliseconds.
gap() { podman logs writer | tail -n 1; }
# A oneshot unit is over, says a `systemctl`: systemd has killed what was in its cgroup, and removed that.
is_over() {
    until_true 30 eval "! $1 is-active --quiet $2"
    [ "$($1 show -P Result $2)" = success ]
    [ -z "$(find /sys/fs/cgroup -name "$2.service")" ]
}
# A container with all its processes, which its cgroups have, is in none of a unit's.
outlives() {
    local pid
    for pid in $($1 inspect --format '{{.State.ConmonPid}} {{.State.Pid}}' $2); do
        [ -d /proc/$pid ]
        not grep nightly /proc/$pid/cgroup
    done
    $1 exec $2 true
    $1 cp /etc/hostname $2:/tmp/copied
    [ "$($1 exec $2 cat /tmp/copied)" = "$(hostname)" ]
}
records() { ls /var/lib/podkeep/freeze | grep -v '^lock$' || true; }
is() { [ "$(podman inspect --format '{{.State.Status}}' "$1")" = "$2" ]; }
paused() { is app paused; }
# Others that use the application's volumes, in all the states in which nothing is to be done.
start_others() {
    run held -v app-files:/files localhost/postgres:1 sleep infinity
    podman pause held > /dev/null
    podman create --name made --network=none -v app-files:/files localhost/postgres:1 > /dev/null
    podman run --name ended --network=none -v app-files:/files localhost/postgres:1 false || true
    run plain --stop-timeout 0 -v plain:/p localhost/postgres:1 sleep infinity
}
# Starts a backup that stands still while the application is paused; its pid is in $pid. The pause is
# so short that this may need several tries.
stand_still() {
    local events try
    events=$(podman inspect --format '{{.State.Pid}}' app)
    events=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$events/cgroup")/cgroup.events
    for _ in $(seq 10); do
        podkeep backup volume:app-db volume:app-files "$@" > /tmp/backup.log 2>&1 & pid=$!
        while [ -d /proc/$pid ] && ! grep -q 'frozen 1' "$events"; do :; done
        kill -STOP $pid || continue
        for try in $(seq 20); do
            ! paused || return 0
            sleep 0.1
        done
        kill -CONT $pid
        wait $pid
    done
    cat /tmp/backup.log >&2
    exit 1
}
"#
);

fn lab(driver: Driver) -> Shell {
    let lab = Shell::up(Suite::Trixie, driver, WORDS);
    lab.host.image(Image::Postgres);
    lab.bring(&["mapped-writer.pl"]);
    lab.ok("podkeep init > /dev/null");
    lab
}

fn number(text: &str) -> u64 {
    text.trim()
        .parse()
        .unwrap_or_else(|_| panic!("{text:?} is no number"))
}

/// Two volumes of one application, a database under load and a program that writes by way of a mapping
/// are each saved as of one moment while they run on.
fn one_moment(lab: &Shell) {
    lab.ok(
        "podman run --rm --network=none --user postgres -v pgdata:/pg localhost/postgres:1 \
            sh -c 'chmod 700 /pg && initdb --no-sync -D /pg > /dev/null 2>&1'
        start_postgres db pgdata; start_app; start_writer
        podman exec db pgbench -q -i -s 3 > /dev/null 2>&1
        podman exec -d db pgbench -n -c 2 -T 3600
        sleep 1",
    );
    let before = lab.ok("states");
    // The second finds all states in place, and what changed since.
    for _ in 0..2 {
        let said = lab
            .ok("podkeep backup volume:pgdata volume:app-db volume:app-files volume:mapped 2>&1");
        let paused = said.lines().filter(|line| line.contains("  paused "));
        assert_eq!(paused.count(), 4, "{said}");
        assert!(
            said.contains("saved: complete") && !said.contains("Warning"),
            "{said}"
        );
    }
    let line = lab.ok("podkeep --json backup volume:mapped | grep '\"type\":\"item\"'");
    assert!(line.contains("\"consistency\":\"pause\""), "{line}");
    assert_eq!(
        lab.ok("states"),
        before,
        "all run on, and none was started again"
    );
    assert_eq!(
        lab.ok("records; systemctl list-units --all --no-legend 'podkeep-*'"),
        ""
    );
    // Of the group's one moment, although each volume was read at another time.
    lab.ok("podkeep restore latest volume:app-db volume:app-files --to-dir /var/tmp/app");
    assert_eq!(
        lab.ok("sqlite3 /var/tmp/app/volume/app-db/app.db 'pragma integrity_check'"),
        "ok"
    );
    let rows = lab.ok("sqlite3 /var/tmp/app/volume/app-db/app.db 'select count(*) from entry'");
    let files = lab.ok("ls /var/tmp/app/volume/app-files | wc -l");
    let ahead = number(&rows).wrapping_sub(number(&files));
    assert!(ahead <= 1, "{rows} rows, {files} files");
    // The last store into the mapping is there, although no time of the file tells of it.
    lab.ok("podkeep restore latest volume:mapped --to-dir /var/tmp/mapped");
    let written = number(&lab.ok("cat /var/tmp/mapped/written"));
    let mapped = number(&lab.ok("head -c 10 /var/tmp/mapped/mapped"));
    assert!(
        mapped == written || mapped + 1 == written,
        "{mapped} of {written}"
    );
    // The database comes up again, and its sums are those of whole transactions.
    lab.ok("podkeep restore latest~1 volume:pgdata --as pgdata2");
    let sums = lab.ok(
        "start_postgres db2 pgdata2; podman exec db2 psql -Atc 'select
        (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history),
        (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history),
        (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history),
        (select count(*) from pgbench_history) > 0'",
    );
    assert_eq!(sums, "t|t|t|t");
    lab.ok("podman rm -f -t 0 db2 db writer > /dev/null");
}

/// Each way in which a backup ends while containers are paused.
fn they_go_on(lab: &Shell) {
    lab.ok("start_others");
    let before = lab.ok("states");
    for state in ["app running", "held paused", "made created", "ended exited"] {
        assert!(before.contains(state), "{before}");
    }
    lab.ok("podkeep backup volume:app-db volume:app-files");
    assert_eq!(lab.ok("states"), before);
    // Killed, with all that it started: what is armed outside sets them going.
    let seconds = lab.ok("stand_still --max-freeze 4s; since=$SECONDS; kill -9 $pid
        [ -n \"$(records)\" ]; paused
        gone() { ! paused && [ -z \"$(records)\" ]; }; until_true 30 gone
        echo $((SECONDS - since))");
    assert!(number(&seconds) <= 12, "{seconds} s");
    assert_eq!(lab.ok("states"), before);
    // Killed, and started again before that.
    let said = lab.ok("stand_still --max-freeze 1h; kill -9 $pid; paused
        podkeep backup volume:app-db 2>&1; not paused; [ -z \"$(records)\" ]");
    assert!(said.contains("container app: was left frozen"), "{said}");
    assert_eq!(lab.ok("states"), before);
    // Told to end.
    lab.ok("stand_still; kill -TERM $pid; kill -CONT $pid
        code=0; wait $pid || code=$?; [ $code = 143 ]; not paused; [ -z \"$(records)\" ]");
    assert_eq!(lab.ok("states"), before);
    // No room for what it reads.
    lab.ok(
        "mkdir /mnt/small; mount -t tmpfs -o size=96m none /mnt/small
        export PODKEEP_REPO=/mnt/small/repository; podkeep init > /dev/null
        podman exec app dd if=/dev/urandom of=/files/huge bs=1M count=250 2> /dev/null
        code=0; podkeep backup volume:app-files > /dev/null 2>&1 || code=$?
        [ $code = 1 ]; not paused; [ -z \"$(records)\" ]; umount /mnt/small
        podman exec app rm /files/huge",
    );
    assert_eq!(lab.ok("states"), before);
    // Killed while a container is stopped: it is started.
    lab.ok(
        "cgroup=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$(podman inspect --format '{{.State.Pid}}' plain)/cgroup)
        podkeep backup volume:plain --consistency stop --max-freeze 4s > /tmp/backup.log 2>&1 & pid=$!
        while [ -d /proc/$pid ] && [ -e $cgroup ]; do :; done
        kill -9 $pid; [ -n \"$(records)\" ]
        started() { is plain running && [ -z \"$(records)\" ]; }; until_true 30 started",
    );
    let others = |states: &str| -> Vec<String> {
        let lines = states.lines().filter(|line| !line.starts_with("plain "));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(others(&lab.ok("states")), others(&before));
}

#[test]
fn v_20_live_databases_are_saved_as_of_one_moment_and_go_on_with_reflinks() {
    let lab = lab(Driver::Xfs);
    one_moment(&lab);
    they_go_on(&lab);
}

#[test]
fn v_20_live_databases_are_saved_as_of_one_moment_without_reflinks() {
    one_moment(&lab(Driver::Overlay));
}

/// Two containers that a unit each runs: one by `podman start`, one from Quadlet, which makes it anew;
/// and one by hand. A backup in a unit of its own stops what may be stopped.
const UNITS: &str = r#"
cat > /etc/systemd/system/owned.service <<'UNIT'
[Service]
Type=forking
Restart=always
Environment=PODMAN_SYSTEMD_UNIT=%n
PIDFile=/run/owned.pid
ExecStart=podman start owned
ExecStop=podman stop -t 0 owned
[Install]
WantedBy=multi-user.target
UNIT
podman create --name owned --network=none --conmon-pidfile /run/owned.pid -v shared:/s --stop-timeout 0 \
    localhost/postgres:1 sleep infinity > /dev/null
cat > /etc/systemd/system/needs-owned.service <<'UNIT'
[Unit]
BindsTo=owned.service
After=owned.service
[Service]
ExecStart=sleep infinity
UNIT
mkdir -p /etc/containers/systemd
cat > /etc/containers/systemd/made.container <<'UNIT'
[Container]
Image=localhost/postgres:1
ContainerName=made
Network=none
Volume=shared:/s
Exec=sleep infinity
UNIT
cat > /etc/systemd/system/nightly.service <<'UNIT'
[Service]
Type=oneshot
Environment=PODKEEP_REPO=/var/tmp/repository PODKEEP_PASSWORD=secret
ExecStart=podkeep backup volume:shared --consistency stop
UNIT
systemctl daemon-reload
run by-hand --stop-timeout 0 -v shared:/s localhost/postgres:1 sleep infinity
systemctl start owned needs-owned made
podman exec made touch /own-layer
"#;

#[test]
fn containers_that_a_oneshot_unit_stopped_run_on_after_it() {
    let lab = lab(Driver::Overlay);
    lab.ok(UNITS);
    let started = "podman inspect --format '{{.Name}} {{.State.StartedAt}}' made by-hand owned";
    let before = lab.ok(started);
    lab.ok("systemctl start nightly");
    let log = lab.ok("journalctl -u nightly -o cat");
    assert!(
        log.contains("container made: it is paused, not stopped"),
        "{log}"
    );
    assert!(log.contains("saved: complete"), "{log}");
    let states = lab.ok("podman ps --format '{{.Names}} {{.State}}' | sort");
    assert_eq!(states, "by-hand running\nmade running\nowned running");
    lab.ok("is_over systemctl nightly
        sleep 60
        systemctl is-active --quiet owned needs-owned made
        for name in by-hand made owned; do outlives podman $name; done
        podman exec made test -e /own-layer");
    let after = lab.ok(started);
    let of = |text: &str, name: &str| {
        let mut lines = text.lines();
        let line = lines.find(|line| line.trim_start_matches('/').starts_with(name));
        line.unwrap_or_default().to_owned()
    };
    assert_eq!(
        of(&after, "made"),
        of(&before, "made"),
        "it was never stopped"
    );
    assert_ne!(of(&after, "by-hand"), of(&before, "by-hand"));
    assert_ne!(of(&after, "owned"), of(&before, "owned"));
    assert_eq!(lab.ok("records"), "");
}

/// The same for a user who is not root, by a unit of the user's own systemd, whose containers and
/// timers are the user's, too.
const USER: &str = r#"
as() {
    setpriv --reuid=1000 --regid=1000 --init-groups env -i -C / PATH="$PATH" HOME=/home/u USER=u \
        XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus \
        PODKEEP_REPO=/home/u/repository PODKEEP_PASSWORD=secret "$@"
}
"#;

const USER_UNITS: &str = r#"
podman save -q localhost/lab:1 -o /tmp/lab.tar; chmod 644 /tmp/lab.tar
as podman load -q -i /tmp/lab.tar > /dev/null
as podkeep init > /dev/null
as podman run -d --name by-hand --network=none --stop-timeout 0 -v shared:/s localhost/lab:1 /bin/sleep infinity > /dev/null
as podman run -d --name removed --rm --network=none -v shared:/s localhost/lab:1 /bin/sleep infinity > /dev/null
mkdir -p /home/u/.config/systemd/user
cat > /home/u/.config/systemd/user/nightly.service <<'UNIT'
[Service]
Type=oneshot
Environment=PODKEEP_REPO=/home/u/repository PODKEEP_PASSWORD=secret
ExecStart=podkeep backup volume:shared --consistency stop
UNIT
chown -R u:u /home/u/.config
as systemctl --user daemon-reload
"#;

#[test]
fn containers_of_a_user_run_on_after_the_user_s_oneshot_unit() {
    let lab = Shell::up(Suite::Trixie, Driver::Overlay, WORDS);
    lab.host.image(Image::Busybox);
    lab.ok(&format!("{USER}{USER_UNITS}"));
    let over = |script: &str| lab.ok(&format!("{USER}{script}"));
    let started = "as podman inspect --format '{{.Name}} {{.State.StartedAt}}' removed by-hand";
    let before = over(started);
    over("as systemctl --user start nightly");
    over(
        "is_over 'as systemctl --user' nightly
        for name in by-hand removed; do outlives 'as podman' $name; done",
    );
    let after = over(started);
    let same = same_lines(&before, &after);
    assert_eq!(same, [true, false], "{before} {after}");

    // Killed with its whole unit while a container is paused: the user's systemd sets it going.
    over(
        r#"
        events=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$(as podman inspect --format '{{.State.Pid}}' removed)/cgroup)/cgroup.events
        status() { as podman inspect --format '{{.State.Status}}' removed; }
        for try in $(seq 10); do
            as systemd-run --user --quiet --collect --unit=killed$try --setenv=PODKEEP_REPO --setenv=PODKEEP_PASSWORD \
                podkeep backup volume:shared --max-freeze 4s
            pid=$(as systemctl --user show -P MainPID killed$try)
            while [ -d /proc/$pid ] && ! grep -q 'frozen 1' $events; do :; done
            kill -STOP $pid || continue
            sleep 0.2
            [ "$(status)" != paused ] || break
            kill -CONT $pid
            until_true 30 test ! -d /proc/$pid
        done
        as systemctl --user kill -s KILL killed$try
        until_true 30 test ! -d /proc/$pid
        [ "$(status)" = paused ]
        runs() { [ "$(status)" = running ]; }; until_true 30 runs"#,
    );
    assert_eq!(over(started), after);
}
