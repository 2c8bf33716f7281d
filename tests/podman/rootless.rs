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
