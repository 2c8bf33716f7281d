//! Rootless Podmans on real hosts: a user's own, and another user's for root.
//!
//! What a volume is, is told from inside each Podman's user namespace, by the kernel and not by
//! podkeep: there the same content has the same owners under every map, in ACLs and capabilities, too.

use crate::lab::{Driver, Image, Suite};
use crate::shell::Shell;

const WORDS: &str = concat!(
    include_str!("../lab/users.sh"),
    r#"
export PODKEEP_REPO=/var/tmp/repository PODKEEP_PASSWORD=secret
data() { echo "/home/$1/.local/share/containers/storage/volumes/$2/_data"; }
# Everything that a restore must bring back, as the user namespace sees it.
FACTS='cd "$1"; find . -printf "%p %y %m %U:%G %T@ %n %l\n" | sort
    find . -type f ! -perm -4000 -exec sha256sum {} + | sort
    getfattr -R -h -d -e hex -m "^user|^system|^security.capability" . 2>/dev/null'
facts() {
    case $1 in
        root) bash -c "$FACTS" facts "$(podman volume inspect "$2" --format '{{.Mountpoint}}')" ;;
        *) as "$1" podman unshare bash -c "$FACTS" facts "$(data "$1" "$2")" ;;
    esac
}
# Owners, an ACL and a default ACL for user 999 and group 5, and a capability of the namespace's root.
FILL='cd "$1"; rm -rf ./*; umask 022; mkdir -p sub/closed
    acl() { printf "0x02000000 01000700ffffffff 02000600%s 04000500ffffffff 08000400%s 10000700ffffffff 20000000ffffffff" "$1" "$2" | tr -d " "; }
    echo key > sub/closed/key; chmod 600 sub/closed/key; echo x > own; ln own sub/second; ln -s own link
    mkfifo pipe; echo run > run; cp run cap
    setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 cap
    chown 999:998 sub/closed/key sub/closed; chown -h 33:34 link pipe; chown 5000:5001 run; chmod 6755 run
    setfattr -n system.posix_acl_access -v "$(acl e7030000 05000000)" own
    setfattr -n system.posix_acl_default -v "$(acl e7030000 88130000)" sub
    setfattr -n user.origin -v here own; chmod 500 sub/closed; chown 999:998 .; chmod 750 .
    touch -h -d "2020-01-02 03:04:05.123456789" link; touch -d "2021-01-02 03:04:05.987654321" own sub .'
fill() {
    as "$1" podman volume create "$2" > /dev/null
    as "$1" podman unshare bash -euc "$FILL" fill "$(data "$1" "$2")"
}
"#
);

fn lab(suite: Suite, driver: Driver) -> Shell {
    let lab = Shell::up(suite, driver, WORDS);
    lab.ok("users; podkeep init > /dev/null");
    lab
}

