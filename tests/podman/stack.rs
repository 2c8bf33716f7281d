//! A whole service with traffic (`tests/lab/stack.sh`): its host is lost, and on a bare host with another
//! Podman and another driver it answers as before, also after that host's next boot.

use std::path::Path;

use crate::lab::{Driver, Image, Suite};
use crate::shell::Shell;

const WORDS: &str = "
export PODKEEP_REPO=/share/repository PODKEEP_PASSWORD=secret
stack() { bash /root/stack.sh \"$@\"; }
";

fn up(suite: Suite, driver: Driver, folder: &Path) -> Shell {
    let lab = Shell::up_sharing(suite, driver, folder, WORDS);
    lab.bring(&["stack.sh"]);
    lab
}

#[test]
fn a_service_answers_on_another_host_and_after_its_next_boot() {
    let folder = tempfile::tempdir().unwrap();
    let source = up(Suite::Trixie, Driver::Overlay, folder.path());
    source.host.image(Image::Postgres);
    source.ok("stack make; podkeep init");
    // What is answered later has all that was answered when the containers were paused.
    let own_files = source.ok(
        "stack answers > /share/before
         podkeep backup --all > /tmp/log 2>&1
         stack answers > /share/after
         podman secret inspect --showsecret shop-password --format '{{.SecretData}}' > /share/password
         stack own-files > /share/own-files; cat /share/own-files",
    );
    assert!(own_files.contains("/srv/drawn 644 0:0"), "{own_files}");
    let name = source.name.clone();
    drop(source);

    let target = up(Suite::Sid, Driver::Btrfs, folder.path());
    target.ok("stack set-up");
    target.ok(&format!(
        "podkeep --json restore latest@{name} --all --start > /tmp/log 2>&1"
    ));
    assert_eq!(target.ok("stack own-files"), own_files);
    let same = "stack wait; stack check /share/after $(wc -l < /share/before)";
    target.ok(same);
    // The password is where Podman keeps it, and nowhere else on the way.
    target.ok("journalctl > /tmp/journal
         test $(stat -c %s /share/password) -gt 20
         not grep -r -F -f /share/password /share/repository /var/lib/podkeep /root /tmp
         grep -q '\"type\"' /tmp/log");

    target.host.crash();
    target.host.boot();
    target.ok(same);
    target.ok("systemctl is-active -q status; podman exec database true");
}
