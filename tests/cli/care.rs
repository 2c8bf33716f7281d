//! Making a repository, opening it, and its keys.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use crate::{Desk, json_lines, listing, podkeep, text};

#[test]
fn init_makes_a_repository_once() {
    let desk = Desk::empty();
    let lines = desk.json(&["init"], 0);
    let summary = lines.last().expect("a summary");
    assert_eq!(summary["repository"].as_str().map(str::len), Some(32));
    let before = listing(&desk.path("repository"));
    let again = desk.json(&["init"], 1);
    assert_eq!(again.last().expect("an error")["code"], "occupied");
    assert_eq!(listing(&desk.path("repository")), before);
}

#[test]
fn e_17_init_refuses_a_place_before_it_asks_for_a_passphrase() {
    let desk = Desk::empty();
    std::fs::create_dir(desk.path("repository")).expect("a folder");
    std::fs::write(desk.path("repository/file"), "x").expect("a file");
    let output = desk
        .command(&["init"])
        .env_remove("PODKEEP_PASSWORD")
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("not empty"));
    assert_eq!(listing(&desk.path("repository")).len(), 1);
}

#[test]
fn e_17_an_empty_passphrase_is_refused_before_anything_is_written() {
    let desk = Desk::empty();
    let run = |passphrase: &str| {
        desk.command(&["init"])
            .env("PODKEEP_PASSWORD", passphrase)
            .output()
            .expect("the binary runs")
    };
    assert_eq!(run("").status.code(), Some(12));
    assert_eq!(run("\n").status.code(), Some(12));
    assert_eq!(listing(desk.folder.path()), []);
}

#[test]
fn e_17_a_wrong_place_is_exit_10_and_leaves_no_folder() {
    let desk = Desk::empty();
    for arguments in [
        &["snapshots"] as &[&str],
        &["ls", "latest"],
        &["diff", "latest~1", "latest"],
        &["find", "x"],
        &["stats"],
        &["check"],
        &["backup", "path:/etc"],
        &["restore", "latest", "--all", "--to-dir", "/nowhere"],
        &["key", "list"],
        &["key", "remove", "abcd"],
    ] {
        // Not even a passphrase is asked for.
        let output = desk
            .command(arguments)
            .arg("--json")
            .env_remove("PODKEEP_PASSWORD")
            .output()
            .expect("the binary runs");
        assert_eq!(output.status.code(), Some(10), "{arguments:?}");
        let lines = json_lines(&output);
        assert_eq!(lines.last().expect("an error")["code"], "no-repository");
        assert!(text(&output.stderr).contains("repository"));
    }
    assert_eq!(listing(desk.folder.path()), []);
}

#[test]
fn a_wrong_or_missing_passphrase_is_exit_12_and_writes_nothing() {
    let desk = Desk::with_repository();
    let before = listing(desk.folder.path());
    for (passphrase, code) in [(Some("wrong"), "wrong-passphrase"), (None, "no-passphrase")] {
        for arguments in [
            &["snapshots"] as &[&str],
            &["backup", "path:/etc"],
            &["check"],
        ] {
            let mut command = desk.command(arguments);
            command.arg("--json").env_remove("PODKEEP_PASSWORD");
            if let Some(passphrase) = passphrase {
                command.env("PODKEEP_PASSWORD", passphrase);
            }
            let output = command.output().expect("the binary runs");
            assert_eq!(output.status.code(), Some(12), "{arguments:?}");
            let lines = json_lines(&output);
            assert_eq!(lines.last().expect("an error")["code"], code);
            assert!(!text(&output.stderr).contains("open sesame"));
        }
    }
    let now: Vec<_> = listing(&desk.path("repository"));
    assert!(now.iter().all(|file| before.contains(file)));
    assert!(now.len() <= before.len());
}

#[test]
fn passphrases_come_from_files_commands_and_credentials() {
    let desk = Desk::with_repository();
    let file = desk.path("passphrase");
    std::fs::write(&file, "open sesame\n").expect("a file");
    let credential = desk.path("podkeep-password");
    std::fs::write(&credential, "open sesame").expect("a file");
    let file = file.to_str().expect("UTF-8");
    let runs = |arguments: &[&str], variable: Option<(&str, &str)>| {
        let mut command = desk.command(arguments);
        // What is nearer wins over this.
        command.env("PODKEEP_PASSWORD", "wrong");
        if let Some((name, value)) = variable {
            if name == "CREDENTIALS_DIRECTORY" {
                command.env_remove("PODKEEP_PASSWORD");
            }
            command.env(name, value);
        }
        command.output().expect("the binary runs").status.code()
    };
    assert_eq!(runs(&["--password-file", file, "snapshots"], None), Some(0));
    assert_eq!(
        runs(
            &["snapshots", "--password-command", "echo open sesame"],
            None
        ),
        Some(0)
    );
    for (name, value) in [
        ("PODKEEP_PASSWORD_FILE", file),
        ("PODKEEP_PASSWORD_COMMAND", "printf 'open sesame'"),
        (
            "CREDENTIALS_DIRECTORY",
            desk.folder.path().to_str().expect("UTF-8"),
        ),
    ] {
        assert_eq!(runs(&["snapshots"], Some((name, value))), Some(0), "{name}");
    }
    assert_eq!(
        runs(&["--password-file", "/nowhere", "snapshots"], None),
        Some(12)
    );
    assert_eq!(runs(&["snapshots"], None), Some(12));
}

