use std::path::{Path, PathBuf};

use podkeep_engine::host::Account;
use podkeep_engine::monitor::FindingKind;
use podkeep_engine::operations::{BackupOptions, BackupReport, backup};
use podkeep_engine::repo::Repository;
use podkeep_format::item::ItemKind;
use podkeep_format::snapshot::Consistency;

use crate::arguments::{Backup, Level};
use crate::context::{Context, Done, exit_after};
use crate::failure::{Exit, Failure};
use crate::messages::{ItemLine, Message, Summary};
use crate::places;
use crate::progress::Reporter;
use crate::selectors;
use crate::units;
use crate::whose::Whose;

pub fn run(context: &Context<'_>, arguments: &Backup) -> Result<Done, Failure> {
    let selection = selectors::parse_selection(&arguments.selectors, arguments.all)?;
    let exclude_items = selectors::parse_selection(&arguments.exclude_item, false)?.selectors;
    let exclude = arguments
        .exclude
        .iter()
        .map(|glob| selectors::parse_glob(glob))
        .collect::<Result<Vec<String>, Failure>>()?;
    let reporter = context.reporter().of_a_backup();
    let repository = context.open_to_write(&reporter)?;
    let mut protected: Vec<PathBuf> = Vec::new();
    for selector in &selection.selectors {
        if selector.item.kind == ItemKind::Path {
            protected.push(selectors::to_path(&selector.item.name));
        }
    }
    protected.extend(context.surroundings().protected());
    note_neighbour(context, &reporter, &protected)?;
    if arguments.all && matches!(context.whose, Whose::Own) && context.whose.is_root() {
        note_others(&reporter);
    }
    let host = super::host::local(context)?;
    let options = BackupOptions {
        selection,
        exclude,
        exclude_items,
        exclude_caches: arguments.exclude_caches,
        cross_mounts: arguments.cross_mounts,
        only: arguments.only,
        include_binds: arguments.include_binds,
        include_logs: arguments.include_logs,
        tags: arguments.saving.tag.clone(),
        dry_run: arguments.saving.dry_run,
        threads: 0,
        wait: arguments.saving.patience.wait,
        zone_minutes: zone_minutes(),
        states: repository
            .cache_folder()
            .map(|folder| folder.join("states")),
        consistency: arguments.consistency.map(|level| match level {
            Level::Live => Consistency::Live,
            Level::Pause => Consistency::Pause,
            Level::Stop => Consistency::Stop,
        }),
        max_freeze: Some(arguments.max_freeze),
        needs: needs(context, &repository)?,
        known: None,
    };
    let report = backup::backup(&repository, &host, &options, &reporter);
    reporter.end();
    let report = report.map_err(|error| context.failure(error))?;
    Ok(told(context, &report, &reporter, arguments.saving.dry_run))
}

/// What the run itself reads and writes.
fn needs(context: &Context<'_>, repository: &Repository) -> Result<Vec<PathBuf>, Failure> {
    let mut needs = vec![context.surroundings().state()?];
    needs.extend(context.repository_place()?.local().map(Path::to_path_buf));
    needs.extend(repository.cache_folder().map(Path::to_path_buf));
    Ok(needs)
}

/// Tells of each item, and what the run amounts to.
pub(super) fn told(
    context: &Context<'_>,
    report: &BackupReport,
    reporter: &Reporter<'_>,
    dry_run: bool,
) -> Done {
    if dry_run {
        for item in &report.items {
            context.output.row(
                || Message::Item(ItemLine::from(item)),
                || format!("would back up  {}", item.item),
            );
        }
    } else {
        for item in &report.items {
            context
                .output
                .json(&Message::Item(ItemLine::from(item)), false);
        }
    }
    finished(report, reporter, dry_run)
}

fn finished(report: &BackupReport, reporter: &Reporter<'_>, dry_run: bool) -> Done {
    let warnings = reporter.warnings();
    let failed = report.run.is_none() && !dry_run;
    let exit = if failed {
        Exit::Failed
    } else {
        exit_after(warnings + u64::from(!report.complete))
    };
    let mut text = match report.run {
        Some(run) => vec![
            String::new(),
            format!(
                "Snapshot {} saved: {}{}",
                super::short(&run.to_hex()),
                if report.complete {
                    "complete"
                } else {
                    "INCOMPLETE"
                },
                match warnings {
                    0 => String::new(),
                    n => format!(", {}", units::counted(n, "warning", "warnings")),
                }
            ),
            format!(
                "{}, {}; read {}, added {}, {}",
                units::counted(report.files, "file", "files"),
                units::size(report.bytes_logical),
                units::size(report.bytes_read),
                units::size(report.bytes_added),
                units::duration(report.seconds)
            ),
        ],
        None if dry_run => vec![format!(
            "{}; nothing was stored",
            units::counted(report.items.len() as u64, "item", "items")
        )],
        None => vec!["No snapshot was saved".to_owned()],
    };
    let vanished = reporter.count(FindingKind::Vanished);
    if vanished > 0 {
        text.push(format!(
            "{} vanished before being read (-v names them)",
            units::counted(vanished, "entry", "entries")
        ));
    }
    Done {
        exit,
        text,
        summary: Summary::Backup {
            snapshot: report.run.map(|run| run.to_hex()),
            complete: report.complete && !failed,
            items: report.items.len() as u64,
            files: report.files,
            bytes_read: report.bytes_read,
            bytes_logical: report.bytes_logical,
            bytes_added: report.bytes_added,
            bytes_parity: 0,
            chunks_new: report.chunks_new,
            chunks_known: report.chunks_known,
            findings: warnings,
            seconds: report.seconds,
        },
    }
}

/// Root's own Podman is one, each user's another.
fn note_others(reporter: &Reporter<'_>) {
    for Account { name, .. } in Account::with_podman() {
        reporter.note(
            "not included".to_owned(),
            format!("rootless Podman of {name} (--host local:{name})"),
        );
    }
}

/// A backup beside its original protects against mistakes, not against a lost disk.
fn note_neighbour(
    context: &Context<'_>,
    reporter: &Reporter<'_>,
    protected: &[PathBuf],
) -> Result<(), Failure> {
    let place = context.repository_place()?;
    let Some(path) = place.local() else {
        return Ok(());
    };
    if let Some(neighbour) = places::neighbour(path, protected) {
        reporter.note(
            path.display().to_string(),
            format!(
                "the repository lies on the file system of {}",
                neighbour.display()
            ),
        );
    }
    Ok(())
}

/// The local zone's offset from UTC now.
pub(super) fn zone_minutes() -> i16 {
    let seconds = jiff::ZonedDateTime::now().offset().seconds();
    i16::try_from(seconds / 60).unwrap_or(0)
}
