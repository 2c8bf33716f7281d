//! Whether what was made is what was stored.

use podkeep_format::item::{Item, ItemKind};

use super::super::{FieldDifference, Proof};
use super::LocalReplay;
use crate::host::HostError;
use crate::podman::replay::{AskedFor, Comparison, compare, is_of_user, missing_options};
use crate::podman::{list_networks, read_secret, read_state};

impl LocalReplay {
    pub(super) fn prove_all(&self) -> Result<Vec<Proof>, HostError> {
        let state = read_state(&self.podman, &self.info)?;
        let (containers, pods) = state.definitions();
        let choices = self.choices();
        let mut proofs = Vec::new();
        for item in &self.made {
            let name = String::from_utf8_lossy(&item.name).into_owned();
            let (new, stored, made, fitted) = match item.kind {
                ItemKind::Container => {
                    let stored = &self.stored.containers[&name];
                    let new = &self.names.containers[&name];
                    let made = containers.iter().find(|(one, _)| one.name == *new);
                    let fitted = self.definitions.containers.get(&name);
                    let fitted = fitted.map_or(&stored.config, |one| &one.config);
                    let made = made.map(|(one, _)| &one.config);
                    (new, &stored.config, made, fitted)
                }
                ItemKind::Pod => {
                    let stored = &self.stored.pods[&name];
                    let new = &self.names.pods[&name];
                    let made = pods
                        .iter()
                        .find(|one| one.name == *new)
                        .map(|one| &one.config);
                    let fitted = self.definitions.pods.get(&name);
                    let fitted = fitted.map_or(&stored.config, |one| &one.config);
                    (new, &stored.config, made, fitted)
                }
                _ => continue,
            };
            let runtime = stored
                .get("runtime")
                .and_then(|v| v.as_str())
                .unwrap_or_default();
            let empty = serde_json::Map::new();
            let (fields, differences) = compare(&Comparison {
                stored,
                made: made.unwrap_or(&empty),
                renamed: &self.renamed,
                choices: &choices,
                lacking: &missing_options(stored, self.facts.version),
                runtime_replaced: !self.facts.has_runtime(runtime),
                between_user_and_root: is_of_user(stored) != self.facts.user.is_some(),
                asked_for: &AskedFor::of(stored, fitted, self.options.drop_static),
            });
            proofs.push(Proof {
                item: item.clone(),
                name: new.clone(),
                fields,
                differences,
            });
        }
        proofs.extend(self.prove_networks()?);
        proofs.extend(self.prove_secrets()?);
        Ok(proofs)
    }

    fn prove_networks(&self) -> Result<Vec<Proof>, HostError> {
        let there = list_networks(&self.podman, &self.info.graph_root)?;
        let mut proofs = Vec::new();
        for (name, stored) in &self.stored.networks {
            let new = &self.names.networks[name];
            let made = there.iter().find(|network| network.name == *new);
            let item = Item::new(ItemKind::Network, name.as_bytes());
            let fitted = self.definitions.networks.get(name);
            let fitted = fitted.map_or(&stored.config, |network| &network.config);
            let (fields, differences) = compare(&Comparison {
                stored: &stored.config,
                made: made.map_or(&serde_json::Map::new(), |network| &network.config),
                renamed: &self.renamed,
                choices: &self.choices(),
                lacking: &["network_interface"].into(),
                runtime_replaced: false,
                between_user_and_root: false,
                asked_for: &AskedFor::of(&stored.config, fitted, false),
            });
            proofs.push(Proof {
                item,
                name: new.clone(),
                fields,
                differences,
            });
        }
        Ok(proofs)
    }

    /// Their bytes, which no difference shows.
    fn prove_secrets(&self) -> Result<Vec<Proof>, HostError> {
        let mut proofs = Vec::new();
        for (name, stored) in &self.secrets {
            let made = read_secret(&self.podman, &self.info.graph_root, name)?;
            let made = made.map(|(secret, _)| secret);
            let same_data = made.as_ref().is_some_and(|made| made.data == stored.data);
            let same_labels = made
                .as_ref()
                .is_some_and(|made| made.labels == stored.labels);
            let mut differences = Vec::new();
            for (field, same) in [("data", same_data), ("labels", same_labels)] {
                if !same {
                    differences.push(FieldDifference {
                        field: field.into(),
                        stored: String::new(),
                        made: String::new(),
                        reason: None,
                    });
                }
            }
            proofs.push(Proof {
                item: Item::new(ItemKind::Secret, name.as_bytes()),
                name: name.clone(),
                fields: 2,
                differences,
            });
        }
        Ok(proofs)
    }
}
