use super::*;
use clap::CommandFactory;

#[test]
fn definitions_are_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn backup_needs_a_selection() {
    assert!(Arguments::try_parse_from(["podkeep", "backup"]).is_err());
    assert!(Arguments::try_parse_from(["podkeep", "backup", "--all"]).is_ok());
    assert!(Arguments::try_parse_from(["podkeep", "backup", "--all", "volume:a"]).is_err());
}

#[test]
fn repairing_layers_needs_no_selection_and_takes_no_place() {
    let parses = |rest: &[&str]| {
        let arguments = ["podkeep", "restore", "latest"].iter().chain(rest);
        Arguments::try_parse_from(arguments).is_ok()
    };
    assert!(!parses(&[]));
    assert!(parses(&["--all"]) && parses(&["volume:a"]));
    assert!(!parses(&["--all", "volume:a"]));
    assert!(parses(&["--repair-layers"]));
    assert!(parses(&[
        "--repair-layers",
        "image:a",
        "image:b",
        "--dry-run"
    ]));
    for other in [
        "--all",
        "--merge",
        "--replace",
        "--retag",
        "--to-dir=/x",
        "--as=x",
    ] {
        assert!(!parses(&["--repair-layers", other]), "{other}");
    }
}

#[test]
fn read_data_takes_its_share_only_behind_an_equals_sign() {
    let share = |arguments: &[&str]| {
        let parsed = Arguments::try_parse_from(arguments).ok()?;
        match parsed.command {
            Command::Check(check) => Some(check.read_data),
            _ => None,
        }
    };
    assert_eq!(share(&["podkeep", "check"]), Some(None));
    assert_eq!(share(&["podkeep", "check", "--read-data"]), Some(Some(100)));
    assert_eq!(share(&["podkeep", "check", "--read-data=7"]), Some(Some(7)));
    assert!(share(&["podkeep", "check", "--read-data", "7"]).is_none());
    assert!(share(&["podkeep", "check", "--read-data=101"]).is_none());
}

#[test]
fn rates_that_people_write() {
    for (text, bytes) in [
        ("1", 1),
        ("500K", 500_000),
        ("10M", 10_000_000),
        ("1g", 1_000_000_000),
    ] {
        assert_eq!(rate(text), Ok(bytes));
    }
    for text in [
        "",
        "0",
        "K",
        "-1",
        "1.5M",
        "10T",
        "1\u{b5}",
        "99999999999999G",
    ] {
        assert!(rate(text).is_err(), "{text}");
    }
}

#[test]
fn durations_that_people_write() {
    for (text, seconds) in [
        ("0s", 0),
        ("30s", 30),
        ("10m", 600),
        ("2h", 7200),
        ("1d", 86_400),
    ] {
        assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
    }
    for text in [
        "",
        "s",
        "10",
        "1.5h",
        "-1s",
        "+1s",
        "1w",
        "10 m",
        "1\u{b5}",
        "99999999999999999999s",
    ] {
        assert!(duration(text).is_err(), "{text}");
    }
    assert!(duration(&format!("{}d", u64::MAX)).is_err());
}
