//! Several processes at one store, and processes that are killed in the middle of a put.
//!
//! A child is this very test binary, told by an environment variable what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use podkeep_engine::store::local::LocalStore;
use podkeep_engine::store::{ObjectStore, Put, StoreErrorKind};

use super::name;

/// `<job> <child's number> <store's place>`
const TASK: &str = "PODKEEP_TEST_STORE_TASK";

const OBJECT_BYTES: usize = 200_000;

/// The content of an object follows from its name, so that anybody can check it.
fn content(object: &str) -> Vec<u8> {
    let mut reader = blake3::Hasher::new()
        .update(object.as_bytes())
        .finalize_xof();
    let mut data = vec![0; OBJECT_BYTES];
    reader.fill(&mut data);
    data
}

fn say(words: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nsaid {words}").unwrap();
    out.flush().unwrap();
}

#[test]
#[ignore = "the part of the child in the other tests"]
fn child() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let mut words = task.splitn(3, ' ');
    let (job, number) = (words.next().unwrap(), words.next().unwrap());
    let place = PathBuf::from(words.next().unwrap());
    let store = LocalStore::open(place).unwrap();
    // All children begin when their standard input ends.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    match job {
        "put-for-ever" => put_for_ever(&store, number),
        "race" => race(&store, number),
        _ => panic!("no job {job}"),
    }
}

fn put_for_ever(store: &LocalStore, number: &str) {
    store.set_temp_owner(&format!("{number}ff"));
    std::thread::scope(|scope| {
        for thread in 0..3 {
            scope.spawn(move || {
                for n in 0u64.. {
                    let object = match n % 2 {
                        0 => format!("packs/{:02x}/{number}-{thread}-{n}", n % 256),
                        _ => format!("leases/{number}-{thread}-{n}/1"),
                    };
                    store.put_new(&name(&object), &content(&object)).unwrap();
                    say(&object);
                }
            });
        }
    });
}

const RACES: usize = 30;

fn race(store: &LocalStore, number: &str) {
    for n in 0..RACES {
        let same = format!("packs/00/same-{n}");
        let put = store.put_new(&name(&same), &content(&same)).unwrap();
        say(&format!("{same} {put:?}"));
        // Different bytes of equal and of different length.
        let different = format!("fences/{n}/verdict");
        let data = format!("{:0width$}{number}", 0, width = 10 + n % 2);
        match store.put_new(&name(&different), data.as_bytes()) {
            Ok(put) => say(&format!("{different} {put:?} {data}")),
            Err(error) => {
                assert_eq!(error.kind, StoreErrorKind::Conflict, "{error}");
                say(&format!("{different} Conflict"));
            }
        }
        // A folder that each empties under the others.
        let lease = name(&format!("leases/shared/{number}"));
        assert_eq!(store.put_new(&lease, b"").unwrap(), Put::Created);
        assert!(store.delete(&lease).unwrap());
    }
}

struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    said: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    #[allow(clippy::disallowed_methods, reason = "the child is this test")]
    fn spawn(job: &str, number: usize, place: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::processes::child",
                "--ignored",
                "--nocapture",
            ])
            .env(TASK, format!("{job} {number} {}", place.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take(),
            said: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    fn begin(&mut self) {
        self.stdin = None;
    }

    /// The next words it said; `None` when it has ended.
    fn next(&mut self) -> Option<String> {
        loop {
            // A last line cut off by the kill has no newline and confirms nothing.
            let line = self.said.next()?.unwrap();
            if let Some(words) = line.strip_prefix("said ") {
                return Some(words.to_owned());
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn temps(place: &Path) -> usize {
    std::fs::read_dir(place.join(".tmp")).unwrap().count()
}

#[test]
fn e_01_a_writer_killed_anywhere_leaves_whole_objects_and_sweepable_files() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("r");
    let store = LocalStore::create(&place).unwrap();
    let mut torn = 0;
    for round in 0..8 {
        let mut writer = Running::spawn("put-for-ever", round, &place);
        writer.begin();
        let mut confirmed: Vec<String> = (0..=round * 3)
            .map(|_| writer.next().expect("it puts for ever"))
            .collect();
        writer.child.kill().unwrap();
        writer.child.wait().unwrap();
        // It may have been cut off while it said the last words.
        let late: Vec<String> = std::iter::from_fn(|| writer.next()).collect();
        confirmed.extend(late.into_iter().rev().skip(1));

        let rows = store.list("").unwrap();
        for row in &rows {
            assert_eq!(row.size, OBJECT_BYTES as u64, "{row:?}");
            let data = store.get(&row.name, row.size).unwrap();
            assert!(data == content(row.name.as_str()), "{row:?}");
        }
        let there: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        for object in &confirmed {
            assert!(there.contains(object.as_str()), "{object} was confirmed");
            let again = store.put_new(&name(object), &content(object)).unwrap();
            assert_eq!(again, Put::AlreadyThere);
        }

        let left = temps(&place);
        torn += left;
        let owner = format!("{round}ff");
        assert_eq!(store.sweep_temps(&|o| o != owner).unwrap(), 0);
        assert_eq!(store.sweep_temps(&|o| o == owner).unwrap(), left as u64);
        assert_eq!(temps(&place), 0);
    }
    assert!(torn > 0, "no kill hit a put: the test shows nothing");
}

#[test]
fn processes_race_for_the_same_names() {
    const CHILDREN: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("r");
    let store = LocalStore::create(&place).unwrap();
    let mut children: Vec<Running> = (0..CHILDREN)
        .map(|n| Running::spawn("race", n, &place))
        .collect();
    children.iter_mut().for_each(Running::begin);
    let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for child in &mut children {
        while let Some(words) = child.next() {
            let (object, answer) = words.split_once(' ').unwrap();
            said.entry(object.to_owned())
                .or_default()
                .push(answer.to_owned());
        }
        assert!(child.child.wait().unwrap().success());
    }
    assert_eq!(said.len(), 2 * RACES);
    for (object, mut answers) in said {
        answers.sort();
        assert_eq!(answers.len(), CHILDREN, "{object}");
        let found = store.get(&name(&object), OBJECT_BYTES as u64).unwrap();
        if object.starts_with("packs") {
            assert_eq!(answers[..CHILDREN - 1], ["AlreadyThere"; CHILDREN - 1]);
            assert_eq!(answers[CHILDREN - 1], "Created", "{object}");
            assert!(found == content(&object), "{object}");
        } else {
            assert_eq!(
                answers[..CHILDREN - 1],
                ["Conflict"; CHILDREN - 1],
                "{object}"
            );
            let winner = answers[CHILDREN - 1].strip_prefix("Created ").unwrap();
            assert_eq!(found, winner.as_bytes());
        }
    }
    assert_eq!(store.list("leases").unwrap(), []);
    assert_eq!(temps(&place), 0);
}
