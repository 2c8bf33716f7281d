use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::podman::command::tests::fake;

/// A podman that knows one container, whose status is in a file.
const SCRIPT: &str = r#"
D=$(dirname "$0")
[ "$1" = container ] || echo "$*" >> "$D/calls"
case "$1 $2" in
    "container exists") [ -e "$D/status" ] ;;
    "container inspect")
        [ -e "$D/status" ] || { echo "Error: no such container" >&2; exit 125; }
        case $4 in
            json) cat "$D/shown" ;;
            *) cat "$D/status" ;;
        esac ;;
    "unpause 12")
        [ "$(cat "$D/status")" = paused ] || { echo "Error: it is not paused" >&2; exit 125; }
        echo running > "$D/status" ;;
    "start 12") [ -e "$D/status" ] && echo running > "$D/status" ;;
    *) exit 125 ;;
esac"#;

fn put(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

#[test]
fn a_container_is_what_podman_shows_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let podman = fake(folder.path(), SCRIPT);
    put(folder.path(), "status", "running");
    let shown = r#"[{"Id":"12","Name":"web","Pod":"34","IsInfra":false,
        "State":{"Status":"running","ConmonPid":7},"Config":{"Labels":{"a":"b"}},
        "HostConfig":{"AutoRemove":true,"NetworkMode":"bridge"},
        "NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"","HostPort":"80"}],"81/tcp":null},
            "Networks":{"podman":{"IPAddress":"10.88.0.5","GlobalIPv6Address":""}}}}]"#;
    put(folder.path(), "shown", shown);
    let found = live_containers(&podman, &["web".into()]).unwrap();
    let [web] = &found[..] else {
        panic!("{found:?}");
    };
    assert!(web.is_running() && web.auto_remove && web.listens_on_host);
    assert_eq!((web.pod.as_deref(), web.conmon_pid), (Some("34"), 7));
    assert_eq!(web.addresses, ["10.88.0.5".parse::<IpAddr>().unwrap()]);
    std::fs::remove_file(folder.path().join("status")).unwrap();
    assert_eq!(live_containers(&podman, &["web".into()]).unwrap(), []);
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Arms a thaw of one container that has `status`, and waits for what comes of it.
fn after_the_deadline(status: Option<&str>, what: Resumption) -> (Option<String>, String) {
    let folder = tempfile::tempdir().unwrap();
    let podman = fake(folder.path(), SCRIPT);
    let at = |name: &str| folder.path().join(name);
    let record = at("it's a record.json");
    std::fs::write(&record, "{}").unwrap();
    put(folder.path(), "calls", "");
    if let Some(status) = status {
        put(folder.path(), "status", &format!("{status}\n"));
    }
    let name = format!(
        "test-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    );
    let name: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    let time = Duration::from_millis(50);
    let armed = Deadline::arm(&podman, &record, &name, &[what], time).unwrap();
    wait_until("the record stays", || !record.exists());
    wait_until("the script stays", || !record.with_extension("sh").exists());
    drop(armed);
    let status = std::fs::read_to_string(at("status")).ok();
    let calls = std::fs::read_to_string(at("calls")).unwrap();
    (status.map(|status| status.trim().to_owned()), calls)
}

#[test]
fn what_is_armed_sets_going_what_rests_and_nothing_else() {
    let unpause = || Resumption::Unpause("12".into());
    let start = || Resumption::Start("12".into());
    let running = Some("running".to_owned());
    let (status, _) = after_the_deadline(Some("paused"), unpause());
    assert_eq!(status, running);
    let (status, _) = after_the_deadline(Some("running"), unpause());
    assert_eq!(status, running);
    let (status, _) = after_the_deadline(Some("exited"), start());
    assert_eq!(status, running);
    let (status, calls) = after_the_deadline(Some("running"), start());
    assert_eq!((status, calls.as_str()), (running, ""));
    // Stopped by somebody else, or removed: that is no matter of ours.
    let (status, _) = after_the_deadline(Some("exited"), unpause());
    assert_eq!(status.as_deref(), Some("exited"));
    assert_eq!(after_the_deadline(None, unpause()).0, None);
    assert_eq!(after_the_deadline(None, start()).0, None);
}

#[test]
fn what_is_disarmed_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let podman = fake(folder.path(), SCRIPT);
    let record = folder.path().join("record.json");
    std::fs::write(&record, "{}").unwrap();
    put(folder.path(), "status", "paused\n");
    let what = [Resumption::Unpause("12".into())];
    let name = format!("test-disarmed-{}", std::process::id());
    let time = Duration::from_secs(60);
    let armed = Deadline::arm(&podman, &record, &name, &what, time).unwrap();
    let script = record.with_extension("sh");
    assert!(script.exists());
    armed.disarm();
    assert!(!script.exists() && record.exists());
    let status = std::fs::read_to_string(folder.path().join("status")).unwrap();
    assert_eq!(status, "paused\n");
}
