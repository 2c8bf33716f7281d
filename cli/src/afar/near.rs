//! The end where the person, the repository and the keys are.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use clap::parser::ValueSource;
use clap::{ArgAction, CommandFactory};
use podkeep_engine::fs::durable;
use podkeep_engine::host::orders::Obey;
use podkeep_engine::link::calls::{Attend, attend};
use podkeep_engine::link::{Ask, LinkError, Serve, Sink, Unanswered};
use podkeep_engine::monitor::{Monitor, Progress};
use podkeep_engine::operations::OperationError;
use podkeep_engine::operations::key;
use podkeep_engine::operations::migrate::{Passed, Road, through};
use podkeep_engine::repo::{Credential, OpenOptions, Repository};
use podkeep_engine::store::agent::{Rights, StoreAgent};
use podkeep_engine::store::{ObjectStore, agent};
use podkeep_format::item::Escaped;
use podkeep_format::wire::{Action, Answer, Failure as WireFailure, FailureCode, Request};
use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use super::far::{QUESTION_ORDER, Question};
use super::{Afar, ENDED_BYTES_MAX, Ended, Handed, Job, TOLD_BYTES_MAX, Told, finding, plain};
use crate::arguments::{Arguments, Command, Migrate};
use crate::commands::migrate::To;
use crate::context::{Context, Done};
use crate::failure::{Exit, Failure};
use crate::identity;
use crate::messages::Summary;
use crate::places::Place;
use crate::progress::Reporter;
use crate::remote;

/// Arguments that are this end's business. What they say may be nobody else's.
const OWN: [&str; 3] = ["before_stop", "on_cutover", "on_rollback"];
/// Lines of JSON that a command of a host has.
const LINES: [&str; 15] = [
    "item",
    "action",
    "space",
    "conflict",
    "proof",
    "hosts",
    "takes",
    "pass",
    "predicted",
    "stopped",
    "started",
    "proven",
    "difference",
    "field-difference",
    "definition",
];

/// What a command does with the repository.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Adds snapshots: a write key is enough.
    Adds,
    Reads,
    Nothing,
}

