//! Artifacts (`podman artifact`) of one real Podman host, on another one.

use crate::lab::{Driver, Image, Suite};
use crate::shell::Shell;

const WORDS: &str = "export PODKEEP_REPO=/share/repository PODKEEP_PASSWORD=secret";

/// Of each artifact what Podman tells of it, and all that is in their store.
const ARTIFACTS: &str = r#"
for name in $(podman artifact ls --format '{{.Repository}}:{{.Tag}}' | sort); do
    podman artifact inspect "$name" | jq -cS '[.Name, .Digest, .Manifest]'
done
cd "$(podman info --format '{{.Store.GraphRoot}}')/artifacts"
find blobs -type f -exec sha256sum {} + | sort"#;

/// From 5.4 onto 5.8, beside an image of the same name, and into a store that has some already.
#[test]
fn artifacts_come_back_as_podman_had_them() {
    let share = tempfile::Builder::new()
        .prefix("podkeep-artifacts-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let source = Shell::up_sharing(Suite::Trixie, Driver::Overlay, share.path(), WORDS);
    let target = Shell::up_sharing(Suite::Sid, Driver::Vfs, share.path(), WORDS);
    source.host.image(Image::Busybox);
    source.ok(
        "cd /root; echo model > model; head -c 3000000 /dev/urandom > weights
         podman artifact add --annotation kind=test localhost/lab:1 model weights > /dev/null
         podman artifact add --type application/x.test quay.io/x/two:latest model > /dev/null
         podkeep init > /dev/null
         podkeep backup --all",
    );
    let was = source.ok(ARTIFACTS);
    // Two, and of each a manifest; two files, and one configuration for both.
    assert_eq!(was.lines().count(), 2 + 2 + 3, "{was}");
    let again = source.ok("podkeep --json backup --all | tail -n 1");
    assert!(again.contains(r#""chunks_new":0"#), "{again}");
    target.ok("podkeep restore latest --all");
    assert_eq!(target.ok(ARTIFACTS), was);
    target.ok("podman run --rm --network=none localhost/lab:1 /bin/true");
    // Podman 5.4 has no word for it.
    let weights =
        "mkdir /root/out; podman artifact extract localhost/lab:1 /root/out; cat /root/out/weights";
    assert_eq!(
        target.ok(&format!("({weights}) | sha256sum")),
        source.ok("sha256sum < /root/weights")
    );
    // Podman goes on with the store, and so does podkeep.
    target.ok(
        "echo own > /root/own; podman artifact add localhost/own:1 /root/own > /dev/null
         podman artifact rm quay.io/x/two:latest > /dev/null
         podkeep restore latest artifact:quay.io/x/two:latest
         podman artifact rm localhost/own:1 > /dev/null",
    );
    assert_eq!(target.ok(ARTIFACTS), was);
}
