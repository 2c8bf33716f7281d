//! A store at the far end of a link: in this process over a pair of sockets, and in a child process
//! over its standard input and output; with links that break and ends that misbehave.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use podkeep_engine::link::{Asking, Carrier, Ending, LinkError, Pipes, RateLimit, Times, serve};
use podkeep_engine::store::agent::{Rights, StoreAgent};
use podkeep_engine::store::faults::{Effect, Fault, Faults};
use podkeep_engine::store::local::LocalStore;
use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::remote::RemoteStore;
use podkeep_engine::store::{Medium, ObjectStore, Put, StoreErrorKind};
use podkeep_format::id::{LeaseId, PackId, RunId};
use podkeep_format::names;
use podkeep_format::wire::{Far, FarEvent, Greeting};

use super::name;

/// Clocks that let a test end soon, on a machine that is busy with others.
pub const TIMES: Times = Times {
    ping: Duration::from_millis(100),
    dead: Duration::from_secs(4),
    greeting: Some(Duration::from_secs(5)),
    grace: Duration::from_secs(5),
};

/// The same, for ends that fall silent.
const SHORT: Times = Times {
    dead: Duration::from_millis(500),
    ..TIMES
};

/// The near end's half of a pair of sockets.
struct Wire(UnixStream);

impl Carrier for Wire {
    fn end(&self) {
        // It may be shut already.
        let _ = self.0.shutdown(Shutdown::Both);
    }

    fn last_words(&self) -> Option<Ending> {
        None
    }
}

/// Closing one direction is dropping it, as with pipes.
pub struct Sending(pub UnixStream);

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

/// Lets so many bytes pass and then ends.
struct Cut<T> {
    inner: T,
    left: Arc<AtomicUsize>,
}

impl<T> Cut<T> {
    fn pass(&self, wanted: usize) -> usize {
        let left = self.left.load(Ordering::Relaxed);
        let now = wanted.min(left);
        self.left.fetch_sub(now, Ordering::Relaxed);
        now
    }
}

impl<T: Read> Read for Cut<T> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let now = self.pass(bytes.len().min(64));
        if now == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut bytes[..now])?;
        self.left.fetch_add(now - read, Ordering::Relaxed);
        Ok(read)
    }
}

impl<T: Write> Write for Cut<T> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let now = self.pass(bytes.len());
        if now == 0 {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        self.inner.write(&bytes[..now])
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

pub fn pipes(near: UnixStream) -> Pipes {
    Pipes {
        input: Box::new(Sending(near.try_clone().unwrap())),
        output: Box::new(near.try_clone().unwrap()),
        carrier: Box::new(Wire(near)),
    }
}

/// A far end that serves `store` in a thread; the result is how it ended.
fn far_end(
    far: UnixStream,
    rights: Rights,
    store: Arc<dyn ObjectStore>,
    times: Times,
) -> JoinHandle<Result<(), String>> {
    std::thread::spawn(move || {
        let agent = Arc::new(StoreAgent::of_store(rights, store));
        let input = Box::new(far.try_clone().unwrap());
        let served = serve(input, Box::new(Sending(far)), agent, times);
        served.map_err(|error| error.to_string())
    })
}

/// `store` behind a link.
pub fn over(store: Arc<dyn ObjectStore>) -> RemoteStore {
    over_with(Rights::All, store)
}

fn over_with(rights: Rights, store: Arc<dyn ObjectStore>) -> RemoteStore {
    let (near, far) = UnixStream::pair().unwrap();
    drop(far_end(far, rights, store, TIMES));
    let link = Asking::begin(pipes(near), "web1", TIMES, None).unwrap();
    RemoteStore::open(link, b"/", false, "ssh://web1/srv/backup").unwrap()
}

/// The path that the child is to serve.
const SERVED: &str = "PODKEEP_TEST_SERVED";

#[test]
#[ignore = "the far end of the other tests"]
fn child() {
    let Some(folder) = std::env::var_os(SERVED) else {
        return;
    };
    let agent = Arc::new(StoreAgent::new(Rights::All, PathBuf::from(folder)));
    let served = serve(
        Box::new(std::io::stdin()),
        Box::new(std::io::stdout()),
        agent,
        Times::default(),
    );
    // Without what the test's own frame prints at the end.
    std::process::exit(i32::from(served.is_err()));
}

struct Process(Mutex<Child>);

impl Carrier for Process {
    fn end(&self) {
        let mut child = self.0.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }

    fn last_words(&self) -> Option<Ending> {
        let _ = self.0.lock().unwrap().wait();
        None
    }
}

/// This test binary as a far end, in a process of its own. What the test frame prints before the
/// child's part begins is noise in front of the greeting.
pub fn spawned(folder: &Path) -> Asking {
    #[allow(clippy::disallowed_methods, reason = "the child is this test")]
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::remote::child",
            "--ignored",
            "--nocapture",
        ])
        .env(SERVED, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pipes = Pipes {
        input: Box::new(child.stdin.take().unwrap()),
        output: Box::new(child.stdout.take().unwrap()),
        carrier: Box::new(Process(Mutex::new(child))),
    };
    Asking::begin(pipes, "child", Times::default(), None).unwrap()
}

