use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use podkeep_engine::host::local::LocalHost;
use podkeep_engine::host::orders::{self, Obey};
use podkeep_engine::host::{About, HostError};
use podkeep_engine::link::Address;
use podkeep_engine::monitor::{Finding, Monitor, Progress};
use podkeep_engine::operations::migrate::{
    self, Fit, FreezeParts, MigrateOptions, MigrateReport, Need, Phase, Proven, Road, Session,
    Sides, Step, TargetSide, Watch,
};
use podkeep_engine::operations::{OperationError, OperationResult};
use podkeep_engine::store::ObjectStore;
use podkeep_engine::store::local::{CreateError, LocalStore};
use podkeep_engine::store::remote::RemoteStore;
use podkeep_format::item::{Escaped, Item, ItemKind};

use crate::afar::Afar;
use crate::arguments::{Global, Migrate};
use crate::context::{Context, Done, exit_after};
use crate::failure::{Exit, Failure, shell_word};
use crate::identity;
use crate::messages::{Message, PassLine, Summary};
use crate::places::Surroundings;
use crate::progress::Reporter;
use crate::remote;
use crate::selectors;
use crate::units;
use crate::whose::Whose;

const TO_HINT: &str =
    "--to takes local, local:USER or ssh://[LOGIN@]HOST[:PORT][,sudo][,user=USER]";

pub fn run(context: &Context<'_>, arguments: &Migrate) -> Result<Done, Failure> {
    let selection = selectors::parse_selection(&arguments.selectors, arguments.all)?;
    if context.global.host.is_some() {
        let message = "--host names no side of a migration".to_owned();
        return Err(Failure::usage(message, "--from HOST --to HOST"));
    }
    let to = match &context.far {
        // Whoever gave this order has parsed it, and reaches it.
        Some(_) => None,
        None => Some(To::parse(context, &arguments.to)?),
    };
    let source = super::host::local(context)?;
    let state = context.state()?;
    let host = identity::lasting(&state)?;
    let reporter = Told {
        reporter: context.reporter(),
        context,
    };
    let mut session = None;
    let (target, road): (Arc<dyn Obey>, Box<dyn Road>) = match (to, &context.far) {
        (Some(to), _) => {
            let (target, road) = to.reach(context, arguments)?;
            session.clone_from(&road.session);
            (target, Box::new(road))
        }
        (None, Some(far)) => (far.target(), Box::new(far.road())),
        (None, None) => return Err(Failure::defect()),
    };
    let way = match &arguments.via {
        Some(via) if !arguments.finish => Some(context.open_way(via, &reporter.reporter)?),
        _ => None,
    };
    if let Some((repository, place)) = &way
        && context.far.is_none()
    {
        migrate::through(&*target, repository, &place.to_string())
            .map_err(|error| context.failure(error))?;
    }
    let sides = Sides {
        source: &source,
        state: &state,
        host,
        host_name: identity::name(&context.whose),
        target: &*target,
        road: &*road,
        through: way.as_ref().map(|(repository, _)| repository),
        name: name(arguments, host),
    };
    let options = MigrateOptions {
        selection,
        with_dependents: arguments.with_dependents,
        split: arguments.split,
        fit: Fit {
            remap_subnet: arguments.remap_subnet,
            drop_static: arguments.drop_static,
            drop_missing: arguments.drop_missing,
            ports_come_free: false,
            userns_map: arguments.userns_map.map(Into::into),
            enable_linger: arguments.enable_linger,
            ignore_quota: arguments.ignore_quota,
            start_foreign: arguments.start_foreign,
            squash: arguments.squash_unmapped,
        },
        max_freeze: arguments.max_freeze,
        checkpoint: arguments.checkpoint,
        dry_run: arguments.dry_run,
        zone_minutes: super::backup::zone_minutes(),
        wait: arguments.patience.wait,
    };
    let report = if arguments.rollback {
        migrate::rollback(&sides, &options, arguments.discard_target_writes, &reporter)
    } else if arguments.finish {
        migrate::finish(&sides, &reporter)
    } else {
        migrate::migrate(&sides, &options, &reporter)
    };
    reporter.reporter.end();
    if let Some(session) = session {
        session.end();
    }
    let report = report.map_err(|error| context.failure(error))?;
    Ok(told(context, arguments, &report, &reporter.reporter))
}

