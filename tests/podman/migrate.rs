//! Moving a running service between two hosts over ssh, and back.

use super::pair::{content, join, log_lines, pair, runs};
use crate::lab::{Driver, Host, Suite};

/// A container that appends a line every 20 ms, in a network, with a secret and files of its own.
pub const SERVICE: &str = r#"
podman volume create --label app=shop data > /dev/null
podman network create --subnet 10.77.0.0/24 front > /dev/null
printf 'pass\nword' | podman secret create pw - > /dev/null
podman run -d --name web --restart=always --network front --secret pw -v data:/d localhost/lab:1 \
    /bin/sh -c 'trap "exit 0" TERM; # worker-of-the-test
        while :; do date +%s%N >> /d/log; sleep 0.02 & wait; done' > /dev/null
podman exec web sh -c 'head -c 20000000 /dev/urandom > /d/big; mkdir /d/sub; echo a > /d/sub/a
    echo old > /d/old; chown 33:44 /d/sub/a; echo own > /etc/own; rm -f /etc/gone'
"#;

/// The service runs on the first.
pub fn serving_pair(from: (Suite, Driver), to: (Suite, Driver)) -> (Host, Host) {
    let (a, b) = bare_pair(from, to);
    a.script(SERVICE);
    (a, b)
}

/// Nothing runs yet.
fn bare_pair(from: (Suite, Driver), to: (Suite, Driver)) -> (Host, Host) {
    let (a, b) = pair(from, to);
    a.image(crate::lab::Image::Busybox);
    (a, b)
}

pub const MOVE: &str =
    "podkeep --json migrate container:web --drop-missing --to ssh://root@10.99.0.2";

/// Runs the migration with further flags; its exit code and its lines.
pub fn migrate(host: &Host, flags: &str) -> (i32, Vec<serde_json::Value>) {
    run(host, &format!("{MOVE} {flags}"))
}

/// Of other items.
pub fn migrate_items(host: &Host, items: &str, flags: &str) -> (i32, Vec<serde_json::Value>) {
    let command = MOVE.replacen("container:web", items, 1);
    run(host, &format!("{command} {flags}"))
}

fn run(host: &Host, command: &str) -> (i32, Vec<serde_json::Value>) {
    let outcome = host.run(&["bash", "-c", command]);
    let text = outcome.text();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"));
    (outcome.code, lines.collect())
}

pub fn message(lines: &[serde_json::Value]) -> String {
    let last = lines.last().expect("a last line");
    last["message"].as_str().unwrap_or_default().to_owned()
}

pub fn number(lines: &[serde_json::Value], field: &str) -> f64 {
    let last = lines.last().expect("a last line");
    last[field]
        .as_f64()
        .unwrap_or_else(|| panic!("no {field} in {last}"))
}

