//! Volumes of real Podman hosts, backed up and restored in place by the binary.
//!
//! The repository lies on the host itself. What a volume is, is told by `stat` and `getfattr`, not by
//! podkeep.

use crate::lab::{Driver, Image, Suite};
use crate::shell::Shell;

/// Prefix of every script: a repository without questions, and words for what is asked often.
const WORDS: &str = r#"
export PODKEEP_REPO=/var/tmp/repository PODKEEP_PASSWORD=secret
data() { podman volume inspect "$1" --format '{{.Mountpoint}}'; }
# Everything of a tree that a restore must bring back, one line for each entry.
facts() {
    (cd "$(data "$1")" &&
        find . -printf '%p %y %m %U:%G %s %T@ %l\n' | sed -E 's/^(\S+ d \S+ \S+) [0-9]+/\1/' | sort &&
        find . -type f -exec sha256sum {} + | sort &&
        getfattr -R -h -d -m '^user|^trusted|^system' . 2>/dev/null)
}
# Starts a container of user 1000 that writes nothing into the volume.
start() { podman run --rm --network=none -v "$1":/seed localhost/lab:1 /bin/true; }
"#;

fn lab(suite: Suite, driver: Driver) -> Shell {
    let lab = Shell::up(suite, driver, WORDS);
    lab.host.image(Image::Busybox);
    lab.ok("podkeep init >/dev/null");
    lab
}

/// A volume that a container has used, with the content that `fill` puts into `_data`.
fn used_volume(lab: &Shell, name: &str, fill: &str) {
    lab.ok(&format!(
        "podman volume create {name} >/dev/null; start {name}; cd $(data {name}); rm -rf ./*; {fill}"
    ));
}

/// The root's own attributes come back, and stay when the first container starts, which on 4.3 would
/// re-own a full volume. Nothing of what primed it stays.
fn root_attributes(suite: Suite, driver: Driver) {
    let lab = lab(suite, driver);
    used_volume(
        &lab,
        "pgdata",
        "echo 15 > PG_VERSION; mkdir base; chown -R 999:998 .; chmod 700 .
         setfattr -n user.origin -v here .; touch -d '2020-01-02 03:04:05.123456789' .",
    );
    let before = lab.ok("facts pgdata");
    assert!(
        before.starts_with(". d 700 999:998 1577934245.1234567890"),
        "{before}"
    );
    lab.ok("podkeep backup volume:pgdata; podman volume rm pgdata >/dev/null");
    lab.ok("podkeep restore latest volume:pgdata");
    assert_eq!(lab.ok("facts pgdata"), before);
    lab.ok("start pgdata");
    assert_eq!(lab.ok("facts pgdata"), before, "after the first start");
    assert_eq!(lab.ok("podman ps -aq"), "");
    assert_eq!(
        lab.ok("podman images -a --format '{{.Repository}}'"),
        "localhost/lab"
    );
    assert_eq!(lab.ok("ls -A $(dirname $(data pgdata))"), "_data");
}

#[test]
fn v_01_owner_and_mode_of_the_root_on_4_3() {
    root_attributes(Suite::Bookworm, Driver::Overlay);
}

#[test]
fn v_01_owner_and_mode_of_the_root_on_5_4_btrfs() {
    root_attributes(Suite::Trixie, Driver::Btrfs);
}

#[test]
fn v_01_owner_and_mode_of_the_root_on_5_8() {
    root_attributes(Suite::Sid, Driver::Overlay);
}

/// An empty volume is neither filled from the image nor re-owned by its first container.
fn empty_stays_empty(suite: Suite) {
    let lab = lab(suite, Driver::Overlay);
    used_volume(&lab, "spool", "chown 1000:1001 .; chmod 770 .");
    lab.ok("podkeep backup volume:spool; podman volume rm spool >/dev/null");
    lab.ok("podkeep restore latest volume:spool; start spool");
    let facts = lab.ok("cd $(data spool); stat -c '%u:%g %a' .; ls -A");
    assert_eq!(facts, "1000:1001 770");
    // What the test stands on: without priming, the same volume is re-owned and filled.
    lab.ok("podman volume create plain >/dev/null; chown 1000:1001 $(data plain)");
    let plain = lab.ok("start plain; ls -A $(data plain)");
    assert_eq!(plain, "from-image");
}

#[test]
fn v_02_an_empty_volume_stays_as_it_was_on_4_3() {
    empty_stays_empty(Suite::Bookworm);
}

#[test]
fn v_02_an_empty_volume_stays_as_it_was_on_5_4() {
    empty_stays_empty(Suite::Trixie);
}

#[test]
fn v_02_an_empty_volume_stays_as_it_was_on_5_8() {
    empty_stays_empty(Suite::Sid);
}

