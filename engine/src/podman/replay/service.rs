//! Podman's API: a service of our own for the time of a restore, and a client of it.
//!
//! The command line cannot make every container: a mount's options, say, are read in another way
//! than they are stored, and `--env` cannot unset what the image has by default and set it too. The
//! API takes the whole description. A service of the host's own may be off, or of another user, so one
//! is started on a socket that only we can reach; it ends by itself when it is no longer asked.
//!
//! The client speaks HTTP/1.0: the server then sends no chunks and closes after its answer, and what
//! is left of the protocol fits on a page (decisions/0015-replay.md).

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::stored::{Object, text};
use crate::podman::command::{Podman, PodmanError, Purpose};

/// Bytes of an answer: an inspected container with 10,000 variables has some 3 MB.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Of a message that is quoted.
const QUOTED_BYTES_MAX: usize = 1024;
/// The longest path that a socket can have.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// It ends when nobody asked for so long: also when we are killed.
const IDLE_SECONDS: u32 = 60;
const START_MAX: Duration = Duration::from_secs(20);
/// Making a container of a large image copies it on some storage drivers.
const ANSWER_MAX: Duration = Duration::from_secs(600);

/// A running service, and its API. Dropping it ends the service.
pub struct Service {
    socket: PathBuf,
    child: Child,
    /// "/v5.4.2/libpod"
    prefix: String,
}

/// An answer that is not a failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    /// Null when there is no body.
    pub body: Value,
}

