//! A run at the far end that works with the near end's stores: both ends in this process, over a pair
//! of sockets; with ends that misbehave.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use podkeep_engine::link::calls::{Attend, Calls, Work, Working, attend};
use podkeep_engine::link::{Ask, Asking, Serve, Sink, Times, Unanswered, serve};
use podkeep_engine::store::agent::{Rights, StoreAgent};
use podkeep_engine::store::memory::MemoryStore;
use podkeep_engine::store::remote::RemoteStore;
use podkeep_engine::store::{ObjectStore, Put, StoreErrorKind};
use podkeep_format::names;
use podkeep_format::wire::{
    ASSEMBLY_BYTES_MAX, Answer, CALL_BYTES_MAX, Call, Failure, Reply, Request, TOLD_BYTES_MAX,
};

use super::name;
use super::remote::{Sending, TIMES, pipes};

type Run = dyn Fn(&[u8], &Arc<Calls>) -> Result<Vec<u8>, String> + Send + Sync;

struct Runs(Box<Run>);

impl Work for Runs {
    fn work(&self, job: &[u8], calls: &Arc<Calls>) -> Result<Vec<u8>, String> {
        (self.0)(job, calls)
    }
}

/// The near end of a run, with one store.
struct Near {
    agent: StoreAgent,
    heard: Mutex<Vec<Vec<u8>>>,
    stop: AtomicU64,
    /// Bytes of objects that are being stored, now and at most.
    objects: AtomicUsize,
    most: AtomicUsize,
    slow: Duration,
}

impl Near {
    fn new(rights: Rights, store: Arc<dyn ObjectStore>) -> Self {
        Self {
            agent: StoreAgent::of_store(rights, store),
            heard: Mutex::default(),
            stop: AtomicU64::new(0),
            objects: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            slow: Duration::ZERO,
        }
    }
}

impl Attend for Near {
    fn store(
        &self,
        store: u64,
        request: &Request,
        object: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<Answer, Failure> {
        if store != 0 {
            return Err(Failure::decode(&[9, 1, 0, 0]).unwrap());
        }
        let now = self.objects.fetch_add(object.len(), Ordering::SeqCst) + object.len();
        self.most.fetch_max(now, Ordering::SeqCst);
        if object.len() > 100_000 {
            std::thread::sleep(self.slow);
        }
        let served = self.agent.serve(request, object, sink);
        self.objects.fetch_sub(object.len(), Ordering::SeqCst);
        served
    }

    fn ask(&self, question: &[u8]) -> Result<Vec<u8>, Failure> {
        match question {
            b"large" => Ok(vec![7; 3_000_000]),
            b"no" => Err(Failure::decode(&[6, 1, 0, 2, b'n', b'o']).unwrap()),
            other => Ok(other.to_vec()),
        }
    }

    fn tell(&self, told: &[u8]) {
        self.heard.lock().unwrap().push(told.to_vec());
    }

    fn stop(&self) -> Option<u8> {
        match self.stop.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal as u8),
        }
    }
}

type Served = JoinHandle<Result<(), String>>;

/// A link to a far end that does `run` when it is told to work.
fn link_to(
    times: Times,
    run: impl Fn(&[u8], &Arc<Calls>) -> Result<Vec<u8>, String> + Send + Sync + 'static,
) -> (Asking, Served) {
    let (near, far) = UnixStream::pair().unwrap();
    link_over(near, far, times, run)
}

fn link_over(
    near: UnixStream,
    far: UnixStream,
    times: Times,
    run: impl Fn(&[u8], &Arc<Calls>) -> Result<Vec<u8>, String> + Send + Sync + 'static,
) -> (Asking, Served) {
    let served = std::thread::spawn(move || {
        let working = Working {
            calls: Arc::new(Calls::default()),
            work: Box::new(Runs(Box::new(run))),
            others: StoreAgent::new(Rights::All, "/".into()),
        };
        let input = Box::new(far.try_clone().unwrap());
        let served = serve(input, Box::new(Sending(far)), Arc::new(working), times);
        served.map_err(|error| error.to_string())
    });
    (
        Asking::begin(pipes(near), "web1", TIMES, None).unwrap(),
        served,
    )
}

fn store_of(calls: &Arc<Calls>) -> RemoteStore {
    RemoteStore::open(calls.store(0, "near"), b"/", false, "near:/r").unwrap()
}

