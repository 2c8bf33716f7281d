use std::path::Path;

use podkeep_engine::operations::export::{self, ExportTo};
use podkeep_engine::operations::{ExportForm, ExportOptions};

use crate::arguments::Export;
use crate::context::{Context, Done, exit_after};
use crate::failure::Failure;
use crate::messages::Summary;
use crate::selectors;
use crate::units;

pub fn run(context: &Context<'_>, arguments: &Export) -> Result<Done, Failure> {
    let (form, place) = wanted(arguments);
    let to_stdout = place == Path::new("-") && arguments.push.is_none();
    if to_stdout {
        super::refuse_json(context, "export to -", "a file's bytes")?;
    }
    let options = ExportOptions {
        snapshot: selectors::parse_snapshot(&arguments.snapshot)?,
        item: selectors::parse_item(&arguments.item)?,
        form,
        replace: arguments.replace,
    };
    let mut out = super::Raw(context.output);
    let is_tar = place
        .extension()
        .is_some_and(|extension| extension == "tar");
    let host;
    let to = match form {
        _ if arguments.push.is_some() => {
            host = super::host::local(context)?;
            ExportTo::Registry(&host, place.display().to_string())
        }
        _ if to_stdout => ExportTo::Stream(&mut out),
        ExportForm::Oci if !is_tar => ExportTo::Directory(place.to_owned()),
        _ => ExportTo::File(place.to_owned()),
    };
    let reporter = context.reporter();
    let repository = context.open(&reporter)?;
    let exported = export::export(&repository, &options, to, &reporter);
    reporter.end();
    let report = match exported {
        Ok(report) => report,
        // The reader went away, or the output's own failure is told at the end.
        Err(_) if to_stdout && context.output.closed() => {
            return Ok(Done {
                exit: exit_after(reporter.warnings()),
                summary: Summary::Raw {},
                text: Vec::new(),
            });
        }
        Err(error) => return Err(context.failure(error)),
    };
    let warnings = reporter.warnings();
    let mut text = Vec::new();
    if !to_stdout {
        if report.incomplete {
            text.push("The snapshot is incomplete: what could not be read is missing".to_owned());
        }
        let done = match arguments.push {
            Some(_) => "Pushed",
            None => "Exported",
        };
        text.push(format!(
            "{done} {} to {}: {} in {}{}",
            report.item,
            place.display(),
            units::size(report.bytes_written),
            units::duration(report.seconds),
            match warnings {
                0 => String::new(),
                n => format!("; {}", units::counted(n, "warning", "warnings")),
            }
        ));
    }
    Ok(Done {
        exit: exit_after(warnings + u64::from(report.incomplete)),
        text,
        summary: Summary::Export {
            item: report.item.to_string(),
            place: place.display().to_string(),
            files: report.files,
            bytes_written: report.bytes_written,
            digest: report.digest,
            incomplete: report.incomplete,
            findings: warnings,
            seconds: report.seconds,
        },
    })
}

/// The form, of which the command line has exactly one, and its place.
fn wanted(arguments: &Export) -> (ExportForm, &Path) {
    let forms = [
        (ExportForm::Oci, &arguments.oci),
        (ExportForm::DockerArchive, &arguments.docker_archive),
    ];
    for (form, place) in forms {
        if let Some(place) = place {
            return (form, place);
        }
    }
    if let Some(reference) = &arguments.push {
        return (ExportForm::Oci, Path::new(reference));
    }
    let tar = arguments.tar.as_deref();
    (ExportForm::Tar, tar.unwrap_or(Path::new("-")))
}