/// From Podman 4.3 to 5.8 and back: a dry run, an obstacle, the move, what is where afterwards, the
/// way back, and that the second time little is sent.
#[test]
fn a_running_service_moves_and_comes_back() {
    let (a, b) = serving_pair(
        (Suite::Bookworm, Driver::Overlay),
        (Suite::Sid, Driver::Overlay),
    );
    b.script("podman volume create data > /dev/null");
    let (code, lines) = migrate(&a, "--dry-run");
    let in_the_way: Vec<_> = lines
        .iter()
        .filter(|line| line["type"] == "conflict")
        .collect();
    assert_eq!((code, in_the_way.len()), (1, 1), "{lines:?}");
    let space = lines.iter().find(|line| line["type"] == "space");
    let space = space.expect("what is needed");
    assert!(space["bytes_needed"].as_f64() > Some(20e6), "{space}");
    assert!(space["bytes_free"].as_f64() > Some(0.0), "{space}");
    assert!(number(&lines, "bytes_logical") > 20e6);
    assert!(number(&lines, "freeze_seconds") > 0.0);
    for host in [&a, &b] {
        assert_eq!(host.script("ls -A /var/lib/podkeep/migrations"), "");
    }
    assert_eq!(migrate(&a, "").0, 1);
    assert!(runs(&a));
    assert_eq!(
        b.ok(&["podman", "ps", "-aq"]),
        "",
        "something was made there"
    );
    b.script("podman volume rm data > /dev/null");
    let (code, lines) = migrate(&a, "--dry-run");
    assert_eq!(code, 0, "{lines:?}");
    assert_eq!(b.ok(&["podman", "volume", "ls", "-q"]), "");

    let before = content(&a);
    let (code, lines) = migrate(&a, "--json-progress --on-cutover 'touch /root/cut-over'");
    assert_eq!(code, 0, "{lines:?}");
    let there = lines
        .iter()
        .filter(|line| line["phase"] == "restoring at the target");
    let written = there.filter_map(|line| line["bytes"].as_u64()).max();
    assert!(
        written > Some(0),
        "nobody saw what the target wrote: {lines:?}"
    );
    assert!(!runs(&a) && runs(&b));
    a.ok(&["test", "-e", "/root/cut-over"]);
    let sent = number(&lines, "bytes_sent");
    assert!(
        sent > 20e6,
        "{sent} bytes of 20 MB that cannot be compressed"
    );
    let pass = lines.iter().rev().find(|line| line["type"] == "pass");
    let pass = pass.expect("a pass");
    let last = lines.last().expect("a last line");
    let parts = last["freeze_parts"].as_object().expect("parts").values();
    let parts: f64 = parts.filter_map(serde_json::Value::as_f64).sum();
    let whole = number(&lines, "freeze_seconds");
    assert!((parts - whole).abs() < 0.1, "{last}");
    assert_eq!(pass["at_rest"], true);
    assert!(pass["bytes_sent"].as_f64() < Some(2e6), "{pass}");
    assert_eq!(content(&b), before);
    let (old, new) = (log_lines(&a), log_lines(&b));
    assert!(
        new.len() > old.len() && new.starts_with(&old),
        "lines were lost"
    );
    assert_eq!(
        b.ok(&[
            "podman",
            "exec",
            "web",
            "cat",
            "/run/secrets/pw",
            "/etc/own"
        ]),
        "pass\nwordown"
    );
    let policy = [
        "podman",
        "inspect",
        "-f",
        "{{.HostConfig.RestartPolicy.Name}}",
        "web",
    ];
    assert_eq!(b.ok(&policy), "always");

    // Neither side comes back by itself where the other one runs.
    a.crash();
    a.boot();
    a.script("systemctl start podman-restart 2> /dev/null || podman start --all --filter restart-policy=always");
    assert!(!runs(&a), "the source came back at its boot");
    join(&a, &b);
    let (code, lines) = migrate(&a, "");
    assert_eq!(
        (code, message(&lines).as_str()),
        (1, "this is moved already")
    );
    // A nightly job at the source, and what the target wrote meanwhile.
    a.script(
        "podman system prune -a -f --volumes > /dev/null; podman volume prune -f > /dev/null
         podman network prune -f > /dev/null; podman secret rm pw > /dev/null",
    );
    assert_eq!(a.ok(&["podman", "volume", "ls", "-q"]), "");
    b.script(
        "podman exec web sh -c 'echo there > /d/there; rm /d/sub/a; echo b > /d/sub/a
             chown 7:8 /d/sub/a; echo more > /etc/more
             dd if=/dev/urandom of=/d/big bs=1000 count=1 seek=5000 conv=notrunc 2> /dev/null'",
    );
    let (there, lines_there) = (content(&b), log_lines(&b));
    let (code, lines) = migrate(&a, "--rollback --on-rollback 'rm /root/cut-over'");
    assert_eq!(code, 0, "{lines:?}");
    assert!(runs(&a) && !runs(&b));
    assert_eq!(content(&a), there);
    assert!(log_lines(&a).starts_with(&lines_there), "lines were lost");
    assert_eq!(
        a.ok(&[
            "podman",
            "exec",
            "web",
            "cat",
            "/etc/more",
            "/run/secrets/pw"
        ]),
        "more\npass\nword"
    );
    a.ok(&["test", "!", "-e", "/root/cut-over"]);
    assert_eq!(b.ok(&["podman", "volume", "ls", "-q"]), "");
    assert_eq!(a.ok(&policy), "always");
    assert_eq!(a.ok(&["podman", "exec", "web", "cat", "/etc/own"]), "own");

    // What changed since: a file more, one less, one in the middle, another owner, a link.
    a.script(
        "podman exec web sh -c 'rm /d/old; echo new > /d/new; chown 5:6 /d/sub/a; ln -s new /d/link
             dd if=/dev/urandom of=/d/big bs=1000 count=1 seek=9000 conv=notrunc 2> /dev/null'",
    );
    let before = content(&a);
    let (code, lines) = migrate(&a, "");
    assert_eq!(code, 0, "{lines:?}");
    let again = number(&lines, "bytes_sent");
    assert!(
        again < sent / 20.0,
        "{again} bytes the second time, {sent} the first"
    );
    assert_eq!(content(&b), before);
    // As a finish leaves it that was cut off: the target has forgotten, and there is no way back.
    b.script("rm -r /var/lib/podkeep/migrations/*");
    let (code, lines) = migrate(&a, "--rollback --discard-target-writes");
    let why = message(&lines);
    assert!(code == 1 && why.contains("has forgotten"), "{lines:?}");
    assert!(!runs(&a) && runs(&b));
    let (code, lines) = migrate(&a, "--finish");
    assert_eq!(code, 0, "{lines:?}");
    for host in [&a, &b] {
        assert_eq!(host.script("ls /var/lib/podkeep/migrations"), "");
    }
    assert!(!runs(&a) && runs(&b));
}