/// What a run of a test did, or why not.
fn worked(run: impl FnOnce()) -> Result<Vec<u8>, String> {
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    match ran {
        Ok(()) => Ok(b"done".to_vec()),
        Err(_) => Err("the run panicked".into()),
    }
}

/// `store` as a run at the far end sees it; the run ends once that is dropped.
pub fn lent(store: Arc<dyn ObjectStore>) -> Arc<RemoteStore> {
    let (to_test, from_run) = channel();
    let to_test = Mutex::new(to_test);
    let (link, _) = link_to(TIMES, move |_, calls| {
        let store = Arc::new(store_of(calls));
        to_test.lock().unwrap().send(Arc::clone(&store)).unwrap();
        while Arc::strong_count(&store) > 1 {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Vec::new())
    });
    std::thread::spawn(move || {
        let near = Near::new(Rights::All, store);
        attend(&link, b"job", 100, &near)
    });
    from_run.recv().unwrap()
}

#[test]
fn a_run_works_with_a_store_of_the_near_end_s() {
    let memory = MemoryStore::new();
    let (link, _) = link_to(TIMES, |job, calls| {
        assert_eq!(job, b"the job");
        worked(|| {
            let store = store_of(calls);
            std::thread::scope(|scope| {
                for thread in 0..12 {
                    let store = &store;
                    scope.spawn(move || {
                        for len in [0, 10, 65_536, 65_537, 3_000_000] {
                            let object = name(&format!("packs/{thread}/{len}"));
                            let data = vec![thread as u8; len];
                            assert_eq!(store.put_new(&object, &data).unwrap(), Put::Created);
                            assert!(store.get(&object, 4 << 20).unwrap() == data);
                        }
                    });
                }
            });
            assert_eq!(store.list("packs").unwrap().len(), 60);
            assert!(store.get(&name("absent"), 10).is_err());
            assert_eq!(calls.question(b"large").unwrap().len(), 3_000_000);
            assert_eq!(calls.question(b"").unwrap(), b"");
            let refused = calls.question(b"no").unwrap_err();
            assert!(matches!(refused, Unanswered::Failed(failure) if failure.cause == "no"));
            for n in 0..500u32 {
                assert!(calls.tell(&n.to_le_bytes().repeat(30)));
            }
            assert!(!calls.tell(&vec![0; TOLD_BYTES_MAX + 1]) && !calls.tell(b""));
            assert!(calls.question(&vec![0; TOLD_BYTES_MAX + 1]).is_err());
        })
    });
    let near = Near::new(Rights::All, Arc::new(memory.clone()));
    assert_eq!(attend(&link, b"the job", 100, &near), Ok(b"done".to_vec()));
    assert_eq!(memory.list("packs").unwrap().len(), 60);
    // All of it, in its order.
    let heard = near.heard.lock().unwrap();
    let expected: Vec<Vec<u8>> = (0..500u32).map(|n| n.to_le_bytes().repeat(30)).collect();
    assert!(*heard == expected);
}

#[test]
fn a_run_has_the_rights_that_the_near_end_gives_it() {
    let lease = names::lease(podkeep_format::id::LeaseId([1; 16]), 0);
    for (rights, may_add) in [
        (Rights::AppendOnly("/".into()), true),
        (Rights::Reading("/".into()), false),
    ] {
        let memory = MemoryStore::new();
        memory.put_new(&name("config"), b"bytes").unwrap();
        let lease = lease.clone();
        let (link, _) = link_to(TIMES, move |_, calls| {
            worked(|| {
                let store = store_of(calls);
                let data = b"what it is";
                let hash = podkeep_format::id::PackId(*blake3::hash(data).as_bytes());
                let pack = name(&names::pack(hash));
                assert_eq!(store.put_new(&pack, data).is_ok(), may_add);
                let refused = |error: podkeep_engine::store::StoreError| {
                    assert_eq!(error.kind, StoreErrorKind::NotWritable, "{error}");
                };
                refused(store.replace(&name("config"), b"other").unwrap_err());
                refused(store.delete(&name("config")).unwrap_err());
                refused(store.put_new(&name("keys/x"), b"other").unwrap_err());
                refused(store.sweep_temps(&|_| true).unwrap_err());
                assert!(RemoteStore::open(calls.store(0, "near"), b"/", true, "p").is_err());
                assert!(RemoteStore::open(calls.store(1, "near"), b"/", false, "p").is_err());
                assert_eq!(store.get(&name("config"), 5).unwrap(), b"bytes");
                store.put_new(&name(&lease), b"heartbeat").unwrap();
                assert!(store.delete(&name(&lease)).unwrap());
            })
        });
        let near = Near::new(rights, Arc::new(memory.clone()));
        memory.leave_temp();
        assert_eq!(attend(&link, b"", 100, &near), Ok(b"done".to_vec()));
        assert_eq!(memory.list("").unwrap().len(), 1 + usize::from(may_add));
    }
}

