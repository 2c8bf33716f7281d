//! Writing trees back, driven by hand-made steps.

mod drive;
mod hostile;
mod support;
mod whole;
