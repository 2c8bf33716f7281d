//! Standard output and standard error: results in words or as JSON lines.
//!
//! With `--json` standard output carries nothing but JSON lines. Without it, results go to
//! standard output, warnings, notes and errors to standard error. A reader that went away is no
//! error and ends no backup: what is left is not written. Any other failure to write standard
//! output is kept and ends the process with exit code 1.

use std::io::{self, BufWriter, Stdout, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use indicatif::MultiProgress;
use podkeep_engine::link::calls::Calls;
use podkeep_format::wire::TOLD_BYTES_MAX;
use serde::Serialize;
use serde_json::Value;

use crate::afar::Told;
use crate::failure::Failure;
use crate::messages::{Message, SCHEMA};

/// How to talk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    pub json: bool,
    pub quiet: bool,
    pub verbose: bool,
}

struct Sink {
    out: BufWriter<Stdout>,
    /// The reader went away.
    closed: bool,
    failed: Option<io::Error>,
}

/// The two streams. Shared between threads.
pub struct Output {
    pub manner: Manner,
    sink: Mutex<Sink>,
    /// Bars stand below everything else: lines are written while they are taken away.
    pub bars: MultiProgress,
    /// All of it is for the podkeep at the other end of a link; one thing at a time.
    calls: Option<Mutex<Arc<Calls>>>,
}

impl Output {
    pub fn new(manner: Manner) -> Self {
        Self {
            manner,
            sink: Mutex::new(Sink {
                out: BufWriter::new(io::stdout()),
                closed: false,
                failed: None,
            }),
            bars: MultiProgress::new(),
            calls: None,
        }
    }

    /// Says everything to the podkeep at the other end of a link.
    pub fn of_calls(calls: Arc<Calls>) -> Self {
        Self {
            calls: Some(Mutex::new(calls)),
            ..Self::new(Manner::default())
        }
    }

    /// Whether somebody else shows what is said.
    pub fn is_afar(&self) -> bool {
        self.calls.is_some()
    }

    /// Says something to the other end, if there is one.
    pub fn tell(&self, told: impl FnOnce() -> Told) -> bool {
        let Some(calls) = &self.calls else {
            return false;
        };
        // Numbers and texts make JSON, whatever they are.
        let bytes = serde_json::to_vec(&told()).unwrap_or_default();
        let calls = calls.lock().unwrap_or_else(|e| e.into_inner());
        let mut pieces = bytes.chunks(TOLD_BYTES_MAX - 1).peekable();
        while let Some(piece) = pieces.next() {
            let more = u8::from(pieces.peek().is_some());
            // An end that is gone stops the run, too.
            calls.tell(&[&[more], piece].concat());
        }
        true
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        self.sink.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn write(&self, bytes: &[u8], flush: bool) {
        let mut sink = self.sink();
        if sink.closed || sink.failed.is_some() {
            return;
        }
        let written = sink
            .out
            .write_all(bytes)
            .and_then(|()| if flush { sink.out.flush() } else { Ok(()) });
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => sink.closed = true,
            Err(error) => sink.failed = Some(error),
        }
    }

    /// Whether nobody reads any more: listings may stop.
    pub fn closed(&self) -> bool {
        let sink = self.sink();
        sink.closed || sink.failed.is_some()
    }

    /// The first line with `--json`.
    pub fn start(&self, command: &'static str) {
        self.json(
            &Message::Start {
                schema: SCHEMA,
                command,
            },
            true,
        );
    }

    /// A JSON line; nothing without `--json`.
    pub fn json(&self, message: &Message, flush: bool) {
        if self.tell(|| Told::Json {
            json: value(message),
        }) || !self.manner.json
        {
            return;
        }
        self.write_json(message, flush);
    }

    /// A JSON line that came as such; nothing without `--json`.
    pub fn json_value(&self, line: &Value) {
        if self.manner.json {
            self.write_json(line, false);
        }
    }

    fn write_json(&self, line: &impl Serialize, flush: bool) {
        match serde_json::to_vec(line) {
            Ok(mut line) => {
                line.push(b'\n');
                self.write(&line, flush);
            }
            Err(error) => self.sink().failed = Some(io::Error::other(error)),
        }
    }