impl Service {
    /// Starts one whose socket lies in `folder`, which nobody else may enter. `version`: Podman's own.
    pub fn start(podman: &Podman, folder: &Path, version: &str) -> Result<Self, PodmanError> {
        let purpose = Purpose {
            action: "start",
            object: "Podman's API service",
        };
        let socket = folder.join(format!("api-{}.sock", std::process::id()));
        if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            let cause = format!("{} is too long for a socket", socket.display());
            return Err(purpose.error(cause));
        }
        let _ = std::fs::remove_file(&socket);
        let child = podman.service(purpose, &socket, IDLE_SECONDS)?;
        let mut service = Self {
            socket,
            child,
            prefix: format!("/v{}/libpod", plain_version(version)),
        };
        service.wait(purpose)?;
        Ok(service)
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn wait(&mut self, purpose: Purpose<'_>) -> Result<(), PodmanError> {
        let deadline = Instant::now() + START_MAX;
        loop {
            if UnixStream::connect(&self.socket).is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(purpose.error(format!("it ended with {status}")));
            }
            if Instant::now() >= deadline {
                let cause = format!("it did not answer within {} s", START_MAX.as_secs());
                return Err(purpose.error(cause));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks for `path` below the API's own ("/containers/create"), with a JSON body or raw bytes.
    /// A refusal is an error with the server's words.
    pub(super) fn post(
        &self,
        purpose: Purpose<'_>,
        path: &str,
        body: &[u8],
    ) -> Result<Answer, PodmanError> {
        let fail = |error: std::io::Error| purpose.error(format!("Podman's API: {error}"));
        let mut stream = UnixStream::connect(&self.socket).map_err(fail)?;
        stream.set_read_timeout(Some(ANSWER_MAX)).map_err(fail)?;
        stream.set_write_timeout(Some(ANSWER_MAX)).map_err(fail)?;
        let head = format!(
            "POST {}{path} HTTP/1.0\r\nHost: d\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            self.prefix,
            body.len()
        );
        stream.write_all(head.as_bytes()).map_err(fail)?;
        stream.write_all(body).map_err(fail)?;
        let mut answer = Vec::new();
        let limit = ANSWER_BYTES_MAX + HEAD_BYTES_MAX as u64;
        (&mut stream)
            .take(limit + 1)
            .read_to_end(&mut answer)
            .map_err(fail)?;
        if answer.len() as u64 > limit {
            return Err(purpose.error("Podman's API answered more than 64 MiB"));
        }
        let answer = Answer::parse(&answer).map_err(|cause| purpose.error(cause))?;
        if answer.status < 400 {
            return Ok(answer);
        }
        let mut error = purpose.error(answer.refusal());
        error.not_found = answer.status == 404;
        Err(error)
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself; its socket goes in either case.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// "5.4.2" of "5.4.2-rhel": the API takes numbers.
fn plain_version(version: &str) -> &str {
    let end = version
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(version.len());
    &version[..end]
}

impl Answer {
    /// An answer of an HTTP/1.0 conversation: a status line, headers, and a body until the end.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let foreign = || "what answered is not Podman's API".to_owned();
        let head_end = bytes
            .windows(4)
            .take(HEAD_BYTES_MAX)
            .position(|window| window == b"\r\n\r\n")
            .ok_or_else(foreign)?;
        let head = std::str::from_utf8(&bytes[..head_end]).map_err(|_| foreign())?;
        let mut words = head.lines().next().unwrap_or_default().split(' ');
        let protocol = words.next().unwrap_or_default();
        let status = words.next().and_then(|word| word.parse::<u16>().ok());
        let Some(status) = status.filter(|_| protocol.starts_with("HTTP/1.")) else {
            return Err(foreign());
        };
        let body = &bytes[head_end + 4..];
        let body = match body.trim_ascii() {
            b"" => Value::Null,
            body => serde_json::from_slice(body)
                .or_else(|error| match status {
                    // Some failures are plain words.
                    400.. => Ok(Value::String(String::from_utf8_lossy(body).into_owned())),
                    _ => Err(error),
                })
                .map_err(|error| {
                    format!("the answer of Podman's API is not understood: {error}")
                })?,
        };
        Ok(Self { status, body })
    }

    /// What a refusal says: {"cause": "...", "message": "...", "response": 500}.
    pub fn refusal(&self) -> String {
        let words = match &self.body {
            Value::Object(body) if !text(body, "message").is_empty() => text(body, "message"),
            Value::String(words) => words,
            _ => "",
        };
        let line = words.lines().next().unwrap_or_default();
        let mut end = line.len().min(QUOTED_BYTES_MAX);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        match line[..end].trim() {
            "" => format!("Podman's API refuses it with status {}", self.status),
            line => line.to_owned(),
        }
    }

    /// The "Id" of what a request made.
    pub fn made_id(&self) -> Option<&str> {
        let body: &Object = self.body.as_object()?;
        Some(text(body, "Id")).filter(|id| !id.is_empty())
    }
}

/// The value of a query: everything but letters, digits and `-._~` as %XX.
pub(super) fn query(value: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte as char);
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Answer, String> {
        Answer::parse(bytes)
    }

    #[test]
    fn answers_of_the_api_are_understood_and_others_are_not() {
        let answer = parse(b"HTTP/1.0 201 Created\r\nX: y\r\n\r\n{\"Id\":\"ab\"}\n").unwrap();
        assert_eq!((answer.status, answer.made_id()), (201, Some("ab")));
        assert_eq!(parse(b"HTTP/1.1 204 No\r\n\r\n").unwrap().body, Value::Null);
        let refusal = b"HTTP/1.0 500 E\r\n\r\n{\"cause\":\"c\",\"message\":\"no such\\nimage\"}";
        assert_eq!(parse(refusal).unwrap().refusal(), "no such");
        assert_eq!(
            parse(b"HTTP/1.0 404 N\r\n\r\nNot found").unwrap().refusal(),
            "Not found"
        );
        assert_eq!(
            parse(b"HTTP/1.0 409 N\r\n\r\n").unwrap().refusal(),
            "Podman's API refuses it with status 409"
        );
        for foreign in [
            &b""[..],
            b"SSH-2.0\r\n\r\n",
            b"HTTP/1.0 201",
            b"HTTP/1.0 x\r\n\r\n",
            b"\xff\r\n\r\n",
        ] {
            assert!(parse(foreign).is_err(), "{foreign:?}");
        }
        assert!(parse(b"HTTP/1.0 200 OK\r\n\r\n{").is_err());
    }

    #[test]
    fn queries_hold_any_text() {
        assert_eq!(query("a b&c=d/é"), "a%20b%26c%3Dd%2F%C3%A9");
        assert_eq!(plain_version("5.8.0-dev"), "5.8.0");
    }
}
