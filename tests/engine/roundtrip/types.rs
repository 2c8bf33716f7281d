//! Types, content and attributes.

use podkeep_engine::host::Existing;
use rustix::fs::{AtFlags, IFlags};

use super::{Bench, part};
use crate::mount::Mounted;
use crate::{mktree, oracle};

#[test]
fn f_08_huge_holes_fit_on_a_small_disk() {
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    mktree::sparse(&fd).unwrap();
    bench.round_trip(&path);
    let small = Mounted::image("xfs", 400, &[]);
    let to = small.path().join("restored");
    let (report, _) = bench.restore(&path, b"", &to, Existing::Refuse).unwrap();
    assert!(report.bytes_written < 20 << 20, "{}", report.bytes_written);
    oracle::assert_same(&path, &to, &oracle::Options::default());
}

#[test]
fn f_11_hardlinks_across_directories() {
    part(mktree::links);
}

/// A link out of the item does not disturb it.
#[test]
fn f_11_a_name_outside_the_item() {
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    let (_, outside) = bench.directory("outside");
    mktree::links(&fd).unwrap();
    rustix::fs::linkat(&fd, "alone", &outside, "other", AtFlags::empty()).unwrap();
    rustix::fs::linkat(&fd, "a/x", &outside, "fourth", AtFlags::empty()).unwrap();
    bench.round_trip(&path);
}

#[test]
fn f_17_set_user_id_and_its_kin() {
    part(mktree::modes);
}

#[test]
fn f_19_acls_of_each_kind() {
    part(mktree::xattrs);
    // Restored into a parent with a default ACL, nothing of it is inherited.
    let bench = Bench::new();
    let (path, fd) = bench.directory("plain");
    mktree::file(&fd, b"file", b"1").unwrap();
    mktree::directory(&fd, b"directory").unwrap();
    bench.back_up(&path);
    let (parent, fd) = bench.directory("with-default");
    let default = mktree::acl(&[
        (1, 7, u32::MAX),
        (2, 7, 1000),
        (4, 0, u32::MAX),
        (16, 7, u32::MAX),
        (32, 0, u32::MAX),
    ]);
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::fsetxattr(&fd, mktree::ACL_DEFAULT, &default, flags).unwrap();
    for existing in [Existing::Refuse, Existing::Merge, Existing::Replace] {
        let to = parent.join("to");
        if existing == Existing::Merge {
            std::fs::remove_dir_all(&to).unwrap();
            std::fs::create_dir(&to).unwrap();
            std::fs::write(to.join("file"), b"mine").unwrap();
        }
        let (_, findings) = bench.restore(&path, b"", &to, existing).unwrap();
        assert_eq!(findings, []);
        oracle::assert_same(&path, &to, &oracle::Options::default());
    }
}

#[test]
fn f_22_immutable_and_append_only() {
    part(mktree::flags);
    let bench = Bench::new();
    let (path, fd) = bench.directory("root-is-immutable");
    mktree::file(&fd, b"file", b"1").unwrap();
    rustix::fs::ioctl_setflags(&fd, IFlags::IMMUTABLE).unwrap();
    bench.round_trip(&path);
    let to = path.with_extension("restored");
    bench.restore(&path, b"", &to, Existing::Replace).unwrap();
    oracle::assert_same(&path, &to, &oracle::Options::default());
}

#[test]
fn f_31_devices_whiteouts_and_overlay_attributes() {
    part(mktree::nodes);
}

#[test]
fn f_38_offsets_over_4_gib() {
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    let file = mktree::file(&fd, b"large", b"").unwrap();
    let end = (4 << 30) + (64 << 10);
    rustix::fs::ftruncate(&file, end).unwrap();
    for at in [(1 << 31) - 1, (1 << 32) - 1, 1 << 32, end - 7] {
        mktree::write_at(&file, at, b"here").unwrap();
    }
    bench.round_trip(&path);
}

#[test]
fn f_40_owners_that_nobody_knows() {
    let bench = Bench::new();
    let (path, fd) = bench.directory("tree");
    for (name, uid, gid) in [("a", 54_321, 54_322), ("b", 1002, 0)] {
        let file = mktree::file(&fd, name.as_bytes(), b"").unwrap();
        let ids = (
            rustix::thread::Uid::from_raw(uid),
            rustix::thread::Gid::from_raw(gid),
        );
        rustix::fs::fchown(&file, Some(ids.0), Some(ids.1)).unwrap();
    }
    bench.round_trip(&path);
}

#[test]
fn e_26_links_are_data() {
    part(|fd| {
        let longest = vec![b'x'; 4095];
        let targets: [&[u8]; 4] = [b"/var/lib/x", b"../../..", b"missing", &longest];
        for (index, target) in targets.into_iter().enumerate() {
            rustix::fs::symlinkat(target, fd, format!("link-{index}"))?;
        }
        Ok(mktree::Left::new())
    });
}
