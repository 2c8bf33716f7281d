//! One verb, one file, as in the engine.

mod agent;
mod backup;
mod check;
mod completions;
mod diff;
mod doctor;
mod dump;
mod export;
mod find;
mod host;
mod import;
mod init;
mod key;
mod ls;
mod man;
pub mod migrate;
mod restore;
mod snapshots;
mod stats;

use std::io::{self, Write};

use podkeep_format::item::{Escaped, Item};

use crate::afar;
use crate::arguments::{Agent, Command, Global};
use crate::context::{Context, Done};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::shown::{Shown, ShownNode};
use crate::units;
use crate::whose::Whose;

pub fn run(context: &Context<'_>, command: &Command) -> Result<Done, Failure> {
    match &context.whose {
        Whose::Afar(host) => afar::near::run(context, command, host),
        _ => run_here(context, command),
    }
}

/// On this machine, with a Podman of it.
pub fn run_here(context: &Context<'_>, command: &Command) -> Result<Done, Failure> {
    match command {
        Command::Init(arguments) => init::run(context, arguments),
        Command::Backup(arguments) => backup::run(context, arguments),
        Command::Import(arguments) => import::run(context, arguments),
        Command::Snapshots(arguments) => snapshots::run(context, arguments),
        Command::Ls(arguments) => ls::run(context, arguments),
        Command::Dump(arguments) => dump::run(context, arguments),
        Command::Diff(arguments) => diff::run(context, arguments),
        Command::Find(arguments) => find::run(context, arguments),
        Command::Stats(_) => stats::run(context),
        Command::Restore(arguments) => restore::run(context, arguments),
        Command::Migrate(arguments) => migrate::run(context, arguments),
        Command::Export(arguments) => export::run(context, arguments),
        Command::Check(arguments) => check::run(context, arguments),
        Command::Doctor(_) => doctor::run(context),
        Command::Key(command) => key::run(context, command),
        Command::Completions(arguments) => completions::run(context, arguments),
        Command::Man(arguments) => man::run(context, arguments),
        // It has standard output for itself, and so no context.
        Command::Agent(_) => Err(Failure::defect()),
    }
}

/// The command that talks to a podkeep instead of a person.
pub fn agent(global: &Global, arguments: &Agent) -> Result<Exit, Failure> {
    agent::run(global, arguments)
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

/// Standard output for bytes as they are: fails as soon as nobody takes them.
struct Raw<'a>(&'a Output);

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.raw(bytes);
        if self.0.closed() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line of a listing. The size of a device is its numbers.
fn entry_text<'a>(item: &Item, path: &[u8], entry: impl Into<Shown<'a>>) -> String {
    let entry = entry.into();
    let (size, target) = match entry.what {
        ShownNode::File { size } => (size.to_string(), None),
        ShownNode::Directory => ("-".to_owned(), None),
        ShownNode::Symlink { target } => (target.len().to_string(), Some(target)),
        ShownNode::Device { major, minor } => (format!("{major},{minor}"), None),
        ShownNode::Other => ("0".to_owned(), None),
    };
    let mut line = format!(
        "{}  {:>6} {:>6}  {size:>14}  {}  {}",
        units::mode(entry.letter, entry.mode),
        entry.uid,
        entry.gid,
        units::minute(entry.mtime, 0),
        item.at(path)
    );
    if let Some(target) = target {
        line.push_str(&format!(" -> {}", Escaped(target)));
    }
    line
}

/// The first digits of an id, as listings show it and arguments take it.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selectors::parse_item;
    use podkeep_format::item::ItemKind;
    use std::ffi::OsStr;

    #[test]
    fn f_02_places_are_one_line_and_are_read_back() {
        for (kind, name) in [
            (ItemKind::Volume, b"web".as_slice()),
            (ItemKind::Path, b"/srv/a:b"),
            (ItemKind::Path, b"/"),
        ] {
            let item = Item::new(kind, name);
            for path in [
                b"".as_slice(),
                b"a\nb",
                b"e\\n",
                b"-rf",
                b"\x1b[2Jx",
                b"d/caf\xe9",
            ] {
                let text = item.at(path);
                assert!(!text.chars().any(char::is_control), "{text:?}");
                let read = parse_item(OsStr::new(&text)).unwrap();
                let whole = [
                    read.selector.item.name.as_slice(),
                    b"/",
                    read.path.as_slice(),
                ];
                let meant = [name, b"/", path];
                let clean = |parts: [&[u8]; 3]| {
                    parts
                        .concat()
                        .split(|b| *b == b'/')
                        .filter(|c| !c.is_empty())
                        .map(<[u8]>::to_vec)
                        .collect::<Vec<_>>()
                };
                assert_eq!(clean(whole), clean(meant), "{text}");
            }
        }
    }
}
