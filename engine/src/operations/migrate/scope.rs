//! What moves together: everything that the selected needs, and nobody that is left behind uses any
//! of it.

use std::collections::BTreeSet;

use podkeep_format::item::{Item, ItemKind};

use super::MigrateOptions;
use crate::host::select::with_needs;
use crate::host::{ContainerFacts, Inventory};
use crate::monitor::{Finding, FindingKind, Monitor};
use crate::operations::{OperationError, OperationResult};

/// What a migration takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    pub items: Vec<Item>,
    /// Names of all its containers, and of those that run.
    pub containers: Vec<String>,
    pub running: Vec<String>,
    /// IDs of the infra containers of its pods.
    pub infra: Vec<String>,
}

impl Scope {
    pub fn names(&self, kind: ItemKind) -> Vec<String> {
        let items = self.items.iter().filter(|item| item.kind == kind);
        items
            .map(|item| String::from_utf8_lossy(&item.name).into_owned())
            .collect()
    }
}

/// Closes a selection both ways, or says what is in the way of that.
pub(super) fn scope(
    inventory: &Inventory,
    selected: Vec<Item>,
    options: &MigrateOptions,
    monitor: &dyn Monitor,
) -> OperationResult<Scope> {
    let mut items = with_needs(inventory, &selected);
    loop {
        let outside = dependents(inventory, &items);
        if outside.is_empty() {
            break;
        }
        if options.with_dependents {
            items.extend(outside.into_iter().map(|(container, _)| container.item()));
            items = with_needs(inventory, &items);
            continue;
        }
        let lines: Vec<String> = outside
            .iter()
            .map(|(container, why)| format!("container {} {why}", container.name))
            .collect();
        if options.split {
            for line in lines {
                monitor.finding(note("scope", format!("{line}, and stays behind")));
            }
            break;
        }
        return Err(OperationError::Conflicts {
            conflicts: lines
                .into_iter()
                .map(|line| format!("{line}: --with-dependents, or --split to leave it behind"))
                .collect(),
        });
    }
    items.retain(|item| !matches!(item.kind, ItemKind::Config | ItemKind::Unit));
    let taken: BTreeSet<&Item> = items.iter().collect();
    let containers = || {
        let all = inventory.containers.iter();
        all.filter(|container| !container.is_infra && taken.contains(&container.item()))
    };
    let mut conflicts = Vec::new();
    for container in containers() {
        let name = &container.name;
        if let Some(unit) = &container.unit {
            conflicts.push(format!(
                "container {name} is run by the unit {unit}, which is not moved: move its volumes, \
                 and the unit by hand"
            ));
        } else if container.auto_remove {
            conflicts.push(format!(
                "container {name} is removed when it stops (--rm): make it anew without --rm"
            ));
        }
        for bind in &container.data_binds {
            let bind = bind.display();
            let message = format!("its directory {bind} of the host is not moved");
            monitor.finding(note(&format!("container:{name}"), message));
        }
    }
    if !conflicts.is_empty() {
        return Err(OperationError::Conflicts { conflicts });
    }
    let names = |filter: &dyn Fn(&ContainerFacts) -> bool| -> Vec<String> {
        containers()
            .filter(|one| filter(one))
            .map(|one| one.name.clone())
            .collect()
    };
    Ok(Scope {
        containers: names(&|_| true),
        running: in_order(
            inventory,
            names(&|one| matches!(one.status.as_str(), "running" | "paused" | "stopping")),
        ),
        infra: inventory
            .pods
            .iter()
            .filter(|pod| taken.contains(&pod.item()) && !pod.infra_id.is_empty())
            .map(|pod| pod.infra_id.clone())
            .collect(),
        items,
    })
}

/// Those that others need come first.
fn in_order(inventory: &Inventory, names: Vec<String>) -> Vec<String> {
    let mut ordered: Vec<String> = Vec::new();
    let mut left = names;
    while !left.is_empty() {
        let is_ready = |name: &String| {
            let facts = inventory.containers.iter().find(|one| one.name == *name);
            facts.is_none_or(|facts| facts.needs.iter().all(|need| !left.contains(need)))
        };
        // Those that need each other in a circle come as they are.
        let at = left.iter().position(is_ready).unwrap_or(0);
        ordered.push(left.remove(at));
    }
    ordered
}

