//! What is left out, and what cannot be read.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use podkeep_engine::fs::FsErrorKind;
use podkeep_engine::fs::scan::scan;
use podkeep_engine::monitor::FindingKind;
use podkeep_format::tree::Node;
use rustix::fs::{CWD, FileType, Mode};

use super::links::Mounted;
use super::support::{Place, chunking, drain, read, read_spec, spec};

#[test]
fn mount_points_are_kept_empty_unless_asked() {
    let place = Place::new();
    place.write("a", b"outside");
    let mounted = Mounted::tmpfs(place.dir("mounted"));
    fs::write(mounted.0.join("inside"), b"on the tmpfs").expect("write");
    let tree = read(&place.path);
    assert!(tree.has("mounted"));
    assert!(!tree.has("mounted/inside"));
    let skipped = tree.found(FindingKind::Skipped);
    assert_eq!(skipped.len(), 1);
    assert_eq!(skipped[0].paths, [b"mounted".to_vec()]);
    assert!(!tree.outcome.incomplete);

    let mut spec = spec(&place.path);
    spec.cross_mounts = true;
    let tree = read_spec(spec);
    tree.assert_clean();
    assert_eq!(tree.content("mounted/inside"), b"on the tmpfs");
}

#[test]
fn a_bind_mount_of_the_same_file_system_is_a_mount() {
    let place = Place::new();
    let source = place.dir("source");
    place.write("source/file", b"x");
    let target = place.dir("target");
    rustix::mount::mount_bind(&source, &target).expect("bind");
    let _mounted = Mounted(target);
    let tree = read(&place.path);
    assert!(!tree.has("target/file"));
    assert_eq!(tree.found(FindingKind::Skipped).len(), 1);
}

#[test]
fn pseudo_file_systems_are_never_read() {
    let place = Place::new();
    let target = place.dir("proc");
    rustix::mount::mount(
        "none",
        &target,
        "proc",
        rustix::mount::MountFlags::empty(),
        None,
    )
    .expect("mount");
    let _mounted = Mounted(target.clone());
    let mut across = spec(&place.path);
    across.cross_mounts = true;
    let tree = read_spec(across);
    assert_eq!(tree.outcome.files, 0);
    assert_eq!(tree.found(FindingKind::Skipped).len(), 1);
    let refused = scan(spec(&target)).err().expect("a refusal");
    assert_eq!(refused.kind, FsErrorKind::Refused);
}

#[test]
fn excluded_paths() {
    let place = Place::new();
    place.dir("cache/deep");
    place.dir("keep/cache");
    for name in [
        "cache/deep/a",
        "keep/b.log",
        "keep/c",
        "keep/cache/d",
        "top.log",
    ] {
        place.write(name, b"");
    }
    let mut spec = spec(&place.path);
    spec.exclude = vec!["*.log".to_owned(), "/cache".to_owned()];
    let tree = read_spec(spec);
    tree.assert_clean();
    let names: Vec<&[u8]> = tree.entries.keys().map(Vec::as_slice).collect();
    assert_eq!(
        names,
        [
            b"".as_slice(),
            b"keep",
            b"keep/c",
            b"keep/cache",
            b"keep/cache/d"
        ]
    );
}

#[test]
fn a_bad_pattern_is_refused() {
    let place = Place::new();
    let mut spec = spec(&place.path);
    spec.exclude = vec!["[a".to_owned()];
    let refused = scan(spec).err().expect("a refusal");
    assert_eq!(refused.kind, FsErrorKind::Refused);
    assert!(refused.to_string().contains("[a"));
}

#[test]
fn tagged_caches() {
    let place = Place::new();
    place.dir("real/below");
    place.dir("fake");
    place.write(
        "real/CACHEDIR.TAG",
        b"Signature: 8a477f597d28d172789f06886806bc55\n# by a test",
    );
    place.write("real/below/x", b"");
    place.write("real/y", b"");
    place.write(
        "fake/CACHEDIR.TAG",
        b"Signature: something else, as long as the real one is.",
    );
    place.write("fake/z", b"");
    assert!(read(&place.path).has("real/y"));
    let mut spec = spec(&place.path);
    spec.exclude_caches = true;
    let tree = read_spec(spec);
    tree.assert_clean();
    let names: Vec<&[u8]> = tree.entries.keys().map(Vec::as_slice).collect();
    assert_eq!(
        names,
        [
            b"".as_slice(),
            b"fake",
            b"fake/CACHEDIR.TAG",
            b"fake/z",
            b"real",
            b"real/CACHEDIR.TAG"
        ]
    );
}

/// A loop image that was cut behind the back of its file system: reading the end of its one
/// file gives EIO.
struct Failing {
    mounted: Mounted,
}

