use std::ffi::OsString;
use std::ops::ControlFlow;

use podkeep_engine::operations::{ManifestRow, SnapSpec, SnapshotRow, ls};
use podkeep_engine::repo::Repository;
use podkeep_format::item::{Escaped, ItemKind};

use crate::arguments::Ls;
use crate::context::{Context, Done, exit_after};
use crate::failure::Failure;
use crate::messages::{DefinitionLine, EntryLine, ManifestLine, Message, Summary};
use crate::progress::Reporter;
use crate::selectors;
use crate::units::{self, Align};

pub fn run(context: &Context<'_>, arguments: &Ls) -> Result<Done, Failure> {
    let snapshot = selectors::parse_snapshot(&arguments.snapshot)?;
    let item = match &arguments.item {
        Some(item) => Some(selectors::parse_item(item)?),
        None => None,
    };
    let reporter = context.reporter();
    let repository = context.open(&reporter)?;
    let mut entries = 0;
    let mut row = |line: &dyn Fn() -> EntryLine, text: &dyn Fn() -> String| {
        entries += 1;
        context.output.row(|| Message::Entry(line()), text);
        match context.output.closed() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let Some(item) = &item else {
        return manifest(context, &repository, &snapshot, &reporter);
    };
    let whole = item.path.is_empty();
    if whole {
        let told = ls::definitions(
            &repository,
            &snapshot,
            item,
            &mut |item, definition| {
                let text = || {
                    let pretty = serde_json::to_string_pretty(&definition).unwrap_or_default();
                    format!("{item}\n{pretty}")
                };
                let line = || DefinitionLine {
                    item: item.to_string(),
                    definition: definition.clone(),
                };
                context.output.row(|| Message::Definition(line()), text);
                match context.output.closed() {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            },
            &reporter,
        );
        told.map_err(|error| context.failure(error))?;
    }
    let in_image = |argument: &OsString| selectors::is_in_image(argument) && !arguments.stored;
    let listed = match arguments.item.as_ref().is_some_and(in_image) {
        true => ls::ls_image(
            &repository,
            &snapshot,
            item,
            &mut |entry| {
                let text = || super::entry_text(&entry.item, &entry.path, &entry);
                row(&|| EntryLine::from(&entry), &text)
            },
            &reporter,
        ),
        false => ls::ls(
            &repository,
            &snapshot,
            Some(item),
            &mut |listed| {
                let text = || super::entry_text(&listed.item, &listed.path, &listed.entry);
                row(&|| EntryLine::from(&listed), &text)
            },
            &reporter,
        ),
    };
    reporter.end();
    let row = listed.map_err(|error| context.failure(error))?;
    Ok(ended(&row, entries, "entry", "entries", &reporter))
}

/// The items of a snapshot, one a line.
fn manifest(
    context: &Context<'_>,
    repository: &Repository,
    snapshot: &SnapSpec,
    reporter: &Reporter<'_>,
) -> Result<Done, Failure> {
    let mut rows = Vec::new();
    let listed = ls::manifest(
        repository,
        snapshot,
        &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        },
        reporter,
    );
    reporter.end();
    let snapshot = listed.map_err(|error| context.failure(error))?;
    if context.output.manner.json {
        for row in &rows {
            let line = Message::Manifest(ManifestLine::from(row));
            context.output.json(&line, false);
        }
    } else {
        let align = [
            Align::Left,
            Align::Left,
            Align::Right,
            Align::Right,
            Align::Left,
        ];
        let table: Vec<Vec<String>> = rows.iter().map(cells).collect();
        for line in units::table(&align, &table) {
            context.output.text(&line);
        }
    }
    Ok(ended(
        &snapshot,
        rows.len() as u64,
        "item",
        "items",
        reporter,
    ))
}

fn cells(row: &ManifestRow) -> Vec<String> {
    let name = Escaped(&row.item.name).to_string();
    let (name, files) = match row.item.kind {
        ItemKind::Image => (units::image_name(&name), String::new()),
        _ if row.files == 0 && row.bytes_definition > 0 => (name, String::new()),
        _ => (name, units::counted(row.files, "file", "files")),
    };
    vec![
        row.item.kind.word().to_owned(),
        name,
        files,
        units::size(row.bytes_logical + row.bytes_definition),
        match row.complete {
            true => String::new(),
            false => "INCOMPLETE".to_owned(),
        },
    ]
}

fn ended(
    row: &SnapshotRow,
    entries: u64,
    one: &str,
    several: &str,
    reporter: &Reporter<'_>,
) -> Done {
    Done {
        // An incomplete snapshot was used, which is worth a word.
        exit: exit_after(reporter.warnings() + u64::from(!row.complete)),
        text: vec![
            String::new(),
            format!(
                "{} of snapshot {} of {}, {}{}",
                units::counted(entries, one, several),
                super::short(&row.run.to_hex()),
                row.host,
                units::minute(row.time, row.zone_minutes),
                if row.complete { "" } else { ", INCOMPLETE" }
            ),
        ],
        summary: Summary::Entries {
            entries,
            findings: reporter.warnings(),
        },
    }
}
