//! Backing up, looking and restoring on this host.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::{Desk, json_lines, listing, text};

/// Names that break lists, shells and decoders.
const ODD_NAMES: [&[u8]; 14] = [
    b"caf\xe9",
    b"\xff\xfe",
    b"a\xed\xa0\x80b",
    b"\xc3\x28",
    b"a\nb",
    b"c\td",
    b"e\\n",
    b"-rf",
    b"--help",
    b"\x1b[2Jx",
    b" lead",
    b"trail ",
    b"[abc].txt",
    b"*",
];

impl Desk {
    /// A repository and a folder `data` with files of odd names, each holding its own name.
    fn with_odd_names() -> Self {
        let desk = Self::with_repository();
        std::fs::create_dir(desk.path("data")).expect("a folder");
        for name in ODD_NAMES {
            std::fs::write(desk.odd(name), name).expect("a file");
        }
        desk
    }

    fn odd(&self, name: &[u8]) -> PathBuf {
        self.path("data").join(OsStr::from_bytes(name))
    }

    /// The item of a file or folder of the desk.
    fn item(&self, name: &str) -> String {
        format!("path:{}", self.path(name).display())
    }
}

fn last(lines: &[Value]) -> &Value {
    lines.last().expect("a last line")
}

#[test]
fn an_export_goes_to_a_file_once_or_to_standard_output() {
    let desk = Desk::with_repository();
    std::fs::create_dir(desk.path("data")).expect("a folder");
    std::fs::write(desk.path("data/page"), "text").expect("a file");
    let item = desk.item("data");
    desk.ok(&["backup", &item]);
    let place = desk.path("data.tar");
    let place = place.to_str().expect("UTF-8");
    let export = ["export", "latest", item.as_str(), "--tar", place];
    let lines = desk.json(&export, 0);
    let summary = last(&lines);
    assert_eq!(
        (&summary["item"], &summary["files"]),
        (&item.clone().into(), &2.into())
    );
    let tar = std::fs::read(place).expect("the tar");
    assert_eq!(summary["bytes_written"], tar.len());
    assert_eq!(last(&desk.json(&export, 1))["code"], "refused");
    desk.ok(&["export", "latest", &item, "--tar", place, "--replace"]);
    let to_stdout = ["export", "latest", item.as_str(), "--tar", "-"];
    assert!(desk.run(&to_stdout).stdout == tar);
    assert_eq!(last(&desk.json(&to_stdout, 2))["code"], "usage");
    // A file alone is there under its own name, behind the record of its time.
    let page = format!("{item}/page");
    let one = desk.run(&["export", "latest", &page, "--tar", "-"]).stdout;
    assert_eq!(&one[1024..1029], b"page\0");
    assert_eq!(&one[1536..1540], b"text");
    desk.exits(&["export", "latest", &item], 2);
    desk.exits(&["export", "latest", &item, "--oci", place], 2);
}

#[test]
fn a_change_is_seen_found_and_undone() {
    let desk = Desk::with_repository();
    let data = desk.path("data");
    let item = desk.item("data");
    std::fs::create_dir_all(data.join("sub")).expect("folders");
    std::fs::write(data.join("kept"), "kept").expect("a file");
    std::fs::write(data.join("sub/changed"), "before").expect("a file");
    std::fs::write(data.join("sub/removed"), "removed").expect("a file");

    let lines = desk.json(&["backup", &item, "--tag", "first"], 0);
    let first = last(&lines)["snapshot"].as_str().expect("an id").to_owned();
    assert_eq!(last(&lines)["complete"], true);
    assert_eq!(last(&lines)["files"], 3);
    assert_eq!(desk.ok(&["diff", "latest", "live", "-q"]), "");

    std::fs::write(data.join("sub/changed"), "after it").expect("a file");
    std::fs::remove_file(data.join("sub/removed")).expect("a file");
    std::fs::write(data.join("added"), "").expect("a file");
    let differences = |after: &str| -> Vec<(String, String)> {
        desk.json(&["diff", &first[..8], after], 0)
            .iter()
            .filter(|line| line["type"] == "difference" && line["change"] != "attributes")
            .map(|line| {
                let field = |name: &str| line[name].as_str().expect("text").to_owned();
                (field("path"), field("change"))
            })
            .collect()
    };
    let expected = [
        ("/added", "added"),
        ("/sub/changed", "modified"),
        ("/sub/removed", "removed"),
    ]
    .map(|(path, change)| (path.to_owned(), change.to_owned()));
    assert_eq!(differences("live"), expected);
    desk.ok(&["backup", &item]);
    assert_eq!(differences("latest"), expected);

    let found = desk.json(&["find", "changed"], 0);
    assert_eq!(last(&found)["entries"], 2);
    assert_eq!(last(&desk.json(&["find", "/sub/rem*"], 0))["entries"], 1);
    desk.exits(&["find", "nowhere"], 1);

    let file = format!("{item}/sub/changed");
    assert_eq!(desk.ok(&["dump", "latest", &file]), "after it");
    assert_eq!(desk.ok(&["dump", "latest~1", &file]), "before");
    desk.exits(&["dump", "latest~2", &file], 1);

    // What is there is not touched without a word.
    let before = listing(&data);
    let refused = desk.json(&["restore", &first[..8], &item], 1);
    assert_eq!(last(&refused)["code"], "conflicts");
    assert_eq!(listing(&data), before);
    let planned = desk.json(
        &["restore", &first[..8], &item, "--replace", "--dry-run"],
        0,
    );
    assert!(planned.iter().any(|line| line["type"] == "action"));
    assert_eq!(listing(&data), before);
    desk.ok(&["restore", &first[..8], &item, "--replace"]);
    assert_eq!(differences("live"), []);

    let snapshots = desk.json(&["snapshots"], 0);
    assert_eq!(last(&snapshots)["snapshots"], 2);
    assert_eq!(snapshots[1]["tags"][0], "first");
    assert_eq!(snapshots[1]["id"], first.as_str());
    desk.ok(&["check", "--read-data"]);
    assert!(last(&desk.json(&["stats"], 0))["packs"].as_u64() > Some(0));
}