/// User, rootful Podman, user with another range, user with two ranges, and back: the same content on
/// each leg, ids in ACLs and capabilities included. On the disk each of them has ids of its own.
#[test]
fn v_08_owners_find_their_place_under_every_map() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    let name = &lab.name;
    lab.ok("fill u data");
    let before = lab.ok("facts u data");
    for part in [
        "./sub/closed/key f 600 999:998",
        "./run f 6755 5000:5001",
        "./own f 770 0:0",
        // Group 5 in the ACL of own, user 999 in both.
        "e7030000",
    ] {
        assert!(before.contains(part), "{part}: {before}");
    }
    lab.ok("podkeep backup --host local:u volume:data");
    lab.says("podkeep snapshots", 0, &[&format!("u@{name}")]);
    let listed = lab.ok(&format!("podkeep ls --json latest@u@{name} volume:data"));
    assert!(listed.contains(r#""uid":999,"gid":998"#), "{listed}");

    lab.ok(&format!("podkeep restore latest@u@{name} volume:data"));
    assert_eq!(lab.ok("facts root data"), before, "rootful");
    lab.ok("podkeep backup volume:data");

    // Neither has a session: podkeep starts what it needs, and leaves nothing behind.
    for (from, user) in [("", "bob"), ("bob@", "eve")] {
        lab.ok(&format!(
            "podkeep restore latest@{from}{name} volume:data --host local:{user}"
        ));
        assert_eq!(
            lab.ok(&format!(
                "not systemctl -q is-active user@$(id -u {user}); ls /run/user"
            )),
            "1000"
        );
        lab.ok(&format!("podkeep backup --host local:{user} volume:data"));
        lab.ok(&format!("session {user}"));
        assert_eq!(lab.ok(&format!("facts {user} data")), before, "{user}");
        lab.ok(&format!(
            "id=$(id -u {user}); systemctl stop user@$id user-runtime-dir@$id"
        ));
    }
    assert_eq!(
        lab.ok("stat -c %u:%g $(data bob data) $(data eve data)"),
        "300998:300997\n400998:400997"
    );
    lab.ok(&format!(
        "podkeep restore latest@eve@{name} volume:data --as of-eve"
    ));
    assert_eq!(
        lab.ok("facts root of-eve"),
        before,
        "from two ranges to root"
    );
    lab.ok("podkeep backup volume:of-eve");
    lab.ok(&format!(
        "podkeep restore latest@{name} volume:of-eve --host local:bob"
    ));
    lab.ok("session bob");
    assert_eq!(lab.ok("facts bob of-eve"), before, "and on to one");
    let back = format!("podkeep restore latest@eve@{name} volume:data --as back --host local:u");
    lab.ok(&back);
    assert_eq!(lab.ok("facts u back"), before, "back");
    let cap = "getfattr -d -e hex -m security.capability --only-values --absolute-names";
    assert_eq!(
        lab.ok(&format!(
            "{cap} $(data u back)/cap | od -An -tx1 -w24 | tr -d ' '"
        )),
        "0100000300040000000000000000000000000000e8030000"
    );
}

/// A range ends, and ids beyond it are found before anything is made.
#[test]
fn v_07_ids_without_a_place_stop_a_restore_before_it_writes() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    let name = &lab.name;
    lab.ok(
        "podman volume create wide > /dev/null; cd $(podman volume inspect wide --format '{{.Mountpoint}}')
         mkdir -p a/b; echo x > a/b/far; chown 70000:4294967294 a/b/far; echo y > near; chown 999:999 near",
    );
    lab.ok("podkeep backup volume:wide");
    lab.says(
        "podkeep restore latest volume:wide --host local:bob",
        1,
        &[
            "user 70000 has no place",
            "group 4294967294 has no place",
            "volume:wide:/a/b/far",
            "--squash-unmapped",
        ],
    );
    lab.ok("session bob; ! as bob podman volume exists wide");
    // A migration looks before it sends anything.
    lab.says(
        "podkeep migrate volume:wide --to local:bob --dry-run",
        1,
        &[
            "user 70000 has no place",
            "group 4294967294 has no place",
            "volume:wide:/a/b/far",
            "--squash-unmapped",
        ],
    );
    lab.says(
        "podkeep migrate volume:wide --to local:bob --dry-run --squash-unmapped=7:8",
        0,
        &[],
    );
    lab.ok("session bob; ! as bob podman volume exists wide");
    lab.says(
        "podkeep restore latest volume:wide --host local:bob --squash-unmapped=70000",
        2,
        &["user 70000 has no place"],
    );
    lab.says(
        "podkeep restore latest volume:wide --host local:bob --squash-unmapped=7:8",
        3,
        &["user 70000 has no place", "belong to 7:8"],
    );
    assert_eq!(
        lab.ok("cd $(data bob wide); stat -c '%n %u:%g' a/b/far near"),
        "a/b/far 300006:300007\nnear 300998:300998"
    );
    // Owners that the user's own namespace does not know: kept as they are, told of, and back in place.
    lab.ok("touch $(data bob wide)/of-root");
    lab.says(
        "podkeep backup --host local:bob volume:wide",
        0,
        &["user 0 of the host"],
    );
    lab.ok(&format!(
        "podkeep restore latest@bob@{name} volume:wide --host local:bob --as again"
    ));
    assert_eq!(lab.ok("stat -c %u:%g $(data bob again)/of-root"), "0:0");
    lab.says(
        &format!("podkeep restore latest@bob@{name} volume:wide --host local:u"),
        1,
        &[
            "user 0 of the snapshot's host itself has no place",
            "/of-root",
        ],
    );
}

