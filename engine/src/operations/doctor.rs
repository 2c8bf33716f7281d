//! `doctor`: is what this host's Podman keeps of its images still what it was?

use std::time::Instant;

use podkeep_format::item::Item;

use super::{DoctorOptions, DoctorReport, OperationError, OperationResult};
use crate::host::{ExamineRequest, Examined, Remedy, StoreCare, StoreFault};
use crate::monitor::{Finding, FindingKind, Monitor, Progress};

/// Images that a message names; a base layer may have hundreds.
const NAMED_IMAGES_MAX: usize = 5;

/// Looks at all images of a host and at their layers. Changes nothing. Every damage is a finding
/// that ends with what puts it right.
pub fn doctor(
    host: &dyn StoreCare,
    options: &DoctorOptions,
    monitor: &dyn Monitor,
) -> OperationResult<DoctorReport> {
    let started = Instant::now();
    let request = ExamineRequest {
        threads: threads(options.threads),
        only: None,
    };
    let mut report = DoctorReport::default();
    examine(host, &request, monitor, &mut |step| match step {
        Step::Plan { images, layers } => (report.images, report.layers) = (images, layers),
        Step::Fault(fault) => {
            let finding = finding(&fault);
            report.damaged += u64::from(finding.kind == FindingKind::Damaged);
            monitor.finding(finding);
        }
    })?;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// As many as asked for; 0: one for each core.
pub(super) fn threads(wanted: usize) -> usize {
    match wanted {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        wanted => wanted,
    }
}

/// What an examination is about, besides its progress.
pub(super) enum Step {
    Plan { images: u64, layers: u64 },
    Fault(StoreFault),
}

/// Goes through an examination and shows its progress.
pub(super) fn examine(
    host: &dyn StoreCare,
    request: &ExamineRequest,
    monitor: &dyn Monitor,
    each: &mut dyn FnMut(Step),
) -> OperationResult<()> {
    monitor.progress(Progress::Phase("reading layers"));
    let mut examination = host.examine(request)?;
    while let Some(examined) = examination.next()? {
        if monitor.interrupted() {
            return Err(OperationError::Interrupted);
        }
        let (files, bytes) = match examined {
            Examined::Plan {
                images,
                layers,
                bytes,
            } => {
                let files = layers;
                monitor.progress(Progress::Expect { files, bytes });
                each(Step::Plan { images, layers });
                continue;
            }
            Examined::Fault(fault) => {
                each(Step::Fault(fault));
                continue;
            }
            Examined::Read(bytes) => (0, bytes),
            Examined::Layer => (1, 0),
        };
        monitor.progress(Progress::Advance { files, bytes });
    }
    Ok(())
}

/// A fault in words.
pub(super) fn finding(fault: &StoreFault) -> Finding {
    let mut message = fault.cause.clone();
    if let Some(path) = &fault.path {
        let path = podkeep_format::item::Escaped(path);
        message = format!("at '{path}': {message}");
    }
    if !fault.images.is_empty() && fault.layer.is_some() {
        message.push_str(&format!("; needed by {}", named(&fault.images)));
    }
    if let Some(remedy) = remedy(fault) {
        message.push_str(&format!("; {remedy}"));
    }
    Finding {
        object: fault.object.clone(),
        kind: match fault.remedy {
            Remedy::None => FindingKind::Note,
            _ => FindingKind::Damaged,
        },
        snapshots: Vec::new(),
        paths: fault.path.iter().cloned().collect(),
        message,
    }
}

fn named(images: &[Item]) -> String {
    let shown: Vec<String> = images
        .iter()
        .take(NAMED_IMAGES_MAX)
        .map(Item::to_string)
        .collect();
    match images.len().saturating_sub(NAMED_IMAGES_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn remedy(fault: &StoreFault) -> Option<String> {
    let first = fault.images.first()?;
    Some(match fault.remedy {
        Remedy::None => return None,
        Remedy::RepairLayer => {
            format!("`podkeep restore SNAP --repair-layers {first}` puts it right")
        }
        Remedy::Restore => format!("`podkeep restore SNAP {first}` puts it right"),
        Remedy::RemoveAndRestore => format!(
            "remove every image that needs it (`podman rmi --force`), then \
             `podkeep restore SNAP {first}` brings it back"
        ),
    })
}
