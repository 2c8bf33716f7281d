//! SIGINT and SIGTERM ask for a clean stop; a second one ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use podkeep_engine::link::calls::Calls;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The signal that came, if any. Clones see the same.
#[derive(Clone, Default)]
pub struct Signals {
    received: Arc<AtomicUsize>,
    /// What the podkeep at the other end of a link received counts instead.
    calls: Option<Arc<Calls>>,
}

impl Signals {
    /// Starts to listen.
    pub fn listen() -> std::io::Result<Self> {
        let signals = Self::default();
        let again = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds `again` unset, and sets it.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
            flag::register(signal, Arc::clone(&again))?;
            flag::register_usize(signal, Arc::clone(&signals.received), signal as usize)?;
        }
        Ok(signals)
    }

    /// Those of the podkeep at the other end.
    pub fn of_calls(calls: Arc<Calls>) -> Self {
        Self {
            received: Arc::default(),
            calls: Some(calls),
        }
    }

    /// The number of the last signal that came.
    pub fn received(&self) -> Option<u8> {
        if let Some(calls) = &self.calls {
            return calls.stopped();
        }
        match self.received.load(Ordering::Relaxed) {
            0 => None,
            signal => u8::try_from(signal).ok(),
        }
    }
}
