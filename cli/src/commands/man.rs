use std::path::Path;

use clap::CommandFactory;

use crate::arguments::{Arguments, Man};
use crate::context::{Context, Done};
use crate::failure::{Exit, Failure};
use crate::messages::Summary;
use crate::units;

/// Writes `podkeep.1` and a page for each command, such as `podkeep-key-add.1`.
pub fn run(_context: &Context<'_>, arguments: &Man) -> Result<Done, Failure> {
    let fail = |path: &Path, error: std::io::Error| Failure::local("write", path.display(), error);
    std::fs::create_dir_all(&arguments.dir).map_err(|e| fail(&arguments.dir, e))?;
    let mut command = Arguments::command();
    command.build();
    let mut pages = Vec::new();
    gather(&command, None, &mut pages);
    for (name, command) in &pages {
        let path = arguments.dir.join(format!("{name}.1"));
        let mut page = Vec::new();
        clap_mangen::Man::new((*command).clone())
            .title(name.to_uppercase())
            .render(&mut page)
            .and_then(|()| std::fs::write(&path, &page))
            .map_err(|e| fail(&path, e))?;
    }
    let count = pages.len() as u64;
    Ok(Done {
        exit: Exit::Done,
        summary: Summary::Man { pages: count },
        text: vec![format!(
            "{} in {}",
            units::counted(count, "page", "pages"),
            arguments.dir.display()
        )],
    })
}

fn gather<'c>(
    command: &'c clap::Command,
    above: Option<&str>,
    pages: &mut Vec<(String, &'c clap::Command)>,
) {
    let name = match above {
        Some(above) => format!("{above}-{}", command.get_name()),
        None => command.get_name().to_owned(),
    };
    for child in command.get_subcommands() {
        gather(child, Some(&name), pages);
    }
    pages.push((name, command));
}