#[test]
fn t_01_noise_of_a_real_process_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let link = spawned(folder.path());
    assert!(link.noise() > 10, "{}", link.noise());
    let store = RemoteStore::open(link, b"repository", true, "ssh://child/x").unwrap();
    store.put_new(&name("config"), b"bytes").unwrap();
    assert_eq!(store.medium(), Medium::Linearizable);
    assert!(store.capacity() > 0);
    drop(store);
    let there = LocalStore::open(folder.path().join("repository")).unwrap();
    assert_eq!(there.get(&name("config"), 5).unwrap(), b"bytes");
}

#[test]
fn a_place_without_a_store_or_with_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("full")).unwrap();
    std::fs::write(folder.path().join("full/file"), "x").unwrap();
    let (link, error) = RemoteStore::try_open(spawned(folder.path()), b"absent", false, "p")
        .err()
        .unwrap();
    assert_eq!(error.kind, StoreErrorKind::NotFound);
    assert!(
        error.object.contains("child:") && error.object.contains("absent"),
        "{error}"
    );
    // The link still stands.
    let (_, error) = RemoteStore::try_open(link, b"full", true, "p")
        .err()
        .unwrap();
    assert_eq!(error.kind, StoreErrorKind::Conflict);
    assert!(error.cause.contains("not empty"), "{error}");
}

#[test]
fn t_10_a_full_disk_there_is_no_space_with_its_path() {
    let faults = Faults::new(MemoryStore::new());
    faults.plan(Fault::at(1, Effect::FailBefore(StoreErrorKind::NoSpace)));
    let store = over(Arc::new(faults));
    let error = store
        .put_new(&name("packs/00/x"), &[7; 300_000])
        .unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NoSpace);
    assert!(
        error.to_string().starts_with("cannot write ssh://web1/"),
        "{error}"
    );
    assert!(error.object.ends_with("packs/00/x"), "{error}");
    // The link goes on.
    assert_eq!(
        store.put_new(&name("packs/00/x"), &[7; 300_000]).unwrap(),
        Put::Created
    );
}

/// Every request of a short run of work; the first error.
fn work(store: &RemoteStore) -> Result<(), podkeep_engine::store::StoreError> {
    store.set_temp_owner("00ff");
    store.put_new(&name("packs/00/x"), &[7; 200_000])?;
    store.put_new(&name("leases/00/1"), b"heartbeat")?;
    store.size(&name("packs/00/x"))?;
    store.list("packs")?;
    store.get(&name("packs/00/x"), 1 << 20)?;
    store.get_range(&name("packs/00/x"), 5, 10)?;
    store.delete(&name("leases/00/1"))?;
    store.sweep_temps(&|_| true)?;
    Ok(())
}