/// A range of ids that Podman chose, which at the target somebody has, and a mount with a map of its own:
/// what the containers see stays, and they can write it.
#[test]
fn v_10_containers_with_ids_of_their_own_move_between_roots() {
    let (a, b) = bare_pair(
        (Suite::Trixie, Driver::Overlay),
        (Suite::Sid, Driver::Overlay),
    );
    b.image(crate::lab::Image::Busybox);
    for host in [&a, &b] {
        // Podman 5.8 asks for the ranges of a user that there is.
        host.script(
            "useradd -r containers; sed -i /^containers:/d /etc/subuid /etc/subgid
             echo containers:2147483647:2147483648 | tee -a /etc/subuid >> /etc/subgid",
        );
    }
    b.script(
        "podman tag localhost/lab:1 localhost/other:1; podman rmi localhost/lab:1 > /dev/null
         podman run -d --name other --userns=auto:size=5000 localhost/other:1 sleep infinity > /dev/null",
    );
    a.script(
        "run() {
             podman volume create $1 > /dev/null
             podman run -d --name $1 --network none --userns=auto:size=2000 -v $1:/d$2 localhost/lab:1 sh -c 'trap \"exit 0\" TERM; sleep infinity & wait' > /dev/null
             podman exec $1 sh -c 'echo a > /d/file; chown 33:44 /d/file; chmod 640 /d/file; echo > /own; chown 7:8 /own'
         }
         run ranged ''; run mapped :idmap",
    );
    let view = |host: &Host, container: &str| {
        host.script(&format!(
            "podman exec {container} sh -c 'echo x >> /d/file; stat -c \"%u:%g %a\" /d /d/file /own'"
        ))
    };
    for container in ["ranged", "mapped"] {
        let before = view(&a, container);
        assert!(
            before.contains("33:44 640") && before.contains("7:8"),
            "{before}"
        );
        let (code, lines) = migrate_items(&a, &format!("container:{container}"), "");
        assert_eq!(code, 0, "{lines:?}");
        assert_eq!(view(&b, container), before, "{container}");
    }
    // With a map of its own the mount has on disk what the container sees.
    let on_disk = |host: &Host, volume: &str| {
        host.script(&format!(
            "stat -c %u:%g $(podman volume inspect -f '{{{{.Mountpoint}}}}' {volume})/file"
        ))
    };
    for host in [&a, &b] {
        assert_eq!(on_disk(host, "mapped"), "33:44");
    }
    assert_ne!(on_disk(&a, "ranged"), on_disk(&b, "ranged"));
}

