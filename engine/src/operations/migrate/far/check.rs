//! Looking for what is in the way at the target.

use podkeep_format::item::{Item, ItemKind};

use super::{Work, as_target, not_open, options, volume};
use crate::fs::write::free_below;
use crate::host::{Ground, Target};
use crate::operations::migrate::orders::{Fit, Met, Need, Outcome};
use crate::operations::migrate::owners::homeless;
use crate::operations::restore::{Coming, Restoring};
use crate::operations::{OperationResult, RestoreReport, Views};

/// What comes besides definitions, as far as the source tells.
pub(super) struct Arriving<'a> {
    pub bytes: u64,
    /// Of processes that are to go on here.
    pub ground: Option<&'a Ground>,
    /// Of files.
    pub owners: &'a Met,
}

impl Work<'_> {
    pub(super) fn check(
        &mut self,
        run: &str,
        coming: &Coming,
        fit: Fit,
        arriving: &Arriving<'_>,
    ) -> OperationResult<Outcome> {
        let repo = self.staging.clone().ok_or_else(not_open)?;
        self.clear()?;
        let host = &*self.side.host;
        let mut report = RestoreReport::default();
        let mut views = Views::new();
        // Volumes and images alone have no definitions to look at.
        if !run.is_empty() {
            let options = options(run, fit);
            // Those of units.
            let wanted = |item: &Item| item.kind == ItemKind::Path;
            let restoring = Restoring::plan(
                &repo,
                as_target(host),
                &options,
                self.heard,
                coming,
                &wanted,
            )?;
            views = restoring.views();
            report = restoring.into_report();
        }
        if let Some(ground) = arriving.ground {
            let mut why = host.obstacles()?;
            why.extend(host.ground()?.lacks(ground));
            let conflicts = why.into_iter().map(|why| {
                format!("processes cannot go on at the target: {why}: leave out --checkpoint")
            });
            report.conflicts.extend(conflicts);
        }
        let there = Target::inventory(host)?;
        let homeless = homeless(arriving.owners, &there.owners, &views, fit.squash)?;
        report.conflicts.extend(homeless);
        for name in &coming.volumes {
            let is_there = there.volumes.iter().any(|volume| volume.name == *name);
            if is_there && !self.is_ours(&volume(name)) {
                report.conflicts.push(format!(
                    "volume {name} is there: podman volume rm {name}, or rename it"
                ));
            }
        }
        Ok(Outcome {
            actions: report.actions,
            conflicts: report.conflicts,
            needs: self.needs(arriving.bytes)?,
            ..Outcome::default()
        })
    }

    /// What so many bytes need here at most: once as they are staged, once where they go.
    fn needs(&self, bytes: u64) -> OperationResult<Vec<Need>> {
        let mut needs: Vec<(u64, Need)> = Vec::new();
        let mut devices = Vec::new();
        let staging = [self.folder()?.path.clone()];
        for (is_staging, place) in staging.into_iter().map(|place| (true, place)).chain(
            self.side
                .host
                .places()?
                .into_iter()
                .map(|place| (false, place)),
        ) {
            let Some(room) = free_below(&place) else {
                continue;
            };
            // Images and volumes mostly lie together, and count once.
            if devices.contains(&(is_staging, room.device)) {
                continue;
            }
            devices.push((is_staging, room.device));
            match needs.iter_mut().find(|(device, _)| *device == room.device) {
                Some((_, need)) => need.bytes += bytes,
                None => needs.push((
                    room.device,
                    Need {
                        place: room.directory.display().to_string(),
                        bytes,
                        bytes_free: room.bytes_free,
                    },
                )),
            }
        }
        Ok(needs.into_iter().map(|(_, need)| need).collect())
    }
}
