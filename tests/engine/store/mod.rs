mod calls;
mod conformance;
mod faults;
mod local;
mod processes;
mod recording;
pub mod remote;
mod retry;

use podkeep_engine::store::ObjectName;

fn name(name: &str) -> ObjectName {
    ObjectName::parse(name).unwrap_or_else(|| panic!("{name} is an object's name"))
}