/// Through a repository on a third address that both sides reach: what is stored there is not sent, the
/// target keeps no copy, and the way back is there, too.
#[test]
fn a_service_moves_by_way_of_a_repository_that_both_reach() {
    let (a, b) = serving_pair(
        (Suite::Bookworm, Driver::Overlay),
        (Suite::Trixie, Driver::Overlay),
    );
    let key = b.script(
        "ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519; cat /root/.ssh/id_ed25519.pub
         ssh-keyscan 10.99.0.1 2> /dev/null > /root/.ssh/known_hosts",
    );
    a.script(&format!(
        "echo '{key}' >> /root/.ssh/authorized_keys; printf word > /root/word
         podkeep --password-file /root/word -r ssh://10.99.0.1/srv/vault init > /dev/null
         podkeep --password-file /root/word -r ssh://10.99.0.1/srv/vault backup volume:data > /dev/null"
    ));
    let before = content(&a);
    let stored = || {
        let bytes = a.script("du -sb --exclude=reserve /srv/vault | cut -f 1");
        bytes.trim().parse::<u64>().expect("bytes")
    };
    let at_first = stored();
    let word = "--password-file /root/word";
    // A path is looked for at both sides.
    for (way, cause) in [
        ("/srv/vault", "cannot be opened from here"),
        ("/srv/none", "there is no podkeep repository"),
    ] {
        let (code, lines) = migrate(&a, &format!("{word} --via {way}"));
        assert!(code != 0 && message(&lines).contains(cause), "{lines:?}");
        assert!(runs(&a));
        assert_eq!(b.ok(&["podman", "ps", "-aq"]), "");
    }
    let via = format!("{word} --via ssh://10.99.0.1/srv/vault");
    let (code, lines) = migrate(&a, &format!("{via} --dry-run"));
    assert_eq!((code, stored()), (0, at_first), "{lines:?}");
    let (code, lines) = migrate(&a, &via);
    assert_eq!(code, 0, "{lines:?}");
    assert!(!runs(&a) && runs(&b));
    assert_eq!(content(&b), before);
    assert_eq!(b.ok(&["podman", "exec", "web", "cat", "/etc/own"]), "own");
    // The volume was there already; the image is 2 MB at most.
    let added = stored() - at_first;
    assert!(added < 5_000_000, "{added} bytes were added");
    let kept = b.script("du -sb /var/lib/podkeep | cut -f 1");
    assert!(
        kept.trim().parse::<u64>().expect("bytes") < 5_000_000,
        "{kept}"
    );

    // A rollback that could not restore what was removed does not begin.
    let (code, lines) = migrate(&a, "--rollback --discard-target-writes");
    assert_eq!(code, 1, "{lines:?}");
    assert!(message(&lines).contains("begun by way of another repository"));
    assert!(runs(&b));
    let back = format!("--rollback --discard-target-writes {via}");
    let (code, lines) = migrate(&a, &back);
    assert_eq!(code, 0, "{lines:?}");
    assert!(runs(&a) && !runs(&b));
    assert_eq!(a.ok(&["podman", "exec", "web", "cat", "/etc/own"]), "own");
}

/// A pod with two containers, of which the first is the worker, and a port of the host.
const POD: &str = r#"
podman pod create --name shop -p 8080:80 > /dev/null
podman volume create data > /dev/null
podman run -d --pod shop --name web --restart=always -v data:/d localhost/lab:1 \
    /bin/sh -c 'trap "exit 0" TERM; # worker-of-the-test
        while :; do date +%s%N >> /d/log; sleep 0.02 & wait; done' > /dev/null
podman create --pod shop --name side localhost/lab:1 /bin/true > /dev/null
podman exec web sh -c 'echo own > /etc/own'
"#;

fn listens(host: &Host) -> bool {
    // Port 8080, which conmon of the infra container holds.
    let found = host.run(&[
        "bash",
        "-c",
        "grep -q ':1F90 .* 0A ' /proc/net/tcp /proc/net/tcp6",
    ]);
    found.code == 0
}