/// Runs `command` where `host` is.
pub fn run(context: &Context<'_>, command: &Command, host: &Afar) -> Result<Done, Failure> {
    let usage = match command {
        Command::Backup(_) => Use::Adds,
        Command::Restore(_) => Use::Reads,
        Command::Diff(diff) if diff.after == "live" => Use::Reads,
        Command::Migrate(migrate) => match migrate.via {
            Some(_) if migrate.rollback => Use::Reads,
            Some(_) if !migrate.finish => Use::Adds,
            _ => Use::Nothing,
        },
        Command::Doctor(_) => Use::Nothing,
        _ => {
            let message = format!("{} needs no host on another machine", command.word());
            let hint = "leave --host out; backup, restore, doctor and diff SNAP live take one";
            return Err(Failure::usage(message, hint));
        }
    };
    let words = words(std::env::args_os())?;
    let reporter = match usage {
        Use::Adds if road_of(command).is_none() => context.reporter().of_a_backup(),
        _ => context.reporter(),
    };
    let road = match road_of(command) {
        Some(migrate) => Some(reach(context, migrate)?),
        None => None,
    };
    let repository = match (usage, road_of(command).and_then(|one| one.via.as_ref())) {
        (Use::Nothing, _) => None,
        (_, Some(via)) => Some(context.open_way(via, &reporter)?),
        (_, None) => Some((context.open(&reporter)?, context.repository_place()?)),
    };
    if let (Some(road), Some((repository, place))) = (&road, &repository) {
        through(&*road.orders, repository, &place.to_string())
            .map_err(|error| context.failure(error))?;
    }
    let link = remote::connect_to_podman(context.global, host)?;
    let (repository, stores) = match repository {
        None => (None, Vec::new()),
        Some((repository, place)) => {
            let (handed, store) = hand_over(context, &repository, place, usage, host)?;
            (Some(handed), vec![store])
        }
    };
    let attendant = Attendant {
        context,
        reporter: &reporter,
        link: &link,
        stores: Mutex::new(stores),
        road,
        passed: Mutex::default(),
        parts: Mutex::default(),
        odd: AtomicBool::new(false),
    };
    let mut job = job_bytes(&Job { words, repository })?;
    let ended = attend(&link, &job, ENDED_BYTES_MAX as u64, &attendant);
    job.zeroize();
    reporter.end();
    if ended.is_err() {
        for store in attendant.stores().iter() {
            store.give_back();
        }
    }
    let unreachable = |cause: String| {
        Failure::link(LinkError {
            host: host.shown(),
            cause,
            hint: String::new(),
        })
    };
    match ended {
        Err(Unanswered::Lost(cause)) => match context.signals.received() {
            // Ctrl-C reaches ssh, too.
            Some(signal) => Err(Failure::stopped(signal)),
            None => Err(unreachable(cause)),
        },
        Err(Unanswered::Failed(failure)) => Err(unreachable(plain(&failure.cause))),
        Ok(_) if attendant.odd.load(Ordering::Relaxed) => {
            Err(unreachable("what it says makes no sense".to_owned()))
        }
        Ok(ended) => match serde_json::from_slice(&ended) {
            Err(error) => Err(unreachable(format!("what it says makes no sense: {error}"))),
            Ok(Ended::Failed {
                code,
                message,
                hint,
                conflicts,
                exit,
            }) => {
                let conflicts = conflicts.iter().map(|line| plain(line)).collect();
                let exit = Exit::of_code(exit);
                let hint = hint.map(|hint| plain(&hint));
                Err(Failure::afar(
                    &host.shown(),
                    &code,
                    &message,
                    hint,
                    conflicts,
                    exit,
                ))
            }
            Ok(Ended::Done {
                exit,
                text,
                summary,
            }) => Ok(Done {
                exit: Exit::of_code(exit),
                text: text.iter().map(|line| plain(line)).collect(),
                summary: Summary::Afar(summary),
            }),
        },
    }
}

fn job_bytes(job: &Job) -> Result<Vec<u8>, Failure> {
    let bytes =
        serde_json::to_vec(job).map_err(|error| Failure::local("name", "the job", error))?;
    match bytes.len() <= podkeep_format::wire::ORDER_BYTES_MAX {
        true => Ok(bytes),
        false => Err(Failure::usage(
            "the command line is too long for another machine".to_owned(),
            "name less at once, or use globs",
        )),
    }
}

/// The command line without global options and what is this end's business, as `clap` understood it.
fn words(arguments: impl Iterator<Item = OsString>) -> Result<Vec<String>, Failure> {
    let escaped = |word: &OsStr| Escaped(word.as_bytes()).to_string();
    let command = Arguments::command();
    let matches = command
        .clone()
        .try_get_matches_from(arguments)
        .map_err(|_| Failure::defect())?;
    let Some((name, given)) = matches.subcommand() else {
        return Err(Failure::defect());
    };
    let known = command.find_subcommand(name).ok_or_else(Failure::defect)?;
    let mut words = vec![name.to_owned()];
    let mut positional = Vec::new();
    for argument in known.get_arguments() {
        let id = argument.get_id().as_str();
        if OWN.contains(&id) || given.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        let values = || given.get_raw(id).into_iter().flatten();
        match (argument.get_long(), argument.get_action()) {
            (None, _) => positional.extend(values().map(escaped)),
            (Some(long), ArgAction::SetTrue) => words.push(format!("--{long}")),
            (Some(long), _) => {
                words.extend(values().map(|value| format!("--{long}={}", escaped(value))));
            }
        }
    }
    if !positional.is_empty() {
        words.push("--".to_owned());
        words.extend(positional);
    }
    Ok(words)
}

