//! Rules of this repository that no compiler holds: which layer may know which, what production code
//! must not contain, and that no test file lies about unread.

mod cases;
mod layers;
mod sources;
mod wiring;
