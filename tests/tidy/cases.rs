//! Field cases: what went wrong for people who do this job. Each list in `tests/cases` names cases by
//! id, and each id has at least one test whose name begins with it.

use std::collections::BTreeSet;

use crate::sources::files;

/// `F-01` of a list, as it begins a test's name: `f_01_`.
fn prefix(id: &str) -> String {
    let (kind, number) = id.split_once('-').unwrap_or_default();
    let well_formed = kind.len() == 1
        && kind.chars().all(|c| c.is_ascii_uppercase())
        && number.len() == 2
        && number.chars().all(|c| c.is_ascii_digit());
    assert!(well_formed, "'{id}' is no case id such as F-01");
    format!("{}_{number}_", kind.to_lowercase())
}

/// The names of the functions under a `#[test]` that no `#[ignore]` takes out of the run.
fn tests_in(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut is_test, mut is_ignored) = (false, false);
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            is_test |= line == "#[test]";
            is_ignored |= line.starts_with("#[ignore");
        } else if let Some(rest) = line.strip_prefix("fn ") {
            if is_test && !is_ignored {
                found.push(rest.split(['(', '<']).next().unwrap_or(rest));
            }
            (is_test, is_ignored) = (false, false);
        } else if !line.starts_with("//") {
            (is_test, is_ignored) = (false, false);
        }
    }
    found
}

#[test]
fn every_field_case_has_a_test() {
    let sources = files("");
    let names: BTreeSet<&str> = sources
        .iter()
        .filter(|source| source.path.ends_with(".rs"))
        .flat_map(|source| tests_in(&source.text))
        .collect();
    let mut untested = Vec::new();
    let mut listed = 0;
    for list in sources
        .iter()
        .filter(|source| source.path.starts_with("tests/cases/"))
    {
        for id in list.text.lines().filter(|line| !line.starts_with('#')) {
            let prefix = prefix(id);
            listed += 1;
            if !names.iter().any(|name| name.starts_with(&prefix)) {
                untested.push(id);
            }
        }
    }
    assert!(listed > 0, "tests/cases lists no case");
    assert!(untested.is_empty(), "no test for {untested:?}");
}

#[test]
fn only_tests_that_run_count() {
    let text = "#[test]\nfn f_01_a() {}\n\n#[test]\n#[ignore]\nfn f_02_b() {}\n\nfn f_04_c() {}\n\
                #[test]\n// why\n#[should_panic]\nfn f_05_d() {}\n";
    assert_eq!(tests_in(text), ["f_01_a", "f_05_d"]);
}
