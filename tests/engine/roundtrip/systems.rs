//! The whole hard tree, on each file system and from each to the machine's own disk.

use podkeep_engine::host::Existing;

use super::Bench;
use crate::mount::Mounted;
use crate::{mktree, oracle};

fn on(mounted: &Mounted) {
    let bench = Bench::on(mktree::Scratch::inside(mounted.path()));
    let path = bench.scratch.join("tree");
    mktree::build(&path).unwrap();
    bench.round_trip(&path);
    let to = path.with_extension("restored");
    bench.restore(&path, b"", &to, Existing::Replace).unwrap();
    oracle::assert_same(&path, &to, &oracle::Options::default());
}

#[test]
fn a_hard_tree_on_this_disk() {
    let bench = Bench::new();
    let path = bench.scratch.join("tree");
    mktree::build(&path).unwrap();
    bench.round_trip(&path);
}

#[test]
fn f_23_strange_times_and_a_hard_tree_on_tmpfs() {
    on(&Mounted::memory("tmpfs", "size=200m"));
}

#[test]
fn a_hard_tree_on_xfs() {
    on(&Mounted::image("xfs", 400, &[]));
}

#[test]
fn a_hard_tree_on_btrfs() {
    on(&Mounted::image("btrfs", 300, &[]));
}

#[test]
fn a_hard_tree_on_ext4_with_large_attributes() {
    on(&Mounted::image("ext4", 200, &["-O", "ea_inode"]));
}