#[test]
fn v_04_merge_and_replace_are_explicit() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    used_volume(&lab, "web", "echo one > a; echo two > b");
    let saved = lab.ok("facts web");
    lab.ok("podkeep backup volume:web");
    lab.ok("cd $(data web); rm b; echo newer > a; echo mine > old");
    let changed = lab.ok("facts web");

    lab.says(
        "podkeep restore latest volume:web",
        1,
        &["volume web is not empty: --merge or --replace"],
    );
    lab.ok("podkeep restore latest volume:web --replace --dry-run");
    assert_eq!(lab.ok("facts web"), changed, "nothing was to change");

    lab.ok("podkeep restore latest volume:web --merge");
    assert_eq!(lab.ok("cd $(data web); cat a b old"), "one\ntwo\nmine");
    lab.ok("podkeep restore latest volume:web --replace");
    assert_eq!(lab.ok("facts web"), saved);
    assert_eq!(lab.ok("ls -A $(dirname $(data web))"), "_data");
}

#[test]
fn v_05_nothing_is_saved_in_silence() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    // A host that has nothing else still has its configuration, and says that it is all.
    lab.says(
        "podman rmi -a -f > /dev/null; podkeep backup --all",
        0,
        &["config     containers", "saved: complete"],
    );
    // A mount that is idle is named, and its definition is saved.
    lab.ok(
        "podman volume create -o type=tmpfs -o device=tmpfs -o o=nodev cache >/dev/null
            mkdir /srv/shared; echo in > /srv/shared/file
            podman volume create -o type=none -o o=bind -o device=/srv/shared shared >/dev/null",
    );
    lab.says(
        "podkeep backup volume:cache",
        3,
        &["volume:cache", "not mounted"],
    );
    lab.says(
        "podkeep backup volume:shared",
        3,
        &["volume:shared", "not mounted"],
    );
    // While it is mounted, its files are saved.
    let saved = lab.ok(
        "podman volume mount shared >/dev/null; podkeep backup volume:shared >/dev/null
         podkeep dump latest volume:shared:/file; podman volume unmount shared >/dev/null",
    );
    assert_eq!(saved, "in");
    // It comes back as what it was, and fills what it mounts.
    lab.ok("podman volume rm shared >/dev/null; rm /srv/shared/file; podkeep restore latest volume:shared");
    assert_eq!(
        lab.ok("cat /srv/shared/file; ls -A $(data shared)
                podman volume inspect shared --format '{{.Options.device}} {{.MountCount}}'"),
        "in\n/srv/shared 0"
    );

    // A directory that is gone fails, and a truly empty one is a success.
    lab.ok("podman volume create gone >/dev/null; rm -r $(data gone)");
    let outcome = lab.run("podkeep backup volume:gone");
    assert!([1, 3].contains(&outcome.code), "{outcome:?}");
    assert!(
        String::from_utf8_lossy(&outcome.stderr).contains("_data"),
        "{outcome:?}"
    );
    lab.ok(
        "podman volume create empty >/dev/null; podkeep backup volume:empty
            podman volume rm empty >/dev/null; podkeep restore latest volume:empty
            test -z \"$(ls -A $(data empty))\"",
    );
}

