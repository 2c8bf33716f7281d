//! What a backup saves: what is selected, what comes with it, and what is said of the rest.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use podkeep_format::item::{Escaped, Item, ItemKind};

use super::super::near::near_names;
use super::super::{BackupOptions, OperationError, OperationResult, Selection, Selector};
use crate::host::{Inventory, select};
use crate::monitor::{Finding, FindingKind};

/// Findings that are of interest to this selection: why items are missing from the inventory.
pub(super) fn missed<'i>(inventory: &'i Inventory, selection: &Selection) -> Vec<&'i Finding> {
    let wants = |kinds: &[ItemKind]| {
        let mut selectors = selection.selectors.iter();
        selection.all || selectors.any(|selector| kinds.contains(&selector.item.kind))
    };
    let mut findings = Vec::new();
    if wants(&[ItemKind::Image, ItemKind::Container, ItemKind::Pod]) {
        findings.extend(&inventory.image_findings);
    }
    let defined = [
        ItemKind::Container,
        ItemKind::Pod,
        ItemKind::Network,
        ItemKind::Secret,
    ];
    if wants(&defined) {
        findings.extend(&inventory.definition_findings);
    }
    findings
}

/// The items that are saved, each once.
pub(super) fn choose(inventory: &Inventory, options: &BackupOptions) -> OperationResult<Vec<Item>> {
    let Selection { all, selectors } = &options.selection;
    if !all && selectors.is_empty() {
        return Err(OperationError::Usage {
            message: "nothing is selected".into(),
            hint: "name items (volume:NAME, path:/DIR) or use --all".into(),
        });
    }
    let mut items: Vec<Item> = Vec::new();
    if *all {
        let everything = select::everything(inventory);
        items.extend(everything.into_iter().map(|named| named.item));
    }
    for selector in selectors {
        let matched = matching(inventory, selector);
        if matched.is_empty() {
            return Err(OperationError::NoMatch {
                what: selector.item.to_string(),
                near: near(inventory, &selector.item),
            });
        }
        items.extend(matched);
    }
    if !options.only {
        items = select::with_needs(inventory, &items);
    }
    if items.is_empty() {
        let (message, hint) = match inventory.podman_version {
            Some(_) => ("this host's Podman has nothing", ""),
            None => (
                "this host has no Podman, so --all finds nothing",
                "path:/DIR backs up a directory; is podman in PATH?",
            ),
        };
        return Err(OperationError::Refused {
            message: format!("nothing to back up: {message}"),
            hint: hint.into(),
        });
    }
    let excluded = options.exclude_items.iter();
    let excluded: Vec<Item> = excluded
        .flat_map(|selector| matching(inventory, selector))
        .collect();
    let mut seen = std::collections::HashSet::new();
    items.retain(|item| !excluded.contains(item) && seen.insert(item.clone()));
    for path in files_beside(inventory, &items, options) {
        let item = Item::new(ItemKind::Path, path.as_os_str().as_bytes());
        if !excluded.contains(&item) && seen.insert(item.clone()) {
            items.push(item);
        }
    }
    if items.is_empty() {
        return Err(OperationError::Refused {
            message: "nothing to back up: --exclude-item leaves nothing of the selection".into(),
            hint: "--dry-run without --exclude-item shows what is selected".into(),
        });
    }
    Ok(items)
}

fn matching(inventory: &Inventory, selector: &Selector) -> Vec<Item> {
    select::matching(inventory, &selector.item, selector.glob)
}

/// Items of the same kind whose names are nearly what was asked for.
fn near(inventory: &Inventory, wanted: &Item) -> Vec<String> {
    let names: Vec<String> = select::nameable(inventory)
        .iter()
        .map(|named| &named.item)
        .filter(|item| item.kind == wanted.kind)
        .map(|item| Escaped(&item.name).to_string())
        .collect();
    let wanted_name = Escaped(&wanted.name).to_string();
    near_names(&wanted_name, names.iter().map(String::as_str))
        .into_iter()
        .map(|name| format!("{}:{name}", wanted.kind.word()))
        .collect()
}

/// What containers and pods among the items have of the host's own files, as far as it is asked for.
fn files_beside(inventory: &Inventory, items: &[Item], options: &BackupOptions) -> Vec<PathBuf> {
    let mut paths = BTreeSet::new();
    for container in inventory
        .containers
        .iter()
        .filter(|c| items.contains(&c.item()))
    {
        if options.include_binds {
            paths.extend(container.data_binds.iter().cloned());
        }
        if options.include_logs {
            paths.extend(container.logs.iter().cloned());
        }
    }
    for pod in inventory
        .pods
        .iter()
        .filter(|pod| items.contains(&pod.item()))
    {
        if options.include_binds {
            paths.extend(pod.data_binds.iter().cloned());
        }
    }
    paths.into_iter().collect()
}

/// Notes on what containers and pods among the items mount of the host, and is not saved.
pub(super) fn left_out(
    inventory: &Inventory,
    items: &[Item],
    options: &BackupOptions,
) -> Vec<Finding> {
    let containers = inventory
        .containers
        .iter()
        .map(|container| (container.item(), &container.binds, &container.data_binds));
    let pods = inventory
        .pods
        .iter()
        .map(|pod| (pod.item(), &pod.binds, &pod.data_binds));
    let mut notes = Vec::new();
    for (item, binds, data) in containers.chain(pods) {
        if !items.contains(&item) || binds.is_empty() {
            continue;
        }
        let saved = |path: &&PathBuf| options.include_binds && data.contains(path);
        let left: Vec<&PathBuf> = binds.iter().filter(|path| !saved(path)).collect();
        if left.is_empty() {
            continue;
        }
        let shown: Vec<String> = left
            .iter()
            .map(|path| Escaped(path.as_os_str().as_bytes()).to_string())
            .collect();
        let how = match options.include_binds {
            true => "no data, or reached through a link",
            false => "saved with --include-binds where it is data",
        };
        notes.push(Finding {
            object: item.to_string(),
            kind: FindingKind::Note,
            snapshots: Vec::new(),
            paths: Vec::new(),
            message: format!(
                "mounts of the host, not saved as such: {} ({how})",
                shown.join(", ")
            ),
        });
    }
    notes
}
