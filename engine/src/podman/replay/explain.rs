//! Why two definitions of one name differ, for whoever compares a snapshot with what was restored from
//! it: the reasons of the proof, by the fields of a definition.
//!
//! Only objects that were made anew have reasons. What differs of one and the same container was changed
//! by somebody.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::asked::AskedFor;
use super::compare::{Comparison, Reason, compare};
use super::request::Choices;
use super::stored::Object;
use crate::podman::definition::{ContainerDefinition, PodDefinition, SecretDefinition};

/// What is known of the fields of two definitions of different objects.
pub struct Explanation {
    /// Fields that were compared by what they mean: all below them that is not listed is the same.
    compared: BTreeSet<&'static str>,
    /// JSON pointers, and why what is there differs.
    known: Vec<(String, Option<Reason>)>,
}

/// What a difference amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Only the order, or how nothing is written.
    Same,
    Because(Reason),
    Unexplained,
}

impl Explanation {
    fn new(own: &[&str]) -> Self {
        let own = own
            .iter()
            .map(|field| ((*field).to_owned(), Some(Reason::NewObject)));
        Self {
            compared: BTreeSet::new(),
            known: own.collect(),
        }
    }

    /// Of two containers of the same name. `None`: it is the same one.
    pub fn of_containers(
        before: &ContainerDefinition,
        after: &ContainerDefinition,
    ) -> Option<Self> {
        if before.id == after.id || before.source == crate::podman::ConfigSource::Inspect {
            return None;
        }
        let mut all = Self::new(&["/id", "/exit_code", "/source"]);
        let renamed = renamed((&before.id, &before.names), (&after.id, &after.names));
        all.compare("/config", &before.config, &after.config, &renamed);
        let names =
            |one: &ContainerDefinition| one.names.values().cloned().collect::<BTreeSet<_>>();
        if names(before) == names(after) {
            all.known.push(("/names".into(), Some(Reason::NewObject)));
        }
        match (&before.runtime_spec, &after.runtime_spec) {
            (Some(old), Some(new)) => {
                let with = |config: &Object, spec: &Object| {
                    let mut config = config.clone();
                    config.insert("spec".into(), Value::Object(spec.clone()));
                    config
                };
                let (old, new) = (with(&before.config, old), with(&after.config, new));
                let at = all.known.len();
                all.compare("/runtime_spec", &old, &new, &renamed);
                // Only what is below the specification is there.
                for (pointer, _) in &mut all.known[at..] {
                    *pointer = pointer.replacen("/runtime_spec/spec", "/runtime_spec", 1);
                }
            }
            // It did not run yet, or not any more.
            _ => all
                .known
                .push(("/runtime_spec".into(), Some(Reason::NewObject))),
        }
        Some(all)
    }

    /// Of two pods of the same name.
    pub fn of_pods(before: &PodDefinition, after: &PodDefinition) -> Option<Self> {
        if before.id == after.id {
            return None;
        }
        let mut all = Self::new(&["/id", "/infra_id"]);
        let none = BTreeMap::new();
        let mut renamed = renamed((&before.id, &none), (&after.id, &none));
        if !before.infra_id.is_empty() {
            renamed.insert(before.infra_id.clone(), after.infra_id.clone());
        }
        all.compare("/config", &before.config, &after.config, &renamed);
        if let (Some(old), Some(new)) = (&before.infra, &after.infra) {
            all.compare("/infra", old, new, &renamed);
        }
        Some(all)
    }

    /// Of two secrets of the same name.
    pub fn of_secrets(before: &SecretDefinition, after: &SecretDefinition) -> Option<Self> {
        let own = ["/id", "/created_at", "/updated_at", "/driver_options/path"];
        (before.id != after.id).then(|| Self::new(&own))
    }