#[test]
fn v_14_labels_and_options_come_back() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    let shown =
        "podman volume inspect app_db --format '{{json .Labels}} {{json .Options}} {{.Driver}}'";
    lab.ok("podman volume create app_db -o o=uid=1000,gid=1001 \
                --label com.docker.compose.project=app --label io.podman.compose.project=app \
                --label com.docker.compose.volume=db --label empty= \
                --label 'odd=a=b
second, line' >/dev/null");
    let before = lab.ok(shown);
    assert!(before.contains(r#""odd":"a=b\nsecond, line""#), "{before}");
    lab.ok(
        "podkeep backup volume:app_db; podman volume rm app_db >/dev/null
            podkeep restore latest volume:app_db",
    );
    assert_eq!(lab.ok(shown), before);
}

#[test]
fn v_19_selinux_labels_are_left_to_the_target() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    used_volume(
        &lab,
        "web",
        "echo x > file
         setfattr -n security.selinux -v system_u:object_r:container_file_t:s0:c1,c2 . file",
    );
    lab.ok("podkeep backup volume:web; podman volume rm web >/dev/null; podkeep restore latest volume:web");
    let labels = "cd $(data web); getfattr -d -m '^security.selinux' . file 2>/dev/null";
    assert_eq!(
        lab.ok(labels),
        "",
        "old private categories would lock containers out"
    );
    // Where Podman labelled the volume, everything in it gets that label's directory.
    lab.ok(
        "setfattr -n security.selinux -v system_u:object_r:container_file_t:s0 $(data web)
            podkeep restore latest volume:web --replace",
    );
    let label = lab.ok("getfattr --only-values -n security.selinux $(data web) 2>/dev/null");
    assert_eq!(label, "system_u:object_r:container_file_t:s0");
}

#[test]
fn v_22_a_volume_in_use_is_refused_and_the_container_named() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    used_volume(&lab, "web", "echo one > a");
    lab.ok("podkeep backup volume:web
            podman run -d --name front --network=none -v web:/seed localhost/lab:1 \
                sleep 1000 >/dev/null
            echo two > $(data web)/a");
    for existing in ["", "--merge", "--replace"] {
        lab.says(
            &format!("podkeep restore latest volume:web {existing}"),
            1,
            &[
                "volume web is in use by container front",
                "podman stop front",
            ],
        );
    }
    assert_eq!(lab.ok("cat $(data web)/a"), "two");
    lab.ok("podman kill front >/dev/null; podman wait front >/dev/null
            podkeep restore latest volume:web --replace");
    assert_eq!(lab.ok("cat $(data web)/a"), "one");
}

/// Those that use it are stopped and started: by Podman, or by the unit that they belong to. One that
/// would be gone is not.
#[test]
fn v_22_a_volume_in_use_is_restored_while_its_containers_are_stopped() {
    let lab = lab(Suite::Sid, Driver::Overlay);
    used_volume(&lab, "web", "echo one > a");
    lab.ok("podkeep backup volume:web
        podman run -d --name front --network=none --stop-timeout 0 -v web:/seed localhost/lab:1 \
            sleep 1000 >/dev/null
        podman run -d --name other --network=none localhost/lab:1 sleep 1000 >/dev/null
        mkdir -p /etc/containers/systemd
        printf '[Container]\\nImage=localhost/lab:1\\nContainerName=made\\nNetwork=none\\nVolume=web:/w\\n\
            Exec=sleep 1000\\nStopTimeout=0\\n' > /etc/containers/systemd/made.container
        systemctl daemon-reload; systemctl start made
        podman run -d --rm --name gone --network=none -v web:/seed localhost/lab:1 sleep 1000 >/dev/null
        echo two > $(data web)/a");
    let started = "podman inspect --format '{{.Name}} {{.State.StartedAt}} {{.State.Running}}'";
    let all = format!("{started} front made other gone");
    let before = lab.ok(&all);
    lab.says(
        "podkeep restore latest volume:web --replace --stop",
        1,
        &[
            "container gone",
            "it is removed when it stops",
            "podman stop gone",
        ],
    );
    assert_eq!(lab.ok(&all), before);
    assert_eq!(lab.ok("cat $(data web)/a"), "two");
    lab.ok("podman kill gone >/dev/null; while podman container exists gone; do sleep 0.1; done");
    let all = format!("{started} other front made");
    let before = lab.ok(&all);
    lab.says(
        "podkeep restore latest volume:web --replace --stop",
        0,
        &[
            "stop container front, and start it again",
            "stop container made",
        ],
    );
    assert_eq!(
        lab.ok("podman exec front cat /seed/a; podman exec made cat /w/a"),
        "one\none"
    );
    lab.ok("systemctl is-active --quiet made; [ -z \"$(ls -A /var/lib/podkeep/freeze | grep -v lock)\" ]");
    let after = lab.ok(&all);
    let pairs: Vec<(&str, &str)> = before.lines().zip(after.lines()).collect();
    assert_eq!(pairs[0].0, pairs[0].1, "it does not use the volume");
    for (before, after) in &pairs[1..] {
        assert!(
            before != after && after.ends_with("true"),
            "{before} -> {after}"
        );
    }
}

#[test]
fn v_23_a_link_in_place_of_the_root_is_never_followed() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    used_volume(&lab, "web", "echo one > a");
    lab.ok("podkeep backup volume:web");
    let victim = "mkdir -p /srv/victim; echo mine > /srv/victim/a";
    lab.ok(&format!(
        "{victim}; d=$(data web); rm -r $d; ln -s /srv/victim $d"
    ));
    let outcome = lab.run("podkeep backup volume:web");
    assert!([1, 3].contains(&outcome.code), "{outcome:?}");
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(said.contains("is no directory"), "{said}");
    for existing in ["", "--merge", "--replace"] {
        lab.says(
            &format!("podkeep restore latest~0 volume:web {existing}"),
            1,
            &["volume web"],
        );
    }
    assert_eq!(lab.ok("ls -A /srv/victim; cat /srv/victim/a"), "a\nmine");
}

/// What primes a volume is removed by the next restore when a run was killed while it was there.
#[test]
fn leftovers_of_priming_go_with_the_next_restore() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    used_volume(&lab, "web", "echo one > a");
    let before = lab.ok("facts web");
    lab.ok("podkeep backup volume:web; podman volume rm web >/dev/null");
    // A podman that is killed together with podkeep once the container is there.
    lab.ok("mkdir /tmp/bin; cat > /tmp/bin/podman <<'END'
#!/bin/bash
/usr/bin/podman \"$@\" || exit
if [ \"$1\" = create ]; then kill -9 $PPID; fi
END
            chmod +x /tmp/bin/podman");
    let killed = lab.run("PATH=/tmp/bin:$PATH podkeep restore latest volume:web");
    assert_eq!(killed.code, 137, "{killed:?}");
    assert_eq!(
        lab.ok("podman ps -a --format '{{.Names}}'"),
        "podkeep-prime"
    );
    lab.ok("podkeep restore latest volume:web; start web");
    assert_eq!(lab.ok("facts web"), before);
    assert_eq!(lab.ok("podman ps -aq"), "");
    assert_eq!(
        lab.ok("podman images -a --format '{{.Repository}}'"),
        "localhost/lab"
    );
}

/// A limit that the host cannot keep is told before anything is made, and left out when it is asked for.
/// The kernel of these hosts has no project quotas: what Podman records of one is put into its database.
#[test]
fn v_17_a_limit_that_the_host_cannot_keep_stops_a_restore_unless_it_may_go() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    lab.ok(
        r#"podman volume create limited > /dev/null; podman volume create plain > /dev/null
        echo a > $(data limited)/a; echo b > $(data plain)/b
        python3 -c "
import sqlite3, json
db = sqlite3.connect('/var/lib/containers/storage/db.sql')
[config] = db.execute('select JSON from VolumeConfig where Name = \"limited\"').fetchone()
config = json.loads(config)
config['size'] = 10 << 20
config['volumeOptions'] = {'SIZE': '10M', 'UID': '1000', 'o': 'size=10M,uid=1000'}
db.execute('update VolumeConfig set JSON = ? where Name = \"limited\"', [json.dumps(config)])
db.commit()"
        podman volume inspect limited --format '{{json .Options}}' | grep size=10M
        podkeep backup volume:limited volume:plain; podman volume rm limited plain > /dev/null"#,
    );
    let restore = "podkeep restore latest volume:limited volume:plain";
    lab.says(restore, 1, &["has a limit (size=10M)", "--ignore-quota"]);
    assert_eq!(lab.ok("podman volume ls -q"), "");
    lab.says(
        &format!("{restore} --ignore-quota"),
        3,
        &["it has no limit (size=10M) here"],
    );
    assert_eq!(
        lab.ok("podman volume inspect limited --format '{{json .Options}}'; cat $(data limited)/a $(data plain)/b"),
        "{\"UID\":\"1000\",\"o\":\"uid=1000\"}\na\nb"
    );
}

/// The size of a tmpfs volume is an option of its mount, where Podman knows that, and a quota before.
#[test]
fn v_13_a_tmpfs_volume_comes_back_with_its_size_where_podman_allows_it() {
    let share = tempfile::Builder::new()
        .prefix("podkeep-volumes-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let up = |suite| {
        let lab = Shell::up_sharing(suite, Driver::Overlay, share.path(), WORDS);
        lab.ok("ln -s /share /var/tmp/repository");
        lab
    };
    let (new, old) = (up(Suite::Trixie), up(Suite::Bookworm));
    let shown = "podman volume inspect small --format '{{json .Options}}'";
    new.ok(
        "podkeep init > /dev/null
        podman volume create -o type=tmpfs -o device=tmpfs -o o=size=8m,uid=1005 small > /dev/null",
    );
    let before = new.ok(shown);
    // Saved while it is mounted; what is restored would go with its unmounting.
    new.ok("podman volume mount small > /dev/null; echo a > $(data small)/a; podkeep backup volume:small
        podman volume unmount small > /dev/null; podman volume rm small > /dev/null");
    new.says("podkeep restore latest volume:small", 0, &["stays mounted"]);
    assert_eq!(
        new.ok(&format!("{shown}; cat $(data small)/a")),
        format!("{before}\na")
    );

    let from = &new.name;
    let restore = format!("podkeep restore latest@{from} volume:small");
    old.says(&restore, 1, &["has a limit (size=8m)", "--ignore-quota"]);
    old.says(
        &format!("{restore} --ignore-quota"),
        3,
        &["it has no limit"],
    );
    assert!(old.ok(shown).contains("\"o\":\"uid=1005\""));
}
