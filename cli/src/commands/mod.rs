//! One verb, one file, as in the engine.

mod completions;
mod man;

use crate::arguments::Command;
use crate::context::{Context, Done};
use crate::failure::Failure;

pub fn run(context: &Context<'_>, command: &Command) -> Result<Done, Failure> {
    match command {
        Command::Completions(arguments) => completions::run(context, arguments),
        Command::Man(arguments) => man::run(context, arguments),
        other => Err(Failure::usage(
            format!("{} needs the engine's operation", other.word()),
            "",
        )),
    }
}

/// For commands whose standard output is no listing.
fn refuse_json(context: &Context<'_>, command: &str, prints: &str) -> Result<(), Failure> {
    if context.output.manner.json {
        return Err(Failure::usage(
            format!("{command} prints {prints}, which --json has no form for"),
            "leave --json out",
        ));
    }
    Ok(())
}