#[test]
fn f_01_f_02_f_04_each_listed_name_restores_exactly_that_file() {
    let desk = Desk::with_odd_names();
    desk.ok(&["backup", &desk.item("data")]);
    let listed = desk.ok(&["ls", "latest", &desk.item("data"), "-q"]);
    let names: Vec<&str> = listed
        .lines()
        .filter(|line| line.starts_with('-'))
        .map(|line| &line[line.find("path:").expect("an item")..])
        .collect();
    assert_eq!(names.len(), ODD_NAMES.len(), "one line for each: {listed}");
    assert!(!listed.chars().any(|c| c.is_control() && c != '\n'));
    for (number, name) in names.iter().enumerate() {
        let target = desk.path(&format!("one-{number}"));
        let folder = target.to_str().expect("UTF-8");
        desk.ok(&["restore", "latest", name, "--to-dir", folder]);
        let restored: Vec<PathBuf> = listing(&target).into_iter().map(|(path, _)| path).collect();
        assert_eq!(restored.len(), 1, "{name}");
        let file = restored[0].file_name().expect("a name").as_bytes();
        assert!(ODD_NAMES.contains(&file), "{name}");
        assert_eq!(std::fs::read(&restored[0]).expect("the file"), file);
    }
    let nothing = format!("{}/nothing", desk.item("data"));
    desk.exits(
        &["restore", "latest", &nothing, "--to-dir", "/dev/shm/none"],
        1,
    );
    assert!(!Path::new("/dev/shm/none").exists());
}

#[test]
fn f_01_json_says_which_bytes_a_name_has() {
    let desk = Desk::with_odd_names();
    desk.ok(&["backup", &desk.item("data")]);
    let manifest = desk.json(&["ls", "latest"], 0);
    assert_eq!(manifest[1]["type"], "manifest");
    assert_eq!(manifest[1]["item"], desk.item("data"));
    assert_eq!(manifest[1]["files"], ODD_NAMES.len());
    let entries = desk.json(&["ls", "latest", &desk.item("data")], 0);
    let of = |path: &str| entries.iter().find(|line| line["path"] == path);
    assert_eq!(
        of("/caf\\xe9").expect("it is listed")["path_b64"],
        "L2NhZuk="
    );
    let plain = of("/a\nb").expect("it is listed");
    assert!(plain.get("path_b64").is_none());
}

#[test]
fn e_32_latest_passes_over_incomplete_snapshots() {
    let desk = Desk::with_repository();
    std::fs::create_dir(desk.path("data")).expect("a folder");
    let item = desk.item("data");
    let absent = desk.item("absent");
    let whole = desk.json(&["backup", &item], 0);
    let partial = desk.json(&["backup", &item, &absent], 3);
    assert_eq!(last(&partial)["complete"], false);
    let snapshots = desk.json(&["snapshots"], 0);
    assert_eq!(snapshots[2]["complete"], false);
    assert!(desk.ok(&["snapshots"]).contains("INCOMPLETE"));
    let used = desk.ok(&["ls", "latest"]);
    let id = last(&whole)["snapshot"].as_str().expect("an id");
    assert!(used.contains(&id[..8]), "{used}");
    // Nothing at all is no snapshot.
    let nothing = desk.json(&["backup", &absent], 1);
    assert_eq!(last(&nothing)["snapshot"], Value::Null);
}

#[test]
fn signals_end_a_run_cleanly_with_their_own_codes() {
    let desk = Desk::with_repository();
    std::fs::create_dir(desk.path("data")).expect("a folder");
    let item = desk.item("data");
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        // The signal comes while the passphrase is asked for: the run has not begun.
        let command = format!("kill -{signal} $PPID; echo open sesame");
        let output = desk
            .command(&["backup", &item, "--json", "--password-command", &command])
            .env("PATH", "/usr/bin:/bin")
            .output()
            .expect("the binary runs");
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        let lines = json_lines(&output);
        assert_eq!(last(&lines)["code"], "interrupted");
    }
    assert_eq!(last(&desk.json(&["snapshots"], 0))["snapshots"], 0);
    let leases = listing(&desk.path("repository/leases"));
    assert!(leases.iter().all(|(path, _)| path.is_dir()), "{leases:?}");
}

