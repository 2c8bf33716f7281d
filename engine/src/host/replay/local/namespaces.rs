//! What the Podman of a user can do, and what becomes of containers with user namespaces of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use podkeep_format::item::{Item, ItemKind};
use serde_json::{Map, Value};

use super::super::{ReplayPlan, ReplayRequest, UsernsMap};
use super::{LocalReplay, note};
use crate::fs::owners::OwnersView;
use crate::monitor::FindingKind;
use crate::podman::replay::userns::{self, Userns};

type Config = Map<String, Value>;

impl LocalReplay {
    /// Gives each map that this Podman cannot have, or chooses itself, another one, and sees to it that
    /// the container finds the owners in its volumes as they were.
    pub(super) fn fit_namespaces(&mut self, plan: &mut ReplayPlan, conflicts: &mut Vec<String>) {
        let mut maps: BTreeMap<(ItemKind, String), Option<OwnersView>> = BTreeMap::new();
        let mut taken = self.facts.taken_ids.clone();
        let containers = self.definitions.containers.iter();
        let containers = containers.map(|(name, one)| (ItemKind::Container, name, &one.config));
        let pods = self.definitions.pods.iter();
        let pods = pods.filter_map(|(name, pod)| Some((ItemKind::Pod, name, pod.infra.as_ref()?)));
        let all: Vec<(ItemKind, String, Config)> = pods
            .chain(containers)
            .map(|(kind, name, config)| (kind, name.clone(), config.clone()))
            .collect();
        for (kind, name, before) in all {
            let object = format!("{} {name}", kind.word());
            let in_pod = (kind == ItemKind::Container)
                .then(|| self.definitions.containers[&name].pod.clone())
                .flatten()
                .and_then(|pod| self.definitions.pods.get(&pod)?.infra.clone());
            let after = match in_pod {
                // Those of a pod have the map of its infra container, which comes first.
                Some(infra) => with_map_of(&before, &infra),
                None => match self.other_map(&object, &before, &mut taken) {
                    Ok(after) => after,
                    Err(conflict) => {
                        conflicts.push(conflict);
                        None
                    }
                },
            };
            let view = after
                .as_ref()
                .and_then(|after| userns::view(&before, after));
            if let Some(after) = after {
                let words = match userns::userns_of(&after) {
                    Userns::Shared => "without a user namespace of its own",
                    _ => "with another range of ids",
                };
                plan.actions.push(format!("make {object} {words}"));
                self.set_config(kind, &name, after);
            }
            maps.insert((kind, name), view);
        }
        self.see_volumes(&maps, plan);
    }

    fn set_config(&mut self, kind: ItemKind, name: &str, config: Config) {
        match kind {
            ItemKind::Container => {
                if let Some(one) = self.definitions.containers.get_mut(name) {
                    one.config = config;
                }
            }
            _ => {
                if let Some(pod) = self.definitions.pods.get_mut(name) {
                    pod.infra = Some(config);
                }
            }
        }
    }

    /// `None`: the map that it has is right here. `Err`: what is in the way.
    fn other_map(
        &self,
        object: &str,
        before: &Config,
        taken: &mut Vec<(u32, u32)>,
    ) -> Result<Option<Config>, String> {
        let of_user = self.facts.user.is_some();
        let mapped_mounts = userns::has_mapped_mounts(before) && of_user;
        let kind = userns::userns_of(before);
        let why = match kind {
            _ if mapped_mounts => Some("mounts by a map of its own (idmap), which only root can"),
            Userns::OfUser if !of_user => {
                Some("keeps the ids of its user (--userns=keep-id), which root's Podman cannot")
            }
            Userns::Chosen if !userns::has_ids(before, &self.owners) => {
                Some("has a map to ids that this Podman does not have")
            }
            _ => None,
        };
        let how = match (why, kind, self.options.userns_map) {
            (None, Userns::Auto, _) => UsernsMap::Auto,
            (None, _, _) => return Ok(None),
            (Some(_), _, Some(how)) => how,
            (Some(why), _, None) => {
                return Err(format!(
                    "{object} {why}: --userns-map=host, or --userns-map=auto"
                ));
            }
        };
        let mut after = before.clone();
        match how {
            UsernsMap::Host => userns::share(&mut after),
            UsernsMap::Auto => {
                let range = self.auto_ids().ok_or_else(|| {
                    format!(
                        "{object} has ids that Podman chooses, and this Podman has none to choose \
                         from: add the lines containers:2147483647:2147483648 to /etc/subuid and \
                         /etc/subgid"
                    )
                })?;
                let size = userns::size(before);
                let first = userns::free_range(range, size, taken);
                let first = first.ok_or_else(|| {
                    format!(
                        "{object} needs {size} ids in a row, which are not free: --userns-map=host"
                    )
                })?;
                taken.push((first, size));
                userns::take(&mut after, first);
            }
        }
        Ok(Some(after))
    }

