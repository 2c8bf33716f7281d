//! Images of real Podman hosts: from every driver onto every driver, the same image comes back.
//!
//! The three hosts differ in version and driver, and share one repository. What an image is, is
//! told by Podman, by the files of containers/storage and by `find` in the mounted image, not by
//! podkeep.

use std::collections::BTreeMap;
use std::path::Path;

use crate::lab::{Driver, Suite};
use crate::shell::Shell;

/// Prefix of every script. `facts` runs one of the other file's functions where the Podman of a user sees
/// its images; that of root is called `root`.
pub const WORDS: &str = concat!(
    include_str!("../lab/image-facts.sh"),
    include_str!("../lab/users.sh"),
    r#"
export PODKEEP_REPO=/share/repository PODKEEP_PASSWORD=secret
inside() {
    local user=$1
    shift
    [ "$user" != root ] || { "$@"; return; }
    as "$user" podman unshare bash -euo pipefail -c \
        "$(declare -f images root identity files all_files wipe); $*"
}
"#
);

pub fn lab(suite: Suite, driver: Driver, share: &Path) -> Shell {
    let lab = Shell::up_sharing(suite, driver, share, WORDS);
    lab.bring(&["odd-images.py"]);
    lab
}

/// What a host's images are.
#[derive(PartialEq, Eq)]
pub struct Facts {
    identity: String,
    files: String,
}

impl Facts {
    pub fn of(lab: &Shell) -> Self {
        Self::of_user(lab, "root")
    }

    fn of_user(lab: &Shell, user: &str) -> Self {
        Self {
            identity: lab.ok(&format!("inside {user} identity")),
            files: lab.ok(&format!("inside {user} all_files")),
        }
    }

    /// The first lines that differ.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
        let mut differences = Vec::new();
        for (ours, theirs) in [
            (&self.identity, &other.identity),
            (&self.files, &other.files),
        ] {
            let (ours, theirs) = (lines(ours), lines(theirs));
            differences.extend(
                ours.iter()
                    .filter(|l| !theirs.contains(l))
                    .map(|l| format!("- {l}")),
            );
            differences.extend(
                theirs
                    .iter()
                    .filter(|l| !ours.contains(l))
                    .map(|l| format!("+ {l}")),
            );
        }
        differences.truncate(40);
        differences
    }
}

/// The user whose Podman mounts by FUSE.
const BY_FUSE: &str = "u";

/// Restores all images of a snapshot's host into the Podman of a user of `lab`, which has none, and
/// compares them with what they were.
#[track_caller]
fn comes_back(saved: &Facts, from: &str, lab: &Shell, user: &str) {
    let host = match user {
        "root" => String::new(),
        user => format!("--host local:{user}"),
    };
    lab.ok(&format!("inside {user} wipe"));
    lab.ok(&format!("podkeep restore latest@{from} 'image:*' {host}"));
    let mut differences = saved.differences(&Facts::of_user(lab, user));
    if user == BY_FUSE {
        // fuse-overlayfs hides a file that lies beside a whiteout of its own name, though Podman itself
        // unpacked the layer.
        differences.retain(|line| !line.starts_with("- ./f f ") && !line.ends_with("  ./f"));
    }
    assert!(
        differences.is_empty(),
        "from {from} for {user} on {}:\n{}",
        lab.name,
        differences.join("\n")
    );
    let run =
        "podman run --rm --network=none localhost/odd/whiteouts:1 /bin/cat /d/new > /dev/null";
    match user {
        "root" => lab.ok(run),
        user => lab.ok(&format!("as {user} {run}")),
    };
}

