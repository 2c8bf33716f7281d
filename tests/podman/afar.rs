//! Backing up, restoring and moving the Podman of a host that only ssh reaches: nothing is installed
//! there, and the repository, its passphrase and the person are here.

use super::pair::{content, pair};
use crate::lab::{Driver, Host, Outcome, Suite};

/// That appends a line every 20 ms, with a volume of 20 MB that cannot be compressed.
const SERVICE: &str = r#"
podman volume create data > /dev/null
podman run -d --name web -v data:/d localhost/lab:1 \
    /bin/sh -c 'trap "exit 0" TERM; # worker-of-the-test
        while :; do date +%s%N >> /d/log; sleep 0.02 & wait; done' > /dev/null
podman exec web sh -c 'head -c 20000000 /dev/urandom > /d/big; mkdir /d/sub; echo a > /d/sub/a
    chown 33:44 /d/sub/a; echo own > /etc/own'
"#;

/// In front of every script of the near host. The passphrase is a word that is nowhere else.
const WORDS: &str = r#"
export PODKEEP_PASSWORD=far-passphrase-x9 PODKEEP_REPO=/srv/repository LC_ALL=C.UTF-8
web=ssh://root@10.99.0.2
# Ends as it should, and says what it should: says CODE WORDS COMMAND...
says() {
    code=0; said=$("${@:3}" 2>&1 < /dev/null) || code=$?
    [ $code = $1 ] || { echo "code $code, not $1, of: ${*:3}: $said"; exit 1; }
    case $said in *"$2"*) ;; *) echo "no '$2' in: $said"; exit 1 ;; esac
}
received() { cat /sys/class/net/*/statistics/rx_bytes | sort -n | tail -1; }
"#;

/// The near host has a repository, too.
fn near_and_far(near: Suite, far: Suite) -> (Host, Host) {
    let (a, b) = pair((near, Driver::Overlay), (far, Driver::Overlay));
    b.image(crate::lab::Image::Busybox);
    run(&a, "podkeep init > /dev/null");
    (a, b)
}

#[track_caller]
fn run(host: &Host, script: &str) -> String {
    let script = format!("{WORDS}\n{script}");
    let outcome: Outcome = host.run(&["bash", "-euo", "pipefail", "-c", &script]);
    assert_eq!(outcome.code, 0, "{script}: {outcome:?}");
    outcome.text()
}

#[test]
fn a_host_behind_ssh_is_backed_up_and_restored() {
    let (a, b) = near_and_far(Suite::Bookworm, Suite::Trixie);
    b.script(SERVICE);
    let before = content(&b);
    run(
        &a,
        r#"
        at=$(received)
        podkeep --json backup --host $web --all > /root/first.json
        grep '"type":"item"' /root/first.json | grep -q '"item":"container:web"'
        tail -1 /root/first.json | grep '"complete":true' | grep -q '"exit_code":0'
        first=$(($(received) - at))
        [ $first -gt 20000000 ] || { echo "$first bytes of 20 MB"; exit 1; }
        # Only what is not known crosses.
        at=$(received)
        podkeep --json backup --host $web --all > /root/second.json
        second=$(($(received) - at))
        [ $second -lt 1000000 ] || { echo "$second bytes the second time"; exit 1; }
        says 0 'volume' podkeep backup --host $web volume:data --tag words
        [ -z "$(ls /srv/repository/leases)" ] || { echo 'a lease is left'; exit 1; }
        says 0 'No damage' podkeep check --read-data
        "#,
    );
    // It runs, and was asked nothing that it could keep.
    assert_eq!(
        b.ok(&["podman", "ps", "--format", "{{.Names}} {{.State}}"]),
        "web running"
    );
    let secrets = run(
        &a,
        "sed 1d /var/lib/podkeep/hosts/*.key; echo $PODKEEP_PASSWORD",
    );
    for secret in secrets.lines().filter(|line| line.len() > 16) {
        b.script(&format!(
            "for place in /root /var/lib/podkeep /var/cache/podkeep /tmp /var/tmp /run; do
                 ! grep -rqsF '{secret}' $place || {{ echo \"'{secret}' is in $place\"; exit 1; }}
             done"
        ));
    }
    b.script("podman rm -ft0 web > /dev/null; podman volume rm data > /dev/null; podman rmi -af > /dev/null");
    run(
        &a,
        r#"
        podkeep restore latest --all --host $web --start
        says 0 '' podkeep diff latest live --host $web
        says 0 'No damage' podkeep doctor --host $web
        says 1 "on root@10.99.0.2: " podkeep restore latest volume:data --host $web
        says 1 'matches nothing' podkeep backup volume:absent --host $web
        says 2 'needs no host on another machine' podkeep snapshots --host $web
        keys=$(ls /var/lib/podkeep/hosts)
        says 13 'cannot reach root@10.99.0.2:1' podkeep backup --all --host $web:1
        [ "$keys" = "$(ls /var/lib/podkeep/hosts)" ] || { echo 'a key for a host that is not there'; exit 1; }
        says 12 'passphrase' env PODKEEP_PASSWORD=wrong podkeep backup --all --host $web
        # The repository may be anywhere: on a third host, on that host itself.
        export PODKEEP_REPO=ssh://root@10.99.0.2/srv/there
        podkeep init > /dev/null
        podkeep backup --host $web volume:data > /dev/null
        says 0 'volume' podkeep ls latest
        "#,
    );
    assert_eq!(content(&b), before);
    b.script("podman exec web grep -q own /etc/own");
    b.script("[ -z \"$(pgrep ^agent-)\" ]");
    // With a write key nobody here can read what the host stored either.
    run(
        &a,
        r#"
        unset PODKEEP_PASSWORD
        for key in /var/lib/podkeep/hosts/*.key; do
            code=0; podkeep --key-file $key restore latest volume:data --host $web > /dev/null 2>&1 || code=$?
            [ $code = 12 ] || { echo "code $code with a write key"; exit 1; }
        done
        "#,
    );
}

/// Ctrl-C, a killed near end and a cut link, while the container is at rest and while it is not.
#[test]
fn a_run_behind_ssh_ends_tidily_with_its_near_end() {
    let (a, b) = near_and_far(Suite::Trixie, Suite::Trixie);
    b.script(SERVICE);
    run(&a, "podkeep doctor --host $web");
    let runs = "for try in $(seq 450); do
             [ \"$(podman ps --format '{{.State}}')\" = running ] &&
                 ! pgrep ^agent- > /dev/null && exit
             sleep 0.2
         done; podman ps -a; pgrep -a ^agent-; exit 1";
    for (kill, code, lease_is_left) in [
        ("kill -INT $run", 130, false),
        ("kill -TERM $run", 143, false),
        ("kill -KILL $run", 137, true),
        ("pkill -KILL -x ssh", 13, false),
    ] {
        let script = format!(
            r#"
            rm -rf /srv/repository /var/cache/podkeep; podkeep init > /dev/null
            podkeep --limit-rate 4M backup --host $web --all > /root/log 2>&1 & run=$!
            for try in $(seq 300); do [ -n "$(ls /srv/repository/leases 2> /dev/null)" ] && break; sleep 0.1; done
            sleep 2
            {kill}
            code=0; wait $run || code=$?
            [ $code = {code} ] || {{ echo "code $code, not {code}: $(cat /root/log)"; exit 1; }}
            ls /srv/repository/leases | wc -l
            "#
        );
        let leases = run(&a, &script);
        assert_eq!(leases != "0", lease_is_left, "{kill}: {leases} leases");
        b.script(runs);
    }
    run(
        &a,
        "says 0 '' podkeep backup --host $web --all; says 0 'No damage' podkeep check --read-data",
    );
}

fn works(host: &Host) -> bool {
    let worker = "pgrep -f '^/bin/sh -c .*worker-of-the-test'";
    host.run(&["bash", "-c", worker]).code == 0
}

/// The source is another machine: its part runs there, and what it knows of the migration lies there.
#[test]
fn a_service_moves_from_a_host_behind_ssh() {
    let (a, b) = near_and_far(Suite::Trixie, Suite::Bookworm);
    b.script(SERVICE);
    let before = content(&b);
    // By way of a repository the second time: what it holds of the first host is not sent again.
    run(&a, "podkeep backup --host $web volume:data > /dev/null");
    let ways = [
        ("local", ""),
        ("ssh://root@10.99.0.1", " --via /srv/repository"),
    ];
    for (to, via) in ways {
        let migrate = format!(
            "podkeep --json migrate container:web --drop-missing --from $web --to {to}{via}"
        );
        run(
            &a,
            &format!(
                r#"
                says 0 'Nothing was changed' podkeep migrate container:web --drop-missing --from $web --to {to}{via} --dry-run
                # 3: Podman 4.3 gives a container that comes back another alias than it had.
                {migrate} --on-cutover 'touch /root/cut-over' > /root/moved.json || [ $? = 3 ]
                [ -e /root/cut-over ] || {{ echo 'nobody was told'; exit 1; }}
                grep -q '"type":"predicted"' /root/moved.json
                grep '"type":"hosts"' /root/moved.json | grep -q '"podman":"4.3.1"'
                tail -1 /root/moved.json | grep -q '"phase":"active"'
                ! tail -1 /root/moved.json | grep -q '"bytes_sent":0' || {{ echo 'no bytes?'; exit 1; }}
                "#
            ),
        );
        assert!(works(&a) && !works(&b), "to {to}");
        let sent =
            a.script("tail -1 /root/moved.json | grep -o '\"bytes_sent\":[0-9]*' | cut -d : -f 2");
        let sent: u64 = sent.trim().parse().expect("bytes");
        assert_eq!(sent > 20_000_000, via.is_empty(), "{sent} bytes to {to}");
        assert_eq!(content(&a), before);
        b.ok(&["test", "!", "-e", "/root/cut-over"]);
        assert_ne!(b.script("ls /var/lib/podkeep/migrations"), "");
        run(
            &a,
            &format!(
                r#"
                code=0; {migrate} > /root/again.json || code=$?
                [ $code = 1 ] && grep -q 'this is moved already' /root/again.json
                {migrate} --rollback --discard-target-writes --on-rollback 'rm /root/cut-over' > /dev/null
                [ ! -e /root/cut-over ]
                "#
            ),
        );
        assert!(works(&b) && !works(&a), "back from {to}");
        assert_eq!(a.ok(&["podman", "volume", "ls", "-q"]), "");
    }
    run(
        &a,
        "podkeep migrate container:web --drop-missing --from $web --to local || [ $? = 3 ]
         podkeep migrate container:web --from $web --to local --finish",
    );
    // What went to the other target and came back is kept for another try.
    for host in [&a, &b] {
        assert_eq!(host.script("ls /var/lib/podkeep/migrations | wc -l"), "1");
    }
    assert!(works(&a) && !works(&b));
}

/// Where root has no login, an administrator's becomes root: for root's Podman, and for a user's.
#[test]
fn a_login_becomes_root_by_sudo() {
    let (a, b) = near_and_far(Suite::Trixie, Suite::Trixie);
    b.script(SERVICE);
    let before = content(&b);
    let of_users = |script: &str| {
        let words = include_str!("../lab/users.sh");
        b.script(&format!("{words}\n{script}"))
    };
    of_users(
        "users; mkdir -m 700 /home/bob/.ssh; mv /root/.ssh/authorized_keys /home/bob/.ssh/; chown -R bob: /home/bob/.ssh",
    );
    let sudo = "ssh://bob@10.99.0.2,sudo";
    let refused = format!("says 13 'sudoers' podkeep backup --host {sudo} --all");
    run(&a, &refused);
    of_users("echo 'bob ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/bob");
    run(
        &a,
        &format!("podkeep backup --host {sudo} --all > /dev/null"),
    );
    b.script("podman rm -f -t 0 web > /dev/null; podman volume rm data > /dev/null");
    run(
        &a,
        &format!("podkeep restore latest --host {sudo} --all --start > /dev/null"),
    );
    let after = content(&b);
    assert!(after == before, "{after} {before}");
    // What root puts there is root's, and the program lies in bob's own folder.
    of_users(
        "[ \"$(find /var/lib/podkeep ! -user root)\" = '' ]; [ \"$(find /home/bob/.local/state/podkeep ! -user bob)\" = '' ]
         ls /home/bob/.local/state/podkeep/agent-*",
    );
    // Another user's, by way of root.
    of_users(
        "session eve; podman save localhost/lab:1 | as eve podman load -q > /dev/null
         as eve podman volume create of-eve > /dev/null",
    );
    let listed = run(
        &a,
        &format!(
            "podkeep backup --host {sudo},user=eve --all; podkeep ls latest@eve@$(ssh bob@10.99.0.2 hostname)"
        ),
    );
    assert!(listed.contains("of-eve"), "{listed}");
    // And moved from there to here.
    run(
        &a,
        &format!(
            "podkeep migrate container:web --from {sudo} --to local > /dev/null
             podkeep migrate container:web --from {sudo} --to local --finish > /dev/null"
        ),
    );
    assert_eq!(a.script("podman ps --format '{{.Names}}'"), "web");
    assert_eq!(b.script("podman ps -q"), "");
}

/// Reached by their own login, without anything of root's, and by root's login: bob's Podman, who does not linger.
#[test]
fn a_user_without_linger_is_reached_by_ssh() {
    let (a, b) = near_and_far(Suite::Trixie, Suite::Trixie);
    let of_users = |script: &str| {
        let words = include_str!("../lab/users.sh");
        b.script(&format!("{words}\n{script}"))
    };
    of_users(
        "users; mkdir -m 700 /home/bob/.ssh; cp /root/.ssh/authorized_keys /home/bob/.ssh/
         chown -R bob: /home/bob/.ssh; session bob
         podman save localhost/lab:1 | as bob podman load -q > /dev/null
         as bob podman run -d --name web -v data:/d localhost/lab:1 /bin/sleep infinity > /dev/null
         as bob podman exec web sh -c 'echo kept > /d/file; chown 5:6 /d/file'",
    );
    for (number, bob) in ["ssh://bob@10.99.0.2", "ssh://root@10.99.0.2,user=bob"]
        .into_iter()
        .enumerate()
    {
        run(
            &a,
            &format!("podkeep backup --host {bob} --all > /dev/null"),
        );
        of_users(
            "session bob; as bob podman rm -f -t 0 web > /dev/null; as bob podman volume rm data > /dev/null
             rm -f /var/lib/systemd/linger/bob; systemctl stop user@1001",
        );
        run(
            &a,
            &format!(
                "says 1 --enable-linger podkeep restore latest container:web --host {bob} --start
                 podkeep restore latest container:web --host {bob} > /dev/null"
            ),
        );
        let made = "as bob podman unshare stat -c '%n %u:%g' /home/bob/.local/share/containers/storage/volumes/data/_data/file
             as bob podman inspect web --format '{{.State.Status}}'";
        let made = of_users(&format!("session bob\n{made}"));
        assert!(
            made.contains("file 5:6") && made.ends_with("created"),
            "{made}"
        );
        // Runs again for the next backup.
        if number == 0 {
            of_users("as bob podman start web > /dev/null; as bob podman exec web cat /d/file");
        }
    }
    // Root may let bob linger, and what was started stays.
    of_users(
        "as bob podman rm -f -t 0 web > /dev/null; as bob podman volume rm data > /dev/null; systemctl stop user@1001",
    );
    run(
        &a,
        "podkeep restore latest container:web --host ssh://root@10.99.0.2,user=bob --start --enable-linger > /dev/null",
    );
    of_users(
        "test -e /var/lib/systemd/linger/bob; sleep 2; [ $(as bob podman exec web cat /d/file) = kept ]",
    );
}
