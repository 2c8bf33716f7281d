//! `restore --repair-layers`: damaged layers of the host's store get their content back from a
//! snapshot, where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use podkeep_format::id::DiffId;
use podkeep_format::item::{Item, ItemKind};
use podkeep_format::recipe::KnownLayer;

use super::super::doctor::{Step, examine, finding, threads};
use super::super::patience::patiently;
use super::super::select::{self, Chosen};
use super::super::stored_image::{each_layer, recipe_of};
use super::super::{
    OperationError, OperationResult, RepairLayersOptions, RepairLayersReport, reading,
};
use crate::host::{ExamineRequest, LayerName, LayerRepaired, Remedy, StoreCare, StoreFault};
use crate::monitor::{Finding, FindingKind, Monitor, Progress};
use crate::repo::Repository;
use crate::repo::reader::{Reader, is_fatal};

/// Repairs the layers of the snapshot's images that the host has and that are damaged there.
/// Layers that are sound stay as they are; one that is in use ends the run with its users.
pub fn repair_layers(
    repo: &Repository,
    host: &dyn StoreCare,
    options: &RepairLayersOptions,
    monitor: &dyn Monitor,
) -> OperationResult<RepairLayersReport> {
    let started = Instant::now();
    repo.require_full("restore")?;
    for item in &options.items {
        if item.selector.item.kind != ItemKind::Image || !item.path.is_empty() {
            return Err(OperationError::Usage {
                message: format!("{} has no layers", item.selector.item.at(&item.path)),
                hint: "name images (image:NAME), or nothing for all of the snapshot".into(),
            });
        }
    }
    let _lease = reading::lease(repo, monitor)?;
    let (_, chosen) = select::resolve(repo, &options.snapshot, &options.items, monitor)?;
    let reader = reading::reader(repo, monitor)?;
    let stored = stored_layers(&reader, &chosen, monitor)?;
    if !options.dry_run {
        host.clear_repairs()?;
    }
    let mut report = RepairLayersReport::default();
    let request = ExamineRequest {
        threads: threads(options.threads),
        only: Some(stored.keys().copied().collect::<BTreeSet<DiffId>>()),
    };
    let mut damaged: BTreeSet<LayerName> = BTreeSet::new();
    examine(host, &request, monitor, &mut |step| match step {
        Step::Plan { layers, .. } => report.layers = layers,
        // Of a layer without a record nobody knows the DiffID: its images tell whether it counts.
        Step::Fault(fault) if is_of_others(&fault, &chosen) => {}
        Step::Fault(fault) => match (fault.remedy, &fault.layer) {
            (Remedy::None, _) => {}
            (Remedy::RepairLayer, Some(layer)) => {
                damaged.insert(layer.clone());
            }
            _ => {
                report.damaged += 1;
                monitor.finding(Finding {
                    kind: FindingKind::NotRestored,
                    ..finding(&fault)
                });
            }
        },
    })?;
    report.damaged += damaged.len() as u64;
    monitor.progress(Progress::Phase("repairing layers"));
    for layer in damaged {
        let Some(held) = layer.diff_id.and_then(|id| stored.get(&id)) else {
            continue;
        };
        if options.dry_run {
            report.actions.push(format!("repair layer {}", layer.id));
            continue;
        }
        match repair(&reader, host, &layer, held, options.wait, monitor) {
            Ok(repaired) => told(&layer, repaired, &mut report, monitor),
            Err(error) => lost(&layer, error, monitor)?,
        }
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// Whether a fault of what the lists lack hits none of the images that are repaired.
fn is_of_others(fault: &StoreFault, chosen: &Chosen) -> bool {
    let has_record = (fault.layer.as_ref()).is_some_and(|layer| layer.diff_id.is_some());
    let is_chosen = |image: &Item| chosen.iter().any(|(snap, _)| snap.header.item == *image);
    !has_record && !fault.images.iter().any(is_chosen)
}

/// The layers that the snapshots of images hold.
fn stored_layers(
    reader: &Reader,
    chosen: &Chosen,
    monitor: &dyn Monitor,
) -> OperationResult<BTreeMap<DiffId, KnownLayer>> {
    let mut stored = BTreeMap::new();
    for (snapshot, _) in chosen {
        let item = &snapshot.header.item;
        let root = snapshot.body.as_ref().and_then(|body| body.root);
        let (ItemKind::Image, Some(root)) = (item.kind, root) else {
            continue;
        };
        for layer in each_layer(reader, root) {
            match layer {
                Ok(layer) => drop(stored.insert(layer.diff_id, layer)),
                Err(error) if is_fatal(&error) => return Err(error.into()),
                Err(error) => monitor.finding(Finding {
                    object: item.to_string(),
                    kind: FindingKind::Damaged,
                    snapshots: vec![snapshot.header.run.to_hex()],
                    paths: Vec::new(),
                    message: format!("a list of its layers cannot be read: {error}"),
                }),
            }
        }
    }
    Ok(stored)
}

fn repair(
    reader: &Reader,
    host: &dyn StoreCare,
    layer: &LayerName,
    stored: &KnownLayer,
    wait: Duration,
    monitor: &dyn Monitor,
) -> OperationResult<LayerRepaired> {
    let mut repair = patiently(wait, monitor, || host.repair(layer))?;
    let recipe = recipe_of(reader, stored)?;
    reader.rebuild(&recipe, &mut |bytes| {
        if monitor.interrupted() {
            return Err(OperationError::Interrupted);
        }
        repair.write(bytes)?;
        let bytes = bytes.len() as u64;
        monitor.progress(Progress::Advance { files: 0, bytes });
        Ok(())
    })?;
    Ok(repair.finish()?)
}

fn told(
    layer: &LayerName,
    repaired: LayerRepaired,
    report: &mut RepairLayersReport,
    monitor: &dyn Monitor,
) {
    report.repaired += 1;
    report.files += repaired.files;
    report.bytes_written += repaired.bytes;
    report.actions.push(format!("repaired layer {}", layer.id));
    for message in repaired.left {
        not_restored(layer, message, monitor);
    }
}

/// Other layers can still be repaired, unless one is in use or the repository is gone.
fn lost(layer: &LayerName, error: OperationError, monitor: &dyn Monitor) -> OperationResult<()> {
    use crate::host::HostError;
    match error {
        OperationError::Repository(error) if !is_fatal(&error) => {
            not_restored(layer, format!("it cannot be read: {error}"), monitor);
            Ok(())
        }
        OperationError::Host(error @ (HostError::Podman { .. } | HostError::Fs(_))) => {
            not_restored(layer, error.to_string(), monitor);
            Ok(())
        }
        error => Err(error),
    }
}

fn not_restored(layer: &LayerName, message: String, monitor: &dyn Monitor) {
    monitor.finding(Finding {
        object: format!("layer {}", layer.id),
        kind: FindingKind::NotRestored,
        snapshots: Vec::new(),
        paths: Vec::new(),
        message,
    });
}
