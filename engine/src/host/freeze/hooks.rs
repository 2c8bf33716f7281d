//! What a container asks for by its labels: commands in it around a freeze, and how it is frozen.
//!
//! | label | value |
//! |---|---|
//! | `io.podkeep.backup.pre` | a command that runs in the container before it is frozen |
//! | `io.podkeep.backup.post` | a command that runs in it when it is going again |
//! | `io.podkeep.backup.timeout` | seconds that each may take; 30 |
//! | `io.podkeep.backup.on-error` | `fail` (the default: nothing of the group is saved) or `continue` |
//! | `io.podkeep.backup.consistency` | `live`, `pause` or `stop`, whatever the command line says |
//!
//! A command that begins with `[` is a JSON array of its words, else a line for `/bin/sh -c`.

use std::collections::BTreeMap;
use std::time::Duration;

use podkeep_format::snapshot::Consistency;

const PRE: &str = "io.podkeep.backup.pre";
const POST: &str = "io.podkeep.backup.post";
const TIMEOUT: &str = "io.podkeep.backup.timeout";
const ON_ERROR: &str = "io.podkeep.backup.on-error";
const CONSISTENCY: &str = "io.podkeep.backup.consistency";

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const TIMEOUT_SECS_MAX: u64 = 3600;

/// What the labels of one container ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub pre: Option<Vec<String>>,
    pub post: Option<Vec<String>>,
    pub timeout: Duration,
    pub goes_on: bool,
    pub consistency: Option<Consistency>,
}

impl Wishes {
    /// `Err` names the label that makes no sense.
    pub fn of(labels: &BTreeMap<String, String>) -> Result<Self, String> {
        let value = |name: &str| labels.get(name).map(String::as_str);
        let wrong = |name: &str, expected: &str| {
            let value = value(name).unwrap_or_default();
            format!("its label {name}={value} is not {expected}")
        };
        let command = |name: &str| match value(name) {
            None | Some("") => Ok(None),
            Some(text) => words(text)
                .map(Some)
                .ok_or_else(|| wrong(name, "a JSON array of words")),
        };
        let timeout = match value(TIMEOUT) {
            None => TIMEOUT_DEFAULT,
            Some(text) => match text.trim_end_matches('s').parse() {
                Ok(seconds @ 1..=TIMEOUT_SECS_MAX) => Duration::from_secs(seconds),
                _ => return Err(wrong(TIMEOUT, "a number of seconds from 1 to 3600")),
            },
        };
        let goes_on = match value(ON_ERROR) {
            None | Some("fail") => false,
            Some("continue") => true,
            Some(_) => return Err(wrong(ON_ERROR, "`fail` or `continue`")),
        };
        let consistency = match value(CONSISTENCY) {
            None => None,
            Some(word) => Some(
                Consistency::ALL
                    .into_iter()
                    .find(|level| level.word() == word)
                    .ok_or_else(|| wrong(CONSISTENCY, "`live`, `pause` or `stop`"))?,
            ),
        };
        Ok(Self {
            pre: command(PRE)?,
            post: command(POST)?,
            timeout,
            goes_on,
            consistency,
        })
    }
}

fn words(text: &str) -> Option<Vec<String>> {
    if !text.trim_start().starts_with('[') {
        return Some(vec!["/bin/sh".into(), "-c".into(), text.to_owned()]);
    }
    let words: Vec<String> = serde_json::from_str(text).ok()?;
    (!words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(labels: &[(&str, &str)]) -> Result<Wishes, String> {
        let labels = labels.iter();
        let labels = labels.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Wishes::of(&labels.collect())
    }

    #[test]
    fn labels_say_what_runs_and_for_how_long() {
        let none = wishes(&[("a", "b")]).unwrap();
        assert_eq!((none.pre, none.post, none.goes_on), (None, None, false));
        assert_eq!(none.timeout, Duration::from_secs(30));
        let all = wishes(&[
            (PRE, "sync && touch /x"),
            (POST, r#"["rm", "-f", "/x y"]"#),
            (TIMEOUT, "5s"),
            (ON_ERROR, "continue"),
            (CONSISTENCY, "stop"),
        ])
        .unwrap();
        assert_eq!(all.pre.unwrap(), ["/bin/sh", "-c", "sync && touch /x"]);
        assert_eq!(all.post.unwrap(), ["rm", "-f", "/x y"]);
        assert_eq!(all.timeout, Duration::from_secs(5));
        assert!(all.goes_on);
        assert_eq!(all.consistency, Some(Consistency::Stop));
    }

    #[test]
    fn labels_that_make_no_sense_are_named() {
        for (name, value) in [
            (PRE, "[1]"),
            (POST, "[]"),
            (TIMEOUT, "soon"),
            (TIMEOUT, "0"),
            (ON_ERROR, "maybe"),
            (CONSISTENCY, "freeze"),
        ] {
            let error = wishes(&[(name, value)]).unwrap_err();
            assert!(error.contains(&format!("{name}={value}")), "{error}");
        }
    }
}
