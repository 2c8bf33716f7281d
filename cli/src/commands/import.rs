use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use podkeep_engine::host::archive::Archives;
use podkeep_engine::operations::{ImportOptions, import};

use super::backup::{told, zone_minutes};
use crate::arguments::Import;
use crate::context::{Context, Done};
use crate::failure::Failure;

pub fn run(context: &Context<'_>, arguments: &Import) -> Result<Done, Failure> {
    let volumes = arguments
        .volume
        .iter()
        .map(named)
        .collect::<Result<Vec<_>, Failure>>()?;
    let reporter = context.reporter().of_a_backup();
    let repository = context.open_to_write(&reporter)?;
    let state = context.state()?;
    let spool = context.cache().unwrap_or_else(|_| state.clone());
    let archives = Archives::open(state, &arguments.files, &volumes, &spool)
        .map_err(|error| context.failure(error.into()))?;
    let options = ImportOptions {
        tags: arguments.saving.tag.clone(),
        dry_run: arguments.saving.dry_run,
        threads: 0,
        zone_minutes: zone_minutes(),
        wait: arguments.saving.patience.wait,
    };
    let report = import::import(&repository, &archives, &options, &reporter);
    reporter.end();
    let report = report.map_err(|error| context.failure(error))?;
    Ok(told(context, &report, &reporter, arguments.saving.dry_run))
}

/// `NAME=FILE`; no volume has a `=` in its name.
fn named(argument: &OsString) -> Result<(String, PathBuf), Failure> {
    let bytes = argument.as_bytes();
    let equals = bytes.iter().position(|byte| *byte == b'=');
    let parts = equals.map(|at| (str::from_utf8(&bytes[..at]), &bytes[at + 1..]));
    match parts {
        Some((Ok(name), file)) if !name.is_empty() && !file.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(OsStr::from_bytes(file))))
        }
        _ => Err(Failure::usage(
            format!("--volume {} has no name", argument.to_string_lossy()),
            "write --volume NAME=FILE, with the name that the volume gets",
        )),
    }
}
