//! What every command starts from.

use crate::arguments::Global;
use crate::failure::Exit;
use crate::messages::Summary;
use crate::output::Output;
use crate::passphrase::{self, Given, Origin};
use crate::places::Surroundings;
use crate::progress::Reporter;
use crate::signals::Signals;

/// The arguments that all commands share, the streams, and the signals.
pub struct Context<'a> {
    pub global: &'a Global,
    pub output: &'a Output,
    pub signals: Signals,
}

/// What a command amounts to when it did not fail.
pub struct Done {
    pub exit: Exit,
    pub summary: Summary,
    /// The closing lines for people.
    pub text: Vec<String>,
}

impl<'a> Context<'a> {
    pub fn new(global: &'a Global, output: &'a Output, signals: Signals) -> Self {
        Self {
            global,
            output,
            signals,
        }
    }

    pub fn reporter(&self) -> Reporter<'a> {
        Reporter::new(self.output, self.signals.clone(), self.global.json_progress)
    }

    /// Where the repository's passphrase or key comes from.
    pub fn origin(&self) -> Origin {
        passphrase::origin(
            &Given {
                password_file: self.global.password_file.clone(),
                password_command: self.global.password_command.clone(),
                key_file: self.global.key_file.clone(),
            },
            &|name| std::env::var_os(name),
        )
    }

    pub fn surroundings(&self) -> Surroundings<'static> {
        Surroundings {
            root: rustix::process::geteuid().is_root(),
            variable: &|name| std::env::var_os(name),
        }
    }
}

/// 0, or 3 after warnings.
pub fn exit_after(warnings: u64) -> Exit {
    if warnings == 0 {
        Exit::Done
    } else {
        Exit::Warnings
    }
}
