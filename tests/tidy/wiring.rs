//! Every file under `tests/` is read by something: a virtual workspace runs none of a root `tests/`
//! folder by itself, and a forgotten file looks like a test that passes.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use crate::sources::{Source, files};

/// Where a person or CI begins, and the fuzz targets, which are a workspace of their own.
const ENTRANCES: &[&str] = &[
    "tests/run.sh",
    "tests/demo.sh",
    "tests/fuzz.sh",
    "tests/zfs.sh",
];
const OWN_WORKSPACE: &str = "tests/fuzz/";

/// The paths in `path = "..."` of `[[test]]` and `[[bench]]` tables, relative to the top.
fn attached(kind: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["repo-format", "engine", "cli"] {
        for manifest in files(folder) {
            if manifest.path != format!("{folder}/Cargo.toml") {
                continue;
            }
            let mut inside = false;
            for line in manifest.text.lines() {
                if line.starts_with('[') {
                    inside = line == format!("[[{kind}]]");
                }
                let path = line
                    .strip_prefix("path = \"")
                    .and_then(|l| l.strip_suffix('"'));
                if let (true, Some(path)) = (inside, path) {
                    found.insert(plain(&format!("{folder}/{path}")));
                }
            }
        }
    }
    found
}

/// Resolves `..` and `.` by name alone.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::ParentDir => {
                parts.pop();
            }
            Component::Normal(part) => parts.push(part.to_str().expect("a UTF-8 path")),
            _ => {}
        }
    }
    parts.join("/")
}

/// The files that the `mod name;` lines of a module file lead to, in the places where rustc looks.
fn modules(source: &Source) -> Vec<String> {
    let (folder, file) = source.path.rsplit_once('/').expect("a file in a folder");
    let inner = match file {
        "main.rs" | "mod.rs" | "lib.rs" => folder.to_owned(),
        _ => format!("{folder}/{}", file.trim_end_matches(".rs")),
    };
    let mut found = Vec::new();
    let mut explicit = None;
    for line in source.text.lines().map(str::trim) {
        if let Some(path) = line.strip_prefix("#[path = \"") {
            explicit = path.strip_suffix("\"]").map(str::to_owned);
        } else if let Some(name) = line
            .trim_start_matches("pub ")
            .strip_prefix("mod ")
            .and_then(|rest| rest.strip_suffix(';'))
        {
            match explicit.take() {
                Some(path) => found.push(plain(&format!("{folder}/{path}"))),
                None => {
                    found.push(format!("{inner}/{name}.rs"));
                    found.push(format!("{inner}/{name}/mod.rs"));
                }
            }
        }
    }
    found
}

#[test]
fn every_test_file_is_read() {
    let tests = files("tests");
    let mut reached = BTreeSet::new();
    let mut open: Vec<String> = attached("test").into_iter().collect();
    open.extend(attached("bench"));
    while let Some(path) = open.pop() {
        if let Some(source) = tests.iter().find(|source| source.path == path)
            && reached.insert(path)
        {
            open.extend(modules(source));
        }
    }
    // Data and scripts are read when a test or another script names them, or the folder they lie in.
    let readers: Vec<&Source> = tests
        .iter()
        .filter(|source| {
            reached.contains(&source.path)
                || source.path.ends_with(".sh")
                || source.text.starts_with("#!")
        })
        .collect();
    let named = |path: &str| {
        let (folder, file) = path.rsplit_once('/').expect("a file in tests/");
        let folder = folder.trim_start_matches("tests/");
        readers.iter().any(|reader| {
            reader.path != path
                && (reader.text.contains(file)
                    || (folder != "tests" && reader.text.contains(folder)))
        })
    };
    let unread: Vec<&str> = tests
        .iter()
        .map(|source| source.path.as_str())
        .filter(|path| !path.starts_with(OWN_WORKSPACE) && !ENTRANCES.contains(path))
        .filter(|path| {
            if path.ends_with(".rs") {
                !reached.contains(*path)
            } else {
                !named(path)
            }
        })
        .collect();
    assert!(unread.is_empty(), "no target reads {unread:?}");
}

#[test]
fn every_attached_target_exists() {
    let paths: BTreeSet<String> = files("").into_iter().map(|source| source.path).collect();
    for kind in ["test", "bench"] {
        for path in attached(kind) {
            assert!(paths.contains(&path), "a manifest attaches {path}");
        }
    }
    assert!(attached("test").contains("tests/tidy/main.rs"));
}

#[test]
fn modules_are_found_where_rustc_looks() {
    let found = modules(&Source {
        path: "tests/podman/main.rs".to_owned(),
        text: "#[path = \"../support/lab.rs\"]\nmod lab;\n\npub mod hosts;\n// mod gone;\n"
            .to_owned(),
    });
    assert_eq!(
        found,
        [
            "tests/support/lab.rs",
            "tests/podman/hosts.rs",
            "tests/podman/hosts/mod.rs"
        ]
    );
}