/// A user's own Podman, from the user's shell: files of subordinate ids are all there, and what podkeep
/// makes is the user's.
#[test]
fn v_11_a_user_s_own_backup_holds_the_files_of_subordinate_ids() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    lab.ok("fill u data; as u podkeep init > /dev/null");
    let before = lab.ok("facts u data");
    lab.ok("! as u cat $(data u data)/sub/closed/key 2> /dev/null");
    // Neither XDG_RUNTIME_DIR nor anything else but a home: that of a timer.
    lab.ok("as u env -u XDG_RUNTIME_DIR -u DBUS_SESSION_BUS_ADDRESS podkeep backup volume:data");
    assert_eq!(
        lab.ok("as u podkeep dump latest volume:data:/sub/closed/key"),
        "key"
    );
    assert_eq!(
        lab.ok("find /home/u/.local/share/podkeep /home/u/.local/state /home/u/.cache ! -uid 1000"),
        ""
    );
    lab.ok("as u podman volume rm data > /dev/null; as u podkeep restore latest volume:data");
    assert_eq!(lab.ok("facts u data"), before);
    // Secrets, exit codes and the working folder are the caller's.
    lab.ok("as u bash -c 'echo secret | env -u PODKEEP_PASSWORD podkeep backup volume:data --password-file /dev/stdin'");
    lab.exits(
        "as u env PODKEEP_PASSWORD=wrong podkeep backup volume:data",
        12,
    );
    lab.ok(
        "mkdir -m 777 /srv/x; as u env -C /srv/x podkeep restore latest volume:data --to-dir out",
    );
    assert_eq!(lab.ok("stat -c %u:%g /srv/x/out"), "100998:100997");
    // An owner without an id inside is never kept as nobody's: the kernel shows it as 65534.
    lab.ok("podman volume ls > /dev/null; as u podman volume create odd > /dev/null; touch $(data u odd)/of-root");
    lab.says(
        "as u podkeep backup volume:odd",
        3,
        &["of-root", "no id in this user namespace"],
    );
    let odd = lab.ok("as u podkeep ls --json latest volume:odd");
    assert!(odd.contains("of-root") && !odd.contains("65534"), "{odd}");
    // What root reads for the user is the same tree.
    lab.ok("podkeep backup --host local:u volume:data");
    let root = |who: &str| {
        lab.ok(&format!(
            "{who} podkeep ls --json latest volume:data --host local:u"
        ))
    };
    assert_eq!(
        root("")
            .lines()
            .filter(|line| line.contains("\"entry\""))
            .collect::<Vec<_>>(),
        root("as u")
            .lines()
            .filter(|line| line.contains("\"entry\""))
            .collect::<Vec<_>>()
    );
    lab.says(
        "as u podkeep backup --host local:bob --all",
        2,
        &["only root"],
    );
    lab.says(
        "podkeep backup --host local:nobody-here --all",
        2,
        &["no user nobody-here"],
    );
    // Root's own backup says what it leaves out.
    lab.says(
        "podman volume create of-root > /dev/null; podkeep backup --all",
        0,
        &["rootless Podman of u (--host local:u)"],
    );
}