/// T-08: wherever either direction of the link breaks, what was asked fails as unreachable and
/// names the host, nothing is half there, and doing it all again succeeds.
#[test]
fn t_08_a_link_that_breaks_anywhere_is_an_error_that_names_the_host() {
    let memory = MemoryStore::new();
    let mut broken = 0;
    // Some 200,900 bytes go to the far end and as many come back: frames' edges and their middles.
    let places = (0..2600)
        .step_by(97)
        .chain((3000..410_000).step_by(13_013))
        .flat_map(|at| [(at, true), (at, false)]);
    for (at, to_far) in places {
        let (near, far) = UnixStream::pair().unwrap();
        let served = far_end(far, Rights::All, Arc::new(memory.clone()), TIMES);
        let mut pipes = pipes(near);
        let left = Arc::new(AtomicUsize::new(at));
        if to_far {
            pipes.input = Box::new(Cut {
                inner: pipes.input,
                left,
            });
        } else {
            pipes.output = Box::new(Cut {
                inner: pipes.output,
                left,
            });
        }
        let worked = match Asking::begin(pipes, "web1", TIMES, None) {
            Err(LinkError { host, cause, .. }) => {
                assert_eq!(host, "web1");
                assert!(!cause.is_empty());
                false
            }
            Ok(link) => match RemoteStore::open(link, b"/", false, "ssh://web1/r") {
                Ok(store) => match work(&store) {
                    Ok(()) => true,
                    Err(error) => {
                        assert_eq!(error.kind, StoreErrorKind::Unreachable, "at {at}: {error}");
                        assert!(error.to_string().contains("web1"), "{error}");
                        // Whoever goes on asking hears the same.
                        assert!(store.list("").is_err());
                        false
                    }
                },
                Err(error) => {
                    assert_eq!(error.kind, StoreErrorKind::Unreachable);
                    false
                }
            },
        };
        // The far end never outlives the near one.
        drop(served.join().unwrap());
        broken += usize::from(!worked);
        for row in memory.list("packs").unwrap() {
            assert_eq!(row.size, 200_000);
        }
        work(&over(Arc::new(memory.clone()))).unwrap();
    }
    assert!(broken > 50, "only {broken} links broke");
}

#[test]
fn t_08_an_end_that_falls_silent_is_taken_for_gone() {
    // A far end that greets, and says no more.
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(&Greeting::own("0.1.0").encode()).unwrap();
    let link = Asking::begin(pipes(near), "web1", SHORT, None).unwrap();
    let begin = Instant::now();
    let error = RemoteStore::open(link, b"/", false, "ssh://web1/r")
        .err()
        .unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4));
    assert_eq!(error.kind, StoreErrorKind::Unreachable);
    assert!(error.cause.contains("web1: nothing came"), "{error}");
    drop(far);
    // A near end that greets, asks, and says no more: its object never arrives.
    let (mut near, far) = UnixStream::pair().unwrap();
    let served = far_end(far, Rights::All, Arc::new(MemoryStore::new()), SHORT);
    near.write_all(&Greeting::own("0.1.0").encode()).unwrap();
    let told = served.join().unwrap().unwrap_err();
    assert!(told.contains("nothing came"), "{told}");
}

#[test]
fn pings_keep_a_quiet_link_alive() {
    let (near, far) = UnixStream::pair().unwrap();
    drop(far_end(
        far,
        Rights::All,
        Arc::new(MemoryStore::new()),
        SHORT,
    ));
    let link = Asking::begin(pipes(near), "web1", SHORT, None).unwrap();
    let store = RemoteStore::open(link, b"/", false, "p").unwrap();
    std::thread::sleep(SHORT.dead * 3);
    store.put_new(&name("config"), b"bytes").unwrap();
}

#[test]
fn t_14_another_version_is_refused_with_both() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let theirs = Greeting {
        oldest: 2,
        newest: 3,
        podkeep: "9.8.7".to_owned(),
        later: Vec::new(),
    };
    far.write_all(&theirs.encode()).unwrap();
    let error = Asking::begin(pipes(near), "web1", TIMES, None)
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(text.starts_with("cannot reach web1: "), "{text}");
    assert!(
        text.contains("version 1") && text.contains("versions 2 to 3"),
        "{text}"
    );
    let (mut near, far) = UnixStream::pair().unwrap();
    let served = far_end(far, Rights::All, Arc::new(MemoryStore::new()), TIMES);
    near.write_all(&theirs.encode()).unwrap();
    let told = served.join().unwrap().unwrap_err();
    assert!(told.contains("9.8.7"), "{told}");
}

#[test]
fn many_threads_share_a_link() {
    let memory = MemoryStore::new();
    let store = over(Arc::new(memory.clone()));
    let data = vec![7; 700_000];
    std::thread::scope(|scope| {
        for thread in 0..24 {
            let (store, data) = (&store, &data);
            scope.spawn(move || {
                for n in 0..4 {
                    let object = name(&format!("packs/00/{thread}-{n}"));
                    assert_eq!(store.put_new(&object, data).unwrap(), Put::Created);
                    assert!(store.get(&object, 1 << 20).unwrap() == *data);
                }
            });
        }
    });
    assert_eq!(memory.list("packs").unwrap().len(), 96);
}

