//! The command line of podkeep: arguments, wording, progress, JSON and exit codes. What is done
//! is done by the engine.

mod afar;
mod arguments;
mod commands;
mod context;
mod failure;
mod identity;
mod messages;
mod output;
mod passphrase;
mod places;
mod progress;
mod remote;
mod selectors;
mod shown;
mod signals;
mod units;
mod whose;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::arguments::{Arguments, Command};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::messages::Message;
use crate::output::{Manner, Output};
use crate::signals::Signals;
use crate::whose::Whose;

fn main() -> ExitCode {
    let exit = match Arguments::try_parse() {
        Ok(arguments) => run(arguments),
        Err(error) => refuse(&error),
    };
    ExitCode::from(exit.code())
}

fn run(arguments: Arguments) -> Exit {
    let global = &arguments.global;
    if let Command::Agent(agent) = &arguments.command {
        return commands::agent(global, agent).unwrap_or_else(|failure| {
            Output::new(Manner::default()).failure(&failure);
            failure.exit
        });
    }
    let output = Output::new(Manner {
        json: global.json,
        quiet: global.quiet,
        verbose: global.verbose,
    });
    output.start(arguments.command.word());
    // A panic is a defect of podkeep: told on standard error by the default hook, exit code 1.
    let result = catch_unwind(AssertUnwindSafe(|| {
        // Not a rule of the parser's, which counts options before and behind the command apart.
        if global.json_progress && !global.json {
            let message = "--json-progress needs --json".to_owned();
            return Err(Failure::usage(message, "podkeep --help"));
        }
        let whose = Whose::find(global, &arguments.command)?;
        let signals =
            Signals::listen().map_err(|error| Failure::local("listen to", "signals", error))?;
        let context = Context::new(global, &output, signals, whose);
        commands::run(&context, &arguments.command)
    }))
    .unwrap_or_else(|_| Err(Failure::defect()));
    let exit = match result {
        Ok(done) => {
            let exit = done.exit;
            for line in &done.text {
                output.remark(line);
            }
            output.json(
                &Message::Summary {
                    summary: done.summary,
                    exit_code: exit.code(),
                },
                true,
            );
            exit
        }
        Err(failure) => {
            output.failure(&failure);
            failure.exit
        }
    };
    match output.finish() {
        Ok(()) => exit,
        Err(failure) => {
            output.aside(&format!("Error: {}", failure.message));
            failure.exit.max(exit)
        }
    }
}

/// Help, the version, or arguments that make no sense.
fn refuse(error: &clap::Error) -> Exit {
    // Nobody reads it: nothing to do about that.
    let _ = error.print();
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return Exit::Done;
    }
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.iter().any(|argument| argument == "--json") {
        let output = Output::new(Manner {
            json: true,
            ..Manner::default()
        });
        output.start("");
        let text = error.to_string();
        let message = text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("error: ");
        output.json(
            &Message::Error {
                code: "usage",
                message: message.to_owned(),
                hint: Some("podkeep --help".to_owned()),
                exit_code: Exit::Usage.code(),
            },
            true,
        );
    }
    Exit::Usage
}
