use std::collections::BTreeSet;

use podkeep_engine::operations::{SnapshotRow, snapshots};
use podkeep_format::item::ItemKind;

use crate::arguments::Snapshots;
use crate::context::{Context, Done, exit_after};
use crate::failure::Failure;
use crate::messages::{Message, SnapshotLine, Summary};
use crate::units::{self, Align};

/// Items that a row names one by one.
const ITEMS_NAMED: usize = 3;

pub fn run(context: &Context<'_>, arguments: &Snapshots) -> Result<Done, Failure> {
    let reporter = context.reporter();
    let repository = context.open(&reporter)?;
    let rows = snapshots::snapshots(&repository, arguments.of.as_deref(), &reporter);
    reporter.end();
    let rows = rows.map_err(|error| context.failure(error))?;
    if context.output.manner.json {
        for row in &rows {
            context
                .output
                .json(&Message::Snapshot(SnapshotLine::from(row)), false);
        }
    } else if !rows.is_empty() {
        let align = [
            Align::Left,
            Align::Left,
            Align::Left,
            Align::Left,
            Align::Right,
            Align::Right,
            Align::Left,
        ];
        let head = ["ID", "Taken", "Host", "Items", "Size", "Added", "Notes"];
        let mut table = vec![head.map(str::to_owned).to_vec()];
        table.extend(rows.iter().map(cells));
        for line in units::table(&align, &table) {
            context.output.text(&line);
        }
    }
    let hosts: BTreeSet<&str> = rows.iter().map(|row| row.host.as_str()).collect();
    let count = rows.len() as u64;
    Ok(Done {
        exit: exit_after(reporter.warnings()),
        text: vec![
            String::new(),
            format!(
                "{} of {}",
                units::counted(count, "snapshot", "snapshots"),
                units::counted(hosts.len() as u64, "host", "hosts")
            ),
        ],
        summary: Summary::Snapshots {
            snapshots: count,
            hosts: hosts.len() as u64,
            findings: reporter.warnings(),
        },
    })
}

fn cells(row: &SnapshotRow) -> Vec<String> {
    let mut notes = row.tags.clone();
    if row.cut_off {
        notes.push("INCOMPLETE: the run was cut off".to_owned());
    } else if !row.complete {
        notes.push("INCOMPLETE".to_owned());
    }
    vec![
        super::short(&row.run.to_hex()).to_owned(),
        units::minute(row.time, row.zone_minutes),
        row.host.clone(),
        items(row),
        units::size(row.bytes_logical),
        if row.cut_off {
            "-".to_owned()
        } else {
            units::size(row.bytes_added)
        },
        notes.join(", "),
    ]
}

/// `all: 3 vol 3 img 2 ctr +6`, or the names.
fn items(row: &SnapshotRow) -> String {
    if !row.scope_all {
        let mut named: Vec<String> = row
            .items
            .iter()
            .take(ITEMS_NAMED)
            .map(ToString::to_string)
            .collect();
        if row.items.len() > ITEMS_NAMED {
            named.push(format!("+{}", row.items.len() - ITEMS_NAMED));
        }
        return named.join(" ");
    }
    let count = |kind| row.items.iter().filter(|item| item.kind == kind).count();
    let mut parts = Vec::new();
    let mut rest = row.items.len();
    for (kind, word) in [
        (ItemKind::Volume, "vol"),
        (ItemKind::Image, "img"),
        (ItemKind::Container, "ctr"),
    ] {
        let count = count(kind);
        rest -= count;
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    if rest > 0 {
        parts.push(format!("+{rest}"));
    }
    format!("all: {}", parts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use podkeep_format::id::RunId;
    use podkeep_format::item::Item;
    use podkeep_format::tree::Time;

    fn row(scope_all: bool, items: &[(ItemKind, &str)]) -> SnapshotRow {
        SnapshotRow {
            run: RunId([0xab; 16]),
            time: Time::default(),
            zone_minutes: 60,
            host: "web1".to_owned(),
            scope_all,
            complete: false,
            tags: vec!["nightly".to_owned()],
            bytes_logical: 2_600_000_000,
            bytes_added: 812_000_000,
            files: 1,
            items: items
                .iter()
                .map(|(kind, name)| Item::new(*kind, *name))
                .collect(),
            cut_off: false,
        }
    }

    #[test]
    fn e_32_incomplete_snapshots_are_visible() {
        let cells = cells(&row(
            true,
            &[(ItemKind::Volume, "a"), (ItemKind::Secret, "b")],
        ));
        assert_eq!(
            cells,
            [
                "abababab",
                "1970-01-01 01:00",
                "web1",
                "all: 1 vol +1",
                "2.6 GB",
                "812 MB",
                "nightly, INCOMPLETE"
            ]
        );
    }

    #[test]
    fn few_items_are_named() {
        let names = ["a", "b", "c", "d"].map(|name| (ItemKind::Volume, name));
        assert_eq!(items(&row(false, &names)), "volume:a volume:b volume:c +1");
    }
}