/// Large objects wait for each other at the near end; a heartbeat waits for none of them.
#[test]
fn large_objects_are_held_within_their_bound_and_small_ones_pass_them() {
    let (link, _) = link_to(TIMES, |_, calls| {
        worked(|| {
            let store = store_of(calls);
            let large = vec![7; 40 << 20];
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let puts: Vec<_> = (0..6)
                    .map(|n| {
                        let (store, large) = (&store, &large);
                        scope.spawn(move || store.put_new(&name(&format!("packs/{n}")), large))
                    })
                    .collect();
                let (store, over) = (&store, &over);
                let beats = scope.spawn(move || {
                    let mut longest = Duration::ZERO;
                    let mut count = 0;
                    while !over.load(Ordering::SeqCst) {
                        let since = Instant::now();
                        store
                            .put_new(&name(&format!("leases/00/{count}")), b"x")
                            .unwrap();
                        longest = longest.max(since.elapsed());
                        count += 1;
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    (count, longest)
                });
                for put in puts {
                    assert_eq!(put.join().unwrap().unwrap(), Put::Created);
                }
                over.store(true, Ordering::SeqCst);
                let (count, longest) = beats.join().unwrap();
                // Each batch of large ones is kept for 2 s.
                assert!(
                    count > 20,
                    "{count} heartbeats, the longest took {longest:?}"
                );
            });
        })
    });
    let mut near = Near::new(Rights::All, Arc::new(MemoryStore::new()));
    near.slow = Duration::from_secs(2);
    assert_eq!(attend(&link, b"", 100, &near), Ok(b"done".to_vec()));
    let most = near.most.load(Ordering::SeqCst) as u64;
    assert!(most <= ASSEMBLY_BYTES_MAX + 1000, "{most} bytes at once");
    assert!(most > 70 << 20, "two of 40 MiB have room: {most}");
}

#[test]
fn a_run_is_told_to_stop_and_ends_by_itself() {
    let (link, _) = link_to(TIMES, |_, calls| {
        while calls.stopped().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        // What it ends with still reaches the near end.
        store_of(calls).put_new(&name("leases/00/1"), b"x").unwrap();
        Ok(vec![calls.stopped().unwrap()])
    });
    let memory = MemoryStore::new();
    let near = Near::new(Rights::All, Arc::new(memory.clone()));
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| attend(&link, b"", 100, &near));
        std::thread::sleep(Duration::from_millis(300));
        near.stop.store(2, Ordering::SeqCst);
        assert_eq!(ended.join().unwrap(), Ok(vec![2]));
    });
    assert_eq!(memory.list("").unwrap().len(), 1);
}

#[test]
fn a_run_whose_near_end_is_gone_ends_and_its_calls_fail() {
    let (told, hears) = channel();
    let told = Mutex::new(told);
    let (near, far) = UnixStream::pair().unwrap();
    let wire = near.try_clone().unwrap();
    let (link, served) = link_over(near, far, TIMES, move |_, calls| {
        let store = store_of(calls);
        while calls.stopped().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let error = store.list("").unwrap_err();
        let told = told.lock().unwrap();
        told.send((calls.stopped(), error.kind, calls.tell(b"x")))
            .unwrap();
        Ok(Vec::new())
    });
    let near = Near::new(Rights::All, Arc::new(MemoryStore::new()));
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| attend(&link, b"", 100, &near));
        std::thread::sleep(Duration::from_millis(300));
        wire.shutdown(Shutdown::Both).unwrap();
        assert!(matches!(ended.join().unwrap(), Err(Unanswered::Lost(_))));
    });
    let seen = hears.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(seen, (Some(15), StoreErrorKind::Unreachable, false));
    drop(link);
    drop(served.join().unwrap());
}