/// The same for the same selection between the same hosts, so that it is found again.
fn name(arguments: &Migrate, host: podkeep_format::id::HostId) -> String {
    let mut selectors: Vec<&[u8]> = arguments.selectors.iter().map(|s| s.as_bytes()).collect();
    selectors.sort_unstable();
    selectors.dedup();
    let mut words = vec![host.0.to_vec(), arguments.to.as_bytes().to_vec()];
    words.extend(selectors.into_iter().map(<[u8]>::to_vec));
    words.push(vec![u8::from(arguments.all)]);
    // No two lists of words are one text.
    let mut text = Vec::new();
    for word in words {
        text.extend_from_slice(&(word.len() as u64).to_le_bytes());
        text.extend_from_slice(&word);
    }
    podkeep_engine::link::hash_of(&text)[..16].to_owned()
}

/// Where a migration ends.
pub(crate) enum To {
    Here(Whose),
    There(Afar),
}

impl To {
    pub(crate) fn parse(context: &Context<'_>, to: &OsStr) -> Result<Self, Failure> {
        let same = || Failure::usage("the target is the source".to_owned(), TO_HINT);
        let whose = match (Whose::named(Some(to))?, &context.whose) {
            (Whose::Afar(to), Whose::Afar(from)) if to == *from => return Err(same()),
            (Whose::Afar(to), _) => return Ok(Self::There(to)),
            (here, _) => here,
        };
        match (&whose, &context.whose) {
            (Whose::User(to), Whose::User(from)) if to.uid == from.uid => Err(same()),
            (Whose::Own | Whose::Inside(_), Whose::Own | Whose::Inside(_)) => Err(same()),
            _ => Ok(Self::Here(whose)),
        }
    }

    pub(crate) fn reach<'a>(
        self,
        context: &'a Context<'a>,
        arguments: &'a Migrate,
    ) -> Result<(Arc<dyn Obey>, Between<'a>), Failure> {
        let mut road = Between {
            context,
            arguments,
            address: None,
            orders: None,
            session: None,
            stores: Mutex::default(),
        };
        match self {
            Self::Here(whose) => {
                let session = Arc::new(start(side(&whose, context.global, false)?)?);
                road.session = Some(Arc::clone(&session));
                Ok((session, road))
            }
            Self::There(host) => {
                let orders = Arc::new(orders::Afar::new(remote::connect_to_podman(
                    context.global,
                    &host,
                )?));
                road.address = Some(host.address);
                road.orders = Some(Arc::clone(&orders));
                Ok((orders, road))
            }
        }
    }
}

fn start(side: TargetSide) -> Result<Session, Failure> {
    Session::start(side).map_err(|error| Failure::local("start", "a thread", error))
}

/// The Podman of this machine that `whose` is, as a target. `visits`: for somebody who leaves with the link.
fn side(whose: &Whose, global: &Global, visits: bool) -> Result<TargetSide, Failure> {
    let environment: Vec<_> = std::env::vars_os().collect();
    let surroundings = Surroundings {
        root: whose.is_root(),
        variable: &|name| std::env::var_os(name),
    };
    let mut state = surroundings.state()?;
    let with_podman = match visits {
        true => LocalHost::with_podman_of_a_visitor,
        false => LocalHost::with_podman,
    };
    let host = match whose {
        Whose::Own => with_podman(LocalHost::new(&state), &environment),
        Whose::Inside(inside) => with_podman(LocalHost::new(&state), &environment)
            .inside(inside)
            .map_err(|error| Failure::operation(error.into(), None))?,
        Whose::Afar(_) => return Err(Failure::defect()),
        Whose::User(account) => {
            state = state.join("users").join(account.uid.to_string());
            LocalHost::of_user(&state, account.clone(), &environment)
                .map_err(|error| Failure::operation(error.into(), None))?
        }
    };
    let global = global.clone();
    Ok(TargetSide {
        host: Box::new(host),
        reach: Box::new(move |place| reach(&global, OsStr::new(place))),
        id: identity::lasting(&state)?,
        name: identity::name(whose),
        state,
    })
}