/// What the far side gets of the repository: a key that can only add where it only adds, and of the
/// store no more than that.
fn hand_over(
    context: &Context<'_>,
    repository: &Repository,
    place: Place,
    usage: Use,
    host: &Afar,
) -> Result<(Handed, Arc<StoreAgent>), Failure> {
    let (keys, rights) = match usage {
        Use::Adds => (
            write_key(context, repository, host)?,
            Rights::AppendOnly("/".into()),
        ),
        _ => (repository.hand_over(), Rights::Reading("/".into())),
    };
    let place = match place {
        Place::Path(path) => {
            let path = std::path::absolute(&path).unwrap_or(path);
            format!("{}:{}", identity::machine(), path.display())
        }
        place => place.to_string(),
    };
    let handed = Handed {
        place,
        keys: keys.to_string(),
        may_keep: usage == Use::Adds,
    };
    let store = StoreAgent::of_store(rights, repository.store_arc());
    Ok((handed, Arc::new(store)))
}

/// The keys of the host's own write key, which is made on first use and stays on this side.
fn write_key(
    context: &Context<'_>,
    repository: &Repository,
    host: &Afar,
) -> Result<Zeroizing<String>, Failure> {
    if !repository.is_full() {
        return Ok(repository.hand_over());
    }
    let path = write_key_path(context, repository, host)?;
    let failed = |action, error: std::io::Error| Failure::local(action, path.display(), error);
    let mut text = Zeroizing::new(String::new());
    let read = File::open(&path).and_then(|file| file.take(1 << 16).read_to_string(&mut text));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let label = format!("backups of {}", host.shown());
            let made = key::export_write(repository, &label).map_err(|e| context.failure(e))?;
            keep(&path, made.text.as_bytes()).map_err(|error| failed("write", error))?;
            text = made.text;
        }
        Err(error) => return Err(failed("read", error)),
    }
    let options = OpenOptions {
        cache: None,
        host: repository.host(),
        host_name: repository.host_name().to_owned(),
    };
    let opened = Repository::open(
        repository.store_arc(),
        &Credential::WriteKey(text),
        &options,
    );
    let opened = opened.map_err(|error| {
        let mut failure = context.failure(error.into());
        failure.hint = Some(format!(
            "without {} the host gets a new key",
            path.display()
        ));
        failure
    })?;
    Ok(opened.hand_over())
}

fn write_key_path(
    context: &Context<'_>,
    repository: &Repository,
    host: &Afar,
) -> Result<PathBuf, Failure> {
    let name = format!("{}\n{}", host.shown(), repository.id().to_hex());
    let name = podkeep_engine::link::hash_of(name.as_bytes());
    let folder = context.state()?.join("hosts");
    Ok(folder.join(format!("{}.key", &name[..32])))
}

/// Durable, and for nobody else.
fn keep(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    durable::replace(path, bytes)
}

/// Where a migration ends, and the way there.
struct Target<'a> {
    orders: Arc<dyn Obey>,
    road: Box<dyn Road + Send + Sync + 'a>,
}

fn road_of(command: &Command) -> Option<&Migrate> {
    match command {
        Command::Migrate(migrate) => Some(migrate),
        _ => None,
    }
}

fn reach<'a>(context: &'a Context<'a>, migrate: &'a Migrate) -> Result<Target<'a>, Failure> {
    if context.global.host.is_some() {
        let message = "--host names no side of a migration".to_owned();
        return Err(Failure::usage(message, "--from HOST --to HOST"));
    }
    let to = To::parse(context, &migrate.to)?;
    if matches!(to, To::Here(_)) && !rustix::process::geteuid().is_root() {
        // Into the namespaces of a user's Podman goes only a process that was there from its start.
        let message = "from another machine to this one moves root only".to_owned();
        return Err(Failure::usage(
            message,
            "--to ssh://USER@HOST reaches a user's Podman",
        ));
    }
    let (orders, road) = to.reach(context, migrate)?;
    Ok(Target {
        orders,
        road: Box::new(road),
    })
}

