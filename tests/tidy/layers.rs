//! Which module of the engine may know which: `docs/architecture.md`, "The shape".
//!
//! An edge is any path that begins at the crate's root (`crate::store::...`, also in braces, and
//! `super::` climbed all the way up) in production code.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{Source, files, production};

/// What each module may use besides itself, `monitor` and `clock`. `podman` and `repo` never know each other:
/// they meet in `operations`.
const EDGES: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("monitor", &[]),
    ("chunk", &[]),
    ("link", &[]),
    ("store", &["link"]),
    ("repo", &["chunk", "store"]),
    ("fs", &["chunk"]),
    ("podman", &["fs"]),
    ("host", &["podman", "fs", "chunk", "link"]),
    (
        "operations",
        &["chunk", "store", "repo", "fs", "podman", "host"],
    ),
];

/// The modules at the crate's root that `source` names.
fn roots_used(source: &Source) -> BTreeSet<String> {
    let text = &source.text;
    let mut used = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let before = text[..at].chars().next_back();
        // `$crate::` in a macro is a root as well; `my_crate::` is another crate.
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        heads(&text[at + "crate::".len()..], &mut used);
    }
    let depth = depth(&source.path);
    let climb = "super::".repeat(depth);
    for (at, _) in text.match_indices(climb.as_str()) {
        heads(&text[at + climb.len()..], &mut used);
    }
    used
}

/// The first names of a path: one, or those in braces.
fn heads(rest: &str, used: &mut BTreeSet<String>) {
    let name = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = rest.strip_prefix('{') else {
        used.insert(name(rest));
        return;
    };
    let mut level = 0usize;
    let mut start = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => level += 1,
            '}' if level == 0 => break,
            '}' => level -= 1,
            ',' if level == 0 => start = true,
            c if start && !c.is_whitespace() => {
                used.insert(name(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
}

/// How many times `super` leads from a file of the engine to the crate's root.
fn depth(path: &str) -> usize {
    let inner = path.trim_start_matches("engine/src/");
    match inner.strip_suffix("/mod.rs") {
        Some(folder) => folder.split('/').count(),
        None => inner.split('/').count(),
    }
}

/// The module at the crate's root that a file of the engine belongs to.
fn layer(path: &str) -> &str {
    let inner = path.trim_start_matches("engine/src/");
    let first = inner.split('/').next().unwrap_or(inner);
    first.strip_suffix(".rs").unwrap_or(first)
}

#[test]
fn modules_know_only_what_lies_below_them() {
    let edges: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in production("engine") {
        let layer = layer(&source.path);
        if layer == "lib" {
            continue;
        }
        let Some(allowed) = edges.get(layer) else {
            wrong.push(format!("{} is in no known layer", source.path));
            continue;
        };
        for used in roots_used(&source) {
            if edges.contains_key(used.as_str())
                && used != layer
                && used != "monitor"
                && used != "clock"
                && !allowed.contains(&used.as_str())
            {
                wrong.push(format!("{} uses {used}", source.path));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "layer edges broken:\n{}",
        wrong.join("\n")
    );
}

/// The same between the crates: cli -> engine -> repo-format, never back.
#[test]
fn crates_depend_downwards() {
    for (folder, above) in [
        ("repo-format", &["podkeep-engine", "podkeep.workspace"][..]),
        ("engine", &["podkeep.workspace"][..]),
    ] {
        let manifest = files(folder)
            .into_iter()
            .find(|file| file.path == format!("{folder}/Cargo.toml"))
            .expect("each crate has a manifest");
        for name in above {
            assert!(!manifest.text.contains(name), "{folder} depends on {name}");
        }
    }
}

#[test]
fn edges_are_read_from_every_form_of_path() {
    let used = |path: &str, text: &str| {
        roots_used(&Source {
            path: path.to_owned(),
            text: text.to_owned(),
        })
        .into_iter()
        .collect::<Vec<_>>()
    };
    let file = "engine/src/repo/write.rs";
    assert_eq!(used(file, "use crate::store::Name;"), ["store"]);
    assert_eq!(
        used(file, "use crate::{chunk::{a, b}, fs as f, podman};"),
        ["chunk", "fs", "podman"]
    );
    assert_eq!(used(file, "fn f(x: &crate::host::Host)"), ["host"]);
    assert_eq!(used(file, "use super::super::podman::Volume;"), ["podman"]);
    assert_eq!(
        used("engine/src/repo/mod.rs", "super::podman::x()"),
        ["podman"]
    );
    assert!(used(file, "use other_crate::podman; use super::pack;").is_empty());
}
