//! Writing trees back, driven by hand-made steps.

mod drive;
mod hostile;
mod laid_over;
mod place;
mod support;
mod systems;
mod whole;