/// Containers outside that use something inside, and why.
fn dependents<'i>(inventory: &'i Inventory, items: &[Item]) -> Vec<(&'i ContainerFacts, String)> {
    let inside: BTreeSet<&Item> = items.iter().collect();
    let has = |kind, name: &String| inside.contains(&Item::new(kind, name.as_bytes()));
    let mut found = Vec::new();
    for container in inventory.containers.iter().filter(|one| !one.is_infra) {
        if has(ItemKind::Container, &container.name) {
            continue;
        }
        let volume = container
            .volumes
            .iter()
            .find(|name| has(ItemKind::Volume, name));
        let need = container
            .needs
            .iter()
            .find(|name| has(ItemKind::Container, name));
        let pod = container.pod.iter().find(|name| has(ItemKind::Pod, name));
        let why = match (volume, need, pod) {
            (Some(volume), _, _) => format!("uses volume {volume}, too"),
            (_, Some(need), _) => format!("needs container {need}"),
            (_, _, Some(pod)) => format!("is in pod {pod}"),
            _ => continue,
        };
        found.push((container, why));
    }
    found
}

fn note(object: &str, message: String) -> Finding {
    Finding {
        object: object.to_owned(),
        kind: FindingKind::Note,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::Collect;

    fn container(name: &str, volumes: &[&str], needs: &[&str]) -> ContainerFacts {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        ContainerFacts {
            name: name.into(),
            status: "running".into(),
            volumes: own(volumes),
            needs: own(needs),
            ..ContainerFacts::default()
        }
    }

    fn inventory() -> Inventory {
        let volume = |name: &str| crate::host::VolumeFacts {
            name: name.into(),
            driver: "local".into(),
            anonymous: false,
            used_by: Vec::new(),
            used_by_running: Vec::new(),
        };
        Inventory {
            containers: vec![
                container("backup", &["data"], &[]),
                container("db", &["data"], &[]),
                container("proxy", &[], &["web"]),
                container("web", &["files"], &["db"]),
            ],
            volumes: vec![volume("data"), volume("files")],
            ..Inventory::default()
        }
    }

    fn taken(name: &str, with_dependents: bool, split: bool) -> Result<Scope, Vec<String>> {
        let options = MigrateOptions {
            with_dependents,
            split,
            ..MigrateOptions::default()
        };
        let item = Item::new(ItemKind::Container, name.as_bytes());
        let heard = Collect::default();
        scope(&inventory(), vec![item], &options, &heard).map_err(|error| match error {
            OperationError::Conflicts { conflicts } => conflicts,
            other => panic!("{other}"),
        })
    }

    #[test]
    fn who_uses_what_moves_is_named_and_taken_along_or_left() {
        let refused = taken("db", false, false).unwrap_err();
        assert_eq!(refused.len(), 2);
        assert!(
            refused[0].contains("backup uses volume data"),
            "{refused:?}"
        );
        assert!(refused[1].contains("web needs container db"), "{refused:?}");
        let all = taken("db", true, false).unwrap();
        assert_eq!(all.containers, ["backup", "db", "proxy", "web"]);
        assert_eq!(all.running, ["backup", "db", "web", "proxy"]);
        assert_eq!(all.names(ItemKind::Volume), ["data", "files"]);
        assert_eq!(taken("db", false, true).unwrap().containers, ["db"]);
    }

    #[test]
    fn what_goes_when_it_stops_does_not_move() {
        let mut inventory = inventory();
        inventory.containers[3].needs.clear();
        inventory.containers[2].auto_remove = true;
        let item = Item::new(ItemKind::Container, "proxy");
        let heard = Collect::default();
        let options = MigrateOptions::default();
        let refused = scope(&inventory, vec![item], &options, &heard);
        assert!(matches!(refused, Err(OperationError::Conflicts { .. })));
    }
}
