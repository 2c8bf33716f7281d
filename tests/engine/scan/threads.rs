//! The root id depends on the tree alone; a scan that is dropped ends.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use podkeep_engine::fs::scan::scan;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::support::{Place, noise, read, read_spec, spec};

/// Builds the same tree with names made in an order that `seed` decides.
fn build(place: &Place, seed: u64) {
    let shuffled = |count: usize, salt: u64| {
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|index| noise(seed.wrapping_mul(977) + salt + *index as u64, 8));
        order
    };
    for directory in shuffled(20, 1) {
        let path = format!("dir-{directory}/below-{}", directory % 3);
        place.dir(&path);
        for file in shuffled(40, 2 + directory as u64) {
            let size = (file * file * 137) % 40_000;
            let name = format!("{path}/file-{file}");
            place.write(&name, &noise((directory * 100 + file) as u64, size));
            if file % 10 == 0 {
                symlink(&name, place.at(format!("{path}/link-{file}"))).expect("a link");
            }
        }
    }
    place.write("large", &noise(99, 9 << 20));
    for (from, to) in [(1, 2), (1, 3), (4, 5), (6, 7)] {
        let from = place.at(format!("dir-{from}/below-{}/file-7", from % 3));
        fs::hard_link(from, place.at(format!("dir-{to}/linked-{to}"))).expect("link");
    }
    set_times(&place.path);
}

fn set_times(path: &Path) {
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("list").flatten() {
            set_times(&entry.path());
        }
    }
    let time = Timespec {
        tv_sec: 1_000_000_000,
        tv_nsec: 5,
    };
    let both = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &both, AtFlags::SYMLINK_NOFOLLOW).expect("set the time");
}

#[test]
fn the_root_does_not_depend_on_threads_or_directory_order() {
    let mut roots = Vec::new();
    for (place, seed) in [
        (Place::new(), 1),
        (Place::new(), 2),
        (Place::in_memory(), 3),
    ] {
        build(&place, seed);
        for threads in [1, 2, 16] {
            let mut spec = spec(&place.path);
            spec.threads = threads;
            let tree = read_spec(spec);
            tree.assert_clean();
            assert_eq!(tree.outcome.files, 20 * 40 + 20 * 4 + 1 + 4);
            roots.push(tree.outcome.root);
        }
    }
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]), "{roots:?}");
}

#[test]
fn another_content_name_or_attribute_is_another_root() {
    let place = Place::new();
    place.dir("d");
    let path = place.write("d/a", b"content");
    let mut roots = vec![read(&place.path).outcome.root];
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    roots.push(read(&place.path).outcome.root);
    place.write("d/a", b"CONTENT");
    roots.push(read(&place.path).outcome.root);
    fs::rename(&path, place.at("d/b")).expect("rename");
    roots.push(read(&place.path).outcome.root);
    for (index, root) in roots.iter().enumerate() {
        assert!(!roots[..index].contains(root));
    }
}

#[test]
fn a_dropped_scan_ends_at_once() {
    let place = Place::new();
    for number in 0..8 {
        place.write(format!("{number}"), &noise(number, 8 << 20));
    }
    // Dropped before the first batch, and while workers wait for room.
    for batches in [0, 1] {
        let mut scan = scan(spec(&place.path)).expect("start");
        for _ in 0..batches {
            assert!(scan.next().expect("a batch").is_some());
        }
        drop(scan);
    }
}

#[test]
fn a_large_directory_is_read_by_several_workers() {
    let place = Place::new();
    for number in 0..2000 {
        place.write(format!("{number}"), &noise(number, 300));
    }
    let one = {
        let mut spec = spec(&place.path);
        spec.threads = 1;
        read_spec(spec)
    };
    let many = {
        let mut spec = spec(&place.path);
        spec.threads = 7;
        read_spec(spec)
    };
    assert_eq!(one.outcome.root, many.outcome.root);
    assert_eq!(many.content("1234"), noise(1234, 300));
}