#[test]
fn a_link_keeps_below_its_rate() {
    let (near, far) = UnixStream::pair().unwrap();
    drop(far_end(
        far,
        Rights::All,
        Arc::new(MemoryStore::new()),
        TIMES,
    ));
    let limit = Arc::new(RateLimit::new(1_000_000));
    let link = Asking::begin(pipes(near), "web1", Times::default(), Some(limit)).unwrap();
    let store = RemoteStore::open(link, b"/", false, "p").unwrap();
    let begin = Instant::now();
    store.put_new(&name("packs/00/x"), &[7; 1_250_000]).unwrap();
    // A quarter of a second's worth may go at once.
    assert!(begin.elapsed() > Duration::from_millis(900));
}

/// A far end that answers whatever it likes, with real answers to other questions.
#[test]
fn a_far_end_that_lies_is_caught_or_believed_about_sizes_only() {
    let (near, far) = UnixStream::pair().unwrap();
    let liar = std::thread::spawn(move || {
        let mut state = Far::new("0.1.0");
        let mut input = far.try_clone().unwrap();
        let mut output = far;
        output.write_all(&state.greeting()).unwrap();
        let mut buffer = [0; 4096];
        loop {
            let read = input.read(&mut buffer).unwrap_or(0);
            if read == 0 {
                return;
            }
            state.push(&buffer[..read]);
            let mut out = Vec::new();
            while let Ok(Some(event)) = state.next_event(&mut out) {
                if let FarEvent::Task(task) = event {
                    let row = podkeep_format::wire::Row {
                        name: "../../etc/passwd".to_owned(),
                        size: 1,
                    };
                    match task.request {
                        podkeep_format::wire::Request::Open { .. } => {
                            let answer = podkeep_format::wire::Answer::Opened {
                                medium: podkeep_format::wire::WireMedium::Linearizable,
                                capacity: u64::MAX,
                            };
                            state.answer(task.number, &answer, &mut out);
                        }
                        _ => {
                            state.rows(task.number, &[row], &mut out);
                            let answer = podkeep_format::wire::Answer::Listed { rows: 1 };
                            state.answer(task.number, &answer, &mut out);
                        }
                    }
                }
            }
            if output.write_all(&out).is_err() {
                return;
            }
        }
    });
    let link = Asking::begin(pipes(near), "web1", TIMES, None).unwrap();
    let store = RemoteStore::open(link, b"/", false, "ssh://web1/r").unwrap();
    let error = store.list("packs").unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Io, "{error}");
    let error = store.get(&name("config"), 100).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unreachable, "{error}");
    drop(store);
    liar.join().unwrap();
}

/// E-20: what the far side may not write is said in its words.
#[test]
fn e_20_a_store_that_cannot_be_written_there_still_lists() {
    let faults = Faults::new(MemoryStore::new());
    faults.inner().put_new(&name("config"), b"bytes").unwrap();
    faults.plan(Fault::at(
        1,
        Effect::FailBefore(StoreErrorKind::NotWritable),
    ));
    let store = over(Arc::new(faults));
    let error = store.put_new(&name("leases/00/1"), b"x").unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NotWritable);
    assert_eq!(store.list("").unwrap().len(), 1);
}

