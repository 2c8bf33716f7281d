use podkeep_engine::operations::{DoctorOptions, DoctorReport, doctor};

use crate::context::{Context, Done, exit_after};
use crate::failure::{Exit, Failure};
use crate::messages::Summary;
use crate::units;

pub fn run(context: &Context<'_>) -> Result<Done, Failure> {
    let reporter = context.reporter();
    let host = super::host::local(context)?;
    let report = doctor::doctor(&host, &DoctorOptions::default(), &reporter);
    reporter.end();
    let report = report.map_err(|error| context.failure(error))?;
    let exit = match report.damaged {
        0 => exit_after(reporter.warnings()),
        _ => Exit::Failed,
    };
    Ok(Done {
        exit,
        text: vec![words(&report)],
        summary: Summary::Doctor {
            images: report.images,
            layers: report.layers,
            damaged: report.damaged,
            findings: reporter.warnings(),
            seconds: report.seconds,
        },
    })
}

fn words(report: &DoctorReport) -> String {
    let verdict = match report.damaged {
        0 => "No damage:".to_owned(),
        damaged => format!("DAMAGED: {} in", units::counted(damaged, "fault", "faults")),
    };
    format!(
        "{verdict} {}, {}",
        units::counted(report.images, "image", "images"),
        units::counted(report.layers, "layer", "layers")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_the_verdict() {
        let line = |damaged| {
            words(&DoctorReport {
                images: 2,
                layers: 1,
                damaged,
                seconds: 0.0,
            })
        };
        assert_eq!(line(0), "No damage: 2 images, 1 layer");
        assert_eq!(line(3), "DAMAGED: 3 faults in 2 images, 1 layer");
    }
}