/// A pod's infra container, which holds its ports, is stopped and fenced with the rest, also where Podman
/// cannot change a restart policy (4.3); a rollback brings it back with what was removed from it.
#[test]
fn a_pod_moves_with_its_infra_container() {
    for (from, to) in [
        (Suite::Bookworm, Suite::Trixie),
        (Suite::Trixie, Suite::Sid),
    ] {
        let (a, b) = bare_pair((from, Driver::Overlay), (to, Driver::Overlay));
        a.script(POD);
        assert!(listens(&a));
        let before = a.script("podman pod inspect -f '{{.Name}} {{.NumContainers}}' shop");
        // With the whole pod.
        let (code, lines) = migrate_items(&a, "container:web", "");
        assert_eq!(code, 0, "{from}: {lines:?}");
        assert!(runs(&b) && !runs(&a), "{from}");
        assert!(
            listens(&b) && !listens(&a),
            "{from}: the port is still held"
        );
        assert_eq!(
            a.script("podman ps -q"),
            "",
            "{from}: the infra container runs"
        );
        assert_eq!(b.script("podman exec web cat /etc/own"), "own");
        let there = b.script("podman pod inspect -f '{{.Name}} {{.NumContainers}}' shop");
        assert_eq!(there, before);
        let side = [
            "podman",
            "inspect",
            "-f",
            "{{.State.Status}} {{.Pod}}",
            "side",
        ];
        assert!(b.ok(&side).starts_with("created "), "it did not run");

        a.crash();
        a.boot();
        a.script("systemctl start podman-restart 2> /dev/null || podman start --all --filter restart-policy=always");
        assert!(
            !runs(&a) && !listens(&a),
            "{from}: the source came back at its boot"
        );
        join(&a, &b);
        let (code, lines) =
            migrate_items(&a, "container:web", "--rollback --discard-target-writes");
        assert_eq!(code, 0, "{from}: {lines:?}");
        assert!(runs(&a) && !runs(&b), "{from}");
        assert!(listens(&a) && !listens(&b), "{from}");
        assert_eq!(b.script("podman pod ls -q; podman ps -aq"), "");
        assert_eq!(a.script("podman exec web cat /etc/own"), "own");
        let again = a.script("podman pod inspect -f '{{.Name}} {{.NumContainers}}' shop");
        assert_eq!(again, before, "{from}");
    }
}