    fn auto_ids(&self) -> Option<(u32, u32)> {
        if self.facts.user.is_some() {
            return userns::auto_ids_of_user(&self.owners);
        }
        userns::auto_ids_of_root()
    }

    /// What has a common map with all that use it is seen as they see it.
    fn see_volumes(
        &self,
        maps: &BTreeMap<(ItemKind, String), Option<OwnersView>>,
        plan: &mut ReplayPlan,
    ) {
        let mut users: BTreeMap<String, Vec<(&String, &Option<OwnersView>)>> = BTreeMap::new();
        for ((kind, name), view) in maps {
            let stored = match kind {
                ItemKind::Container => self.stored.containers.get(name).map(|one| &one.config),
                _ => self
                    .stored
                    .pods
                    .get(name)
                    .and_then(|pod| pod.infra.as_ref()),
            };
            for volume in stored.into_iter().flat_map(userns::seen_through_map) {
                users.entry(volume).or_default().push((name, view));
            }
            if let Some(view) = view {
                let item = Item::new(*kind, name.as_bytes());
                plan.views.insert(item, Arc::new(view.clone()));
            }
        }
        for (volume, users) in users {
            let [(_, first), rest @ ..] = &users[..] else {
                continue;
            };
            if rest.iter().any(|(_, view)| view != first) {
                let names: Vec<&str> = users.iter().map(|(name, _)| name.as_str()).collect();
                plan.findings.push(note(
                    format!("volume:{volume}"),
                    FindingKind::Attribute,
                    format!(
                        "{} use it with different maps of ids: its owners stay what Podman itself \
                         sees",
                        names.join(" and ")
                    ),
                ));
            } else if let Some(view) = first {
                plan.actions.push(format!(
                    "give volume {volume} the owners that its containers see"
                ));
                let item = Item::new(ItemKind::Volume, volume.as_bytes());
                plan.views.insert(item, Arc::new(view.clone()));
            }
        }
    }

    /// What a user's Podman needs of the host.
    pub(super) fn fit_user(
        &mut self,
        request: &ReplayRequest,
        plan: &mut ReplayPlan,
        conflicts: &mut Vec<String>,
    ) {
        let is_user = self.facts.user.is_some();
        for (name, unit) in &self.units {
            match (unit.home.is_some(), is_user) {
                (false, true) => conflicts.push(format!(
                    "unit {name} is one of the system, which runs root's Podman: leave it out, and \
                     write one for the user"
                )),
                (true, false) => conflicts.push(format!(
                    "unit {name} is one of a user, and this is root's Podman: leave it out, and write \
                     one for the system"
                )),
                _ => {}
            }
        }
        if !is_user {
            return;
        }
        // Who cannot be looked up has no linger that could be asked about.
        let Ok(Some(account)) = self.podman.passing_user() else {
            return;
        };
        let ran = |status: &str| matches!(status, "running" | "paused" | "stopping");
        let mut containers = self.definitions.containers.values();
        let mut units = self.units.values();
        let any = containers.any(|one| ran(&one.status)) || units.any(|one| one.active == "active");
        let starts = request.starts && any;
        if !starts || !account.needs_linger() {
            return;
        }
        match self.options.enable_linger {
            true => {
                plan.actions
                    .push(format!("let what user {} runs linger", account.name));
                self.lingers = true;
            }
            false => conflicts.push(format!(
                "user {} does not linger, so that what is started would end with podkeep: \
                 --enable-linger",
                account.name
            )),
        }
    }
}

/// A container of a pod whose infra container has another map by now.
fn with_map_of(before: &Config, infra: &Config) -> Option<Config> {
    const MAP: &str = "idMappingsOptions";
    if before.get(MAP) == infra.get(MAP) || userns::userns_of(before) == Userns::Shared {
        return None;
    }
    let mut after = before.clone();
    match userns::userns_of(infra) {
        Userns::Shared => userns::share(&mut after),
        _ => {
            after.insert(MAP.into(), infra.get(MAP).cloned().unwrap_or_default());
        }
    }
    Some(after)
}