/// Bob has never logged in. Root calls from a folder that bob may not enter.
#[test]
fn t_13_a_user_without_a_session_is_reached_from_a_closed_folder() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    lab.ok("session bob; fill bob data; systemctl stop user@1001 user-runtime-dir@1001; stat -c %a /root | grep -q 700");
    lab.ok("cd /root; podkeep backup --host local:bob volume:data");
    lab.ok("cd /root; podkeep restore latest volume:data --as again --host local:bob");
    lab.ok("not systemctl -q is-active user@1001; not test -e /var/lib/systemd/linger/bob");
    let saved = lab.ok("session bob; facts bob data");
    assert_eq!(lab.ok("facts bob again"), saved);
    assert!(saved.contains("./sub/closed/key f 600 999:998"), "{saved}");
    // A container of bob's gets the volume as it was: nothing is seeded, nothing re-owned.
    lab.host.image(Image::Busybox);
    lab.ok("podman save localhost/lab:1 | as bob podman load -q
         as bob podman run --rm --network=none -v again:/seed localhost/lab:1 /bin/true");
    assert_eq!(lab.ok("facts bob again"), saved, "after the first start");
    // Root writes only where bob could: a link of bob's in the volume's place leads nowhere else.
    lab.ok("mkdir -p /srv/of-root/_data; echo mine > /srv/of-root/_data/file; cd $(data bob again)/../..
            mv again kept; ln -s /srv/of-root again");
    lab.says(
        "podkeep restore latest volume:data --as again --replace --host local:bob",
        1,
        &["belongs to user 0"],
    );
    assert_eq!(
        lab.ok("cat /srv/of-root/_data/file; ls -A /srv/of-root"),
        "mine\n_data"
    );
}

/// A store whose driver is not what the configuration asks for is written by nobody.
#[test]
fn i_22_a_rootless_store_of_another_driver_stops_a_restore() {
    let lab = lab(Suite::Bookworm, Driver::Overlay);
    lab.ok("fill u data; podkeep backup --host local:u volume:data");
    lab.ok("session bob; as bob podman info > /dev/null; driver bob vfs");
    lab.says(
        &format!(
            "podkeep restore latest@u@{} volume:data --host local:bob",
            lab.name
        ),
        1,
        &["the driver vfs", "overlay"],
    );
    lab.ok("! as bob podman volume exists data 2> /dev/null");
    lab.ok("! ls -d /home/bob/.local/share/containers/storage/vfs* 2> /dev/null");
    // Podman 4.3, the user without a session.
    lab.ok("rm /home/bob/.config/containers/storage.conf; systemctl stop user@1001 user-runtime-dir@1001");
    lab.ok(&format!(
        "podkeep restore latest@u@{} volume:data --host local:bob",
        lab.name
    ));
    assert_eq!(
        lab.ok("session bob; facts bob data"),
        lab.ok("facts u data")
    );
}

/// Root reads a user's store without a podman of its own, and writes it in the user's name: what comes
/// back is the same image on the rootless drivers, and everything in the store is the user's.
#[test]
fn images_of_a_user_s_store_keep_their_identity() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    let name = &lab.name;
    lab.host.image(Image::Busybox);
    lab.ok("driver eve vfs; driver u overlay /usr/bin/fuse-overlayfs");
    let shown = |run: &str| {
        lab.ok(&format!(
            "{run} podman image inspect localhost/lab:1 \
             --format '{{{{.Id}}}} {{{{.Digest}}}} {{{{.RepoTags}}}} {{{{.RootFS.Layers}}}}' 2> /dev/null"
        ))
    };
    let original = shown("");
    lab.ok("podkeep backup image:localhost/lab:1");
    for (from, user) in [("", "bob"), ("bob@", "eve"), ("eve@", "u")] {
        lab.ok(&format!(
            "podkeep restore latest@{from}{name} image:localhost/lab:1 --host local:{user}"
        ));
        lab.ok(&format!("session {user}"));
        assert_eq!(shown(&format!("as {user}")), original, "{user}");
        lab.ok(&format!(
            "as {user} podman run --rm --network=none localhost/lab:1 /bin/true"
        ));
        let strange = lab.ok(&format!(
            "find /home/{user}/.local/share/containers -uid -1000 -not -path '*/diff/*' | head"
        ));
        assert_eq!(strange, "", "of root in the store of {user}");
        lab.ok(&format!(
            "podkeep backup --host local:{user} image:localhost/lab:1"
        ));
        lab.ok(&format!("podkeep doctor --host local:{user}"));
    }
    // The user alone, too.
    lab.ok("as u podkeep init > /dev/null; as u podkeep backup image:localhost/lab:1");
    lab.ok("as u podman rmi -f localhost/lab:1 > /dev/null; as u podkeep restore latest image:localhost/lab:1");
    assert_eq!(shown("as u"), original);
    lab.ok("as u podman run --rm --network=none localhost/lab:1 /bin/true");
}