#[test]
fn an_item_that_another_run_works_on_is_exit_11() {
    let desk = Desk::with_repository();
    std::fs::create_dir(desk.path("data")).expect("a folder");
    let item = desk.item("data");
    desk.ok(&["backup", &item]);
    let locks = listing(&desk.path("state/locks"));
    let [(lock, _)] = &locks[..] else {
        panic!("one lock: {locks:?}");
    };
    let held = std::fs::File::open(lock).expect("the lock");
    held.lock().expect("it is free");
    let lines = desk.json(&["backup", &item], 11);
    assert_eq!(last(&lines)["code"], "busy");
    let lines = desk.json(&["backup", &item, "--wait", "1s"], 11);
    assert_eq!(last(&lines)["code"], "busy");

    // Who waits gets the item once it is free, and still hears Ctrl-C before.
    let leases = desk.path("repository/leases");
    let start_to_wait = || {
        let mut waiting = desk
            .command(&["backup", &item, "--wait", "10m"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        while !listing(&leases).iter().any(|(path, _)| path.is_file()) {
            assert!(waiting.try_wait().expect("its state").is_none(), "it waits");
            std::thread::sleep(Duration::from_millis(10));
        }
        waiting
    };
    let mut waiting = start_to_wait();
    let process = rustix::process::Pid::from_child(&waiting);
    rustix::process::kill_process(process, rustix::process::Signal::INT).expect("a signal");
    assert_eq!(waiting.wait().expect("it ends").code(), Some(130));
    let mut waiting = start_to_wait();
    drop(held);
    assert_eq!(waiting.wait().expect("it ends").code(), Some(0));
}

#[test]
fn o_14_failures_name_action_object_and_cause_in_one_line() {
    let desk = Desk::with_repository();
    std::fs::create_dir(desk.path("data")).expect("a folder");
    let data = desk.item("data");
    desk.ok(&["backup", &data]);
    let file = desk.path("file");
    std::fs::write(&file, "x").expect("a file");
    let file = file.to_str().expect("UTF-8");
    for (arguments, code, words) in [
        (
            &["backup", "path:/nowhere/at/all"] as &[&str],
            1,
            "/nowhere/at/all",
        ),
        (&["backup", "volume:nowhere"], 1, "volume:nowhere"),
        (&["ls", "abcd"], 1, "abcd"),
        (&["ls", "latest@elsewhere"], 1, "elsewhere"),
        (&["dump", "latest", &data], 1, "directory"),
        (&["restore", "latest", &data, "--to-dir", file], 1, file),
        (&["--password-file", "/nowhere", "stats"], 12, "/nowhere"),
        (&["--password-command", "exit 3", "stats"], 12, "exit 3"),
        (&["-r", file, "stats"], 1, file),
        (&["key", "export-write", file], 1, file),
    ] {
        let output = desk.run(arguments);
        let stderr = text(&output.stderr);
        let place = stderr.contains(words);
        assert!(place, "{arguments:?}: {stderr}");
        assert!(!stderr.contains("open sesame"), "{stderr}");
        let got = output.status.code().expect("it exits");
        assert!(
            got == code || (got == 10 && code == 1),
            "{arguments:?}: {got} {stderr}"
        );
    }
}

#[test]
fn o_04_json_of_every_command_on_a_repository_with_snapshots() {
    let desk = Desk::with_odd_names();
    let data = desk.item("data");
    let target = desk.path("target");
    let target = target.to_str().expect("UTF-8");
    for arguments in [
        &["backup", &data, "--dry-run"] as &[&str],
        &["backup", &data],
        &["backup", &data, "--json-progress"],
        &["snapshots"],
        &["ls", "latest"],
        &["ls", "latest", &data],
        &["diff", "latest~1", "latest"],
        &["diff", "latest", "live"],
        &["find", "*"],
        &["stats"],
        &["check"],
        &["check", "--read-data"],
        &["check", "--endorse"],
        &["restore", "latest", &data, "--to-dir", target, "--dry-run"],
        &["restore", "latest", &data, "--to-dir", target],
        &[
            "restore",
            "latest",
            &data,
            "--to-dir",
            target,
            "--replace",
            "--json-progress",
        ],
        &["key", "list"],
    ] {
        desk.json(arguments, 0);
    }
}

/// `--all` on a host where that is nothing must not look like a backup.
#[test]
fn an_empty_selection_is_an_error_that_says_so() {
    let desk = Desk::with_repository();
    let output = desk.run(&["backup", "--all"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("this host has no Podman"), "{said}");

    std::fs::create_dir(desk.path("data")).expect("a folder");
    let item = desk.item("data");
    let output = desk.run(&["backup", &item, "--exclude-item", &item]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("--exclude-item leaves nothing of the selection"),
        "{said}"
    );
    let lines = desk.json(&["snapshots"], 0);
    assert!(
        lines.iter().all(|line| line["type"] != "snapshot"),
        "{lines:?}"
    );
}
