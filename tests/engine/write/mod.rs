//! Writing trees back, driven by hand-made steps.

mod support;
