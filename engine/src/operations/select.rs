//! Which snapshot a command means: `latest`, `latest~2@web1`, an id prefix.
//!
//! `latest` only ever means a complete snapshot that holds everything that was asked for: a run
//! that was cut off, or in which an item could not be read, is used when it is named by its id.

use std::collections::BTreeMap;

use podkeep_format::id::{AuthorId, HostId, RunId};
use podkeep_format::item::Item;
use podkeep_format::run::RunRecord;
use podkeep_format::tree::Time;

use super::near::near_names;
use super::{ItemPath, OperationError, OperationResult, Selector, SnapSpec, SnapWhich};
use crate::host::select as host_select;
use crate::monitor::Monitor;
use crate::repo::{Repository, StoredSnapshot};

/// A run with the snapshots that it published.
#[derive(Clone, Debug)]
pub struct Run {
    pub id: RunId,
    pub host: HostId,
    pub host_name: String,
    pub time: Time,
    /// `None`: the run was cut off, or its record is damaged.
    pub record: Option<RunRecord>,
    /// Sorted by item.
    pub items: Vec<StoredSnapshot>,
}

impl Run {
    /// Every item was read completely, and none is missing.
    pub fn is_complete(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.complete)
            && self.items.iter().all(is_whole)
    }
}

fn is_whole(snapshot: &StoredSnapshot) -> bool {
    snapshot.confirmed && snapshot.body.as_ref().is_some_and(|body| body.complete)
}

/// All runs by time, oldest first. Needs a full key.
pub fn runs(repo: &Repository, monitor: &dyn Monitor) -> OperationResult<Vec<Run>> {
    repo.require_full("read snapshots")?;
    let mut records = repo.runs(monitor)?;
    // An author who uses the run id of another one makes a run of its own with it: nobody's
    // write key can slip an item into somebody else's snapshot.
    let mut runs: BTreeMap<(RunId, AuthorId, HostId), Run> = BTreeMap::new();
    for snapshot in repo.snapshots(monitor)? {
        let Some(body) = &snapshot.body else {
            continue;
        };
        let header = &snapshot.header;
        let whose = (header.run, header.author, header.host);
        let run = runs.entry(whose).or_insert_with(|| {
            let own = |record: &RunRecord| (record.run, record.author, record.host) == whose;
            Run {
                id: header.run,
                host: header.host,
                host_name: body.host_name.clone(),
                time: header.time,
                record: match records.get(&header.run).is_some_and(own) {
                    true => records.remove(&header.run),
                    false => None,
                },
                items: Vec::new(),
            }
        });
        run.items.push(snapshot);
    }
    let mut runs: Vec<Run> = runs.into_values().collect();
    for run in &mut runs {
        // An item that was published twice (its lease was fenced): the confirmed, later one.
        run.items.sort_by(|a, b| {
            (&a.header.item, a.confirmed, a.header.sequence).cmp(&(
                &b.header.item,
                b.confirmed,
                b.header.sequence,
            ))
        });
        run.items.reverse();
        run.items.dedup_by(|a, b| a.header.item == b.header.item);
        run.items.reverse();
    }
    runs.sort_by_key(|run| (run.time, run.id));
    Ok(runs)
}

/// The snapshots of a run that selectors name, with the path below each.
pub type Chosen = Vec<(StoredSnapshot, Vec<u8>)>;

/// Finds the run that `spec` means and the items in it that `wanted` names (all of them when
/// `wanted` is empty).
pub fn resolve(
    repo: &Repository,
    spec: &SnapSpec,
    wanted: &[ItemPath],
    monitor: &dyn Monitor,
) -> OperationResult<(Run, Chosen)> {
    let runs = runs(repo, monitor)?;
    if runs.is_empty() {
        return Err(OperationError::NoMatch {
            what: "the repository holds no snapshot: the selection".into(),
            near: Vec::new(),
        });
    }
    let run = match &spec.which {
        SnapWhich::Prefix(prefix) => by_prefix(&runs, prefix, spec.host.as_deref())?,
        SnapWhich::Latest(back) => latest(repo, &runs, *back, spec.host.as_deref(), wanted)?,
    };
    let chosen = choose(run, wanted)?;
    Ok((run.clone(), chosen))
}

fn by_prefix<'r>(runs: &'r [Run], prefix: &str, host: Option<&str>) -> OperationResult<&'r Run> {
    let matching: Vec<&Run> = runs
        .iter()
        .filter(|run| run.id.to_hex().starts_with(prefix))
        .filter(|run| host.is_none_or(|host| run.host_name == host))
        .collect();
    match matching[..] {
        [run] => Ok(run),
        [] => Err(OperationError::NoMatch {
            what: format!("snapshot {prefix}"),
            near: runs
                .iter()
                .rev()
                .take(3)
                .map(|run| run.id.to_hex()[..8].to_owned())
                .collect(),
        }),
        _ => Err(OperationError::Usage {
            message: format!("{} snapshots begin with {prefix}", matching.len()),
            hint: "give more digits of the id, as `podkeep snapshots` shows them".into(),
        }),
    }
}

