//! The laboratory itself: each kind of host has the Podman and the storage that tests take it for.

use crate::lab::{Driver, Host, Image, Suite};

/// Volumes come and go, a container runs on the driver asked for, and what was synced outlives a
/// power cut.
fn works(suite: Suite, driver: Driver, version: &str) {
    let host = Host::up(suite, driver);
    let info = host.ok(&[
        "podman",
        "info",
        "--format",
        "{{.Store.GraphDriverName}} {{.Version.Version}}",
    ]);
    let graph_driver = match driver {
        Driver::Overlay | Driver::Xfs => "overlay",
        Driver::Vfs => "vfs",
        Driver::Btrfs => "btrfs",
    };
    assert!(
        info.starts_with(&format!("{graph_driver} {version}")),
        "{info}"
    );
    let file_system = host.ok(&["stat", "-f", "-c", "%T", "/var/lib/containers"]);
    match driver {
        Driver::Btrfs => assert_eq!(file_system, "btrfs"),
        Driver::Xfs => assert_eq!(file_system, "xfs"),
        Driver::Overlay | Driver::Vfs => assert_ne!(file_system, "overlayfs"),
    }

    host.image(Image::Busybox);
    host.script(
        "podman volume create data >/dev/null
         podman run --rm --network=none -v data:/seed localhost/lab:1 \
             /bin/sh -c 'echo written > /seed/file'",
    );
    // Podman seeded the volume from the image's folder and gave it that folder's owner and mode.
    let path = host.ok(&[
        "podman",
        "volume",
        "inspect",
        "-f",
        "{{.Mountpoint}}",
        "data",
    ]);
    let listing = host.script(&format!(
        "cd {path}; stat -c '%n %u %g %a' . *; cat file; sync file"
    ));
    assert_eq!(
        listing,
        ". 1000 1000 700\nfile 0 0 644\nfrom-image 1000 1000 644\nwritten"
    );

    host.crash();
    assert_ne!(host.run(&["true"]).code, 0, "the host still runs");
    host.boot();
    assert_eq!(host.ok(&["cat", &format!("{path}/file")]), "written");
    assert_eq!(host.ok(&["podman", "volume", "ls", "-q"]), "data");
}

#[test]
fn trixie_on_overlay() {
    works(Suite::Trixie, Driver::Overlay, "5.4");
}

#[test]
fn trixie_on_vfs() {
    works(Suite::Trixie, Driver::Vfs, "5.4");
}

#[test]
fn trixie_on_btrfs() {
    works(Suite::Trixie, Driver::Btrfs, "5.4");
}

#[test]
fn trixie_on_xfs() {
    works(Suite::Trixie, Driver::Xfs, "5.4");
}

#[test]
fn bookworm_on_overlay() {
    works(Suite::Bookworm, Driver::Overlay, "4.3");
}

#[test]
fn sid_on_overlay() {
    works(Suite::Sid, Driver::Overlay, "5.8");
}

/// A host runs the binary of this build, sees a shared folder, and hands back bytes and exit codes.
#[test]
fn programs_of_this_machine_run_on_every_release() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("name"), "shared").unwrap();
    for suite in [Suite::Bookworm, Suite::Trixie, Suite::Sid] {
        let host = Host::up_sharing(suite, Driver::Vfs, folder.path());
        host.install_podkeep();
        // Found and linked: the loader gives 127 for a missing or too old library, a shell 126.
        let outcome = host.run(&["podkeep", "--version"]);
        assert_eq!(outcome.code, 0, "{suite}: {outcome:?}");
        assert_eq!(host.ok(&["cat", "/share/name"]), "shared");
        assert_eq!(host.run(&["sh", "-c", "exit 7"]).code, 7);
        assert_eq!(host.run(&["sh", "-c", "kill -9 $$"]).code, 137);
        assert_eq!(host.run_fed(&["cat"], b"a\0\xff").stdout, b"a\0\xff");
        assert_eq!(host.run_as_user(&["id", "-un"]).text(), "u");
    }
}

/// PostgreSQL runs in a container with its data directory in a volume.
#[test]
fn postgres_runs_in_a_container() {
    let host = Host::up(Suite::Trixie, Driver::Overlay);
    host.image(Image::Postgres);
    host.script(
        "podman run -d --name db --network=none --user postgres -v data:/pg localhost/postgres:1 \
             sh -c 'chmod 700 /pg && initdb -D /pg >/dev/null && exec postgres -D /pg -k /tmp' >/dev/null
         for attempt in $(seq 100); do
             podman exec db pg_isready -q && break
             sleep 0.1
         done",
    );
    assert_eq!(
        host.ok(&["podman", "exec", "db", "psql", "-Atc", "select 6 * 7"]),
        "42"
    );
}
