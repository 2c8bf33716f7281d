//! The definitions of items: as they are shown, and how two differ.

use podkeep_format::id::ChunkKind;
use podkeep_format::item::ItemKind;
use serde_json::Value;

use super::{OperationError, OperationResult};
use crate::podman::replay::{Explanation, Reason, Verdict};
use crate::podman::{ContainerDefinition, PodDefinition, SecretDefinition};
use crate::repo::reader::Reader;
use crate::repo::{RepoError, StoredSnapshot};

/// The path of a secret's bytes below its item.
pub const SECRET_DATA: &[u8] = b"data";
/// Stands for a secret's bytes where something is said of them.
const NOT_SHOWN: &str = "(not shown)";

/// Whether an item of this kind is what its definition says, rather than its files.
pub fn is_defined(kind: ItemKind) -> bool {
    matches!(
        kind,
        ItemKind::Container
            | ItemKind::Pod
            | ItemKind::Network
            | ItemKind::Secret
            | ItemKind::Unit
            | ItemKind::Config
    )
}

/// The stored definition of an item, if it has one.
pub fn stored(reader: &Reader, snapshot: &StoredSnapshot) -> OperationResult<Option<Vec<u8>>> {
    let Some((id, _)) = snapshot.body.as_ref().and_then(|body| body.definition) else {
        return Ok(None);
    };
    let bytes = reader.chunk(ChunkKind::Record, id)?;
    Ok(Some(bytes.as_ref().to_vec()))
}

/// A definition as people may see it: a secret without its bytes.
pub fn shown(kind: ItemKind, bytes: &[u8]) -> OperationResult<Value> {
    if kind == ItemKind::Secret {
        let secret = SecretDefinition::decode(bytes).map_err(odd)?;
        return serde_json::from_slice(&secret.without_data().encode()).map_err(odd);
    }
    serde_json::from_slice(bytes).map_err(odd)
}

/// The bytes of a secret, if they were saved.
pub fn secret_data(bytes: &[u8]) -> OperationResult<Option<Vec<u8>>> {
    let secret = SecretDefinition::decode(bytes).map_err(odd)?;
    Ok(secret.data)
}

fn odd(cause: impl std::fmt::Display) -> OperationError {
    RepoError::Damaged {
        object: "a definition".into(),
        cause: cause.to_string(),
    }
    .into()
}

/// A field that two definitions have otherwise. `None`: that side has none.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    /// A JSON pointer (RFC 6901): `/config/labels/a~1b`.
    pub field: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
    /// Why an object that was made anew has it otherwise. `None`: nobody knows, or it is the same object.
    pub reason: Option<Reason>,
}

/// How two definitions of an item differ, field by field. Of a secret's bytes only that they do.
pub fn differences(
    kind: ItemKind,
    before: &[u8],
    after: &[u8],
) -> OperationResult<Vec<FieldChange>> {
    let mut changes = Vec::new();
    let (old, new) = (shown(kind, before)?, shown(kind, after)?);
    compare(&mut String::new(), Some(&old), Some(&new), &mut changes);
    if kind == ItemKind::Secret {
        let (old, new) = (secret_data(before)?, secret_data(after)?);
        if old != new {
            let side = |data: Option<Vec<u8>>| data.map(|_| NOT_SHOWN.into());
            changes.push(FieldChange {
                field: "/data".into(),
                before: side(old),
                after: side(new),
                reason: None,
            });
        }
    }
    // What is not understood has no reasons; it is compared all the same.
    if let Some(explanation) = explanation(kind, before, after).unwrap_or_default() {
        changes.retain_mut(|change| match explanation.verdict(&change.field) {
            Verdict::Same => false,
            Verdict::Because(reason) => {
                change.reason = Some(reason);
                true
            }
            Verdict::Unexplained => true,
        });
    }
    Ok(changes)
}

fn explanation(kind: ItemKind, before: &[u8], after: &[u8]) -> Result<Option<Explanation>, String> {
    Ok(match kind {
        ItemKind::Container => Explanation::of_containers(
            &ContainerDefinition::decode(before)?,
            &ContainerDefinition::decode(after)?,
        ),
        ItemKind::Pod => Explanation::of_pods(
            &PodDefinition::decode(before)?,
            &PodDefinition::decode(after)?,
        ),
        ItemKind::Secret => Explanation::of_secrets(
            &SecretDefinition::decode(before)?,
            &SecretDefinition::decode(after)?,
        ),
        _ => None,
    })
}

/// JSON is no deeper than what its parser takes (128 levels).
fn compare(
    field: &mut String,
    before: Option<&Value>,
    after: Option<&Value>,
    changes: &mut Vec<FieldChange>,
) {
    if before == after {
        return;
    }
    let len = field.len();
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                field.push('/');
                field.push_str(&name.replace('~', "~0").replace('/', "~1"));
                compare(field, old.get(name), new.get(name), changes);
                field.truncate(len);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                field.push('/');
                field.push_str(&index.to_string());
                compare(field, Some(old), Some(new), changes);
                field.truncate(len);
            }
        }
        _ => changes.push(FieldChange {
            field: field.clone(),
            before: before.cloned(),
            after: after.cloned(),
            reason: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is taken for a definition alone is not restored as files are.
    #[test]
    fn what_has_content_of_its_own_is_no_definition() {
        let defined: Vec<ItemKind> = ItemKind::ALL
            .into_iter()
            .filter(|k| is_defined(*k))
            .collect();
        assert_eq!(
            defined,
            [
                ItemKind::Container,
                ItemKind::Pod,
                ItemKind::Network,
                ItemKind::Secret,
                ItemKind::Unit,
                ItemKind::Config
            ]
        );
    }

    #[test]
    fn definitions_differ_by_fields() {
        let old = json!({"a": 1, "b": {"x/y": [1, 2]}, "c": [1]});
        let new = json!({"b": {"x/y": [1, 3]}, "c": [1, 2], "d": null});
        let bytes = |value: &Value| serde_json::to_vec(value).unwrap();
        let changes = differences(ItemKind::Network, &bytes(&old), &bytes(&new)).unwrap();
        let fields: Vec<&str> = changes.iter().map(|change| change.field.as_str()).collect();
        assert_eq!(fields, ["/a", "/b/x~1y/1", "/c", "/d"]);
        assert_eq!(changes[0].before, Some(json!(1)));
        assert_eq!(changes[0].after, None);
        assert_eq!(changes[1].after, Some(json!(3)));
        let same = differences(ItemKind::Network, &bytes(&old), &bytes(&old)).unwrap();
        assert!(same.is_empty());
    }

    #[test]
    fn c_14_a_secret_is_never_shown_nor_compared_in_the_open() {
        let secret = |data: &str| {
            let json = json!({
                "format": 1, "id": "0123456789abcdef012345678", "name": "s", "driver": "file",
                "data": data,
            });
            serde_json::to_vec(&json).unwrap()
        };
        // "hunter2", "hunter3"
        let (old, new) = (secret("aHVudGVyMg=="), secret("aHVudGVyMw=="));
        let shown = shown(ItemKind::Secret, &old).unwrap().to_string();
        assert!(
            shown.contains("\"name\":\"s\"") && !shown.contains("aHVud"),
            "{shown}"
        );
        let changes = differences(ItemKind::Secret, &old, &new).unwrap();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].before, Some(json!(NOT_SHOWN)));
        assert_eq!(secret_data(&old).unwrap().as_deref(), Some(&b"hunter2"[..]));
        assert!(secret_data(b"{}").is_err());
    }
}
