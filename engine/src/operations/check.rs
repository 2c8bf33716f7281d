//! `check`: is everything there, and is it what it should be?
//!
//! Without `--read-data` it reads all metadata: config, keys, snapshots, segments, every tree and
//! list node, and makes sure that each content chunk lies in a pack that is there and long
//! enough. With it, packs are read whole and every chunk is decoded and hashed, and layers of
//! images are rebuilt. What exists twice is healed from its good twin; the index of packs that lost
//! their segment is made anew.

mod around;
mod layers;
mod packs;
mod reach;
mod twins;

use std::sync::Arc;
use std::time::Instant;

use super::{CheckOptions, CheckReport, OperationResult, reading};
use crate::monitor::{Finding, FindingKind, Monitor};
use crate::repo::index::Index;
use crate::repo::reader::Reader;
use crate::repo::{Repository, orphans};

/// Checks the repository. Needs a full key. Every damage is a finding; the report counts what
/// remains and what was healed.
pub fn check(
    repo: &Repository,
    options: &CheckOptions,
    monitor: &dyn Monitor,
) -> OperationResult<CheckReport> {
    let started = Instant::now();
    repo.require_full("check what is stored")?;
    let lease = reading::lease(repo, monitor)?;
    let mut check = Check {
        repo,
        monitor,
        read_data_percent: options.read_data_percent,
        report: CheckReport::default(),
    };
    check.twins()?;
    let index = Arc::new(Index::load(repo, monitor)?);
    let reader = Reader::new(repo, index)?;
    let loose = orphans::read_all(&reader, repo, monitor)?;
    for (segment, cause) in &reader.index().damaged {
        check.report_segment(*segment, cause, loose > 0);
    }
    let missing = check.pack_sizes(&reader)?;
    let bad = match options.read_data_percent {
        Some(percent) => check.read_packs(&reader, percent)?,
        None => Default::default(),
    };
    let needed = check.reach(&reader, &bad)?;
    check.report_missing(missing, &needed);
    check.layers(&reader)?;
    if options.endorse {
        check.endorse(&reader)?;
    }
    drop(lease);
    check.report.seconds = started.elapsed().as_secs_f64();
    Ok(check.report)
}

struct Check<'a> {
    repo: &'a Repository,
    monitor: &'a dyn Monitor,
    read_data_percent: Option<u8>,
    report: CheckReport,
}

impl Check<'_> {
    fn damage(&mut self, object: impl ToString, message: String) {
        self.report.damaged += 1;
        self.finding(object, FindingKind::Damaged, message);
    }

    fn healed(&mut self, object: impl ToString, message: String) {
        self.report.healed += 1;
        self.finding(object, FindingKind::Healed, message);
    }

    fn note(&self, object: impl ToString, message: String) {
        self.finding(object, FindingKind::Note, message);
    }

    fn finding(&self, object: impl ToString, kind: FindingKind, message: String) {
        self.monitor.finding(Finding {
            object: object.to_string(),
            kind,
            snapshots: Vec::new(),
            paths: Vec::new(),
            message,
        });
    }
}
