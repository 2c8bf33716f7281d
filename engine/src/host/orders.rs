//! Orders that a host's podkeep carries out with the Podman that lies there: bytes go there and bytes
//! come back. What they say is the operations' business; here is how they get there.

use podkeep_format::wire::{Action, Answer, Failure, FailureCode, Reply, Request};

use super::HostError;
use crate::link::{Ask, Asking, Serve, Sink, Unanswered};

/// Of an answer to an order.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Carries orders out, one after the other.
pub trait Obey: Send + Sync {
    /// `Err`: nobody knows whether it was done. That it failed is an answer.
    fn obey(&self, order: &[u8]) -> Result<Vec<u8>, HostError>;
}

/// A host behind a link.
pub struct Afar {
    link: Asking,
}

impl Afar {
    pub fn new(link: Asking) -> Self {
        Self { link }
    }

    /// Bytes that went over the link, both ways.
    pub fn traffic(&self) -> u64 {
        let traffic = self.link.traffic();
        traffic.bytes_sent + traffic.bytes_received
    }
}

impl Obey for Afar {
    fn obey(&self, order: &[u8]) -> Result<Vec<u8>, HostError> {
        let lost = |cause: String| HostError::Unreachable {
            host: self.link.host().to_owned(),
            cause,
        };
        let request = Request::Order {
            order: order.to_vec(),
            bytes_max: ANSWER_BYTES_MAX as u64,
        };
        match self.link.ask(&request, b"") {
            Ok(Reply::Content(bytes)) => Ok(bytes),
            Ok(_) => Err(lost("its answer is none to an order".to_owned())),
            Err(Unanswered::Lost(cause)) => Err(lost(cause)),
            Err(Unanswered::Failed(failure)) => Err(HostError::Refused {
                object: self.link.host().to_owned(),
                cause: failure.cause,
                hint: String::new(),
            }),
        }
    }
}

/// The far end of [`Afar`]: orders go to `orders`, everything else to `others`.
pub struct Ordered<S> {
    pub orders: Box<dyn Obey>,
    pub others: S,
}

impl<S: Serve> Serve for Ordered<S> {
    fn serve(
        &self,
        request: &Request,
        object: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<Answer, Failure> {
        let Request::Order { order, bytes_max } = request else {
            return self.others.serve(request, object, sink);
        };
        let failed = |cause: String| Failure {
            code: FailureCode::Refused,
            action: Action::Open,
            object: String::new(),
            cause,
        };
        let answer = self
            .orders
            .obey(order)
            .map_err(|error| failed(error.to_string()))?;
        if answer.len() as u64 > *bytes_max {
            return Err(failed("the answer is longer than was asked for".into()));
        }
        sink.content(&answer);
        Ok(Answer::Content {
            len: answer.len() as u64,
            hash: *blake3::hash(&answer).as_bytes(),
        })
    }

    fn ended(&self) {
        self.others.ended();
    }
}