    fn compare(
        &mut self,
        field: &'static str,
        before: &Object,
        after: &Object,
        renamed: &BTreeMap<String, String>,
    ) {
        let (_, differences) = compare(&Comparison {
            stored: before,
            made: after,
            renamed,
            choices: &Choices::default(),
            lacking: &BTreeSet::new(),
            runtime_replaced: false,
            between_user_and_root: false,
            asked_for: &AskedFor::default(),
        });
        self.compared.insert(field);
        self.known.extend(differences.into_iter().map(|one| {
            // As far as names of entries of lists: a pointer counts them.
            let until_list = one.field.split('[').next().unwrap_or_default();
            let pointer = until_list
                .replace('~', "~0")
                .replace('/', "~1")
                .replace('.', "/");
            (format!("{field}/{pointer}"), one.reason)
        }));
    }

    /// The verdict on a difference at a JSON pointer of the definition.
    pub fn verdict(&self, pointer: &str) -> Verdict {
        let is_below = |pointer: &str, above: &str| {
            let rest = pointer.strip_prefix(above);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        // A key may have dots of its own: by the text, not by its parts.
        let dotted = pointer.replace('.', "/");
        let mut reasons = self
            .known
            .iter()
            .filter(|(known, _)| is_below(&dotted, known) || is_below(known, &dotted))
            .map(|(_, reason)| *reason)
            .peekable();
        if reasons.peek().is_none() {
            let is_compared = self.compared.iter().any(|field| is_below(pointer, field));
            return match is_compared {
                true => Verdict::Same,
                false => Verdict::Unexplained,
            };
        }
        // One that nobody knows counts more than one that is known.
        match reasons.collect::<Option<Vec<Reason>>>() {
            Some(reasons) => reasons
                .into_iter()
                .max()
                .map_or(Verdict::Unexplained, Verdict::Because),
            None => Verdict::Unexplained,
        }
    }
}

/// New ID by old one: of the object itself, and of what both refer to by the same name.
fn renamed(
    (old, old_names): (&String, &BTreeMap<String, String>),
    (new, new_names): (&String, &BTreeMap<String, String>),
) -> BTreeMap<String, String> {
    let mut renamed = BTreeMap::from([(old.clone(), new.clone())]);
    for (id, name) in old_names {
        if let Some((now, _)) = new_names.iter().find(|(_, other)| *other == name) {
            renamed.insert(id.clone(), now.clone());
        }
    }
    renamed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(id: &str, other: &str, umask: &str) -> ContainerDefinition {
        let (id, other) = (id.repeat(32), other.repeat(32));
        let json = json!({
            "format": 1, "id": id, "name": "c", "source": "sqlite", "status": "created",
            "image_id": "", "image_name": "", "names": {(other.clone()): "db"},
            "config": {
                "id": id, "umask": umask, "Dependencies": [other], "stdin": null,
                "spec": {"process": {"env": ["A=1", "B=2"]}, "annotations": {"a.b/c": umask},
                         "mounts": [{"destination": "/dev", "type": "tmpfs", "source": id}]},
                "userVolumes": [],
            },
        });
        ContainerDefinition::decode(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_container_that_was_made_anew_differs_with_reason_but_for_what_was_changed() {
        let (before, after) = (container("ab", "12", "0022"), container("cd", "34", "0027"));
        let all = Explanation::of_containers(&before, &after).unwrap();
        for (pointer, verdict) in [
            ("/id", Verdict::Because(Reason::NewObject)),
            ("/names", Verdict::Because(Reason::NewObject)),
            ("/names/1212", Verdict::Because(Reason::NewObject)),
            // Its own ID, and the same container by its name; the same variables; nothing, in other words.
            ("/config/id", Verdict::Same),
            ("/config/Dependencies/0", Verdict::Same),
            ("/config/spec/process/env/1", Verdict::Same),
            ("/config/stdin", Verdict::Same),
            ("/config/spec/mounts/0/source", Verdict::Same),
            ("/config/umask", Verdict::Unexplained),
            ("/config/spec/annotations/a.b~1c", Verdict::Unexplained),
            ("/config/spec", Verdict::Unexplained),
            ("/status", Verdict::Unexplained),
        ] {
            assert_eq!(all.verdict(pointer), verdict, "{pointer}");
        }
        assert!(Explanation::of_containers(&before, &before).is_none());
    }
}
