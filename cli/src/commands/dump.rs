use podkeep_engine::operations::dump;

use crate::arguments::Dump;
use crate::context::{Context, Done, exit_after};
use crate::failure::Failure;
use crate::messages::Summary;
use crate::selectors;

pub fn run(context: &Context<'_>, arguments: &Dump) -> Result<Done, Failure> {
    super::refuse_json(context, "dump", "a file's bytes")?;
    let snapshot = selectors::parse_snapshot(&arguments.snapshot)?;
    let item = selectors::parse_item(&arguments.item)?;
    let reporter = context.reporter();
    let repository = context.open(&reporter)?;
    let out = &mut super::Raw(context.output);
    let dumped = match selectors::is_in_image(&arguments.item) && !arguments.stored {
        true => dump::dump_image_file(&repository, &snapshot, &item, out, &reporter),
        false => dump::dump(&repository, &snapshot, &item, out, &reporter),
    };
    reporter.end();
    match dumped {
        Ok(_) => {}
        // The reader went away, or the output's own failure is told at the end.
        Err(_) if context.output.closed() => {}
        Err(error) => return Err(context.failure(error)),
    }
    Ok(Done {
        exit: exit_after(reporter.warnings()),
        summary: Summary::Raw {},
        text: Vec::new(),
    })
}
