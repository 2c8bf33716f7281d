use crate::{bare, json_lines, podkeep, text};

#[test]
fn o_02_wrong_usage_is_exit_2() {
    for arguments in [
        &[] as &[&str],
        &["backup"],
        &["bakup"],
        &["backup", "--all", "--consistency", "sometimes"],
        &["backup", "--all", "--max-freeze", "0s"],
        &["--host", "x", "snapshots"],
        &["restore", "latest"],
        &["restore", "latest", "--all", "--merge", "--replace"],
        &["--json-progress", "snapshots"],
        &["completions", "bash", "--json"],
    ] {
        let output = podkeep(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn o_04_wrong_usage_is_told_in_json_too() {
    let output = podkeep(&["backup", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let lines = json_lines(&output);
    assert_eq!(lines[0]["type"], "start");
    assert_eq!(lines[0]["schema"], 1);
    assert_eq!(lines[1]["type"], "error");
    assert_eq!(lines[1]["code"], "usage");
    assert_eq!(lines[1]["exit_code"], 2);
    assert_eq!(lines.len(), 2);
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [
        &["--help"] as &[&str],
        &["restore", "--help"],
        &["--version"],
    ] {
        let output = podkeep(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
    assert!(text(&podkeep(&["--help"]).stdout).contains("Exit codes:"));
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = podkeep(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("export-write"), "{shell}");
    }
}

#[test]
fn a_manual_page_for_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let pages = folder.path().join("a/man");
    let output = podkeep(&["man", pages.to_str().expect("UTF-8"), "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let lines = json_lines(&output);
    let count = std::fs::read_dir(&pages).expect("pages").count();
    assert_eq!(lines[1]["pages"], count);
    for page in [
        "podkeep.1",
        "podkeep-backup.1",
        "podkeep-key-export-write.1",
    ] {
        let page = std::fs::read_to_string(pages.join(page)).expect("the page is there");
        assert!(page.contains(".SH SYNOPSIS"));
    }
}

#[test]
fn what_cannot_be_written_is_a_failure_unless_nobody_reads() {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let run = |stdout: std::process::Stdio| {
        let child = bare(&["completions", "bash"])
            .stdout(stdout)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the binary runs");
        child.wait_with_output().expect("it ends")
    };
    let output = run(full.into());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot write standard output: No space left"));

    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = run(writer.into());
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
}