/// The near end gives the leases back of a run that cannot do so any more, and nothing else.
#[test]
fn leases_of_a_run_that_is_gone_are_given_back() {
    let memory = MemoryStore::new();
    let own = names::lease(podkeep_format::id::LeaseId([1; 16]), 0);
    let others = names::lease(podkeep_format::id::LeaseId([2; 16]), 0);
    memory.put_new(&name(&others), b"heartbeat").unwrap();
    let put = own.clone();
    let (link, _) = link_to(TIMES, move |_, calls| {
        worked(|| {
            store_of(calls).put_new(&name(&put), b"heartbeat").unwrap();
        })
    });
    let near = Near::new(Rights::AppendOnly("/".into()), Arc::new(memory.clone()));
    assert_eq!(attend(&link, b"", 100, &near), Ok(b"done".to_vec()));
    assert_eq!(memory.list("").unwrap().len(), 2);
    near.agent.give_back();
    assert_eq!(memory.list("").unwrap()[0].name, name(&others));
    assert_eq!(memory.list("").unwrap().len(), 1);
}

/// A near end that says what it likes: each is refused, and the far end goes on.
#[test]
fn what_no_near_end_may_give_is_refused() {
    let (link, _) = link_to(TIMES, |_, calls| {
        worked(|| {
            // Answered with what is no answer to it.
            let error = store_of(calls).list("").unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Unreachable, "{error}");
        })
    });
    let refused = |request: &Request, object: &[u8]| {
        let answer = link.ask(request, object);
        assert!(
            matches!(answer, Err(Unanswered::Failed(_))),
            "{request:?}: {answer:?}"
        );
    };
    let give = |call, data: &[u8], outcome: Result<Answer, Failure>| Request::Give {
        call,
        outcome,
        len: data.len() as u64,
        hash: *blake3::hash(data).as_bytes(),
    };
    refused(&give(1, b"", Ok(Answer::Done)), b"");
    refused(
        &Request::Fetch {
            call: 1,
            bytes_max: 100,
        },
        b"",
    );
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| {
            let job = b"job".to_vec();
            link.ask(
                &Request::Work {
                    job,
                    bytes_max: 100,
                },
                b"",
            )
        });
        let next = || match link.ask(&Request::Next, b"") {
            Ok(Reply::Content(bytes)) => Call::decode(&bytes).unwrap(),
            other => panic!("{other:?}"),
        };
        let Call::Store {
            number, request, ..
        } = next()
        else {
            panic!("a store is opened first");
        };
        assert!(matches!(request, Request::Open { .. }));
        // A second run at the same time.
        refused(
            &Request::Work {
                job: Vec::new(),
                bytes_max: 100,
            },
            b"",
        );
        refused(
            &Request::Fetch {
                call: number,
                bytes_max: 100,
            },
            b"",
        );
        refused(&give(number + 1, b"", Ok(Answer::Done)), b"");
        let opened = Answer::Opened {
            medium: podkeep_format::wire::WireMedium::Linearizable,
            capacity: 0,
        };
        link.ask(&give(number, b"", Ok(opened.clone())), b"")
            .unwrap();
        let Call::Store {
            number, request, ..
        } = next()
        else {
            panic!("then it is listed");
        };
        assert!(matches!(request, Request::List { .. }));
        link.ask(
            &give(number, b"junk", Ok(Answer::Listed { rows: 3 })),
            b"junk",
        )
        .unwrap();
        refused(&give(number, b"", Ok(opened)), b"");
        assert_eq!(ended.join().unwrap(), Ok(Reply::Content(b"done".to_vec())));
        assert_eq!(next(), Call::Over);
    });
}

/// A far end that says what it likes.
struct Liar {
    calls: Mutex<Vec<Vec<u8>>>,
    fetched: Vec<u8>,
    told: Mutex<Vec<Vec<u8>>>,
    given: Mutex<Vec<Result<Answer, Failure>>>,
}