impl Failing {
    fn new(place: &Place) -> Self {
        let run = |program: &str, args: &[&str]| {
            #[expect(clippy::disallowed_methods, reason = "mkfs and mount make the fixture")]
            let done = std::process::Command::new(program).args(args).output();
            let done = done.unwrap_or_else(|error| panic!("run {program}: {error}"));
            assert!(
                done.status.success(),
                "{program}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        };
        let image = place.beside("image");
        let image_text = image.to_str().expect("a path of text");
        let target = place.dir("failing");
        let target_text = target.to_str().expect("a path of text");
        fs::File::create(&image)
            .and_then(|file| file.set_len(64 << 20))
            .expect("make an image");
        run("mkfs.ext4", &["-q", "-b", "4096", image_text]);
        run("mount", &["-o", "loop", image_text, target_text]);
        {
            let _filled = Mounted(target.clone());
            fs::write(target.join("aaa"), b"fine").expect("write");
            rustix::fs::syncfs(fs::File::open(&target).expect("open")).expect("sync");
            fs::write(target.join("broken"), super::support::noise(5, 40 << 20)).expect("write");
        }
        run("mount", &["-o", "loop,ro", image_text, target_text]);
        let mounted = Mounted(target);
        fs::OpenOptions::new()
            .write(true)
            .open(&image)
            .and_then(|file| file.set_len(24 << 20))
            .expect("cut the image");
        Self { mounted }
    }
}

#[test]
fn f_29_an_io_error_in_the_middle_of_a_file() {
    let place = Place::new();
    let failing = Failing::new(&place);
    let tree = read(&failing.mounted.0);
    assert!(tree.outcome.incomplete);
    assert_eq!(tree.content("aaa"), b"fine");
    assert!(!tree.has("broken"));
    let unreadable = tree.found(FindingKind::Unreadable);
    assert_eq!(unreadable.len(), 1);
    assert_eq!(unreadable[0].paths, [b"broken".to_vec()]);
    assert!(
        unreadable[0]
            .message
            .starts_with("cannot read it: Input/output error")
    );
    assert_eq!(unreadable[0].object, "volume:test");
}

#[test]
fn f_29_what_a_user_may_not_read() {
    let place = Place::new();
    place.write("open", b"1");
    place.write("closed", b"2");
    place.dir("locked");
    place.write("locked/inside", b"3");
    for (name, mode) in [("closed", 0), ("locked", 0o700)] {
        fs::set_permissions(place.at(name), fs::Permissions::from_mode(mode)).expect("chmod");
    }
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o755)).expect("chmod");
    let root = fs::File::open(&place.path).expect("open");
    // Capabilities and ids of a thread are its own: only this scan's threads lose them.
    let tree = std::thread::spawn(move || {
        rustix::thread::set_thread_res_gid(
            rustix::thread::Gid::from_raw(1000),
            rustix::thread::Gid::from_raw(1000),
            rustix::thread::Gid::from_raw(1000),
        )
        .expect("drop the group");
        rustix::thread::set_thread_res_uid(
            rustix::thread::Uid::from_raw(1000),
            rustix::thread::Uid::from_raw(1000),
            rustix::thread::Uid::from_raw(1000),
        )
        .expect("drop the user");
        let mut spec = spec(std::path::Path::new("/"));
        spec.root = podkeep_engine::fs::scan::ScanRoot::Directory(root.into());
        drain(scan(spec).expect("start"), &chunking()).expect("end")
    })
    .join()
    .expect("the thread ends");
    assert!(tree.outcome.incomplete);
    assert_eq!(tree.content("open"), b"1");
    let mut paths: Vec<Vec<u8>> = tree
        .found(FindingKind::Unreadable)
        .iter()
        .flat_map(|finding| finding.paths.clone())
        .collect();
    paths.sort();
    assert_eq!(paths, [b"closed".to_vec(), b"locked".to_vec()]);
    assert!(!tree.has("locked"));
}

#[test]
fn fifos_and_devices_are_not_opened() {
    let place = Place::new();
    let mode = Mode::from_raw_mode(0o600);
    for (name, kind, device) in [
        ("fifo", FileType::Fifo, 0),
        // The console's own terminal, and a tape that rewinds when it is closed.
        ("tty", FileType::CharacterDevice, rustix::fs::makedev(5, 0)),
        ("tape", FileType::CharacterDevice, rustix::fs::makedev(9, 0)),
    ] {
        rustix::fs::mknodat(CWD, place.at(name), kind, mode, device).expect("make a node");
    }
    let tree = read(&place.path);
    tree.assert_clean();
    assert_eq!(tree.entry("fifo").node, Node::Fifo);
    let tape = Node::CharDevice { major: 9, minor: 0 };
    assert_eq!(tree.entry("tape").node, tape);
}