/// Two Quadlet files that a third one refers to, which runs the worker, with a file of variables.
const UNIT: &str = r#"
mkdir -p /etc/containers/systemd; cd /etc/containers/systemd; echo WORD=kept > /etc/web.env
printf '[Volume]\nVolumeName=data\n' > data.volume
printf '[Network]\nNetworkName=front\nSubnet=10.77.0.0/24\n' > front.network
cat > web.container <<'END'
[Container]
Image=localhost/lab:1
ContainerName=web
Volume=data.volume:/d
Network=front.network
EnvironmentFile=/etc/web.env
Exec=/bin/sh -c 'trap "exit 0" TERM; : worker-of-the-test; while :; do date +%%s%%N >> /d/log; sleep 0.02 & wait; done'
[Service]
Restart=always
[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload; systemctl start web
"#;

/// What a unit runs moves with the unit, all files that it refers to, and the fence is a mask, which lasts.
#[test]
fn a_container_of_a_unit_moves_with_its_unit() {
    let (a, b) = bare_pair(
        (Suite::Trixie, Driver::Overlay),
        (Suite::Sid, Driver::Overlay),
    );
    a.script(UNIT);
    assert!(runs(&a));
    b.script("mkdir -p /etc/containers/systemd; touch /etc/containers/systemd/web.container");
    let (code, lines) = migrate(&a, "--dry-run");
    let conflict = lines.iter().find(|line| line["type"] == "conflict");
    let conflict = conflict.unwrap_or_else(|| panic!("{lines:?}"));
    assert_eq!(code, 1);
    assert!(conflict.to_string().contains("web.container"), "{conflict}");
    b.script("rm /etc/containers/systemd/web.container");

    let (code, lines) = migrate(&a, "");
    assert_eq!(code, 0, "{lines:?}");
    assert!(runs(&b) && !runs(&a));
    assert_eq!(b.script("systemctl is-active web"), "active");
    let (old, new) = (log_lines(&a), log_lines(&b));
    assert!(
        new.len() > old.len() && new.starts_with(&old),
        "lines were lost"
    );
    assert_eq!(b.script("podman exec web sh -c 'echo $WORD'"), "kept");
    let state = "systemctl is-enabled web || true; systemctl is-active web || true";
    assert_eq!(a.script(state), "masked\ninactive");
    a.crash();
    a.boot();
    assert!(!runs(&a), "the source came back at its boot");
    assert_eq!(a.script(state), "masked\ninactive");
    join(&a, &b);

    let (code, lines) = migrate(&a, "--rollback --discard-target-writes");
    assert_eq!(code, 0, "{lines:?}");
    assert!(runs(&a) && !runs(&b));
    assert_eq!(a.script("systemctl is-active web"), "active");
    let left = "find /etc/containers/systemd -type f; ls /etc/web.env 2> /dev/null || true; podman ps -aq; podman volume ls -q";
    assert_eq!(b.script(left), "", "left behind");
    let (code, lines) = migrate(&a, "");
    assert_eq!(code, 0, "again: {lines:?}");
    assert!(runs(&b) && !runs(&a));
}

/// A pod that `podman kube play` makes of a file, by a unit.
const KUBE: &str = r#"
mkdir -p /etc/containers/systemd; cd /etc/containers/systemd
cat > shop.yaml <<'END'
apiVersion: v1
kind: Pod
metadata: {name: shop}
spec:
  containers:
  - name: web
    image: localhost/lab:1
    command: ["/bin/sh", "-c", "trap : TERM; echo from >> /d/log; sleep infinity & wait; true # worker-of-the-test"]
    volumeMounts: [{name: data, mountPath: /d}]
  - name: side
    image: localhost/lab:1
    command: ["/bin/sh", "-c", "trap : TERM; sleep infinity & wait; true"]
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: data}}
END
printf '[Kube]\nYaml=shop.yaml\n[Install]\nWantedBy=multi-user.target\n' > shop.kube
systemctl daemon-reload; systemctl start shop
"#;

/// What its unit makes anew is not stopped for a backup, which it would not come back from, and moves with
/// the unit and its file.
#[test]
fn a_pod_of_a_kube_unit_is_paused_for_a_backup_and_moves_with_its_unit() {
    let (a, b) = bare_pair(
        (Suite::Trixie, Driver::Overlay),
        (Suite::Sid, Driver::Btrfs),
    );
    a.script(KUBE);
    let names = "podman ps --format '{{.Names}}' | grep -v -e -service -e -infra | sort";
    let started = "podman inspect -f '{{.Id}} {{.State.StartedAt}}' shop-web shop-side";
    let before = a.script(started);
    let said = a.script(
        "export PODKEEP_REPO=/srv/repository PODKEEP_PASSWORD=x; podkeep init > /dev/null
         podkeep backup --all --consistency stop 2>&1",
    );
    assert!(
        said.contains("container shop-web: it is paused, not stopped"),
        "{said}"
    );
    assert_eq!(
        a.script(&format!("systemctl is-active shop; {started}")),
        format!("active\n{before}")
    );

    let (code, lines) = migrate_items(&a, "pod:shop", "");
    assert_eq!(code, 0, "{lines:?}");
    let state = "systemctl is-enabled shop || true; systemctl is-active shop || true";
    assert_eq!(a.script(state), "masked\ninactive");
    assert_eq!(a.script("podman ps -q"), "");
    assert_eq!(
        b.script(&format!("systemctl is-active shop; {names}")),
        "active\nshop-side\nshop-web"
    );
    assert_eq!(b.script("podman exec shop-web cat /d/log"), "from\nfrom");

    let (code, lines) = migrate_items(&a, "pod:shop", "--rollback");
    assert_eq!(code, 0, "{lines:?}");
    assert_eq!(
        a.script(&format!("systemctl is-active shop; {names}")),
        "active\nshop-side\nshop-web"
    );
    assert_eq!(
        a.script("podman exec shop-web cat /d/log"),
        "from\nfrom\nfrom"
    );
    assert_eq!(
        b.script("podman ps -aq; podman volume ls -q; find /etc/containers/systemd -type f"),
        ""
    );
}