/// A service in a network, with a secret, a volume and files of its own: some added, some removed, and a
/// directory that hides the one of its image. Runs as a user, in whose Podman the image is.
const SERVICE: &str = r#"
image() { podman save localhost/lab:1 | as "$1" podman load -q > /dev/null; }
service() {
    as "$1" podman volume create --label app=shop data > /dev/null
    as "$1" podman network create --subnet 10.77.0.0/24 front > /dev/null
    printf 'pass\nword' | as "$1" podman secret create pw - > /dev/null
    as "$1" podman run -d --name web --network front --secret pw -p 8080:80 -v data:/d localhost/lab:1 \
        /bin/sh -c 'trap "exit 0" TERM; : worker-of-the-test; while :; do date +%s%N >> /d/log; sleep 0.02 & wait; done' > /dev/null
    as "$1" podman exec web sh -c 'mkdir /d/sub; echo a > /d/sub/a; chown 33:44 /d/sub/a; chmod 600 /d/sub/a
        echo own > /etc/own; chown 5:6 /etc/own; rm /etc/group; rm -r /seed; mkdir /seed; echo new > /seed/new'
}
# As it is seen from inside, whatever Podman runs it.
inside() {
    as "$1" podman exec web sh -c 'stat -c "%n %u:%g %a" /d/sub/a /etc/own /seed/new; ls /seed
        cat /d/sub/a /etc/own /run/secrets/pw; ls /etc/group 2>&1 || true'
    as "$1" podman inspect -f '{{.HostConfig.NetworkMode}}' web; as "$1" podman volume inspect -f '{{.Labels}}' data
}
runs() { as "$1" podman ps --format '{{.Names}}'; }
# The source's side of a migration stays until somebody removes it.
gone() {
    as "$1" podman rm -f --volumes web > /dev/null 2>&1 || true
    as "$1" podman volume rm -f data > /dev/null; as "$1" podman network rm -f front > /dev/null 2>&1
    as "$1" podman secret rm pw > /dev/null
}
"#;

/// A running service goes from a user to root, to a user with another range and another storage driver,
/// to one with two ranges, and back: on each leg it runs, and is the same from inside.
#[test]
fn a_service_moves_between_users_and_root_on_one_host() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    lab.host.image(crate::lab::Image::Busybox);
    let words = |script: &str| format!("{SERVICE}\n{script}");
    let ok = |script: &str| lab.ok(&words(script));
    ok("driver bob vfs; image u; service u");
    let before = ok("inside u");
    for part in [
        "/d/sub/a 33:44 600",
        "/etc/own 5:6 644",
        "new",
        "pass",
        "No such file",
    ] {
        assert!(before.contains(part), "{part}: {before}");
    }
    let legs = [
        ("local:u", "local", "u", "root"),
        ("local", "local:bob", "root", "bob"),
        ("local:bob", "local:eve", "bob", "eve"),
        ("local:eve", "local:u", "eve", "u"),
    ];
    for (from, to, source, target) in legs {
        let command = format!("podkeep migrate container:web --from {from} --to {to}");
        if !["u", "root"].contains(&target) {
            // Without linger it would end with podkeep.
            lab.says(&words(&command), 1, &["does not linger", "--enable-linger"]);
            assert_eq!(ok(&format!("runs {source}")), "web");
            lab.says(
                &words(&format!("{command} --enable-linger")),
                0,
                &["lingers from now on", "out of service"],
            );
            lab.ok(&format!("test -e /var/lib/systemd/linger/{target}"));
        } else {
            ok(&command);
        }
        assert_eq!(
            ok(&format!("runs {source}; runs {target}")),
            "web",
            "{from} {to}"
        );
        assert_eq!(ok(&format!("inside {target}")), before, "{from} {to}");
        ok(&format!("{command} --finish; gone {source}"));
    }
    assert_eq!(ok("stat -c %u:%g $(data u data)/sub/a"), "100032:100043");
}

/// A rollback between users on one host: what was made at the target goes, the source runs as before.
#[test]
fn a_service_comes_back_to_the_user_that_it_was_moved_from() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    lab.host.image(crate::lab::Image::Busybox);
    let words = |script: &str| format!("{SERVICE}\n{script}");
    let ok = |script: &str| lab.ok(&words(script));
    ok("image u; service u");
    let before = ok("inside u");
    let command = "podkeep migrate container:web --from local:u --to local:bob --enable-linger";
    ok(command);
    assert_eq!(ok("runs u; runs bob"), "web");
    assert_eq!(ok("inside bob"), before);
    let nothing = "runs bob; as bob podman volume ls -q; as bob podman secret ls -q";
    ok(&format!("{command} --rollback --discard-target-writes"));
    assert_eq!(ok(nothing), "");
    assert_eq!((ok("runs u"), ok("inside u")), ("web".into(), before));
    // What is written at the target comes back under the source's map.
    ok(command);
    ok("as bob podman exec web sh -c 'echo there > /d/sub/a; chown 7:8 /d/sub/a; chmod 640 /d/sub/a
            echo more > /etc/own; chown 9:9 /etc/own'");
    let there = ok("inside bob");
    for part in ["/d/sub/a 7:8 640", "/etc/own 9:9"] {
        assert!(there.contains(part), "{part}: {there}");
    }
    ok(&format!("{command} --rollback"));
    assert_eq!(ok(nothing), "");
    assert_eq!((ok("runs u"), ok("inside u")), ("web".into(), there));
    assert_eq!(ok("stat -c %u:%g $(data u data)/sub/a"), "100006:100007");
}

