//! The target's side of a migration: carries orders out, one after the other.
//!
//! What was made and how far each volume is stands in a file before it is so ([`state`](super::state)):
//! a side that begins anew removes what was made and never ran, keeps volumes whose tree it knows,
//! and fills those anew that were being written.

mod back;
mod check;
mod resumed;
mod staged;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use podkeep_format::id::HostId;
use podkeep_format::item::{Item, ItemKind};
use zeroize::Zeroizing;

use self::check::Arriving;
pub(super) use self::staged::{roots, snapshots};
use super::SideHost;
use super::orders::{Answer, Fit, Order, Outcome, Reached, Told};
use super::session::Job;
use super::state::{Far, Folder};
use super::{item_of, text_of};
use crate::fs::scan::KnownContents;
use crate::host::replay::ReplayOptions;
use crate::host::{HostError, Target};
use crate::monitor::{Finding, Monitor, Progress};
use crate::operations::SpaceNeed;
use crate::operations::restore::Coming;
use crate::operations::{OperationError, OperationResult, RestoreOptions, SnapSpec, SnapWhich};
use crate::repo::{Credential, OpenOptions, Repository};
use crate::store::ObjectStore;
use crate::store::local::LocalStore;

/// A podkeep whose link was cut finishes what it works on, and ends within 30 s
/// (`docs/wire-protocol.md`, "Time").
const ENDS_WITHIN: Duration = Duration::from_secs(35);
/// Where the staging repository lies in the migration's folder, and its cache.
const REPOSITORY: &str = "repository";
const CACHE: &str = "cache";

/// Opens the store of a repository by what names it where the target lies.
pub type Reach = dyn Fn(&str) -> OperationResult<Arc<dyn ObjectStore>> + Send + Sync;

/// What a target's side works with.
pub struct TargetSide {
    pub host: Box<dyn SideHost>,
    pub reach: Box<Reach>,
    /// The folder of what must last of that host.
    pub state: PathBuf,
    pub id: HostId,
    pub name: String,
}

/// What one order has written so far.
#[derive(Default)]
pub(super) struct Written(Mutex<Outcome>);

