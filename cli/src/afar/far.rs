//! The end where the Podman is: runs a command as if it were typed there, and says everything to the
//! near end.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use clap::Parser;
use podkeep_engine::host::HostError;
use podkeep_engine::host::orders::Obey;
use podkeep_engine::link::Unanswered;
use podkeep_engine::link::calls::{Calls, Work};
use podkeep_engine::operations::migrate::Road;
use podkeep_engine::operations::{OperationError, OperationResult};
use podkeep_engine::repo::Credential;
use podkeep_engine::store::remote::RemoteStore;
use podkeep_engine::store::{ObjectStore, StoreError, StoreErrorKind};
use podkeep_format::item::{Escaped, unescape};
use podkeep_format::wire::FailureCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::{Zeroize, Zeroizing};

use super::{ENDED_BYTES_MAX, Ended, Handed, Job};
use crate::arguments::{Arguments, Command};
use crate::commands;
use crate::context::{Context, Done};
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::Signals;
use crate::whose::Whose;

/// In front of an order; other questions are JSON behind a 0.
pub const QUESTION_ORDER: u8 = 1;
/// How this end calls the near one in messages.
const NEAR: &str = "the podkeep that works through this one";

/// What a migration asks of the end that knows the target. Answers are u64, little-endian.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// Opens a store of the target's machine; the answer is its number. The path is escaped as in
    /// listings.
    Store {
        path: String,
        make: bool,
    },
    /// Bytes that went over the link to this end.
    Bytes,
    /// Runs the command of `--before-stop`; the answer is 1 if there is one.
    BeforeStop,
    CutOver,
    RolledBack,
}

/// What the podkeep at the near end wants to be done with this Podman.
pub struct Jobs {
    whose: Whose,
}

impl Jobs {
    pub fn new(whose: Whose) -> Self {
        Self { whose }
    }

    fn run(&self, job: Job, calls: &Arc<Calls>) -> Result<Done, Failure> {
        let mut words = vec![OsString::from("podkeep")];
        for word in &job.words {
            let word = unescape(word.as_bytes()).ok_or_else(Failure::defect)?;
            words.push(OsString::from_vec(word));
        }
        let arguments = Arguments::try_parse_from(words).map_err(|error| {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            let line = line.trim_start_matches("error: ").to_owned();
            Failure::usage(line, "is the podkeep there of another version?")
        })?;
        if !matches!(
            arguments.command,
            Command::Backup(_)
                | Command::Restore(_)
                | Command::Diff(_)
                | Command::Doctor(_)
                | Command::Migrate(_)
        ) {
            return Err(Failure::usage(
                "that is no command of a host".to_owned(),
                "",
            ));
        }
        let output = Output::of_calls(Arc::clone(calls));
        let far = Far {
            calls: Arc::clone(calls),
            handed: job.repository,
        };
        let context = Context::of_a_job(
            &arguments.global,
            &output,
            Signals::of_calls(Arc::clone(calls)),
            self.whose.clone(),
            far,
        );
        commands::run_here(&context, &arguments.command)
    }
}

impl Work for Jobs {
    fn work(&self, job: &[u8], calls: &Arc<Calls>) -> Result<Vec<u8>, String> {
        let job: Job = serde_json::from_slice(job)
            .map_err(|error| format!("this podkeep does not know that job: {error}"))?;
        // A panic is told on standard error, which the near end shows when the link ends.
        let result = catch_unwind(AssertUnwindSafe(|| self.run(job, calls)))
            .unwrap_or_else(|_| Err(Failure::defect()));
        let ended = match result {
            Ok(done) => Ended::Done {
                exit: done.exit.code(),
                text: done.text,
                summary: match serde_json::to_value(&done.summary) {
                    Ok(Value::Object(summary)) => summary,
                    _ => Map::new(),
                },
            },
            Err(mut failure) => {
                let mut bytes = ENDED_BYTES_MAX / 2;
                failure.conflicts.retain(|line| {
                    let fits = bytes >= line.len();
                    bytes = bytes.saturating_sub(line.len() + 8);
                    fits
                });
                Ended::Failed {
                    code: failure.code.to_owned(),
                    message: failure.message,
                    hint: failure.hint,
                    conflicts: failure.conflicts,
                    exit: failure.exit.code(),
                }
            }
        };
        serde_json::to_vec(&ended).map_err(|error| error.to_string())
    }
}

/// What a command finds at the near end instead of here.
pub struct Far {
    calls: Arc<Calls>,
    handed: Option<Handed>,
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.keys.zeroize();
    }
}