/// Does what the far side wants meanwhile.
struct Attendant<'a> {
    context: &'a Context<'a>,
    reporter: &'a Reporter<'a>,
    /// To the far side.
    link: &'a dyn Ask,
    /// By their numbers.
    stores: Mutex<Vec<Arc<StoreAgent>>>,
    road: Option<Target<'a>>,
    passed: Mutex<Passed>,
    /// Pieces of what is being told.
    parts: Mutex<Vec<u8>>,
    odd: AtomicBool,
}

/// Stores that one run may have open.
const STORES_MAX: usize = 16;

impl Attendant<'_> {
    fn stores(&self) -> std::sync::MutexGuard<'_, Vec<Arc<StoreAgent>>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, path: &Path, make: bool) -> Result<u64, WireFailure> {
        let target = self.target()?;
        if !self.passed().may_open(path) {
            return Err(refusal("that is not the staging repository of the target"));
        }
        if self.stores().len() == STORES_MAX {
            return Err(refusal("it opened too many stores"));
        }
        let store: Arc<dyn ObjectStore> =
            target.road.store(path, make).map_err(|error| match error {
                OperationError::Store(error) => agent::failure(&error),
                other => unreachable(other.to_string()),
            })?;
        let mut stores = self.stores();
        stores.push(Arc::new(StoreAgent::of_store(Rights::All, store)));
        Ok(stores.len() as u64 - 1)
    }

    fn passed(&self) -> std::sync::MutexGuard<'_, Passed> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self) -> Result<&Target<'_>, WireFailure> {
        let none = || refusal("this run has no target");
        self.road.as_ref().ok_or_else(none)
    }

    /// Pieces: a 1 in front of all but the last.
    fn whole(&self, piece: &[u8]) -> Option<Vec<u8>> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let (more, piece) = piece.split_first()?;
        if parts.len() + piece.len() > TOLD_BYTES_MAX {
            self.odd.store(true, Ordering::Relaxed);
            *parts = Vec::new();
            return None;
        }
        parts.extend_from_slice(piece);
        (*more == 0).then(|| std::mem::take(&mut *parts))
    }

    fn show(&self, told: Told) {
        let output = self.context.output;
        match told {
            Told::Row { json, text } => match output.manner.json {
                true => self.line(&json),
                false => output.text(&lines(&text)),
            },
            Told::Json { json } => self.line(&json),
            Told::Text { text, remark: true } => output.remark(&lines(&text)),
            Told::Text { text, .. } => output.text(&lines(&text)),
            Told::Aside { text } => output.aside(&plain(&text)),
            Told::Finding {
                object,
                kind,
                snapshots,
                paths,
                message,
            } => self
                .reporter
                .finding(finding(&object, &kind, snapshots, &paths, &message)),
            Told::Phase { phase } => self.progress(Progress::Phase(&plain(&phase))),
            Told::Expect { files, bytes } => self.progress(Progress::Expect { files, bytes }),
            Told::Advance { files, bytes } => self.progress(Progress::Advance { files, bytes }),
            Told::ItemStart { item } => self.progress(Progress::ItemStart {
                item: &plain(&item),
            }),
            Told::ItemDone {
                item,
                files,
                bytes,
                bytes_new,
                warnings,
                frozen,
            } => self.progress(Progress::ItemDone {
                item: &plain(&item),
                files,
                bytes,
                bytes_new,
                warnings,
                frozen: frozen.and_then(super::Frozen::into_engine),
            }),
        }
    }

    fn progress(&self, progress: Progress<'_>) {
        self.reporter.progress(progress);
    }

    /// A line of JSON, if it is one that such a command has.
    fn line(&self, json: &Value) {
        let kind = json.get("type").and_then(Value::as_str);
        match kind.is_some_and(|kind| LINES.contains(&kind)) {
            true => self.context.output.json_value(json),
            false => self.odd.store(true, Ordering::Relaxed),
        }
    }
}

