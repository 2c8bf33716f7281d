//! Fitting definitions to a host: other names, other subnets, and without what the host lacks.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::podman::replay::fit::{move_network, moved_address, take_out_missing};
use crate::podman::replay::{HostFacts, same_network};
use crate::podman::{ContainerDefinition, NetworkDefinition, PodDefinition};

/// Definitions by the name that they had.
#[derive(Default)]
pub(super) struct Definitions {
    pub containers: BTreeMap<String, ContainerDefinition>,
    pub pods: BTreeMap<String, PodDefinition>,
    pub networks: BTreeMap<String, NetworkDefinition>,
}

/// The names that they get.
#[derive(Default)]
pub(super) struct Names {
    pub containers: BTreeMap<String, String>,
    pub pods: BTreeMap<String, String>,
    pub networks: BTreeMap<String, String>,
}

impl Names {
    /// As they were, but for those that are taken where there is a suffix for them.
    pub fn choose(definitions: &Definitions, facts: &HostFacts, suffix: Option<&str>) -> Self {
        let taken =
            |name: &str| facts.containers.contains_key(name) || facts.pods.contains_key(name);
        let renamed = |name: &String, is_taken: bool| match suffix {
            Some(suffix) if is_taken => (name.clone(), format!("{name}{suffix}")),
            _ => (name.clone(), name.clone()),
        };
        Self {
            containers: definitions
                .containers
                .keys()
                .map(|name| renamed(name, taken(name)))
                .collect(),
            pods: definitions
                .pods
                .keys()
                .map(|name| renamed(name, taken(name)))
                .collect(),
            networks: definitions
                .networks
                .iter()
                .map(|(name, network)| {
                    let there = facts.networks.get(name);
                    renamed(
                        name,
                        there.is_some_and(|t| !same_network(&network.config, t)),
                    )
                })
                .collect(),
        }
    }
}

/// Moves networks whose subnets are taken to free ones, with the static addresses in them. Returns
/// what it did, in words.
pub(super) fn remap_subnets(definitions: &mut Definitions, facts: &HostFacts) -> Vec<String> {
    let mut done = Vec::new();
    let mut taken = Vec::new();
    let Definitions {
        containers,
        pods,
        networks,
    } = definitions;
    for (name, network) in networks {
        if facts
            .networks
            .get(name)
            .is_some_and(|there| same_network(&network.config, there))
        {
            continue;
        }
        for (old, new) in move_network(&mut network.config, facts, &mut taken) {
            done.push(format!(
                "give network {name} the subnet {new} instead of {old}"
            ));
            let configs = containers
                .values_mut()
                .map(|container| &mut container.config)
                .chain(pods.values_mut().filter_map(|pod| pod.infra.as_mut()));
            for config in configs {
                move_addresses(config, name, &old, &new);
            }
        }
    }
    done
}

fn move_addresses(config: &mut Map<String, Value>, network: &str, old: &str, new: &str) {
    let addresses = config
        .get_mut("newNetworks")
        .and_then(|networks| networks.get_mut(network))
        .and_then(|options| options.get_mut("static_ips"))
        .and_then(Value::as_array_mut);
    for address in addresses.into_iter().flatten() {
        if let Some(moved) = address.as_str().and_then(|a| moved_address(a, old, new)) {
            *address = json!(moved);
        }
    }
}

/// Containers under the new names of their networks.
pub(super) fn rename_networks(definitions: &mut Definitions, names: &Names) {
    let Definitions {
        containers, pods, ..
    } = definitions;
    let configs = containers
        .values_mut()
        .map(|container| &mut container.config)
        .chain(pods.values_mut().filter_map(|pod| pod.infra.as_mut()));
    for config in configs {
        let Some(Value::Object(networks)) = config.get_mut("newNetworks") else {
            continue;
        };
        let old = std::mem::take(networks);
        for (name, options) in old {
            let name = names.networks.get(&name).cloned().unwrap_or(name);
            networks.insert(name, options);
        }
    }
}

/// Leaves out what the host lacks. Returns what that was, in words.
pub(super) fn drop_missing(definitions: &mut Definitions, facts: &HostFacts) -> Vec<String> {
    let mut done = Vec::new();
    for (name, container) in &mut definitions.containers {
        for what in take_out_missing(&mut container.config, facts) {
            done.push(format!("make container {name} without {what}"));
        }
    }
    for (name, pod) in &mut definitions.pods {
        for what in pod
            .infra
            .iter_mut()
            .flat_map(|infra| take_out_missing(infra, facts))
        {
            done.push(format!("make pod {name} without {what}"));
        }
    }
    done
}

/// Containers after those that they need. `needs`: names by name. `Err`: the names of a circle.
pub(super) fn in_order(
    needs: &BTreeMap<String, BTreeSet<String>>,
) -> Result<Vec<String>, Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    let mut placed: BTreeSet<&String> = BTreeSet::new();
    while order.len() < needs.len() {
        let before = order.len();
        for (name, of) in needs {
            let is_ready = of
                .iter()
                .all(|need| placed.contains(need) || !needs.contains_key(need));
            if is_ready && placed.insert(name) {
                order.push(name.clone());
            }
        }
        if order.len() == before {
            return Err(circle(needs, &placed));
        }
    }
    Ok(order)
}

/// Follows needs that were not placed until one comes again.
fn circle(needs: &BTreeMap<String, BTreeSet<String>>, placed: &BTreeSet<&String>) -> Vec<String> {
    let open = |name: &&String| needs.contains_key(*name) && !placed.contains(*name);
    let mut way: Vec<String> = Vec::new();
    let mut at = needs.keys().find(open);
    while let Some(name) = at {
        if let Some(start) = way.iter().position(|seen| seen == name) {
            way.drain(..start);
            way.push(name.clone());
            return way;
        }
        way.push(name.clone());
        at = needs.get(name).and_then(|of| of.iter().find(open));
    }
    way
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(pairs: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
        let names = |of: &[&str]| of.iter().map(|name| (*name).to_owned()).collect();
        pairs
            .iter()
            .map(|(name, of)| ((*name).to_owned(), names(of)))
            .collect()
    }

    #[test]
    fn c_11_what_is_needed_comes_first_and_a_circle_is_named() {
        let chain = needs(&[
            ("a", &["b", "c"]),
            ("b", &["c"]),
            ("c", &["gone"]),
            ("d", &[]),
        ]);
        assert_eq!(
            in_order(&chain).unwrap(),
            ["c", "d", "b", "a"].map(str::to_owned)
        );
        let circle = needs(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"]), ("d", &[])]);
        assert_eq!(
            in_order(&circle).unwrap_err(),
            ["b", "c", "b"].map(str::to_owned)
        );
        let own = needs(&[("a", &["a"])]);
        assert_eq!(in_order(&own).unwrap_err(), ["a", "a"].map(str::to_owned));
    }
}