impl Far {
    /// Where the repository lies, for messages.
    pub fn place(&self) -> String {
        let handed = self.handed.as_ref();
        handed
            .map(|handed| handed.place.clone())
            .unwrap_or_default()
    }

    /// Whether something of the repository may be cached here.
    pub fn may_keep(&self) -> bool {
        self.handed.as_ref().is_some_and(|handed| handed.may_keep)
    }

    /// The near end's repository: its store, and what opens it.
    pub fn repository(&self) -> Result<(Arc<dyn ObjectStore>, Credential), Failure> {
        let handed = self.handed.as_ref().ok_or_else(Failure::defect)?;
        let store = RemoteStore::open(self.calls.store(0, NEAR), b"/", false, &handed.place)
            .map_err(|error| Failure::operation(error.into(), self.calls.stopped()))?;
        let keys = Zeroizing::new(handed.keys.clone());
        Ok((Arc::new(store), Credential::Handed(keys)))
    }

    /// The target of a migration.
    pub fn target(&self) -> Arc<dyn Obey> {
        Arc::new(Asked(Arc::clone(&self.calls)))
    }

    pub fn road(&self) -> Between {
        Between(Arc::clone(&self.calls))
    }
}

/// Orders go to the target through the near end.
struct Asked(Arc<Calls>);

impl Obey for Asked {
    fn obey(&self, order: &[u8]) -> Result<Vec<u8>, HostError> {
        let question = [&[QUESTION_ORDER], order].concat();
        self.0
            .question(&question)
            .map_err(|unanswered| match unanswered {
                Unanswered::Lost(cause) => HostError::Unreachable {
                    host: NEAR.to_owned(),
                    cause,
                },
                Unanswered::Failed(failure) => HostError::Unreachable {
                    host: "the target".to_owned(),
                    cause: failure.cause,
                },
            })
    }
}

/// What lies between this source and its target: the near end.
pub struct Between(Arc<Calls>);

impl Between {
    fn ask(&self, question: &Question) -> Result<u64, Unanswered> {
        let mut bytes = vec![0];
        serde_json::to_writer(&mut bytes, question)
            .map_err(|error| Unanswered::Lost(error.to_string()))?;
        let answer = self.0.question(&bytes)?;
        let odd = |_| Unanswered::Lost("its answer is none".to_owned());
        Ok(u64::from_le_bytes(
            answer.as_slice().try_into().map_err(odd)?,
        ))
    }

    fn done(&self, question: &Question) -> Result<u64, String> {
        match self.ask(question) {
            Ok(answer) => Ok(answer),
            Err(Unanswered::Lost(cause)) => Err(cause),
            Err(Unanswered::Failed(failure)) => Err(failure.cause),
        }
    }
}

impl Road for Between {
    fn store(&self, path: &Path, make: bool) -> OperationResult<Arc<dyn ObjectStore>> {
        let place = format!("the target:{}", path.display());
        let question = Question::Store {
            path: Escaped(path.as_os_str().as_bytes()).to_string(),
            make,
        };
        let failed = |kind, cause| {
            OperationError::Store(StoreError {
                action: "open",
                object: place.clone(),
                kind,
                cause,
            })
        };
        let store = self.ask(&question).map_err(|unanswered| match unanswered {
            Unanswered::Lost(cause) => failed(StoreErrorKind::Unreachable, cause),
            Unanswered::Failed(failure) => failed(
                match failure.code {
                    FailureCode::NotFound => StoreErrorKind::NotFound,
                    FailureCode::Conflict | FailureCode::Occupied => StoreErrorKind::Conflict,
                    FailureCode::NoSpace => StoreErrorKind::NoSpace,
                    FailureCode::NotWritable | FailureCode::Refused => StoreErrorKind::NotWritable,
                    FailureCode::Unreachable => StoreErrorKind::Unreachable,
                    FailureCode::Short | FailureCode::Io => StoreErrorKind::Io,
                },
                failure.cause,
            ),
        })?;
        let store = RemoteStore::open(self.0.store(store, NEAR), b"/", false, &place)?;
        Ok(Arc::new(store))
    }

    fn bytes(&self) -> u64 {
        // It is shown, and nothing depends on it.
        self.ask(&Question::Bytes).unwrap_or_default()
    }

    fn before_stop(&self) -> Result<bool, String> {
        self.done(&Question::BeforeStop).map(|done| done != 0)
    }

    fn cut_over(&self) -> Result<(), String> {
        self.done(&Question::CutOver).map(drop)
    }

    fn rolled_back(&self) -> Result<(), String> {
        self.done(&Question::RolledBack).map(drop)
    }
}
