use podkeep_engine::operations::{CheckOptions, CheckReport, check};

use crate::arguments::Check;
use crate::context::{Context, Done, exit_after};
use crate::failure::{Exit, Failure};
use crate::messages::Summary;
use crate::units;

pub fn run(context: &Context<'_>, arguments: &Check) -> Result<Done, Failure> {
    let options = CheckOptions {
        read_data_percent: arguments.read_data,
        endorse: arguments.endorse,
        threads: 0,
    };
    let reporter = context.reporter();
    let repository = context.open_to_write(&reporter)?;
    let report = check::check(&repository, &options, &reporter);
    reporter.end();
    let report = report.map_err(|error| context.failure(error))?;
    let exit = match report.damaged {
        0 => exit_after(reporter.warnings()),
        _ => Exit::Failed,
    };
    Ok(Done {
        exit,
        text: words(&report),
        summary: Summary::Check {
            snapshots: report.snapshots,
            packs: report.packs,
            packs_read: report.packs_read,
            chunks: report.chunks,
            damaged: report.damaged,
            healed: report.healed,
            findings: reporter.warnings(),
            seconds: report.seconds,
        },
    })
}

fn words(report: &CheckReport) -> Vec<String> {
    let mut result = match (report.damaged, report.healed) {
        (0, 0) => "No damage".to_owned(),
        (0, healed) => format!(
            "All damage healed: {}",
            units::counted(healed, "object", "objects")
        ),
        (damaged, _) => format!("DAMAGED: {}", units::counted(damaged, "object", "objects")),
    };
    if report.damaged > 0 && report.healed > 0 {
        result.push_str(&format!(", {} healed", units::count(report.healed)));
    }
    vec![
        result,
        format!(
            "{}, {} ({} read whole), {}, {}",
            units::counted(report.snapshots, "item snapshot", "item snapshots"),
            units::counted(report.packs, "pack", "packs"),
            units::count(report.packs_read),
            units::counted(report.chunks, "chunk", "chunks"),
            units::duration(report.seconds)
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_verdict() {
        let first = |damaged, healed| {
            words(&CheckReport {
                damaged,
                healed,
                ..CheckReport::default()
            })
            .swap_remove(0)
        };
        assert_eq!(first(0, 0), "No damage");
        assert_eq!(first(0, 1), "All damage healed: 1 object");
        assert_eq!(first(2, 1), "DAMAGED: 2 objects, 1 healed");
    }
}
