use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use podkeep_engine::link::Ask;
use podkeep_engine::operations::init;
use podkeep_engine::repo::{InitOptions, Repository};
use podkeep_engine::store::local::{CreateError, LocalStore};
use podkeep_engine::store::remote::RemoteStore;
use podkeep_engine::store::{ObjectStore, StoreError, StoreErrorKind};

use crate::arguments::Init;
use crate::context::{Context, Done, Identity};
use crate::failure::{Exit, Failure, shell_word};
use crate::identity;
use crate::messages::Summary;
use crate::passphrase::{self, Given, Secret};
use crate::places::{self, Place};
use crate::progress::Reporter;
use crate::remote;

/// Space set aside so that a full disk can be mended; less where the whole disk is small.
const RESERVE_BYTES_MAX: u64 = 128 << 20;
const RESERVE_SHARE: u64 = 16;
const RESERVE_GRAIN: u64 = 1 << 20;

/// Makes a repository. The place is looked at before anybody is asked for a passphrase, and
/// nothing is made before there is one.
pub fn run(context: &Context<'_>, arguments: &Init) -> Result<Done, Failure> {
    let place = context.repository_place()?;
    let ground = look_at(context, &place)?;
    let reporter = context.reporter();
    let like = match &arguments.like {
        Some(like) => Some(open_like(context, arguments, like, &reporter)?),
        None => None,
    };
    let passphrase = passphrase::read_new(&context.origin())?;
    let (store, capacity) = ground.make(context, &place)?;
    let options = InitOptions {
        like: like.as_ref(),
        reserve_bytes: reserve_bytes(capacity),
        label: identity::name(&context.whose),
    };
    let report =
        init::init(&*store, &passphrase, &options).map_err(|error| context.failure(error))?;
    let protected = context.surroundings().protected();
    let neighbour = place
        .local()
        .and_then(|path| places::neighbour(path, &protected));
    if let Some(neighbour) = neighbour {
        reporter.note(
            place.to_string(),
            format!(
                "the repository lies on the file system of {}: if that disk fails, both are lost",
                neighbour.display()
            ),
        );
    }
    reporter.end();
    let place = place.to_string();
    Ok(Done {
        exit: Exit::Done,
        text: vec![
            format!("Repository {} made in {place}", report.repository),
            String::new(),
            "To restore, two things are needed: this folder and the passphrase. Nobody can".into(),
            "recover a lost passphrase: keep it somewhere else than on this host. To restore on"
                .into(),
            "another host, make the folder reachable there and run:".into(),
            format!("  podkeep -r {} snapshots", shell_word(&place)),
        ],
        summary: Summary::Init {
            repository: report.repository.to_hex(),
            place,
            findings: reporter.warnings(),
        },
    })
}

/// A place that was looked at.
enum Ground {
    Path,
    /// The link to the host, where nothing is.
    Remote(Box<dyn Ask>),
    /// A store without a repository: what a killed `init` left.
    Unfinished(RemoteStore),
}

/// Refuses what is occupied, as far as that can be seen without making anything.
fn look_at(context: &Context<'_>, place: &Place) -> Result<Ground, Failure> {
    let address = match place {
        Place::Path(path) => {
            refuse_occupied(path)?;
            return Ok(Ground::Path);
        }
        Place::Remote(address) => address,
        Place::Handed(_) => return Err(Failure::defect()),
    };
    let link = remote::connect(context.global, address)?;
    match RemoteStore::try_open(link, &address.path, false, &place.to_string()) {
        Ok(store) if context.has_config(&store)? => Err(Failure::occupied(format!(
            "there is a repository at {place} already"
        ))),
        Ok(store) => Ok(Ground::Unfinished(store)),
        Err((link, error)) if error.kind == StoreErrorKind::NotFound => Ok(Ground::Remote(link)),
        Err((_, error)) => Err(context.failure(error.into())),
    }
}

impl Ground {
    /// An empty store, and the bytes of the file system that it lies on, 0 when nobody knows.
    fn make(
        self,
        context: &Context<'_>,
        place: &Place,
    ) -> Result<(Arc<dyn ObjectStore>, u64), Failure> {
        let failed = |error: StoreError| match error.kind {
            StoreErrorKind::Conflict => Failure::occupied(error.cause),
            _ => context.failure(error.into()),
        };
        let store = match (self, place) {
            (Self::Remote(link), Place::Remote(address)) => {
                RemoteStore::open(link, &address.path, true, &place.to_string()).map_err(failed)?
            }
            (Self::Unfinished(store), _) => store,
            (Self::Path | Self::Remote(_), Place::Path(path)) => {
                let store = LocalStore::create(path).map_err(|error| match error {
                    CreateError::StoreThere { .. } | CreateError::NotEmpty { .. } => {
                        Failure::occupied(error)
                    }
                    CreateError::Store(error) => context.failure(error.into()),
                })?;
                let stat = rustix::fs::statvfs(path);
                let capacity = stat.map(|stat| stat.f_blocks.saturating_mul(stat.f_frsize));
                return Ok((Arc::new(store), capacity.unwrap_or_default()));
            }
            (_, Place::Remote(_) | Place::Handed(_)) => return Err(Failure::defect()),
        };
        let capacity = store.capacity();
        Ok((Arc::new(store), capacity))
    }
}

/// The repository whose chunk keys are to be shared. It must be opened with a passphrase, which
/// its own options, its own variables and the terminal give: never the one that is to be set.
fn open_like(
    context: &Context<'_>,
    arguments: &Init,
    like: &OsStr,
    reporter: &Reporter<'_>,
) -> Result<Repository, Failure> {
    let place = context.surroundings().repository(Some(like))?;
    let origin = passphrase::origin_of_like(
        &Given {
            password_file: arguments.like_password_file.clone(),
            password_command: arguments.like_password_command.clone(),
            key_file: None,
        },
        &|name| std::env::var_os(name),
    );
    let ask = || passphrase::read_like(&origin, &place).map(Secret::Passphrase);
    let (like, _) = context.open_at(&place, ask, reporter, Identity::Known)?;
    Ok(like)
}

/// Refuses a repository and a folder with something in it; what a killed `init` left is neither.
fn refuse_occupied(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::local("open", shown, error)),
    };
    if let Ok(store) = LocalStore::open(path) {
        let there = [false, true].into_iter().any(|second| {
            podkeep_engine::store::ObjectName::parse(&podkeep_format::names::config(second))
                .is_some_and(|config| matches!(store.size(&config), Ok(Some(_))))
        });
        if there {
            return Err(Failure::occupied(format!(
                "there is a repository at {shown} already"
            )));
        }
        return Ok(());
    }
    for entry in entries {
        let entry = entry.map_err(|error| Failure::local("read", shown.to_string(), error))?;
        if entry.file_name() != "lost+found" {
            return Err(Failure::occupied(format!(
                "cannot make a repository in {shown}: it is not empty"
            )));
        }
    }
    Ok(())
}

fn reserve_bytes(capacity: u64) -> u64 {
    if capacity == 0 {
        return RESERVE_BYTES_MAX;
    }
    let share = capacity / RESERVE_SHARE / RESERVE_GRAIN * RESERVE_GRAIN;
    share.clamp(RESERVE_GRAIN, RESERVE_BYTES_MAX)
}