impl Serve for Liar {
    fn serve(&self, request: &Request, _: &[u8], sink: &mut dyn Sink) -> Result<Answer, Failure> {
        let mut say = |bytes: &[u8]| {
            sink.content(bytes);
            Ok(Answer::Content {
                len: bytes.len() as u64,
                hash: *blake3::hash(bytes).as_bytes(),
            })
        };
        match request {
            Request::Work { .. } => {
                let begin = Instant::now();
                while !(self.calls.lock().unwrap().is_empty()
                    && self.told.lock().unwrap().is_empty())
                    && begin.elapsed() < Duration::from_secs(3)
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                std::thread::sleep(Duration::from_millis(200));
                say(b"ended")
            }
            Request::Next => {
                let next = self.calls.lock().unwrap().pop();
                say(&next.unwrap_or(Call::Over.encode()))
            }
            Request::Hear => {
                let next = self.told.lock().unwrap().pop();
                say(&next.unwrap_or_default())
            }
            Request::Fetch { .. } => say(&self.fetched),
            Request::Give { outcome, .. } => {
                self.given.lock().unwrap().push(outcome.clone());
                Ok(Answer::Done)
            }
            _ => Ok(Answer::Done),
        }
    }
}

fn lied_to(calls: Vec<Vec<u8>>, fetched: Vec<u8>, told: Vec<Vec<u8>>) -> (Near, Arc<Liar>, bool) {
    let (near, far) = UnixStream::pair().unwrap();
    let liar = Arc::new(Liar {
        calls: Mutex::new(calls),
        fetched,
        told: Mutex::new(told),
        given: Mutex::default(),
    });
    std::thread::spawn({
        let liar = Arc::clone(&liar);
        move || {
            let input = Box::new(far.try_clone().unwrap());
            drop(serve(input, Box::new(Sending(far)), liar, TIMES));
        }
    });
    let link = Asking::begin(pipes(near), "web1", TIMES, None).unwrap();
    let near = Near::new(Rights::All, Arc::new(MemoryStore::new()));
    let ended = attend(&link, b"", 100, &near);
    (near, liar, ended.is_ok())
}

#[test]
fn a_far_end_that_lies_is_refused_what_it_asks_for() {
    let put = |len: u64, hash| Request::Put {
        name: "packs/00/x".to_owned(),
        len,
        hash,
    };
    let call = |number, store, request| {
        Call::Store {
            number,
            store,
            request,
            object: Vec::new(),
        }
        .encode()
    };
    let bytes = vec![7; 100_000];
    let hash = *blake3::hash(&bytes).as_bytes();
    // A store that is not there, an object of other bytes, one that is shorter than it was said.
    let (near, liar, ended) = lied_to(
        vec![
            call(1, 9, Request::TempOwners),
            call(2, 0, put(100_000, [1; 32])),
            call(3, 0, put(100_001, hash)),
        ],
        bytes.clone(),
        Vec::new(),
    );
    assert!(ended);
    let given = liar.given.lock().unwrap();
    assert_eq!(given.len(), 3);
    assert!(given.iter().all(Result::is_err), "{given:?}");
    assert_eq!(near.most.load(Ordering::SeqCst), 0, "none was stored");
    drop(given);
    // More than was said is no answer at all: the link ends.
    let (_, _, ended) = lied_to(vec![call(1, 0, put(99_999, hash))], bytes, Vec::new());
    assert!(!ended);
    // What is no call, and what cannot be told.
    for odd in [vec![], vec![9], vec![0; 3], vec![1; 100]] {
        let (near, _, ended) = lied_to(vec![odd.clone()], Vec::new(), vec![vec![0; 5]]);
        assert!(ended, "{odd:?}");
        assert!(near.heard.lock().unwrap().is_empty());
    }
    let (_, _, ended) = lied_to(vec![vec![0; CALL_BYTES_MAX + 1]], Vec::new(), Vec::new());
    assert!(!ended, "more than a call is");
}

/// A restricted end has no part in runs.
#[test]
fn an_end_that_serves_a_store_only_refuses_to_work() {
    let (near, far) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let agent = Arc::new(StoreAgent::new(Rights::AppendOnly("/r".into()), "/".into()));
        let input = Box::new(far.try_clone().unwrap());
        drop(serve(input, Box::new(Sending(far)), agent, TIMES));
    });
    let link = Asking::begin(pipes(near), "web1", TIMES, None).unwrap();
    let near = Near::new(Rights::All, Arc::new(MemoryStore::new()));
    let refused = attend(&link, b"", 100, &near);
    assert!(
        matches!(&refused, Err(Unanswered::Failed(failure)) if failure.cause.contains("no Podman")),
        "{refused:?}"
    );
}