impl Written {
    pub fn now(&self) -> Outcome {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Outcome> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps what is found until it is told with the next answer.
#[derive(Default)]
struct Heard {
    findings: Mutex<Vec<Finding>>,
    written: Arc<Written>,
}

impl Heard {
    fn take(&self) -> Vec<Finding> {
        std::mem::take(&mut self.findings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Monitor for Heard {
    fn finding(&self, finding: Finding) {
        self.findings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(finding);
    }

    fn progress(&self, progress: Progress<'_>) {
        let mut written = self.written.lock();
        match progress {
            Progress::ItemStart { item } => item.clone_into(&mut written.item),
            Progress::Advance { files, bytes } => {
                written.files += files;
                written.bytes_written += bytes;
            }
            _ => {}
        }
    }
}

pub(super) fn serve(side: &TargetSide, jobs: &Receiver<Job>, written: &Arc<Written>) {
    let heard = Heard {
        written: Arc::clone(written),
        ..Heard::default()
    };
    let mut work = Work {
        side,
        heard: &heard,
        folder: None,
        far: Far::default(),
        way: None,
        staging: None,
        contents: None,
        known: Arc::default(),
    };
    let mut waiting = None;
    while let Some(job) = waiting.take().or_else(|| jobs.recv().ok()) {
        *written.lock() = Outcome::default();
        let (order, answer) = job;
        let result = match serde_json::from_slice(&order) {
            Err(error) => Err(refused(format!(
                "this podkeep does not know that order: {error}"
            ))),
            Ok(Order::Prepare { run, fit }) => {
                let prepared = match work.contents.clone() {
                    None => Err(not_open()),
                    Some(repo) => work.prepared(&repo, &run, fit, jobs, &answer, &mut waiting),
                };
                match prepared {
                    // All of it was answered.
                    Ok(()) => continue,
                    Err(error) => Err(error),
                }
            }
            Ok(order) => work.carry_out(&order),
        };
        work.answer(result, &answer);
    }
}

fn refused(message: String) -> OperationError {
    OperationError::Refused {
        message,
        hint: String::new(),
    }
}

fn not_open() -> OperationError {
    refused("the staging repository is not open".into())
}

/// To the repository that passes go through, if that is not the staging one.
struct Way {
    place: String,
    keys: Zeroizing<String>,
}

struct Work<'a> {
    side: &'a TargetSide,
    heard: &'a Heard,
    folder: Option<Folder>,
    far: Far,
    way: Option<Way>,
    staging: Option<Arc<Repository>>,
    /// What passes go through: the staging one, as a rule.
    contents: Option<Arc<Repository>>,
    /// Each pass of a way back tells the next one how large files were cut.
    known: Arc<KnownContents>,
}

impl Work<'_> {
    fn answer(&self, result: OperationResult<Outcome>, to: &Sender<Vec<u8>>) {
        let answer = match result {
            Ok(mut outcome) => {
                outcome.reached = self.far.reached;
                outcome.findings = Told::of(self.heard.take());
                Answer::Done(Box::new(outcome))
            }
            Err(error) => {
                let (hint, conflicts) = match &error {
                    OperationError::Refused { hint, .. } | OperationError::Usage { hint, .. } => {
                        (hint.clone(), Vec::new())
                    }
                    OperationError::Host(HostError::Refused { hint, .. }) => {
                        (hint.clone(), Vec::new())
                    }
                    OperationError::Conflicts { conflicts } => (String::new(), conflicts.clone()),
                    OperationError::NoRoom { needs } => {
                        let short = needs.iter().filter(|need| !need.fits());
                        let lines = short.map(SpaceNeed::conflict);
                        (String::new(), lines.collect())
                    }
                    _ => Default::default(),
                };
                // What was found is why, as a rule.
                let found = self.heard.take().into_iter();
                let found = found.filter(|finding| finding.kind.is_warning()).take(5);
                let found: Vec<String> = found
                    .map(|finding| format!("; {}: {}", finding.object, finding.message))
                    .collect();
                Answer::Failed {
                    message: format!("{error}{}", found.concat()),
                    hint,
                    conflicts,
                }
            }
        };
        // Whoever gave the order may be gone.
        let _ = to.send(serde_json::to_vec(&answer).unwrap_or_default());
    }

    fn folder(&self) -> OperationResult<&Folder> {
        let unmet = || refused("no migration was named".into());
        self.folder.as_ref().ok_or_else(unmet)
    }

    fn save(&self) -> OperationResult<()> {
        self.folder()?.write(&self.far)
    }

    fn carry_out(&mut self, order: &Order) -> OperationResult<Outcome> {
        match order {
            Order::Meet { migration } => self.meet(migration),
            Order::Through { place, keys } => {
                self.way = Some(Way {
                    place: place.clone(),
                    keys: Zeroizing::new(keys.clone()),
                });
                Ok(Outcome::default())
            }
            Order::Open { key, through } => self.open(key, through.as_deref()),
            Order::Check {
                run,
                images,
                volumes,
                bytes,
                fit,
                ground,
                owners,
            } => {
                let coming = Coming {
                    images: images.clone(),
                    volumes: volumes.clone(),
                };
                let there = Arriving {
                    bytes: *bytes,
                    ground: ground.as_deref(),
                    owners,
                };
                self.check(run, &coming, *fit, &there)
            }
            Order::Activate { .. } if self.far.reached == Reached::Active => {
                let starts = self.far.starts.clone();
                self.resume()?;
                self.side.host.start(&starts)?;
                self.side.host.start_units(&self.far.units)?;
                Ok(Outcome {
                    started: starts,
                    ..Outcome::default()
                })
            }
            Order::Return { max_freeze_ms } => self.bring_back(*max_freeze_ms),
            Order::Withdraw { discard } => self.withdraw(*discard),
            Order::Finish => self.finish(),
            // What made it has ended.
            Order::Prove => Ok(Outcome::default()),
            Order::Progress => Ok(self.heard.written.now()),
            Order::Prepare { .. } | Order::Change { .. } | Order::Activate { .. } => {
                Err(refused("nothing is prepared here".into()))
            }
        }
    }

    fn meet(&mut self, migration: &str) -> OperationResult<Outcome> {
        let plain = |b: u8| b.is_ascii_hexdigit();
        if migration.is_empty() || migration.len() > 64 || !migration.bytes().all(plain) {
            return Err(refused("that is no name of a migration".into()));
        }
        let about = self.side.host.about()?;
        self.folder = None;
        let folder = Folder::lock(&self.side.state, migration, ENDS_WITHIN)?;
        self.far = folder.read()?;
        let repository = folder.path.join(REPOSITORY);
        let is_staged = repository.is_dir();
        self.folder = Some(folder);
        Ok(Outcome {
            about,
            repository: repository.display().to_string(),
            is_staged,
            machine: machine(),
            started: match self.far.reached {
                Reached::Active => self.side.host.at_work(&self.far.starts)?,
                _ => Vec::new(),
            },
            ..Outcome::default()
        })
    }

    fn open(&mut self, key: &str, through: Option<&str>) -> OperationResult<Outcome> {
        let folder = &self.folder()?.path;
        let store = LocalStore::open(folder.join(REPOSITORY))?;
        let credential = Credential::Passphrase(Zeroizing::new(key.as_bytes().to_vec()));
        let options = OpenOptions {
            cache: Some(folder.join(CACHE)),
            host: self.side.id,
            host_name: self.side.name.clone(),
        };
        let staging = Arc::new(Repository::open(Arc::new(store), &credential, &options)?);
        self.contents = Some(match through {
            None => Arc::clone(&staging),
            Some(id) => Arc::new(self.open_way(id, &options)?),
        });
        self.staging = Some(staging);
        Ok(Outcome::default())
    }

    /// Opens the repository `id` where this side was told that it lies.
    fn open_way(&self, id: &str, options: &OpenOptions) -> OperationResult<Repository> {
        let way = self.way.as_ref();
        let way = way.ok_or_else(|| refused("nobody said where the repository lies".into()))?;
        let place = &way.place;
        let not_there = |error: OperationError| OperationError::Refused {
            message: format!("the repository {place} cannot be opened from here: {error}"),
            hint: format!(
                "--via takes one that both sides reach by the same name, such as ssh://BACKUPHOST/PATH; \
                 ssh from there as this user has to work without a question ({place})"
            ),
        };
        let store = (self.side.reach)(place).map_err(not_there)?;
        let handed = Credential::Handed(way.keys.clone());
        let repo = Repository::open(store, &handed, options).map_err(|e| not_there(e.into()))?;
        match repo.id().to_hex() == id {
            true => Ok(repo),
            false => Err(OperationError::Refused {
                message: format!("{place} is another repository here than at the source"),
                hint: "--via takes one that both sides reach by the same name".into(),
            }),
        }
    }

    /// Items of ours, by kind.
    fn is_ours(&self, item: &Item) -> bool {
        self.far.made.contains(&text_of(item))
    }

    /// Removes what was made of definitions and never ran: it is made anew from a later run.
    fn clear(&mut self) -> OperationResult<()> {
        if self.far.reached == Reached::Active {
            return Err(OperationError::Refused {
                message: "what was moved runs here already".into(),
                hint: "--rollback brings it back, --finish ends the migration".into(),
            });
        }
        self.remove_units()?;
        self.remove_archives();
        let made: Vec<Item> = self
            .far
            .made
            .iter()
            .filter_map(|text| item_of(text))
            .collect();
        for item in made.iter().rev() {
            if item.kind != ItemKind::Volume {
                self.side.host.remove(item)?;
            }
        }
        self.far
            .made
            .retain(|text| item_of(text).is_some_and(|item| item.kind == ItemKind::Volume));
        // Anonymous volumes went with their containers; what was being written is neither.
        let there = Target::inventory(&*self.side.host)?;
        let mut kept = Vec::new();
        for (name, root) in std::mem::take(&mut self.far.volumes) {
            let is_there = there.volumes.iter().any(|volume| volume.name == name);
            match (is_there, root) {
                (true, Some(root)) => kept.push((name, Some(root))),
                (true, None) => self.side.host.remove(&volume(&name))?,
                (false, _) => {}
            }
        }
        let is_kept = |text: &String| kept.iter().any(|(name, _)| text_of(&volume(name)) == *text);
        self.far.made.retain(is_kept);
        self.far.volumes = kept;
        self.save()
    }

    fn withdraw(&mut self, discard: bool) -> OperationResult<Outcome> {
        if self.far.reached == Reached::Active && !discard {
            return Err(OperationError::Refused {
                message: "what was moved ran here, and may have written".into(),
                hint: "--rollback --discard-target-writes goes back to what the source holds"
                    .into(),
            });
        }
        let made: Vec<Item> = self
            .far
            .made
            .iter()
            .filter_map(|text| item_of(text))
            .collect();
        let containers = made.iter().filter(|item| item.kind == ItemKind::Container);
        let names: Vec<String> = containers
            .map(|item| String::from_utf8_lossy(&item.name).into_owned())
            .collect();
        self.remove_units()?;
        self.remove_archives();
        let host = &*self.side.host;
        host.stop(&names)?;
        let (volumes, others): (Vec<&Item>, Vec<&Item>) =
            made.iter().partition(|item| item.kind == ItemKind::Volume);
        for item in others.into_iter().rev().chain(volumes) {
            host.remove(item)?;
        }
        self.far = Far::default();
        self.save()?;
        Ok(Outcome::default())
    }

    /// With their containers, which they remove themselves.
    fn remove_units(&mut self) -> OperationResult<()> {
        let (units, files) = (&self.far.units, &self.far.unit_files);
        self.side.host.remove_units(units, files)?;
        self.far.units.clear();
        self.far.unit_files.clear();
        Ok(())
    }

    fn finish(&mut self) -> OperationResult<Outcome> {
        (self.staging, self.contents) = (None, None);
        if let Some(folder) = self.folder.take() {
            folder.remove()?;
        }
        self.far = Far::default();
        Ok(Outcome::default())
    }
}

fn as_target(host: &dyn SideHost) -> &dyn Target {
    host
}

fn volume(name: &str) -> Item {
    Item::new(ItemKind::Volume, name.as_bytes())
}

/// What this machine is: the same on both sides of a migration on one machine.
pub(super) fn machine() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.unwrap_or_default().trim().to_owned()
}

pub(super) fn options(run: &str, fit: Fit) -> RestoreOptions {
    RestoreOptions {
        all: true,
        ignore_quota: fit.ignore_quota,
        squash: fit.squash,
        replay: ReplayOptions {
            remap_subnet: fit.remap_subnet,
            drop_static: fit.drop_static,
            drop_missing: fit.drop_missing,
            ports_come_free: fit.ports_come_free,
            userns_map: fit.userns_map,
            enable_linger: fit.enable_linger,
            start_foreign: fit.start_foreign,
            must_start: true,
            ..ReplayOptions::default()
        },
        start: true,
        ..RestoreOptions::of(SnapSpec {
            which: SnapWhich::Prefix(run.to_owned()),
            host: None,
        })
    }
}
