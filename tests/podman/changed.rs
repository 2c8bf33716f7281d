//! Images that no tool can save as what they are: they come back with the same files, and say what
//! of them is new.

use std::path::Path;

use crate::lab::{Driver, Suite};
use crate::shell::Shell;

/// Prefix of every script.
const WORDS: &str = r#"
export PODKEEP_REPO=/share/repository PODKEEP_PASSWORD=secret
store=$(podman info --format '{{.Store.GraphRoot}}')
driver=$(podman info --format '{{.Store.GraphDriverName}}')
# Podman 4.3 cannot tell of a layer that is known by its table of contents.
id() {
    jq -r --arg name "$1" '.[] | select(.names[]? == $name).id' "$store/$driver-images/images.json"
}
# What a container of an image sees, but for the times of folders, which are the driver's business.
files() {
    local at
    at=$(podman image mount "$1")
    (cd "$at" && find . -type d -printf '%p %y %m %U:%G\n' -o -printf '%p %y %m %U:%G %s %T@ %l\n' \
        | LC_ALL=C sort
     find . -type f -exec sha256sum {} + | LC_ALL=C sort -k 2
     getfattr -R -h -d -m '^user|^security.capability' . 2>/dev/null)
    podman image unmount "$1" > /dev/null
}
"#;

/// Layers that lost their headers (tar-split), a sparse file in a tar, a layer that is known by its
/// table of contents only: from overlay onto vfs and back.
#[test]
fn i_11_i_13_i_19_what_cannot_be_saved_as_it_was_comes_back_with_the_same_files() {
    let share = tempfile::Builder::new()
        .prefix("podkeep-changed-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let lab = |suite, driver, share: &Path| {
        let lab = Shell::up_sharing(suite, driver, share, WORDS);
        lab.bring(&["odd-images.py"]);
        lab
    };
    let labs = [
        lab(Suite::Trixie, Driver::Overlay, share.path()),
        lab(Suite::Bookworm, Driver::Vfs, share.path()),
    ];
    labs[0].ok("podkeep init > /dev/null");
    for (source, target) in [(&labs[0], &labs[1]), (&labs[1], &labs[0])] {
        source.ok("podman rmi -af > /dev/null; python3 /root/odd-images.py changed");
        let images = ["whiteouts", "hardlinks", "attributes", "sparse", "contents"];
        let seen = |lab: &Shell, name: &str| lab.ok(&format!("files localhost/odd/{name}:1"));
        let ids = |lab: &Shell| {
            let id = |name| lab.ok(&format!("id localhost/odd/{name}:1"));
            images.map(id)
        };
        let before = images.map(|name| seen(source, name));
        // Podman itself would remove what is broken: it does not run between here and the backup.
        source.ok("python3 /root/odd-images.py break");
        let was = ids(source);
        let told = source.exits("podkeep backup --all", 3);
        assert_eq!(told.matches("saved as another image").count(), 5, "{told}");
        assert!(
            told.contains("sparse files") && told.contains("tar-split"),
            "{told}"
        );
        let again = source.exits("podkeep --json backup --all 2> /dev/null | tail -n 1", 3);
        assert!(again.contains(r#""chunks_new":0"#), "{again}");

        target.ok("podman rmi -af > /dev/null");
        let told = target.exits(&format!("podkeep restore latest@{} --all", source.name), 3);
        let is = ids(target);
        for (number, name) in images.iter().enumerate() {
            assert_eq!(seen(target, name), before[number], "{name}");
            assert_ne!(is[number], was[number], "{name}");
            assert!(
                told.contains(&was[number]) && told.contains(&is[number]),
                "{told}"
            );
            target.ok(&format!(
                "podman run --rm --network=none localhost/odd/{name}:1 /bin/true"
            ));
        }
        // There it is an image like any other.
        target.ok("podkeep backup --all");
    }
}
