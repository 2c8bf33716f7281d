//! Podman's driver zfs, in a virtual machine, since no kernel of a machine that only tests has ZFS. It is
//! emulated, and slow: `tests/zfs.sh` runs it.

use crate::images::{Facts, WORDS, lab};
use crate::lab::{Driver, Suite};
use crate::shell::Shell;

/// Copies the repository from one host to another.
fn carry(from: &Shell, to: &Shell) {
    let repository = from.run("cd /share; tar -c repository");
    assert_eq!(repository.code, 0, "{repository:?}");
    // What is cached is of the repository that lay there before.
    to.ok("mkdir -p /share; rm -rf /share/repository /var/cache/podkeep");
    let unpacked = to.run_fed("cd /share; tar -x", &repository.stdout);
    assert_eq!(unpacked.code, 0, "{unpacked:?}");
}

/// Overlay, zfs, overlay: the same images each time. Layers of zfs are data sets that are mounted only while
/// somebody needs them: they are read all the same, and nothing stays mounted.
#[test]
#[ignore = "takes an hour or two on an emulated processor: tests/zfs.sh"]
fn images_come_back_the_same_by_way_of_zfs() {
    let share = tempfile::Builder::new()
        .prefix("podkeep-zfs-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let overlay = lab(Suite::Trixie, Driver::Overlay, share.path());
    overlay.ok("podkeep init > /dev/null; python3 /root/odd-images.py; podkeep backup --all");
    let saved = Facts::of(&overlay);

    let zfs = Shell::up_guest(WORDS);
    let driver = zfs.ok("podman info --format '{{.Store.GraphDriverName}} {{.Store.GraphStatus}}'");
    assert!(
        driver.starts_with("zfs ") && driver.contains("Parent Dataset:tank/storage"),
        "{driver}"
    );
    carry(&overlay, &zfs);
    zfs.ok(&format!(
        "podkeep restore latest@{} 'image:*'",
        overlay.name
    ));
    let differences = saved.differences(&Facts::of(&zfs));
    assert!(
        differences.is_empty(),
        "on zfs:\n{}",
        differences.join("\n")
    );
    zfs.ok("podman run --rm --network=none localhost/odd/whiteouts:1 /bin/cat /d/new > /dev/null");

    // Into a repository that knows no layer, so that each is read.
    zfs.ok("rm -rf /share/repository /var/cache/podkeep; podkeep init > /dev/null");
    let read = zfs.ok("podkeep --json backup 'image:*' | tail -n 1");
    assert!(!read.contains(r#""bytes_read":0,"#), "{read}");
    // Also what Podman itself has mounted.
    zfs.ok("podman image mount localhost/odd/whiteouts:1 > /dev/null
            podkeep doctor; podman image unmount localhost/odd/whiteouts:1 > /dev/null");
    // A data set that is still held cannot be removed.
    carry(&zfs, &overlay);
    assert_eq!(
        zfs.ok("wipe; zfs list -H -o name -r tank/storage"),
        "tank/storage"
    );

    overlay.ok("wipe");
    overlay.ok(&format!("podkeep restore latest@{} 'image:*'", zfs.name));
    let differences = saved.differences(&Facts::of(&overlay));
    assert!(differences.is_empty(), "back:\n{}", differences.join("\n"));
}
