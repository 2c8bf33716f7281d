//! What moves together: everything that the selected needs, and nobody that is left behind uses any
//! of it.

use std::collections::BTreeSet;

use podkeep_format::item::{Item, ItemKind};

use super::MigrateOptions;
use super::source::note;
use crate::host::select::with_needs;
use crate::host::{ContainerFacts, Inventory, UnitFacts};
use crate::monitor::Monitor;
use crate::operations::{OperationError, OperationResult};

/// What a migration takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    pub items: Vec<Item>,
    /// Names of all its containers, and of those that run.
    pub containers: Vec<String>,
    pub running: Vec<String>,
    /// Names of those that a unit runs, which makes them anew at each start.
    pub by_unit: Vec<String>,
    /// Services that run containers or pods.
    pub services: Vec<String>,
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
    items.retain(|item| item.kind != ItemKind::Config);
    let gone = ephemeral(inventory, &items);
    for name in &gone {
        let message =
            "it goes and is made anew with each start of the unit that runs its container";
        monitor.finding(note(&format!("volume:{name}"), message.into()));
    }
    items.retain(|item| item.kind != ItemKind::Volume || !gone.iter().any(|n| is_named(item, n)));
    let taken: BTreeSet<&Item> = items.iter().collect();
    let containers = || {
        let all = inventory.containers.iter();
        all.filter(|container| !container.is_infra && taken.contains(&container.item()))
    };
    let mut conflicts = Vec::new();
    for container in containers() {
        let name = &container.name;
        if let Some(service) = &container.unit
            && !units(inventory, &items).any(|unit| unit.service == *service)
        {
            conflicts.push(format!(
                "container {name} is run by the unit {service}, which is not moved: move its \
                 volumes, and the unit by hand"
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
        by_unit: names(&|one| one.unit.is_some()),
        services: units(inventory, &items)
            .filter(|unit| runs_containers(unit))
            .map(|unit| unit.service.clone())
            .collect(),
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

fn is_named(item: &Item, name: &str) -> bool {
    item.name == name.as_bytes()
}

/// The units among the items.
fn units<'a>(inventory: &'a Inventory, items: &'a [Item]) -> impl Iterator<Item = &'a UnitFacts> {
    let units = inventory.units.iter();
    units.filter(|unit| items.contains(&unit.item()))
}

/// Not those that make volumes, networks and images, once.
fn runs_containers(unit: &UnitFacts) -> bool {
    let made_once = [".volume", ".network", ".image", ".build", ".artifact"];
    !made_once.iter().any(|kind| unit.name.ends_with(kind))
}

/// Anonymous volumes of containers that a unit makes anew: they go with each stop.
fn ephemeral(inventory: &Inventory, items: &[Item]) -> Vec<String> {
    let by_unit = |name: &String| {
        let mut all = inventory.containers.iter();
        all.any(|one| one.name == *name && one.unit.is_some() && one.auto_remove)
    };
    let volumes = inventory.volumes.iter().filter(|volume| {
        let is_taken = items.contains(&Item::new(ItemKind::Volume, volume.name.as_bytes()));
        is_taken && volume.anonymous && volume.used_by.iter().all(by_unit)
    });
    volumes.map(|volume| volume.name.clone()).collect()
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
    fn a_container_of_a_unit_moves_with_it_and_what_lasts_of_it() {
        let mut inventory = inventory();
        let item = Item::new(ItemKind::Container, "proxy");
        let heard = Collect::default();
        let options = MigrateOptions::default();
        let taken = |inventory: &Inventory| scope(inventory, vec![item.clone()], &options, &heard);
        let proxy = &mut inventory.containers[2];
        proxy.needs.clear();
        proxy.auto_remove = true;
        proxy.unit = Some("proxy.service".into());
        proxy.volumes = vec!["0a".into(), "data".into()];
        inventory.containers.retain(|one| one.name == "proxy");
        let mut anonymous = inventory.volumes[0].clone();
        anonymous.name = "0a".into();
        anonymous.anonymous = true;
        anonymous.used_by = vec!["proxy".into()];
        inventory.volumes.push(anonymous);
        let refused = taken(&inventory);
        assert!(matches!(refused, Err(OperationError::Conflicts { .. })));
        let unit = |name: &str, service: &str, needs: &[&str]| UnitFacts {
            name: name.into(),
            service: service.into(),
            needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        };
        inventory.units = vec![
            unit("data.volume", "data-volume.service", &[]),
            unit("other.container", "other.service", &[]),
            unit("proxy.container", "proxy.service", &["data.volume"]),
        ];
        let all = taken(&inventory).unwrap();
        assert_eq!(all.names(ItemKind::Volume), ["data"]);
        assert_eq!(
            all.names(ItemKind::Unit),
            ["proxy.container", "data.volume"]
        );
        assert_eq!(all.services, ["proxy.service"]);
        assert_eq!(
            (all.by_unit, all.running),
            (vec!["proxy".into()], vec!["proxy".to_owned()])
        );
    }
}
