use std::os::unix::ffi::OsStrExt;

use podkeep_engine::host::Existing;
use podkeep_engine::host::replay::{Proof, Reason, ReplayOptions, Views};
use podkeep_engine::operations::{
    ItemPath, RepairLayersOptions, RestoreOptions, RestoreReport, SnapSpec, SpaceNeed, restore,
};

use podkeep_format::item::Escaped;

use crate::arguments::{Restore, SelinuxChoice};
use crate::context::{Context, Done, exit_after};
use crate::failure::{Exit, Failure};
use crate::messages::{Message, ProofLine, Summary};
use crate::progress::Reporter;
use crate::selectors;
use crate::units;

pub fn run(context: &Context<'_>, arguments: &Restore) -> Result<Done, Failure> {
    let snapshot = selectors::parse_snapshot(&arguments.snapshot)?;
    let items = arguments
        .items
        .iter()
        .map(|item| selectors::parse_item(item))
        .collect::<Result<Vec<_>, Failure>>()?;
    if arguments.repair_layers {
        return repair_layers(context, snapshot, items, arguments);
    }
    let rename = match &arguments.rename {
        Some(name) => Some(selectors::decode(name.as_bytes(), name)?),
        None => None,
    };
    let options = RestoreOptions {
        snapshot,
        all: arguments.all,
        items,
        only: arguments.only,
        to_dir: arguments.to_dir.clone(),
        rename,
        existing: match (arguments.merge, arguments.replace) {
            (true, _) => Existing::Merge,
            (false, true) => Existing::Replace,
            (false, false) => Existing::Refuse,
        },
        retag: arguments.retag,
        ignore_quota: arguments.fit.ignore_quota,
        keep_labels: arguments.selinux == SelinuxChoice::Keep,
        squash: arguments.squash_unmapped,
        views: Views::new(),
        replay: ReplayOptions {
            rename_suffix: arguments.fit.rename_suffix.clone(),
            replace: arguments.replace,
            replace_running: arguments.fit.replace_running,
            remap_subnet: arguments.fit.remap_subnet,
            drop_static: arguments.fit.drop_static,
            drop_missing: arguments.fit.drop_missing,
            pin_ports: arguments.fit.pin_ports,
            new_hostname: arguments.fit.new_hostname,
            stop_users: arguments.stop,
            start_foreign: arguments.start_foreign,
            must_start: false,
            ports_come_free: false,
            userns_map: arguments.fit.userns_map.map(Into::into),
            enable_linger: arguments.fit.enable_linger,
        },
        start: arguments.start,
        dry_run: arguments.dry_run,
        threads: 0,
        wait: arguments.patience.wait,
    };
    let reporter = context.reporter();
    let repository = context.open(&reporter)?;
    let host = super::host::local(context)?;
    let report = restore::restore(&repository, &host, &options, &reporter);
    reporter.end();
    let report = report.map_err(|error| context.failure(error))?;
    show_actions(context, &report.actions);
    if arguments.dry_run {
        for need in &report.needs {
            context.output.row(
                || Message::Space {
                    place: Escaped(need.place.as_os_str().as_bytes()).to_string(),
                    bytes_needed: need.bytes,
                    bytes_free: need.bytes_free,
                },
                || format!("  {}", units::need(need)),
            );
        }
    }
    for conflict in &report.conflicts {
        context.output.row(
            || Message::Conflict {
                message: conflict.clone(),
            },
            || format!("  conflict: {conflict}"),
        );
    }
    for proof in &report.proofs {
        show_proof(context, proof);
    }
    Ok(finished(&report, &reporter, arguments.dry_run))
}

/// A row for each definition that was made, and under it what is otherwise than it was. That a new
/// object has an ID of its own goes without saying, but with --json.
fn show_proof(context: &Context<'_>, proof: &Proof) {
    context.output.row(
        || Message::Proof(ProofLine::new(proof)),
        || {
            let equal = proof.fields - proof.differences.len() as u64;
            let shown = proof
                .differences
                .iter()
                .filter(|difference| difference.reason != Some(Reason::NewObject));
            let lines: Vec<String> = shown
                .map(|difference| {
                    let why = difference.reason.map_or("unexplained", Reason::words);
                    format!("\n    {}: {why}", Escaped(difference.field.as_bytes()))
                })
                .collect();
            let name = Escaped(proof.name.as_bytes());
            let kind = proof.item.kind.word();
            format!(
                "  proof {kind} {name}: {equal} fields equal{}",
                lines.concat()
            )
        },
    );
}

