//! Images of real Podman hosts: from every driver onto every driver, the same image comes back.
//!
//! The three hosts differ in version and driver, and share one repository. What an image is, is
//! told by Podman, by the files of containers/storage and by `find` in the mounted image, not by
//! podkeep.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::lab::{Driver, Suite};
use crate::shell::Shell;

/// Prefix of every script. `inside` runs one of the functions where the Podman of a user sees its images;
/// that of root is called `root`.
pub const WORDS: &str = concat!(
    "listing() { bash -s -- \"$1\" <<'LISTING'\n",
    include_str!("../lab/listing.sh"),
    "LISTING\n}\n",
    include_str!("../lab/image-facts.sh"),
    include_str!("../lab/users.sh"),
    r#"
export PODKEEP_REPO=/share/repository PODKEEP_PASSWORD=secret
inside() {
    local user=$1
    shift
    [ "$user" != root ] || { "$@"; return; }
    as "$user" podman unshare bash -euo pipefail -c "$(declare -f); $*"
}
"#
);

pub fn lab(suite: Suite, driver: Driver, share: &Path) -> Shell {
    let lab = Shell::up_sharing(suite, driver, share, WORDS);
    lab.bring(&["odd-images.py"]);
    lab
}

/// What a host's images are: lines that begin with an image's ID.
#[derive(Clone, PartialEq, Eq)]
pub struct Facts(BTreeSet<String>);

impl Facts {
    pub fn of(lab: &Shell) -> Self {
        Self::of_user(lab, "root")
    }

    fn of_user(lab: &Shell, user: &str) -> Self {
        let facts = lab.ok(&format!("inside {user} identity; inside {user} all_files"));
        Self(facts.lines().map(str::to_owned).collect())
    }

    fn has(&self, part: &str) -> bool {
        self.0.iter().any(|line| line.contains(part))
    }

    /// The ID of the image with a name, if there is one.
    fn id(&self, name: &str) -> Option<&str> {
        let in_record = format!("\"names\":[\"{name}\"");
        let line = self.0.iter().find(|line| line.contains(&in_record))?;
        line.split(' ').next()
    }

    fn without(mut self, id: &str) -> Self {
        self.0.retain(|line| !line.starts_with(id));
        self
    }

    /// The first lines that differ.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let lost = self.0.difference(&other.0).map(|line| format!("- {line}"));
        let new = other.0.difference(&self.0).map(|line| format!("+ {line}"));
        lost.chain(new).take(40).collect()
    }
}

/// The user whose Podman mounts by FUSE.
const BY_FUSE: &str = "u";

/// Restores all images of a snapshot's host into the Podman of a user of `lab`, which has none, and
/// compares them with what they were. Returns what is there now.
#[track_caller]
fn comes_back(saved: &Facts, from: &str, lab: &Shell, user: &str) -> Facts {
    let host = match user {
        "root" => String::new(),
        user => format!("--host local:{user}"),
    };
    lab.ok(&format!("inside {user} wipe"));
    let restore = format!("podkeep restore latest@{from} 'image:*' {host}");
    let is_overlay = lab.ok(&format!("inside {user} root")).ends_with("/overlay");
    let saved = match saved.id("localhost/odd/across:1") {
        // What Podman itself cannot unpack is told of, and all else is there.
        Some(across) if is_overlay => {
            lab.says(&restore, 3, &["odd/across:1", "cannot load image", across]);
            saved.clone().without(across)
        }
        _ => {
            lab.ok(&restore);
            saved.clone()
        }
    };
    let mut differences = saved.differences(&Facts::of_user(lab, user));
    if user == BY_FUSE {
        // fuse-overlayfs hides a file that lies beside a whiteout of its own name, though Podman itself
        // unpacked the layer.
        let image = format!("- {}", saved.id("localhost/odd/whiteouts:1").unwrap());
        differences.retain(|line| !line.starts_with(&image) || !line.ends_with(" ./f"));
    }
    assert!(
        differences.is_empty(),
        "from {from} for {user} on {}:\n{}",
        lab.name,
        differences.join("\n")
    );
    match user {
        "root" => lab.ok("run_all"),
        user => lab.ok(&format!(
            "as {user} bash -euo pipefail -c \"$(declare -f); run_all\""
        )),
    };
    saved
}

