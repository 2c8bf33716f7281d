//! Tests of the engine from outside, one folder or file per part.

mod scan;