fn show_actions(context: &Context<'_>, actions: &[String]) {
    for action in actions {
        context.output.row(
            || Message::Action {
                message: action.clone(),
            },
            || format!("  {action}"),
        );
    }
}

fn repair_layers(
    context: &Context<'_>,
    snapshot: SnapSpec,
    items: Vec<ItemPath>,
    arguments: &Restore,
) -> Result<Done, Failure> {
    let options = RepairLayersOptions {
        snapshot,
        items,
        dry_run: arguments.dry_run,
        threads: 0,
        wait: arguments.patience.wait,
    };
    let reporter = context.reporter();
    let repository = context.open(&reporter)?;
    let host = super::host::local(context)?;
    let report = restore::repair_layers(&repository, &host, &options, &reporter);
    reporter.end();
    let report = report.map_err(|error| context.failure(error))?;
    show_actions(context, &report.actions);
    let layers = units::counted(report.layers, "layer", "layers");
    let line = match (arguments.dry_run, report.damaged) {
        (_, 0) => format!("No damage in {layers}"),
        (true, damaged) => format!("Nothing was changed; {damaged} of {layers} damaged"),
        (false, damaged) => format!(
            "Repaired {} of {} in {layers}: {}, {} in {}",
            report.repaired,
            units::counted(damaged, "damaged layer", "damaged layers"),
            units::counted(report.files, "file", "files"),
            units::size(report.bytes_written),
            units::duration(report.seconds)
        ),
    };
    Ok(Done {
        exit: exit_after(reporter.warnings()),
        text: vec![line],
        summary: Summary::RepairLayers {
            layers: report.layers,
            damaged: report.damaged,
            repaired: report.repaired,
            files: report.files,
            bytes_written: report.bytes_written,
            findings: reporter.warnings(),
            seconds: report.seconds,
        },
    })
}

/// Decoding less is not worth a word.
const DECODED_MIN: u64 = 256 << 20;

fn finished(report: &RestoreReport, reporter: &Reporter<'_>, dry_run: bool) -> Done {
    let warnings = reporter.warnings();
    let fits = report.needs.iter().all(SpaceNeed::fits);
    let exit = if report.conflicts.is_empty() && fits {
        exit_after(warnings + u64::from(report.incomplete))
    } else {
        Exit::Failed
    };
    let mut text = vec![String::new()];
    if report.incomplete {
        text.push("The snapshot is incomplete: what could not be read is missing".to_owned());
    }
    text.push(match (dry_run, report.conflicts.len() as u64, warnings) {
        (true, 0, _) if !fits => "Nothing was changed; there is too little room".to_owned(),
        (true, 0, _) => "Nothing was changed; it can be restored".to_owned(),
        (true, conflicts, _) => format!(
            "Nothing was changed; {} in the way",
            units::counted(conflicts, "conflict is", "conflicts are")
        ),
        (false, _, warnings) => format!(
            "Restored {} in {}, {} in {}; {}",
            units::counted(report.files, "file", "files"),
            units::counted(report.items, "item", "items"),
            units::size(report.bytes_written),
            units::duration(report.seconds),
            match warnings {
                0 => "every file matches its hash".to_owned(),
                n => units::counted(n, "warning", "warnings"),
            }
        ),
    });
    // Much more than was needed: each of many blocks for a little, or again and again.
    if !dry_run && report.bytes_decoded > DECODED_MIN.max(2 * report.bytes_written) {
        text.push(format!(
            "{} of blocks were decoded for it",
            units::size(report.bytes_decoded)
        ));
    }
    Done {
        exit,
        text,
        summary: Summary::Restore {
            items: report.items,
            files: report.files,
            bytes_written: report.bytes_written,
            bytes_decoded: report.bytes_decoded,
            incomplete: report.incomplete,
            findings: warnings,
            seconds: report.seconds,
        },
    }
}
