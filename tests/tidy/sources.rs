//! The files of this repository, and what must not stand in them.

use std::fs;
use std::path::{Path, PathBuf};

/// Longer files are taken apart: a reader holds no more in mind.
const LINES_MAX: usize = 800;

/// The top of the repository.
pub fn root() -> PathBuf {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR"));
    engine.parent().expect("engine/ has a parent").to_owned()
}

/// A text file of the repository. `path` is relative to its top, with `/` between components.
pub struct Source {
    pub path: String,
    pub text: String,
}

/// All text files below `folder` (relative to the top), sorted by path. Build output and version
/// control are left out; files that are not UTF-8 are test data and have no lines.
pub fn files(folder: &str) -> Vec<Source> {
    let top = root();
    let mut found = Vec::new();
    let mut open = vec![top.join(folder)];
    while let Some(dir) = open.pop() {
        let entries = fs::read_dir(&dir)
            .unwrap_or_else(|cause| panic!("cannot list {}: {cause}", dir.display()));
        for entry in entries {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !["target", ".git", "corpus"].contains(&name.as_str()) {
                open.push(entry.path());
            } else if kind.is_file()
                && name != ".git"
                && let Ok(text) = fs::read_to_string(entry.path())
            {
                let path = entry.path().strip_prefix(&top).unwrap().to_owned();
                found.push(Source {
                    path: path.into_os_string().into_string().unwrap(),
                    text,
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "{folder} has no files");
    found
}

/// The Rust files of a crate that go into the product, without their unit tests.
pub fn production(crate_folder: &str) -> Vec<Source> {
    files(&format!("{crate_folder}/src"))
        .into_iter()
        .filter(|source| source.path.ends_with(".rs") && !source.path.ends_with("/tests.rs"))
        .map(|source| Source {
            text: without_tests_and_comments(&source.text),
            path: source.path,
        })
        .collect()
}

/// Blanks comments and inline test modules, keeping the line numbers. Relies on rustfmt: an inline
/// test module at the top level ends at the first `}` in the first column.
fn without_tests_and_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    let mut in_tests = false;
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]"
            && let Some(next) = lines.peek()
            && next.contains("mod ")
            && next.ends_with('{')
        {
            in_tests = true;
        }
        let code = if in_tests {
            in_tests = line != "}";
            ""
        } else if line.trim_start().starts_with("//") {
            ""
        } else {
            line.split(" // ").next().unwrap_or_default()
        };
        out.push_str(code);
        out.push('\n');
    }
    out
}

/// Fails with every line of `sources` that contains one of `words`.
fn refuse(sources: &[Source], words: &[&str], reason: &str) {
    let mut wrong = Vec::new();
    for source in sources {
        for (number, line) in source.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                wrong.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{reason}:\n{}", wrong.join("\n"));
}

#[test]
fn files_stay_short_enough_to_read() {
    let long: Vec<_> = files("")
        .into_iter()
        .filter(|source| source.path.ends_with(".rs") || source.path.starts_with("tests/lab/"))
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines: {long:?}");
}

#[test]
fn production_code_has_no_gaps() {
    for folder in ["repo-format", "engine", "cli"] {
        refuse(
            &production(folder),
            &[".unwrap()", "todo!(", "unimplemented!(", "dbg!("],
            "an error needs a way to the user, and a gap is no code",
        );
    }
}

/// I-4: the engine never prints, and never reads arguments, environment or configuration.
#[test]
fn the_engine_neither_prints_nor_reads_the_environment() {
    for folder in ["repo-format", "engine"] {
        refuse(
            &production(folder),
            &[
                "println!(",
                "eprintln!(",
                "print!(",
                "eprint!(",
                "std::env::",
                "use std::env",
            ],
            "a library reports through its monitor and takes its settings as arguments",
        );
    }
}

/// What bytes mean does not depend on a disk, a clock or luck.
#[test]
fn the_format_does_no_input_or_output() {
    refuse(
        &production("repo-format"),
        &[
            "std::fs",
            "std::net",
            "std::thread",
            "std::process",
            "std::time",
            "SystemTime",
            "Instant::now",
            "getrandom",
            "OsRng",
        ],
        "repo-format takes nonces and times as arguments and does no I/O",
    );
}

#[test]
fn names_come_in_one_by_one() {
    for folder in ["repo-format", "engine", "cli"] {
        let mut sources = production(folder);
        // A prelude is a list of traits that its crate keeps for this very use.
        for source in &mut sources {
            source.text = source.text.replace("prelude::*", "");
        }
        refuse(&sources, &["::*;"], "no glob imports");
    }
}

/// Paths and mirrors of the machine that a file was written on mean nothing on the next one.
#[test]
fn no_file_names_this_machine() {
    let mut words = vec![
        root().display().to_string(),
        concat!("/wo", "rk/").to_owned(),
    ];
    words.extend(private_mirrors());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    refuse(&files(""), &words, "a committed file names this machine");
}

/// The hosts of this machine's package sources that are not Debian's own.
fn private_mirrors() -> Vec<String> {
    let mut texts = vec![fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        for entry in entries.flatten() {
            texts.push(fs::read_to_string(entry.path()).unwrap_or_default());
        }
    }
    let mut hosts = Vec::new();
    for uri in texts.iter().flat_map(|text| text.split_whitespace()) {
        if let Some((_, rest)) = uri.split_once("://") {
            let authority = rest.split('/').next().unwrap_or_default();
            if !authority.is_empty() && !authority.ends_with(".debian.org") {
                hosts.push(authority.to_owned());
            }
        }
    }
    hosts
}