/// A unit of the administrator's own, as `podman generate systemd --new` writes them, cannot be masked
/// where it lies.
#[test]
fn a_unit_of_systemd_s_own_is_masked_and_moved() {
    let (a, b) = bare_pair(
        (Suite::Bookworm, Driver::Overlay),
        (Suite::Trixie, Driver::Overlay),
    );
    a.script(
        r#"podman volume create data > /dev/null
        podman create --name web -v data:/d localhost/lab:1 /bin/sh -c 'trap "exit 0" TERM; : worker-of-the-test; while :; do date +%s%N >> /d/log; sleep 0.02 & wait; done' > /dev/null"#,
    );
    // One that starts a container which is there, and would start it again behind a migration's back.
    a.script(
        "cd /etc/systemd/system; podman generate systemd --name web > web.service 2> /dev/null
         systemctl daemon-reload; systemctl start web; podman ps -q | grep -q .",
    );
    let (code, lines) = migrate(&a, "");
    assert_eq!(code, 1, "{lines:?}");
    let said = format!("{lines:?}");
    assert!(
        said.contains("container web is started by the unit web.service"),
        "{said}"
    );
    assert!(runs(&a), "it was left alone");
    a.script("systemctl stop web; rm /etc/systemd/system/web.service");
    a.script(
        "cd /etc/systemd/system; podman generate systemd --new --name web > new 2> /dev/null
         podman rm -f web > /dev/null; mv new web.service; systemctl daemon-reload; systemctl enable -q --now web",
    );
    assert!(runs(&a));
    let (code, lines) = migrate(&a, "");
    assert_eq!(code, 0, "{lines:?}");
    assert!(runs(&b) && !runs(&a));
    assert_eq!(
        b.script("systemctl is-enabled web; systemctl is-active web"),
        "enabled\nactive"
    );
    a.crash();
    a.boot();
    assert!(!runs(&a), "the source came back at its boot");
    join(&a, &b);
    let (code, lines) = migrate(&a, "--rollback --discard-target-writes");
    assert_eq!(code, 0, "{lines:?}");
    assert!(runs(&a) && !runs(&b));
    assert_eq!(
        a.script("systemctl is-enabled web; systemctl is-active web"),
        "enabled\nactive"
    );
    assert_eq!(
        b.script("ls /etc/systemd/system/web.service 2> /dev/null || true"),
        ""
    );
}

/// Podman removes it when it stops: it is paused for the last pass and killed once it is at the target,
/// and a rollback makes it again, with its own files.
#[test]
fn a_container_that_goes_when_it_stops_moves_and_comes_back() {
    let (a, b) = bare_pair(
        (Suite::Trixie, Driver::Overlay),
        (Suite::Bookworm, Driver::Overlay),
    );
    a.script(&SERVICE.replace("--restart=always", "--rm -v /anonymous"));
    a.script("podman exec web sh -c 'echo kept > /anonymous/file'");
    let (code, lines) = migrate(&a, "");
    assert!(matches!(code, 0 | 3), "{lines:?}");
    assert!(runs(&b) && !runs(&a));
    assert_eq!(a.script("podman ps -aq"), "");
    let (old, new) = (log_lines(&a), log_lines(&b));
    assert!(
        new.len() > old.len() && new.starts_with(&old),
        "lines were lost"
    );
    let own = "podman exec web cat /etc/own /anonymous/file; podman inspect -f '{{.HostConfig.AutoRemove}}' web";
    assert_eq!(b.script(own), "own\nkept\ntrue");
    let (code, lines) = migrate(&a, "--rollback --discard-target-writes");
    assert_eq!(code, 0, "{lines:?}");
    assert!(runs(&a) && !runs(&b));
    assert_eq!(a.script(own), "own\nkept\ntrue");
    assert_eq!(b.script("podman ps -aq; podman volume ls -q"), "");
}
