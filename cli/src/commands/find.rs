use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;

use podkeep_engine::operations::find;

use crate::arguments::Find;
use crate::context::{Context, Done, exit_after};
use crate::failure::{Exit, Failure};
use crate::messages::{EntryLine, Message, Summary};
use crate::selectors;
use crate::units;

pub fn run(context: &Context<'_>, arguments: &Find) -> Result<Done, Failure> {
    let pattern = selectors::decode_pattern(arguments.pattern.as_bytes(), &arguments.pattern)?;
    let reporter = context.reporter();
    let repository = context.open(&reporter)?;
    let found = find::find(
        &repository,
        &pattern,
        &mut |listed| {
            context.output.row(
                || Message::Entry(EntryLine::from(&listed)),
                || {
                    let run = listed.run.map(|run| run.to_hex()).unwrap_or_default();
                    format!(
                        "{}  {}",
                        super::short(&run),
                        super::entry_text(&listed.item, &listed.path, &listed.entry)
                    )
                },
            );
            if context.output.closed() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        },
        &reporter,
    );
    reporter.end();
    let entries = found.map_err(|error| context.failure(error))?;
    let exit = if entries == 0 {
        Exit::Failed
    } else {
        exit_after(reporter.warnings())
    };
    Ok(Done {
        exit,
        text: vec![
            String::new(),
            units::counted(entries, "version found", "versions found"),
        ],
        summary: Summary::Entries {
            entries,
            findings: reporter.warnings(),
        },
    })
}