fn latest<'r>(
    repo: &Repository,
    runs: &'r [Run],
    back: u64,
    host: Option<&str>,
    wanted: &[ItemPath],
) -> OperationResult<&'r Run> {
    let of_host: Vec<&Run> = match host {
        Some(host) => named_host(runs, host)?,
        None => {
            let own: Vec<&Run> = runs.iter().filter(|run| run.host == repo.host()).collect();
            let mut names: Vec<&str> = runs.iter().map(|run| run.host_name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            if !own.is_empty() {
                own
            } else if names.len() == 1 {
                runs.iter().collect()
            } else {
                return Err(OperationError::Usage {
                    message: "this host has no snapshot, and the repository holds those of \
                              several others"
                        .into(),
                    hint: format!("say whose: latest@HOST, with one of {}", names.join(", ")),
                });
            }
        }
    };
    let holds = |run: &Run| {
        choose(run, wanted)
            .is_ok_and(|chosen| chosen.iter().all(|(snapshot, _)| is_whole(snapshot)))
    };
    let mut candidates: Vec<&Run> = of_host
        .iter()
        .copied()
        .filter(|run| holds(run) && (!wanted.is_empty() || run.is_complete()))
        .collect();
    if wanted.is_empty() {
        let scoped = |run: &&Run| run.record.as_ref().is_some_and(|r| r.scope_all);
        if candidates.iter().any(scoped) {
            candidates.retain(scoped);
        }
    }
    let found = candidates.iter().rev().nth(back as usize);
    found.copied().ok_or_else(|| {
        if let (Some(newest), true) = (of_host.last(), candidates.is_empty())
            && let Err(error) = choose(newest, wanted)
        {
            return error;
        }
        OperationError::NoMatch {
            what: match back {
                0 => "latest: no complete snapshot holds what is selected; it".into(),
                _ => format!("latest~{back}"),
            },
            near: of_host
                .iter()
                .rev()
                .take(3)
                .map(|run| run.id.to_hex()[..8].to_owned())
                .collect(),
        }
    })
}

/// The runs of the host of this name; an error names others that are near.
pub fn named_host<'r>(runs: &'r [Run], host: &str) -> OperationResult<Vec<&'r Run>> {
    let found: Vec<&Run> = runs.iter().filter(|run| run.host_name == host).collect();
    if found.is_empty() {
        let names = runs.iter().map(|run| run.host_name.as_str());
        return Err(OperationError::NoMatch {
            what: format!("host {host}"),
            near: near_names(host, names),
        });
    }
    Ok(found)
}

/// The snapshots of `run` that `wanted` names.
pub fn choose(run: &Run, wanted: &[ItemPath]) -> OperationResult<Chosen> {
    if wanted.is_empty() {
        let all = run.items.iter().map(|s| (s.clone(), Vec::new()));
        return Ok(all.collect());
    }
    let mut chosen: Chosen = Vec::new();
    for want in wanted {
        let before = chosen.len();
        let ranks = run.items.iter().map(|snapshot| {
            let aliases = snapshot.body.as_ref().map(|body| body.aliases.as_slice());
            let Selector { item, glob } = &want.selector;
            let held = &snapshot.header.item;
            host_select::rank(item, *glob, held, aliases.unwrap_or_default())
        });
        let named = host_select::best(ranks).map(|index| (&run.items[index], want.path.clone()));
        // `path:/srv/data/a.txt` may lie inside the item `path:/srv/data`.
        let inside = run.items.iter().filter_map(|snapshot| {
            let path = below(&want.selector.item, &snapshot.header.item)?;
            want.path.is_empty().then_some((snapshot, path))
        });
        for (snapshot, path) in named.chain(inside) {
            let known = |(s, p): &(StoredSnapshot, Vec<u8>)| s.id == snapshot.id && *p == path;
            if !chosen.iter().any(known) {
                chosen.push((snapshot.clone(), path));
            }
        }
        if chosen.len() == before {
            return Err(OperationError::NoMatch {
                what: want.selector.item.to_string(),
                near: near_items(run, &want.selector.item),
            });
        }
    }
    Ok(chosen)
}

/// Items of the run with names like that of `wanted`, or where none is, some of its items.
fn near_items(run: &Run, wanted: &Item) -> Vec<String> {
    let names: Vec<String> = run
        .items
        .iter()
        .map(|snapshot| snapshot.header.item.to_string())
        .collect();
    let near = near_names(&wanted.to_string(), names.iter().map(String::as_str));
    if near.is_empty() {
        return names.into_iter().take(5).collect();
    }
    near
}

/// The path of `wanted` below `item`, when both are `path:` items and it lies there.
fn below(wanted: &Item, item: &Item) -> Option<Vec<u8>> {
    use podkeep_format::item::ItemKind;
    if wanted.kind != ItemKind::Path || item.kind != ItemKind::Path {
        return None;
    }
    let rest = wanted.name.strip_prefix(item.name.as_slice())?;
    let rest = match item.name.as_slice() {
        b"/" => rest,
        _ => rest.strip_prefix(b"/")?,
    };
    (!rest.is_empty()).then(|| rest.to_vec())
}