/// Definitions of one Podman are restored by a user in the user's own one, and by root for a user.
#[test]
fn v_10_definitions_are_restored_in_the_podman_of_a_user() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    lab.host.image(crate::lab::Image::Busybox);
    let name = &lab.name;
    let words = |script: &str| format!("{SERVICE}\n{script}");
    let ok = |script: &str| lab.ok(&words(script));
    ok("image u; service u; podkeep backup --host local:u container:web");
    let before = ok("inside u");
    ok("as u podman stop -t1 web > /dev/null");
    let restore = format!("podkeep restore latest@u@{name} container:web --start --host local:bob");
    lab.says(&words(&restore), 1, &["does not linger", "--enable-linger"]);
    assert_eq!(
        ok(
            "session bob; as bob podman ps -aq; as bob podman network ls -q; systemctl stop user@1001"
        ),
        "podman"
    );
    ok(&format!("{restore} --enable-linger"));
    assert_eq!(
        (ok("runs bob"), ok("inside bob")),
        ("web".into(), before.clone())
    );
    assert_eq!(
        ok("find /home/bob/.local/share/containers -uid -1000 | head"),
        "",
        "of root in bob's store"
    );
    // The user's own, from the user's shell.
    ok("as bob podman stop -t1 web > /dev/null; as u podkeep init > /dev/null; as u podman start web > /dev/null
        as u podkeep backup container:web; gone u; as u podkeep restore latest container:web --start");
    assert_eq!((ok("runs u"), ok("inside u")), ("web".into(), before));
}

