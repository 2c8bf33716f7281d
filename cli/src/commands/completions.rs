use clap::CommandFactory;

use crate::arguments::{Arguments, Completions};
use crate::context::{Context, Done};
use crate::failure::{Exit, Failure};
use crate::messages::Summary;

/// Prints a shell's completion script.
pub fn run(context: &Context<'_>, arguments: &Completions) -> Result<Done, Failure> {
    super::refuse_json(context, "completions", "a script for a shell")?;
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Arguments::command(),
        "podkeep",
        &mut script,
    );
    context.output.raw(&script);
    Ok(Done {
        exit: Exit::Done,
        summary: Summary::Raw {},
        text: Vec::new(),
    })
}