    /// A result: a row of a listing. One of the two forms is written.
    pub fn row(&self, message: impl FnOnce() -> Message, text: impl FnOnce() -> String) {
        if self.is_afar() {
            self.tell(|| Told::Row {
                json: value(&message()),
                text: text(),
            });
        } else if self.manner.json {
            self.json(&message(), false);
        } else {
            self.text(&text());
        }
    }

    /// A line of a result for people; nothing with `--json`.
    pub fn text(&self, line: &str) {
        let told = || Told::Text {
            text: line.to_owned(),
            remark: false,
        };
        if self.tell(told) || self.manner.json {
            return;
        }
        self.bars.suspend(|| {
            self.write(line.as_bytes(), false);
            self.write(b"\n", self.has_bars());
        });
    }

    /// As [`text`](Self::text), unless `-q` is given.
    pub fn remark(&self, line: &str) {
        let told = || Told::Text {
            text: line.to_owned(),
            remark: true,
        };
        if !self.tell(told) && !self.manner.quiet {
            self.text(line);
        }
    }

    /// Bytes of a result, as they are.
    pub fn raw(&self, bytes: &[u8]) {
        self.write(bytes, false);
    }

    fn has_bars(&self) -> bool {
        !self.manner.json && !self.manner.quiet
    }

    /// A line on standard error. That nobody reads it is no reason to stop.
    pub fn aside(&self, line: &str) {
        let told = || Told::Aside {
            text: line.to_owned(),
        };
        if self.tell(told) {
            return;
        }
        self.bars.suspend(|| {
            let _ = writeln!(io::stderr().lock(), "{line}");
        });
    }

    /// Tells of a failure: the last line.
    pub fn failure(&self, failure: &Failure) {
        if self.manner.json {
            for conflict in &failure.conflicts {
                self.json(
                    &Message::Conflict {
                        message: conflict.clone(),
                    },
                    false,
                );
            }
            self.json(
                &Message::Error {
                    code: failure.code,
                    message: failure.message.clone(),
                    hint: failure.hint.clone(),
                    exit_code: failure.exit.code(),
                },
                true,
            );
        }
        for line in failure_lines(failure) {
            self.aside(&line);
        }
    }

    /// Writes out what is left. The error is the first that writing met.
    pub fn finish(&self) -> Result<(), Failure> {
        self.write(b"", true);
        match self.sink().failed.take() {
            Some(error) => Err(Failure::local("write", "standard output", error)),
            None => Ok(()),
        }
    }
}

fn value(message: &Message) -> Value {
    serde_json::to_value(message).unwrap_or_default()
}

/// How a failure looks on standard error.
pub fn failure_lines(failure: &Failure) -> Vec<String> {
    let mut lines = vec![format!("Error: {}", failure.message)];
    // A single conflict is the message itself.
    if failure.conflicts.len() > 1 {
        lines.extend(failure.conflicts.iter().map(|line| format!("  {line}")));
    }
    lines.extend(failure.hint.iter().map(|hint| format!("  {hint}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use podkeep_engine::operations::OperationError;

    #[test]
    fn a_failure_says_what_resolves_it() {
        let failure = Failure::operation(
            OperationError::Refused {
                message: "volume pgdata is in use by container db".to_owned(),
                hint: "restore beside it: --as pgdata-restored".to_owned(),
            },
            None,
        );
        assert_eq!(
            failure_lines(&failure),
            [
                "Error: volume pgdata is in use by container db",
                "  restore beside it: --as pgdata-restored"
            ]
        );
        let conflicts = ["a is not empty: --merge", "b is not empty: --replace"];
        let failure = Failure::operation(
            OperationError::Conflicts {
                conflicts: conflicts.map(str::to_owned).to_vec(),
            },
            None,
        );
        assert_eq!(
            failure_lines(&failure),
            [
                "Error: 2 conflicts; nothing was changed",
                "  a is not empty: --merge",
                "  b is not empty: --replace"
            ]
        );
    }
}