#[test]
fn keys_are_added_changed_and_removed() {
    let desk = Desk::with_repository();
    let new = desk.path("new");
    std::fs::write(&new, "second\n").expect("a file");
    let new = new.to_str().expect("UTF-8");
    let first = desk.json(&["key", "list"], 0)[1]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    // The last slot that reads everything stays.
    desk.exits(&["key", "remove", &first], 1);
    desk.exits(&["key", "add"], 12);
    desk.ok(&["key", "add", "--new-password-file", new]);
    let lines = desk.json(&["key", "list"], 0);
    assert_eq!(lines.last().expect("a summary")["keys"], 2);
    desk.ok(&["key", "remove", &first]);
    desk.exits(&["snapshots"], 12);
    desk.ok(&["--password-file", new, "snapshots"]);
    desk.ok(&[
        "--password-file",
        new,
        "key",
        "passwd",
        "--new-password-command",
        "echo third",
    ]);
    desk.exits(&["--password-file", new, "snapshots"], 12);
    desk.ok(&["--password-command", "echo third", "snapshots"]);
}

#[test]
fn a_write_key_reads_nothing() {
    let desk = Desk::with_repository();
    let file = desk.path("write-key");
    let path = file.to_str().expect("UTF-8");
    desk.ok(&["key", "export-write", path]);
    let mode = std::fs::metadata(&file).expect("the file").permissions();
    assert_eq!(mode.mode() & 0o7777, 0o600);
    // Never over what is there.
    desk.exits(&["key", "export-write", path], 1);
    for arguments in [
        &["snapshots"] as &[&str],
        &["ls", "latest"],
        &["find", "x"],
        &["stats"],
        &["check"],
        &["key", "add", "--new-password-command", "echo x"],
        &["key", "passwd", "--new-password-command", "echo x"],
    ] {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--key-file", path]);
        desk.exits(&arguments, 12);
    }
    std::fs::write(&file, "no key").expect("the file");
    desk.exits(&["--key-file", path, "snapshots"], 12);
}

#[test]
fn o_05_no_home_no_xdg_no_path() {
    // As root all places have defaults; the repository's own is not there, or is somebody's.
    let output = podkeep(&["-r", "/nowhere/at/all", "snapshots", "--json"]);
    assert_eq!(output.status.code(), Some(10));
    json_lines(&output);
}

#[test]
fn e_20_a_cache_that_cannot_be_written_costs_only_time() {
    let desk = Desk::with_repository();
    let blocked = desk.path("blocked");
    std::fs::write(&blocked, "a file, not a folder").expect("a file");
    let output = desk
        .command(&["snapshots"])
        .env("PODKEEP_CACHE_DIR", blocked.join("cache"))
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn o_04_json_of_every_command_on_an_empty_repository() {
    let desk = Desk::with_repository();
    for (arguments, code) in [
        (&["snapshots"] as &[&str], 0),
        (&["ls", "latest"], 1),
        (&["ls", "abcd"], 1),
        (&["dump", "latest", "path:/x"], 2),
        (&["diff", "latest~1", "latest"], 1),
        (&["find", "x"], 1),
        (&["stats"], 0),
        (&["check"], 0),
        (&["check", "--read-data=5"], 0),
        (&["restore", "latest", "--all", "--to-dir", "/nowhere"], 1),
        (&["doctor"], 1),
        (&["key", "list"], 0),
        (&["snapshots", "--of", "elsewhere"], 1),
        (&["snapshots", "--json-progress"], 0),
        (&["--json-progress", "snapshots"], 0),
    ] {
        desk.json(arguments, code);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let desk = Desk::with_repository();
    let mut child = desk
        .command(&["stats"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let mut stderr = String::new();
    let status = child.wait().expect("it ends");
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_string(&mut stderr).expect("its errors");
    }
    assert_eq!(status.code(), Some(0));
    assert_eq!(stderr, "");
}