/// I-01, I-02, I-04, I-05, I-10, I-13, I-16, I-17, I-19, I-20: seventeen odd images of each of three hosts,
/// onto each of the three, into the Podmans of users with each rootless driver, and from there back.
#[test]
fn i_01_every_image_comes_back_the_same_from_every_driver_onto_every_driver() {
    let share = tempfile::Builder::new()
        .prefix("podkeep-images-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let labs = [
        lab(Suite::Trixie, Driver::Overlay, share.path()),
        lab(Suite::Bookworm, Driver::Vfs, share.path()),
        lab(Suite::Sid, Driver::Btrfs, share.path()),
    ];
    labs[0].ok("podkeep init > /dev/null");
    let mut saved: BTreeMap<&str, Facts> = BTreeMap::new();
    for lab in &labs {
        let made = lab.ok("python3 /root/odd-images.py");
        assert_eq!(made.lines().count(), 17, "{made}");
        lab.ok("podkeep backup --all");
        saved.insert(&lab.name, Facts::of(lab));
        // Nothing is new: no layer is read, and nothing but snapshots is added.
        let again = lab.ok("podkeep --json backup 'image:*' | tail -n 1");
        assert!(again.contains(r#""chunks_new":0"#), "{again}");
        assert!(again.contains(r#""bytes_read":0"#), "{again}");
    }
    for target in &labs {
        // Podman alone must do.
        target.ok("rm -f $(which skopeo containers-storage)");
        for source in &labs {
            comes_back(&saved[&source.name.as_str()], &source.name, target, "root");
        }
    }

    let users = &labs[0];
    users.ok(
        "users; driver eve vfs; driver u overlay /usr/bin/fuse-overlayfs
              for user in bob eve u; do session $user; done",
    );
    // Native overlay, vfs, overlay by FUSE: from each driver, and on from where they are then.
    for (user, sources, target) in [
        ("bob", &labs[..], &labs[1]),
        ("eve", &labs[..], &labs[0]),
        (BY_FUSE, &labs[1..2], &labs[2]),
    ] {
        for source in sources {
            comes_back(&saved[&source.name.as_str()], &source.name, users, user);
        }
        let all =
            "find /home/$user/.local/share/containers -uid -1000 -not -path '*/diff/*' | head";
        assert_eq!(
            users.ok(&format!("user={user}; {all}")),
            "",
            "of root in the store of {user}"
        );
        users.ok(&format!("podkeep backup 'image:*' --host local:{user}"));
        let source = &sources[sources.len() - 1].name;
        let from = format!("{user}@{}", users.name);
        comes_back(&saved[&source.as_str()], &from, target, "root");
    }
}

/// A number of the summary of a `--json` run.
fn number(summary: &str, field: &str) -> u64 {
    let (_, rest) = summary
        .split_once(&format!("\"{field}\":"))
        .unwrap_or_else(|| panic!("no {field} in {summary}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

fn one(suite: Suite, driver: Driver) -> (tempfile::TempDir, Shell) {
    let share = tempfile::Builder::new()
        .prefix("podkeep-images-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let lab = lab(suite, driver, share.path());
    lab.ok("podkeep init > /dev/null");
    (share, lab)
}

/// One new layer costs one layer; a file that is in a layer and in a volume is stored once.
#[test]
fn only_what_is_new_is_read_and_stored() {
    let (_share, lab) = one(Suite::Trixie, Driver::Overlay);
    lab.host.image(crate::lab::Image::Busybox);
    lab.ok("podkeep backup --all");
    // Of every size that is kept in another way: in the tree, a chunk, many chunks, with zeros.
    lab.ok(
        "mkdir /root/new; cd /root/new; echo tiny > tiny; head -c 5000 /dev/urandom > small
         head -c 3000000 /dev/urandom > large
         (cat small; head -c 1000000 /dev/zero; cat small) > zeros
         printf 'FROM localhost/lab:1\nCOPY . /new\n' > ../Containerfile
         podman build -q --layers -t localhost/lab:2 -f ../Containerfile . > /dev/null",
    );
    let summary = lab.ok("podkeep --json backup --all | tail -n 1");
    let (read, added) = (
        number(&summary, "bytes_read"),
        number(&summary, "bytes_added"),
    );
    assert!((4_000_000..4_300_000).contains(&read), "{summary}");
    assert!((3_000_000..3_200_000).contains(&added), "{summary}");
    // What is known is not even opened: it need not be there.
    lab.ok("for at in $(root)/*/diff $(root)-layers/*.tar-split.gz; do mv $at $at.away; done");
    let summary = lab.ok("podkeep --json backup 'image:*' | tail -n 1");
    lab.ok("for at in $(root)/*/diff.away $(root)-layers/*.away; do mv $at ${at%.away}; done");
    assert_eq!(number(&summary, "bytes_read"), 0, "{summary}");
    lab.ok("podman volume create new > /dev/null
         cp -a /root/new/. $(podman volume inspect new --format '{{.Mountpoint}}')");
    let summary = lab.ok("podkeep --json backup volume:new | tail -n 1");
    assert!(number(&summary, "bytes_added") < 30_000, "{summary}");
}

/// A restore that is killed is finished by the next one, and nothing makeshift stays.
#[test]
fn a_killed_restore_is_done_again() {
    let (_share, lab) = one(Suite::Trixie, Driver::Vfs);
    lab.ok("python3 /root/odd-images.py plain; podkeep backup --all");
    let saved = lab.ok("identity");
    let ids = lab.ok("images");
    for moment in ["0.3", "0.6", "1.0", "1.5", "2.2"] {
        lab.ok("wipe");
        lab.ok(&format!(
            "timeout -s KILL {moment} podkeep restore latest --all > /dev/null 2>&1 || true"
        ));
        lab.ok("podkeep restore latest --all");
        assert_eq!(lab.ok("identity"), saved, "killed after {moment} s");
        assert_eq!(lab.ok("images"), ids);
        assert_eq!(lab.ok("ls -A /var/lib/podkeep/images"), "");
    }
    // One that fails leaves nothing either.
    lab.ok("wipe
         mkdir /root/bin
         printf '#!/bin/bash\n[ $1 != load ] || exit 1\nexec /usr/bin/podman \"$@\"\n' > /root/bin/podman
         chmod +x /root/bin/podman");
    let said = lab.exits("PATH=/root/bin:$PATH podkeep restore latest --all", 1);
    assert!(said.contains("cannot load image"), "{said}");
    let left = "find /var/lib/podkeep -mindepth 1 -not -path '*/locks*' -not -name images -not -name host-id";
    assert_eq!(lab.ok(left), "");
}

#[test]
fn i_23_a_name_of_another_image_moves_only_when_it_is_told_to() {
    let (_share, lab) = one(Suite::Sid, Driver::Overlay);
    lab.ok("python3 /root/odd-images.py plain; podkeep backup image:odd/plain:1");
    let id = |name: &str| {
        lab.ok(&format!(
            "podman image inspect --format '{{{{.Id}}}}' {name}"
        ))
    };
    let (saved, other) = (id("localhost/odd/plain:1"), id("localhost/odd/docker:1"));
    lab.ok(
        "podman rmi localhost/odd/plain:1; podman tag localhost/odd/docker:1 localhost/odd/plain:1",
    );
    let outcome = lab.run("podkeep restore latest image:localhost/odd/plain:1");
    assert_eq!(outcome.code, 3, "{outcome:?}");
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(
        said.contains(&other) && said.contains("--retag moves it"),
        "{said}"
    );
    assert_eq!(id("localhost/odd/plain:1"), other);
    assert_eq!(id(&saved), saved, "restored without the name");
    lab.ok("podkeep restore latest image:localhost/odd/plain:1 --retag");
    assert_eq!(id("localhost/odd/plain:1"), saved);
    assert_eq!(id("localhost/odd/docker:1"), other);
}

#[test]
fn i_22_nothing_is_written_where_configuration_and_database_disagree() {
    let (_share, lab) = one(Suite::Trixie, Driver::Vfs);
    lab.ok("python3 /root/odd-images.py plain; podkeep backup image:odd/plain:1");
    lab.ok("wipe; sed -i 's/driver = .*/driver = \"overlay\"/' /etc/containers/storage.conf");
    let outcome = lab.run("podkeep restore latest image:odd/plain:1");
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(
        said.contains("the driver overlay") && said.contains("database says vfs"),
        "{said}"
    );
    lab.ok("sed -i 's/driver = .*/driver = \"vfs\"/' /etc/containers/storage.conf");
    lab.ok("podkeep restore latest image:odd/plain:1");
}

#[test]
fn i_02_an_image_that_is_known_by_a_digest_alone_gets_no_other_name() {
    let (_share, lab) = one(Suite::Sid, Driver::Vfs);
    let made = lab.ok("python3 /root/odd-images.py");
    let name = made.lines().find(|name| name.contains("@sha256:")).unwrap();
    let identity = "identity | grep -A 3 odd/digest@";
    let saved = lab.ok(identity);
    lab.ok(&format!(
        "podkeep backup image:{name}; wipe; podkeep restore latest image:{name}"
    ));
    assert_eq!(lab.ok(identity), saved);
    let names = lab.ok("podman images -a --digests --format '{{.Repository}}:{{.Tag}}'");
    assert_eq!(names, "localhost/odd/digest:<none>");
    lab.ok(&format!("podman run --rm --network=none {name} /bin/true"));
}

#[test]
fn i_04_all_names_come_back_also_when_the_image_is_picked_by_its_id() {
    let (_share, lab) = one(Suite::Bookworm, Driver::Overlay);
    lab.ok("python3 /root/odd-images.py plain");
    let saved = lab.ok("identity | grep -A 4 odd/tags:1");
    let id = lab.ok("podman image inspect --format '{{.Id}}' localhost/odd/tags:1");
    let short = &id[..12];
    lab.ok(&format!("podkeep backup image:{short}; wipe"));
    lab.ok(&format!("podkeep restore latest image:{short}"));
    assert_eq!(lab.ok("identity"), saved);
    // I-05: nothing is added to names with a port, nor to those of Docker's registry.
    let names = lab.ok("podman image inspect --format '{{join .RepoTags \" \"}}' $(images)");
    let mut names: Vec<&str> = names.split(' ').collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "docker.io/library/z:latest",
            "localhost/deadbeef:latest",
            "localhost/odd/tags:1",
            "localhost/odd/tags:two",
            "localhost:5000/a/b:3",
        ]
    );
    // I-14: each restore gives the same digests.
    lab.ok("wipe; podkeep restore latest image:z");
    assert_eq!(lab.ok("identity"), saved);
}

#[test]
fn i_08_an_image_stays_whole_when_another_one_with_its_layers_goes() {
    let (_share, lab) = one(Suite::Trixie, Driver::Btrfs);
    lab.ok("python3 /root/odd-images.py plain");
    let whole = lab.ok("files localhost/odd/plain:1");
    lab.ok("podkeep backup image:odd/plain:1 image:odd/docker:1; wipe");
    lab.ok("podkeep restore latest --all; podman rmi localhost/odd/docker:1 > /dev/null");
    assert_eq!(lab.ok("files localhost/odd/plain:1"), whole);
    lab.ok("podman run --rm --network=none localhost/odd/plain:1 /bin/cat /srv/other > /dev/null");
}

#[test]
fn i_17_whiteouts_and_opaque_folders_hide_what_they_did() {
    let (share, overlay) = one(Suite::Trixie, Driver::Overlay);
    let vfs = lab(Suite::Bookworm, Driver::Vfs, share.path());
    overlay.ok("python3 /root/odd-images.py; podkeep backup image:odd/whiteouts:1");
    vfs.ok("podkeep restore latest image:odd/whiteouts:1");
    for lab in [&overlay, &vfs] {
        let seen = lab.ok(
            "podman run --rm --network=none localhost/odd/whiteouts:1 /bin/find /d /e /f | sort",
        );
        assert_eq!(seen, "/d\n/d/new\n/e\n/e/two\n/f", "on {}", lab.name);
    }
}
