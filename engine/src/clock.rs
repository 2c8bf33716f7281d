//! The one place that reads the wall clock: for stamps that people read, and for how old a file was
//! when it was read; what hosts decide about each other never depends on it.

use podkeep_format::tree::Time;

/// This machine's idea of the time.
pub fn now() -> Time {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads it")]
    let now = std::time::SystemTime::now();
    match now.duration_since(std::time::UNIX_EPOCH) {
        Ok(since) => Time {
            secs: since.as_secs() as i64,
            nanos: since.subsec_nanos(),
        },
        Err(_) => Time::default(),
    }
}
