use std::ffi::OsString;
use std::ops::ControlFlow;

use podkeep_engine::operations::ls;

use crate::arguments::Ls;
use crate::context::{Context, Done, exit_after};
use crate::failure::Failure;
use crate::messages::{EntryLine, Message, Summary};
use crate::selectors;
use crate::units;

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
    let in_image = |argument: &OsString| selectors::is_in_image(argument) && !arguments.stored;
    let listed = match (&item, arguments.item.as_ref().is_some_and(in_image)) {
        (Some(image), true) => ls::ls_image(
            &repository,
            &snapshot,
            image,
            &mut |entry| {
                let text = || super::entry_text(&entry.item, &entry.path, &entry);
                row(&|| EntryLine::from(&entry), &text)
            },
            &reporter,
        ),
        _ => ls::ls(
            &repository,
            &snapshot,
            item.as_ref(),
            &mut |listed| {
                let text = || super::entry_text(&listed.item, &listed.path, &listed.entry);
                row(&|| EntryLine::from(&listed), &text)
            },
            &reporter,
        ),
    };
    reporter.end();
    let row = listed.map_err(|error| context.failure(error))?;
    Ok(Done {
        // An incomplete snapshot was used, which is worth a word.
        exit: exit_after(reporter.warnings() + u64::from(!row.complete)),
        text: vec![
            String::new(),
            format!(
                "{} of snapshot {} of {}, {}{}",
                units::counted(entries, "entry", "entries"),
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
    })
}
