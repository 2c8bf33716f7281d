use std::ops::ControlFlow;

use podkeep_engine::operations::Change;
use podkeep_engine::operations::diff::{self, After};
use podkeep_format::item::Escaped;
use serde_json::Value;

use crate::arguments::Diff;
use crate::context::{Context, Done, exit_after};
use crate::failure::Failure;
use crate::messages::{DifferenceLine, FieldDifferenceLine, Message, Summary};
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
    // Added, removed, modified, attributes, fields of definitions.
    let mut counts = [0u64; 5];
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
                Change::Definition => (4, 'D'),
            };
            counts[index] += 1;
            match &row.field {
                Some(field) => context.output.row(
                    || Message::FieldDifference(FieldDifferenceLine::new(&row.item, field)),
                    || {
                        let [before, after] = [&field.before, &field.after].map(value);
                        let name = Escaped(field.field.as_bytes());
                        let why = field.reason.map(|reason| format!("  ({})", reason.words()));
                        let why = why.unwrap_or_default();
                        format!("{sign} {} {name}  {before} -> {after}{why}", row.item)
                    },
                ),
                None => context.output.row(
                    || Message::Difference(DifferenceLine::from(&row)),
                    || format!("{sign} {}", row.item.at(&row.path)),
                ),
            }
            if context.output.closed() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        },
        &reporter,
    );
    reporter.end();
    compared.map_err(|error| context.failure(error))?;
    let [added, removed, modified, attributes, definitions] = counts;
    Ok(Done {
        exit: exit_after(reporter.warnings()),
        text: vec![
            String::new(),
            format!(
                "{} added, {} removed, {} with another content, {} with other attributes{}",
                units::count(added),
                units::count(removed),
                units::count(modified),
                units::count(attributes),
                match definitions {
                    0 => String::new(),
                    n => format!("; {} of definitions", units::counted(n, "field", "fields")),
                }
            ),
        ],
        summary: Summary::Differences {
            added,
            removed,
            modified,
            attributes,
            definitions,
            findings: reporter.warnings(),
        },
    })
}

/// Characters of a value that a line shows.
const VALUE_CHARS_MAX: usize = 60;

/// A value of a definition for people: `-` where there is none, the beginning of a long one.
fn value(value: &Option<Value>) -> String {
    let Some(value) = value else {
        return "-".to_owned();
    };
    // JSON escapes control characters itself.
    let text = value.to_string();
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