/// I-01, I-02, I-04, I-05, I-10, I-13, I-16, I-17, I-19, I-20: odd images of each of three hosts, nineteen
/// and one that the driver overlay does not take, onto each of the three, into the Podmans of users with
/// each rootless driver, and from there back.
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
    for (lab, (set, count)) in labs.iter().zip([("", 19), ("across", 20), ("across", 20)]) {
        let made = lab.ok(&format!("python3 /root/odd-images.py {set}"));
        assert_eq!(made.lines().count(), count, "{made}");
        // Each layer that has a tar-split is made again and has its DiffID.
        let layers = lab.ok("ls $(root)-layers/*.tar-split.gz | wc -l");
        let sound = lab.ok("podkeep doctor");
        assert_eq!(sound, format!("No damage: {count} images, {layers} layers"));
        assert!(layers.parse::<u32>().unwrap() > 30, "{layers}");
        eprintln!("{}: {layers} layers rebuilt to their DiffID", lab.name);
        lab.ok("podkeep backup --all");
        let facts = Facts::of(lab);
        // Two signatures of 301 and 412 bytes and one more, of the image and of its manifest.
        for part in [
            r#"\"signature-sizes\":[301,412,"#,
            r#"\"signatures-sizes\":{\"sha256:"#,
            " signatures",
            " =c2lnbmF0dXJlL",
        ] {
            assert!(facts.has(part), "{part} on {}", lab.name);
        }
        saved.insert(&lab.name, facts);
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
        let mut there = None;
        for source in sources {
            let saved = &saved[&source.name.as_str()];
            there = Some(comes_back(saved, &source.name, users, user));
        }
        let all =
            "find /home/$user/.local/share/containers -uid -1000 -not -path '*/diff/*' | head";
        assert_eq!(
            users.ok(&format!("user={user}; {all}")),
            "",
            "of root in the store of {user}"
        );
        users.ok(&format!("podkeep backup 'image:*' --host local:{user}"));
        let from = format!("{user}@{}", users.name);
        comes_back(&there.unwrap(), &from, target, "root");
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

/// Runs a program, and prints last how many files of layers were opened meanwhile.
const OPENS: &str = r#"
opens() {
    python3 - "$(root)" "$@" <<'E'
import ctypes, os, struct, subprocess, sys
libc, root = ctypes.CDLL(None, use_errno=True), sys.argv[1]
queue, OPEN, IS_FOLDER = libc.inotify_init1(os.O_NONBLOCK), 0x20, 0x40000000
folders = [root + "-layers"]
for layer in os.listdir(root):
    folders += [folder for folder, _, _ in os.walk(f"{root}/{layer}/diff")]
watches = {libc.inotify_add_watch(queue, os.fsencode(folder), OPEN): folder for folder in folders}
assert len(watches) == len(folders) and -1 not in watches
code = subprocess.run(sys.argv[2:]).returncode
opened, events = set(), b""
try:
    events = os.read(queue, 1 << 24)
except BlockingIOError:
    pass
while events:
    watch, mask, _, size = struct.unpack_from("iIII", events)
    name, events = events[16:16 + size].rstrip(b"\0"), events[16 + size:]
    if not mask & IS_FOLDER and (watches.get(watch) != folders[0] or name.endswith(b".tar-split.gz")):
        opened.add((watch, name))
print(len(opened))
sys.exit(code)
E
}
"#;

/// The cost of a night on which nothing happened: ten images, of which not one file is opened.
#[test]
fn a_second_backup_of_ten_images_opens_no_file_of_a_layer() {
    let (_share, lab) = one(Suite::Trixie, Driver::Overlay);
    lab.host.image(crate::lab::Image::Busybox);
    let build = r#"build() {
        echo "$1" > /root/own
        printf 'FROM %s\nCOPY own /own-%s\n' "$2" "$1" > /root/Containerfile
        podman build -q --layers -t "localhost/app:$1" /root > /dev/null
    }"#;
    lab.ok(&format!(
        "{build}\nbuild 0 localhost/lab:1; for n in $(seq 8); do build $n localhost/app:0; done"
    ));
    let backup = || {
        let said = lab.ok(&format!(
            "{OPENS}\nopens podkeep --json backup 'image:*' | tail -n 2"
        ));
        let (summary, opened) = said.rsplit_once('\n').unwrap();
        (summary.to_owned(), opened.parse::<u32>().unwrap())
    };
    // Ten layers: one with four files, nine with one.
    let (summary, opened) = backup();
    assert_eq!(number(&summary, "items"), 10, "{summary}");
    assert_eq!(opened, 10 + 4 + 9, "{summary}");
    let (summary, opened) = backup();
    assert_eq!(
        (opened, number(&summary, "bytes_read")),
        (0, 0),
        "{summary}"
    );
    // One new layer is opened, and its file.
    lab.ok(&format!("{build}\nbuild 9 localhost/app:8"));
    let (summary, opened) = backup();
    assert_eq!(
        (opened, number(&summary, "bytes_read")),
        (2, 2),
        "{summary}"
    );
}

