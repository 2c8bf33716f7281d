//! `docs/cli.md` is written from the definitions that the binary parses with. To write it anew:
//! `PODKEEP_WRITE_DOCS=1 cargo test -p podkeep --test cli reference`.

#[path = "../../cli/src/arguments.rs"]
#[allow(dead_code)]
mod arguments;

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, Command, CommandFactory};

#[test]
fn the_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let current = reference();
    if std::env::var_os("PODKEEP_WRITE_DOCS").is_some() {
        std::fs::write(&path, &current).expect("docs/cli.md can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == current,
        "docs/cli.md is not current: run with PODKEEP_WRITE_DOCS=1"
    );
}

fn reference() -> String {
    let mut command = arguments::Arguments::command();
    command.build();
    let mut page = String::from(
        "# Command line\n\nWritten from the definitions in `cli/src/arguments.rs`; a test holds \
         the two together.\n\n",
    );
    let _ = writeln!(page, "{}\n", styled(command.get_about()));
    let _ = writeln!(page, "## Options of all commands\n");
    list(
        &mut page,
        command.get_arguments().filter(|a| a.is_global_set()),
    );
    let _ = writeln!(page, "\n{}", code_block(&styled(command.get_after_help())));
    for child in command.get_subcommands() {
        section(&mut page, child);
    }
    page
}

fn section(page: &mut String, command: &Command) {
    let children: Vec<&Command> = command.get_subcommands().collect();
    if !children.is_empty() {
        for child in children {
            section(page, child);
        }
        return;
    }
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let _ = writeln!(page, "## {name}\n");
    let usage = command.clone().render_usage().to_string();
    let usage = usage
        .trim_start_matches("Usage: ")
        .replace(" [OPTIONS]", "");
    let _ = writeln!(page, "`{usage}`\n");
    let about = command.get_long_about().or(command.get_about());
    let _ = writeln!(page, "{}\n", styled(about));
    let own = command
        .get_arguments()
        .filter(|a| !a.is_global_set() && a.get_id() != "help" && !a.is_hide_set());
    let before = page.len();
    list(page, own);
    if page.len() > before {
        page.push('\n');
    }
    if let Some(after) = command.get_after_long_help() {
        let _ = writeln!(page, "{after}\n");
    }
}

fn list<'a>(page: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    for argument in arguments {
        let value = argument
            .get_value_names()
            .filter(|_| argument.get_action().takes_values())
            .map(|names| names.join(" "));
        let name = match (argument.get_long(), argument.get_short()) {
            (Some(long), short) => {
                let short = short.map(|s| format!("-{s}, ")).unwrap_or_default();
                let value = match &value {
                    Some(value) if argument.is_require_equals_set() => format!("[={value}]"),
                    Some(value) => format!(" {value}"),
                    None => String::new(),
                };
                format!("{short}--{long}{value}")
            }
            _ => value.unwrap_or_default(),
        };
        let help = argument.get_long_help().or(argument.get_help());
        let help = styled(help).replace("\n\n", ". ").replace('\n', " ");
        let variable = argument
            .get_env()
            .map(|name| format!(" [env: {}]", name.display()))
            .unwrap_or_default();
        let _ = writeln!(page, "- `{name}`: {help}{variable}");
    }
}

fn styled(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

fn code_block(text: &str) -> String {
    format!("```\n{text}\n```\n")
}