/// Each message of the protocol, with a key that may add snapshots only.
#[test]
fn an_append_only_end_adds_and_changes_nothing() {
    let memory = MemoryStore::new();
    let there = name(&names::lease(LeaseId([9; 16]), 0));
    for object in [&there, &name("config"), &name("keys/old")] {
        memory.put_new(object, b"bytes").unwrap();
    }
    let rights = Rights::AppendOnly("/".into());
    let store = over_with(rights, Arc::new(memory.clone()));
    let refused = |result: Result<(), podkeep_engine::store::StoreError>, what: &str| {
        let error = result.expect_err(what);
        assert_eq!(error.kind, StoreErrorKind::NotWritable, "{what}: {error}");
        assert!(
            error.cause.contains("this key") || error.cause.contains("its bytes"),
            "{error}"
        );
    };
    let data = b"what it is".as_slice();
    let hash = *blake3::hash(data).as_bytes();
    let lease = LeaseId([1; 16]);
    let record = podkeep_format::id::LayerRecordId(hash);
    // What a backup puts.
    let own_lease = name(&names::lease(lease, 0));
    for object in [
        names::pack(PackId(hash)),
        names::segment(podkeep_format::id::SegmentId(hash)),
        names::layer(podkeep_format::id::LayerKey([2; 32]), record),
        names::snapshot(podkeep_format::id::SnapshotId(hash), false),
        names::snapshot(podkeep_format::id::SnapshotId(hash), true),
        names::run(RunId([3; 16])),
        own_lease.to_string(),
    ] {
        assert_eq!(
            store.put_new(&name(&object), data).unwrap(),
            Put::Created,
            "{object}"
        );
    }
    // What only an owner puts, what is none of podkeep's, and what is not what its name says.
    let author = podkeep_format::id::AuthorId([4; 32]);
    let slot = podkeep_format::id::SlotId([5; 16]);
    for object in [
        names::config(false),
        names::config(true),
        names::key(slot, false),
        names::author(author),
        names::revocation(1),
        names::tombstone(PackId(hash)),
        names::fence(lease),
        names::verdict(lease),
        names::endorsement(podkeep_format::id::EndorsementId(hash)),
        names::reserve(1),
        "parity/ab".to_owned(),
        "anything".to_owned(),
        names::pack(PackId([8; 32])),
        names::segment(podkeep_format::id::SegmentId([8; 32])),
        names::snapshot(podkeep_format::id::SnapshotId([8; 32]), false),
    ] {
        refused(store.put_new(&name(&object), data).map(|_| ()), &object);
    }
    for object in memory.list("").unwrap() {
        if object.name != own_lease {
            refused(store.delete(&object.name).map(|_| ()), object.name.as_str());
        }
        refused(store.replace(&object.name, data), object.name.as_str());
    }
    memory.leave_temp();
    refused(store.sweep_temps(&|_| true).map(|_| ()), "sweep");
    // Its own lease it gives back; one of another connection stays.
    assert!(store.delete(&own_lease).unwrap());
    // Reading goes on, and what was there is as it was.
    assert_eq!(store.get(&name("config"), 5).unwrap(), b"bytes");
    assert_eq!(memory.list("").unwrap().len(), 3 + 6);
    let again = over_with(Rights::AppendOnly("/".into()), Arc::new(memory.clone()));
    store.put_new(&own_lease, data).unwrap();
    refused(again.delete(&own_lease).map(|_| ()), "another's lease");
}

/// A link to an end that only takes more, past all that keeps a client from saying nonsense.
pub fn raw_append_only(store: Arc<dyn ObjectStore>) -> Asking {
    let (near, far) = UnixStream::pair().unwrap();
    drop(far_end(far, Rights::AppendOnly("/".into()), store, TIMES));
    Asking::begin(pipes(near), "web1", TIMES, None).unwrap()
}

#[test]
fn a_restricted_end_opens_its_place_only() {
    let folder = tempfile::tempdir().unwrap();
    let allowed = folder.path().join("r");
    LocalStore::create(&allowed).unwrap();
    LocalStore::create(folder.path().join("other")).unwrap();
    std::os::unix::fs::symlink("r", folder.path().join("link")).unwrap();
    let open = |path: &Path, make: bool, rights: Rights| {
        let (near, far) = UnixStream::pair().unwrap();
        let home = folder.path().to_owned();
        std::thread::spawn(move || {
            let agent = Arc::new(StoreAgent::new(rights, home));
            let input = Box::new(far.try_clone().unwrap());
            drop(serve(input, Box::new(Sending(far)), agent, TIMES));
        });
        let link = Asking::begin(pipes(near), "web1", TIMES, None).unwrap();
        let path = path.as_os_str().as_encoded_bytes().to_vec();
        RemoteStore::open(link, &path, make, "p").map(|_| ())
    };
    for rights in [
        Rights::Within(allowed.clone()),
        Rights::AppendOnly(allowed.clone()),
    ] {
        for path in ["r", "link", "other/../r"] {
            open(Path::new(path), false, rights.clone()).unwrap();
        }
        for path in ["other", "r/../other", "/", "/absent", "r/packs"] {
            let error = open(Path::new(path), false, rights.clone()).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::NotWritable, "{path}: {error}");
        }
    }
    let error = open(&allowed, true, Rights::AppendOnly(allowed.clone())).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NotWritable);
}
