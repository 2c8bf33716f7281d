use std::ops::ControlFlow;

use podkeep_engine::operations::Change;
use podkeep_engine::operations::diff::{self, After};

use crate::arguments::Diff;
use crate::context::{Context, Done, exit_after};
use crate::failure::Failure;
use crate::messages::{DifferenceLine, Message, Summary};
use crate::selectors;
use crate::units;

pub fn run(context: &Context<'_>, arguments: &Diff) -> Result<Done, Failure> {
    let before = selectors::parse_snapshot(&arguments.before)?;
    let snapshot = match arguments.after == "live" {
        true => None,
        false => Some(selectors::parse_snapshot(&arguments.after)?),
    };
    let reporter = context.reporter();
    let repository = context.open(&reporter)?;
    let host = match snapshot {
        Some(_) => None,
        None => Some(super::host::local(context)?),
    };
    let after = match (&snapshot, &host) {
        (Some(snapshot), _) => After::Snapshot(snapshot),
        (None, Some(host)) => After::Live(host),
        (None, None) => return Err(Failure::defect()),
    };
    // Added, removed, modified, attributes.
    let mut counts = [0u64; 4];
    let compared = diff::diff(
        &repository,
        &before,
        &after,
        &mut |row| {
            let (index, sign) = match row.change {
                Change::Added => (0, '+'),
                Change::Removed => (1, '-'),
                Change::Modified => (2, 'M'),
                Change::Attributes => (3, 'U'),
            };
            counts[index] += 1;
            context.output.row(
                || Message::Difference(DifferenceLine::from(&row)),
                || format!("{sign} {}", row.item.at(&row.path)),
            );
            if context.output.closed() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        },
        &reporter,
    );
    reporter.end();
    compared.map_err(|error| context.failure(error))?;
    let [added, removed, modified, attributes] = counts;
    Ok(Done {
        exit: exit_after(reporter.warnings()),
        text: vec![
            String::new(),
            format!(
                "{} added, {} removed, {} with another content, {} with other attributes",
                units::count(added),
                units::count(removed),
                units::count(modified),
                units::count(attributes)
            ),
        ],
        summary: Summary::Differences {
            added,
            removed,
            modified,
            attributes,
            findings: reporter.warnings(),
        },
    })
}