/// The store of a repository that lies at `place` for this machine.
fn reach(global: &Global, place: &OsStr) -> OperationResult<Arc<dyn ObjectStore>> {
    if !Address::is_one(place) {
        return Ok(Arc::new(LocalStore::open(Path::new(place))?));
    }
    let unreachable = |cause: String| {
        OperationError::Host(HostError::Unreachable {
            host: place.display().to_string(),
            cause,
        })
    };
    let address = Address::parse(place).map_err(|defect| unreachable(defect.to_string()))?;
    let link = remote::connect(global, &address).map_err(|failure| unreachable(failure.message))?;
    let store = RemoteStore::open(link, &address.path, false, &address.to_string())?;
    Ok(Arc::new(store))
}

/// What lies between the two sides.
pub(crate) struct Between<'a> {
    context: &'a Context<'a>,
    arguments: &'a Migrate,
    /// `None`: both are on this machine.
    address: Option<Address>,
    orders: Option<Arc<orders::Afar>>,
    /// The target's side, if it is on this machine.
    session: Option<Arc<Session>>,
    stores: Mutex<Vec<Arc<RemoteStore>>>,
}

impl Between<'_> {
    fn stores(&self) -> std::sync::MutexGuard<'_, Vec<Arc<RemoteStore>>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Road for Between<'_> {
    fn store(&self, path: &Path, make: bool) -> OperationResult<Arc<dyn ObjectStore>> {
        let Some(address) = &self.address else {
            let store = match make {
                false => LocalStore::open(path)?,
                true => LocalStore::create(path).map_err(|error| match error {
                    CreateError::Store(error) => OperationError::Store(error),
                    occupied => OperationError::Refused {
                        message: occupied.to_string(),
                        hint: String::new(),
                    },
                })?,
            };
            return Ok(Arc::new(store));
        };
        let link = remote::connect(self.context.global, address).map_err(|failure| {
            OperationError::Host(HostError::Unreachable {
                host: address.host_text(),
                cause: failure.message,
            })
        })?;
        let place = Address {
            path: path.as_os_str().as_bytes().to_vec(),
            ..address.clone()
        };
        let store = RemoteStore::open(link, &place.path, make, &place.to_string())?;
        let store = Arc::new(store);
        self.stores().push(Arc::clone(&store));
        Ok(store)
    }

    fn bytes(&self) -> u64 {
        let orders = self.orders.as_ref().map_or(0, |orders| orders.traffic());
        let stores = self.stores();
        let stores = stores.iter().map(|store| {
            let traffic = store.traffic();
            traffic.bytes_sent + traffic.bytes_received
        });
        orders + stores.sum::<u64>()
    }

    fn before_stop(&self) -> Result<bool, String> {
        let command = self.arguments.before_stop.as_deref();
        command.map_or(Ok(false), |command| shell(command).map(|()| true))
    }

    fn cut_over(&self) -> Result<(), String> {
        self.arguments.on_cutover.as_deref().map_or(Ok(()), shell)
    }

    fn rolled_back(&self) -> Result<(), String> {
        self.arguments.on_rollback.as_deref().map_or(Ok(()), shell)
    }
}

/// Runs a person's own command, with what it prints on standard error.
fn shell(command: &OsStr) -> Result<(), String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a command of the user's own, with the user's own environment"
    )]
    let status = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stdout(Stdio::from(std::io::stderr()))
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} ended with {status}", command.display())),
        Err(error) => Err(format!("{} cannot be run: {error}", command.display())),
    }
}

/// Tells people and programs.
struct Told<'a> {
    reporter: Reporter<'a>,
    context: &'a Context<'a>,
}

impl Monitor for Told<'_> {
    fn finding(&self, finding: Finding) {
        self.reporter.finding(finding);
    }

    fn progress(&self, progress: Progress<'_>) {
        // Passes are told as such.
        if !matches!(progress, Progress::ItemDone { .. }) {
            self.reporter.progress(progress);
        }
    }

    fn interrupted(&self) -> bool {
        self.reporter.interrupted()
    }
}