/// A restore that is killed is finished by the next one, and nothing makeshift stays.
#[test]
fn a_killed_restore_is_done_again() {
    let (_share, lab) = one(Suite::Trixie, Driver::Vfs);
    lab.ok("python3 /root/odd-images.py plain; podkeep backup --all");
    let saved = lab.ok("identity");
    let ids = lab.ok("images");
    for moment in ["0.3", "0.6", "1.0", "1.5", "2.2", "9"] {
        lab.ok("wipe");
        lab.ok(&format!(
            "timeout -s KILL {moment} podkeep restore latest --all > /dev/null 2>&1 || true
             # What only asks Podman something may end by itself.
             sleep 0.1; ! pgrep -fa '[p]odman load'
             for try in $(seq 100); do pgrep -x podman > /dev/null || exit 0; sleep 0.1; done; exit 1"
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

/// Neither driver's store is written to, whichever of the two the configuration names.
#[test]
fn i_22_nothing_is_written_where_configuration_and_database_disagree() {
    for (database, configuration) in [
        (Driver::Vfs, Driver::Overlay),
        (Driver::Overlay, Driver::Vfs),
    ] {
        let (_share, lab) = one(Suite::Trixie, database);
        lab.ok("python3 /root/odd-images.py plain; podkeep backup image:odd/plain:1");
        let set = |driver: Driver| {
            lab.ok(&format!(
                "sed -i 's/driver = .*/driver = \"{driver}\"/' /etc/containers/storage.conf"
            ))
        };
        lab.ok("wipe");
        let stores = "cd /var/lib/containers/storage; ls; cat *-images/images.json";
        let before = lab.ok(stores);
        set(configuration);
        lab.says(
            "podkeep restore latest image:odd/plain:1",
            1,
            &[
                &format!("the driver {configuration}"),
                &format!("database says {database}"),
            ],
        );
        assert_eq!(lab.ok(stores), before);
        set(database);
        lab.ok("podkeep restore latest image:odd/plain:1");
    }
}

/// Told on request: what Podman shows of each image is what was saved.
#[test]
fn a_restore_prints_the_proof_of_identity_when_it_is_asked_to() {
    let (_share, lab) = one(Suite::Trixie, Driver::Overlay);
    lab.ok("python3 /root/odd-images.py plain; podkeep backup image:odd/tags:1");
    let shown = lab
        .ok("podman image inspect --format 'ID {{.Id}}, digest {{.Digest}}' localhost/odd/tags:1");
    let restore = |flags: &str| {
        let command = format!("wipe; podkeep restore {flags} latest image:odd/tags:1");
        lab.exits(&command, 0)
    };
    assert!(!restore("").contains(&shown));
    let proof = format!("Podman shows what was saved: {shown}, 5 of 5 names, 2 layers");
    let told = restore("-v");
    assert!(told.contains(&proof), "{told}: {proof}");
}

#[test]
fn i_02_an_image_that_is_known_by_a_digest_alone_gets_no_other_name() {
    let (_share, lab) = one(Suite::Sid, Driver::Vfs);
    let made = lab.ok("python3 /root/odd-images.py");
    let name = made.lines().find(|name| name.contains("@sha256:")).unwrap();
    let id = lab.ok(&format!(
        "podman image inspect --format '{{{{.Id}}}}' {name}"
    ));
    let identity = &format!("identity | grep ^{id}");
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
    let id = lab.ok("podman image inspect --format '{{.Id}}' localhost/odd/tags:1");
    let saved = lab.ok(&format!("identity | grep ^{id}"));
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
    let files = "at=$(podman image mount localhost/odd/plain:1); files $at
                 podman image unmount localhost/odd/plain:1 > /dev/null";
    let whole = lab.ok(files);
    assert!(whole.contains(" ./srv/other\n"), "{whole}");
    lab.ok("podkeep backup image:odd/plain:1 image:odd/docker:1; wipe");
    lab.ok("podkeep restore latest --all; podman rmi localhost/odd/docker:1 > /dev/null");
    assert_eq!(lab.ok(files), whole);
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