impl Attend for Attendant<'_> {
    fn store(
        &self,
        store: u64,
        request: &Request,
        object: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<Answer, WireFailure> {
        let known = usize::try_from(store).ok();
        let agent = known.and_then(|number| self.stores().get(number).cloned());
        let agent = agent.ok_or_else(|| refusal("there is no such store"))?;
        agent.serve(request, object, sink)
    }

    fn ask(&self, question: &[u8]) -> Result<Vec<u8>, WireFailure> {
        let odd = || refusal("that is no question");
        let (kind, rest) = question.split_first().ok_or_else(odd)?;
        if *kind == QUESTION_ORDER {
            let orders = &self.target()?.orders;
            if !Passed::may_give(rest) {
                return Err(refusal("that is no order of a source"));
            }
            let answer = orders.obey(rest);
            let answer = answer.map_err(|error| unreachable(error.to_string()))?;
            self.passed().answered(rest, &answer);
            return Ok(answer);
        }
        let road = &self.target()?.road;
        let answer = match serde_json::from_slice(rest).map_err(|_| odd())? {
            Question::Store { path, make } => {
                let path = podkeep_format::item::unescape(path.as_bytes()).ok_or_else(odd)?;
                self.open(Path::new(OsStr::from_bytes(&path)), make)?
            }
            // What left the source and came to it: all of it crosses this link.
            Question::Bytes => {
                let traffic = self.link.traffic();
                traffic.bytes_sent + traffic.bytes_received
            }
            Question::BeforeStop => road
                .before_stop()
                .map(u64::from)
                .map_err(|cause| refusal(&cause))?,
            Question::CutOver => road
                .cut_over()
                .map(|()| 0)
                .map_err(|cause| refusal(&cause))?,
            Question::RolledBack => road
                .rolled_back()
                .map(|()| 0)
                .map_err(|cause| refusal(&cause))?,
        };
        Ok(answer.to_le_bytes().to_vec())
    }

    fn tell(&self, told: &[u8]) {
        let Some(whole) = self.whole(told) else {
            return;
        };
        match serde_json::from_slice(&whole) {
            Ok(told) => self.show(told),
            Err(_) => self.odd.store(true, Ordering::Relaxed),
        }
    }

    fn stop(&self) -> Option<u8> {
        self.context.signals.received()
    }
}

fn refusal(cause: &str) -> WireFailure {
    WireFailure {
        code: FailureCode::Refused,
        action: Action::Open,
        object: String::new(),
        cause: cause.to_owned(),
    }
}

fn unreachable(cause: String) -> WireFailure {
    WireFailure {
        code: FailureCode::Unreachable,
        ..refusal(&cause)
    }
}

/// Lines of text, each of which is [`plain`].
fn lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(plain).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_crosses_without_what_is_nobody_else_s_business() {
        let words = |line: &[&str]| {
            words(line.iter().map(OsString::from)).unwrap_or_else(|failure| panic!("{failure:?}"))
        };
        let line = [
            "podkeep",
            "-r",
            "/srv/r",
            "backup",
            "volume:web",
            "--password-command=cat x",
            "--tag",
            "a",
            "--tag=-b",
            "--json",
            "--max-freeze",
            "9s",
            "path:/srv/a\nb",
            "--only",
            "--host=ssh://web1",
        ];
        assert_eq!(
            words(&line),
            [
                "backup",
                "--only",
                "--max-freeze=9s",
                "--tag=a",
                "--tag=-b",
                "--",
                "volume:web",
                r"path:/srv/a\x0ab",
            ]
        );
        let line = [
            "podkeep",
            "migrate",
            "--to",
            "local",
            "--from=ssh://web1",
            "--on-cutover=x y",
            "container:web",
            "-q",
        ];
        assert_eq!(
            words(&line),
            [
                "migrate",
                "--from=ssh://web1",
                "--to=local",
                "--",
                "container:web"
            ]
        );
        let line = [
            "podkeep", "restore", "latest", "--stop", "--", "volume:a", "volume:b",
        ];
        assert_eq!(
            words(&line),
            ["restore", "--stop", "--", "latest", "volume:a", "volume:b"]
        );
    }
}