impl Watch for Told<'_> {
    fn step(&self, step: Step) {
        let output = self.context.output;
        let say = |message: Message, text: String| {
            output.json(&message, true);
            output.remark(&text);
        };
        match step {
            Step::Met { from, to } => say(
                Message::Hosts {
                    from: (&from).into(),
                    to: (&to).into(),
                },
                format!("From {} to {}", shown(&from), shown(&to)),
            ),
            Step::Takes { items } => say(
                Message::Takes {
                    items: items.iter().map(Into::into).collect(),
                },
                format!("Takes: {}", takes(&items)),
            ),
            Step::Pass {
                number,
                at_rest,
                bytes_read,
                bytes_sent,
                seconds,
            } => say(
                Message::Pass(PassLine {
                    number,
                    at_rest,
                    bytes_read,
                    bytes_sent,
                    seconds,
                }),
                format!(
                    "  pass {number}   {}   {:>8} read   {:>8} sent   {}",
                    if at_rest { "stopped" } else { "running" },
                    units::size(bytes_read),
                    units::size(bytes_sent),
                    units::duration(seconds)
                ),
            ),
            Step::Predicted { seconds, bytes } => say(
                Message::Predicted { seconds, bytes },
                format!(
                    "  predicted out of service: {}, up to {} to be read again",
                    units::duration(seconds),
                    units::size(bytes)
                ),
            ),
            Step::Stopped { containers } if containers.is_empty() => {}
            Step::Stopped { containers } => {
                let text = format!("  stopped  {}", containers.join(", "));
                say(Message::Stopped { containers }, text);
            }
            Step::Started { containers } if containers.is_empty() => {}
            Step::Started { containers } => {
                let text = format!("  started  {}", containers.join(", "));
                say(Message::Started { containers }, text);
            }
            Step::Proof(proven) => {
                let Proven {
                    item,
                    fields,
                    differences,
                    ..
                } = proven;
                let equal = fields - differences.len() as u64;
                let text = format!("  proof {item}: {equal} of {fields} fields equal");
                say(
                    Message::Proven {
                        item,
                        fields,
                        differences,
                    },
                    text,
                );
            }
        }
    }
}

fn shown(about: &About) -> String {
    let kind = if about.rootful { "rootful" } else { "rootless" };
    format!("{kind}, {}, Podman {}", about.driver, about.podman)
}

/// "container web; image shop:7; volume uploads"
fn takes(items: &[Item]) -> String {
    let of = |kind: ItemKind| -> Option<String> {
        let names = items.iter().filter(|item| item.kind == kind);
        let names: Vec<String> = names
            .map(|item| match kind {
                ItemKind::Image => units::image_name(&Escaped(&item.name).to_string()),
                _ => Escaped(&item.name).to_string(),
            })
            .collect();
        (!names.is_empty()).then(|| format!("{} {}", kind.word(), names.join(", ")))
    };
    let kinds = ItemKind::ALL.into_iter().filter_map(of);
    kinds.collect::<Vec<_>>().join("; ")
}

