use podkeep_engine::operations::stats;

use crate::context::{Context, Done, exit_after};
use crate::failure::Failure;
use crate::messages::Summary;
use crate::units::{self, Align};

pub fn run(context: &Context<'_>) -> Result<Done, Failure> {
    let reporter = context.reporter();
    let repository = context.open(&reporter)?;
    let report = stats::stats(&repository, &reporter);
    reporter.end();
    let s = report.map_err(|error| context.failure(error))?;
    let total = s.packs_bytes + s.segments_bytes + s.snapshots_bytes + s.other_bytes;
    let row = |what: &str, count: Option<u64>, bytes: u64| {
        vec![
            what.to_owned(),
            count.map(units::count).unwrap_or_default(),
            units::size(bytes),
        ]
    };
    let rows = [
        row("Packs", Some(s.packs), s.packs_bytes),
        row("Index", Some(s.segments), s.segments_bytes),
        row("Snapshots", Some(s.items), s.snapshots_bytes),
        row("Keys and others", None, s.other_bytes),
        row("Repository", None, total),
        row("Reserve, apart", None, s.reserve_bytes),
        row("Chunks before compression", Some(s.chunks), s.chunks_bytes),
        row("Files of all snapshots", None, s.bytes_logical),
    ];
    for line in units::table(&[Align::Left, Align::Right, Align::Right], &rows) {
        context.output.text(&line);
    }
    Ok(Done {
        exit: exit_after(reporter.warnings()),
        text: vec![
            String::new(),
            format!(
                "{} of {}",
                units::counted(s.snapshots, "snapshot", "snapshots"),
                units::counted(s.items, "item", "items")
            ),
        ],
        summary: Summary::Stats {
            snapshots: s.snapshots,
            items: s.items,
            packs: s.packs,
            packs_bytes: s.packs_bytes,
            segments: s.segments,
            segments_bytes: s.segments_bytes,
            snapshots_bytes: s.snapshots_bytes,
            other_bytes: s.other_bytes,
            reserve_bytes: s.reserve_bytes,
            chunks: s.chunks,
            chunks_bytes: s.chunks_bytes,
            bytes_logical: s.bytes_logical,
            findings: reporter.warnings(),
        },
    })
}