/// What a container with a map of its own sees stays the same: where the map can be had by naming the id
/// that is kept or by another range, that is done, and where it cannot, the flag is named.
#[test]
fn v_10_containers_see_the_same_owners_through_maps_of_their_own() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    lab.host.image(crate::lab::Image::Busybox);
    let words = |script: &str| {
        format!(
            r#"{SERVICE}
run() {{
    as "$1" podman volume create "$3" > /dev/null
    as "$1" podman run -d --name "$2" --network none -v "$3:/d$4" "${{@:5}}" localhost/lab:1 /bin/sleep infinity > /dev/null
}}
view() {{ as "$1" podman exec "$2" sh -c 'id -u; echo x >> /d/file; stat -c "%u:%g %a" /d/file /d/other /own'; }}
drop() {{ as "$1" podman rm -f -t0 "$2" > /dev/null; as "$1" podman volume rm -f "$2" > /dev/null; }}
{script}"#
        )
    };
    let ok = |script: &str| lab.ok(&words(script));
    ok(
        "image u; grep -q ^containers: /etc/subuid || echo containers:2147483647:2147483648 | tee -a /etc/subuid >> /etc/subgid",
    );
    let moved = |container: &str, from: &str, to: &str, flags: &str| {
        let command = format!(
            "podkeep migrate container:{container} --from {from} --to {to} --enable-linger {flags}"
        );
        ok(&format!("{command} 2>&1"));
        ok(&format!("{command} --finish"));
    };
    let refused = |container: &str, from: &str, to: &str| {
        let command = format!(
            "podkeep migrate container:{container} --from {from} --to {to} --enable-linger"
        );
        lab.says(&words(&command), 1, &["--userns-map"]);
    };

    // The id of the user is kept: rootless legs, and root with a word.
    ok("run u kept kept '' --userns=keep-id");
    ok("as u podman exec kept sh -c 'echo a > /d/file; chmod 640 /d/file'
        as u podman exec -u 0 kept sh -c 'echo b > /d/other; chown 33:44 /d/other; echo > /own; chown 7:1000 /own'");
    let before = ok("view u kept");
    assert!(
        before.starts_with("1000\n1000:1000 640\n33:44 "),
        "{before}"
    );
    moved("kept", "local:u", "local:bob", "");
    assert_eq!(ok("view bob kept"), before);
    ok("drop u kept");
    refused("kept", "local:bob", "local");
    assert_eq!(ok("view bob kept"), before, "it was refused and runs");
    moved("kept", "local:bob", "local", "--userns-map=host");
    assert_eq!(ok("view root kept"), before);
    assert_eq!(
        ok("stat -c %u:%g $(podman volume inspect -f '{{.Mountpoint}}' kept)/file"),
        "1000:1000"
    );
    ok("drop bob kept; drop root kept");

    // A range that Podman chose: on all legs.
    ok("run root auto auto '' --userns=auto:size=2000");
    ok(
        "podman exec auto sh -c 'echo a > /d/file; echo b > /d/other; chown 33:44 /d/other; echo > /own; chown 7:8 /own'",
    );
    let before = ok("view root auto");
    assert!(before.contains("33:44"), "{before}");
    for (from, to, source, target) in [
        ("local", "local:bob", "root", "bob"),
        ("local:bob", "local:u", "bob", "u"),
        ("local:u", "local", "u", "root"),
    ] {
        moved("auto", from, to, "");
        assert_eq!(ok(&format!("view {target} auto")), before, "{from} {to}");
        ok(&format!("drop {source} auto"));
    }
    ok("drop root auto");

    // A mount with a map of its own: for root only.
    ok("run root mapped mapped ':idmap' --userns=auto");
    ok(
        "podman exec mapped sh -c 'echo a > /d/file; echo b > /d/other; chown 33:44 /d/other; echo > /own'",
    );
    let before = ok("view root mapped");
    refused("mapped", "local", "local:bob");
    moved("mapped", "local", "local:bob", "--userns-map=host");
    assert_eq!(ok("view bob mapped"), before);

    // Two that see one volume differently: as Podman's namespace has it, and it is said.
    ok("run u one shared '' --userns=keep-id; as u podman run -d --name two --network none -v shared:/d localhost/lab:1 /bin/sleep infinity > /dev/null
        as u podman exec two sh -c 'echo a > /d/file; chown 33:44 /d/file'");
    let command = "podkeep migrate container:one --from local:u --to local --with-dependents --userns-map=host";
    lab.says(&words(command), 3, &["different maps of ids"]);
    assert_eq!(ok("podman exec two stat -c %u:%g /d/file"), "33:44");
}

/// A pod of a user's, with a port: it is free once the pod is stopped, although both lie on one host.
#[test]
fn a_pod_of_a_user_moves_on_one_host_with_its_port() {
    let lab = lab(Suite::Trixie, Driver::Overlay);
    lab.host.image(crate::lab::Image::Busybox);
    let words = |script: &str| format!("{SERVICE}\n{script}");
    let ok = |script: &str| lab.ok(&words(script));
    ok("image u; as u podman pod create --name shop -p 8080:80 > /dev/null
        as u podman run -d --pod shop --name web -v data:/d localhost/lab:1 /bin/sh -c 'mkdir /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www' > /dev/null");
    let get = r#"exec 3<> /dev/tcp/127.0.0.1/8080; printf 'GET /index.html HTTP/1.0\r\n\r\n' >&3; timeout 5 cat <&3 | tail -1"#;
    assert_eq!(ok(get), "hello");
    for (from, to, source, target) in [
        ("local:u", "local:bob", "u", "bob"),
        ("local:bob", "local", "bob", "root"),
    ] {
        let command = format!("podkeep migrate pod:shop --from {from} --to {to} --enable-linger");
        ok(&command);
        assert_eq!(ok(&format!("as {source} podman ps -q")), "", "{from}");
        assert_eq!(ok(get), "hello", "{from} {to}");
        assert_eq!(
            ok(&format!(
                "as {target} podman pod ps --format '{{{{.Name}}}}'"
            )),
            "shop"
        );
    }
    ok("podkeep migrate pod:shop --from local:bob --to local --rollback --discard-target-writes");
    assert_eq!(ok("podman pod ps -q"), "");
    assert_eq!(ok(get), "hello", "it came back");
}