fn told(
    context: &Context<'_>,
    arguments: &Migrate,
    report: &MigrateReport,
    reporter: &Reporter<'_>,
) -> Done {
    for action in &report.actions {
        if arguments.dry_run {
            context.output.row(
                || Message::Action {
                    message: action.clone(),
                },
                || format!("  {action}"),
            );
        }
    }
    let needs = report.needs.iter().filter(|_| arguments.dry_run);
    for Need {
        place,
        bytes,
        bytes_free,
    } in needs
    {
        context.output.row(
            || Message::Space {
                place: place.clone(),
                bytes_needed: *bytes,
                bytes_free: *bytes_free,
            },
            || {
                let (bytes, free) = (units::size(*bytes), units::size(*bytes_free));
                format!("  needs up to {bytes} in {place} of the target, {free} free")
            },
        );
    }
    for conflict in &report.conflicts {
        context.output.row(
            || Message::Conflict {
                message: conflict.clone(),
            },
            || format!("  conflict: {conflict}"),
        );
    }
    let warnings = reporter.warnings();
    let exit = match report.conflicts.is_empty() {
        true => exit_after(warnings),
        false => Exit::Failed,
    };
    let again = |flag: &str| {
        let mut words = vec!["podkeep migrate".to_owned(), flag.to_owned()];
        if arguments.all {
            words.push("--all".to_owned());
        }
        let shown = |word: &OsString| shell_word(&word.to_string_lossy());
        words.extend(arguments.selectors.iter().map(shown));
        if let Some(from) = &arguments.from {
            words.extend(["--from".to_owned(), shown(from)]);
        }
        words.extend(["--to".to_owned(), shown(&arguments.to)]);
        words.join(" ")
    };
    let mut text = vec![String::new()];
    if arguments.rollback {
        text.push(match report.freeze_seconds > 0.0 {
            true => format!(
                "Back at the source with what the target had written, out of service {}; what was \
                 sent is kept for the next time",
                units::duration(report.freeze_seconds)
            ),
            false => "Back at the source; what was sent is kept for the next time".to_owned(),
        });
    } else if arguments.finish {
        text.push("Finished; nothing is kept for a way back".to_owned());
    } else if arguments.dry_run {
        text.push(match report.conflicts.is_empty() {
            true => "Nothing was changed; it can be moved".to_owned(),
            false => "Nothing was changed; something is in the way".to_owned(),
        });
        text.push(format!(
            "Images and volumes take {}; out of service for some {} by what is known now",
            units::size(report.bytes_logical),
            units::duration(report.freeze_seconds)
        ));
    } else {
        text.push(format!(
            "Moved in {}, out of service {}; {} sent for {}",
            units::duration(report.seconds),
            units::duration(report.freeze_seconds),
            units::size(report.bytes_sent),
            units::size(report.bytes_logical)
        ));
        if report.freeze_seconds > 0.0 {
            text.push(format!("Out of service: {}", parts(&report.freeze)));
        }
        text.push(format!("Kept for a way back until:  {}", again("--finish")));
        text.push(format!(
            "  go back:                  {}",
            again("--rollback")
        ));
    }
    Done {
        exit,
        text,
        summary: Summary::Migrate {
            phase: match report.phase {
                Phase::Prepared => "prepared",
                Phase::Released => "released",
                Phase::Active => "active",
            },
            items: report.items,
            freeze_seconds: report.freeze_seconds,
            freeze_parts: (&report.freeze).into(),
            bytes_sent: report.bytes_sent,
            bytes_logical: report.bytes_logical,
            findings: warnings,
            seconds: report.seconds,
        },
    }
}

/// What the time out of service went into.
fn parts(freeze: &FreezeParts) -> String {
    let parts = [
        ("stopping", freeze.stop),
        ("reading and sending", freeze.read),
        ("writing", freeze.write),
        ("fencing", freeze.fence),
        ("starting", freeze.start),
    ];
    let parts = parts.map(|(name, seconds)| format!("{name} {}", units::duration(seconds)));
    parts.join(", ")
}

/// Orders that come over standard input, once somebody gives one.
pub(super) struct OnDemand {
    whose: Whose,
    global: Global,
    session: Mutex<Option<Arc<Session>>>,
}

impl OnDemand {
    pub(super) fn new(whose: Whose, global: Global) -> Self {
        Self {
            whose,
            global,
            session: Mutex::default(),
        }
    }

    fn session(&self) -> Result<Arc<Session>, Failure> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = &*session {
            return Ok(Arc::clone(session));
        }
        let started = Arc::new(start(side(&self.whose, &self.global, true)?)?);
        *session = Some(Arc::clone(&started));
        Ok(started)
    }
}

impl Obey for OnDemand {
    fn obey(&self, order: &[u8]) -> Result<Vec<u8>, HostError> {
        let session = self.session().map_err(|failure| HostError::Refused {
            object: "this host's Podman".to_owned(),
            cause: failure.message,
            hint: failure.hint.unwrap_or_default(),
        })?;
        session.obey(order)
    }
}
