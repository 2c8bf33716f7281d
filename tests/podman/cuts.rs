//! What becomes of a migration when the link is cut, a podkeep is killed or a host boots in the middle.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::migrate::{MOVE, message, migrate, serving_pair};
use super::pair::{content, join, log_lines, runs};
use crate::lab::{Driver, Host, Suite};

/// Ends a watcher, also when the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does something while both hosts are looked at: they never run both. Returns the longest time in which
/// neither did.
fn watched(a: &Host, b: &Host, act: impl FnOnce()) -> Duration {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let end = Ends(&done);
        let watcher = scope.spawn(|| {
            let (mut ran, mut longest) = (Instant::now(), Duration::ZERO);
            while !done.load(Ordering::Relaxed) {
                let (first, second) = (runs(a), runs(b));
                // Seen on one side before and after a look at the other, it ran at that moment.
                assert!(!(first && second && runs(a)), "both run");
                if first || second {
                    ran = Instant::now();
                }
                longest = longest.max(ran.elapsed());
                std::thread::sleep(Duration::from_millis(20));
            }
            longest
        });
        act();
        drop(end);
        watcher.join().expect("one side at a time")
    })
}

const LINK: &str = "pkill -9 -x ssh";
const SOURCE: &str = "pkill -9 -x podkeep";
const TARGET: &str = "ssh root@10.99.0.2 \"pkill -9 -f 'agent-[0-9a-f]{32} agent'\"";
const WIRE: &str = "ip link set wire down";

/// Behind which line of the migration what is killed, and whether it is run again or goes back.
const CUTS: &[(&str, &str, bool)] = &[
    ("\"type\":\"hosts\"", LINK, true),
    ("\"type\":\"takes\"", LINK, false),
    ("\"number\":1,", LINK, true),
    ("\"number\":2,", SOURCE, true),
    ("\"type\":\"predicted\"", LINK, false),
    ("\"type\":\"stopped\"", LINK, true),
    ("\"type\":\"stopped\"", SOURCE, false),
    ("\"at_rest\":true", LINK, true),
    ("\"at_rest\":true", SOURCE, true),
    ("\"type\":\"started\"", LINK, false),
];

/// Runs a migration, and kills what `victim` says so long after a line.
fn cut(a: &Host, line: &str, seconds: f64, victim: &str) {
    a.script(&format!(
        "{{ {MOVE} || true; }} | while read -r line; do case $line in
             *'{line}'*) [ -e /root/cut ] || {{ : > /root/cut; sleep {seconds}; {victim} || true; }} ;;
         esac; done; rm /root/cut"
    ));
}

/// The link is cut in each state, and the source's podkeep killed: both never run, and running it
/// again, or going back, completes.
#[test]
fn t_08_a_cut_link_leaves_one_side_running_and_a_way_on() {
    let (a, b) = serving_pair(
        (Suite::Trixie, Driver::Overlay),
        (Suite::Trixie, Driver::Overlay),
    );
    let before = content(&a);
    watched(&a, &b, || {
        for (line, victim, again) in CUTS {
            cut(&a, line, 0.0, victim);
            let when = format!("{victim} after {line}");
            complete(&a, &b, &when, *again, &before);
            go_back(&a, &b, &when, &before);
        }
    });
}

/// Twenty moments over all states, and what is killed there.
const MOMENTS: &[(&str, f64, &str)] = &[
    ("\"type\":\"hosts\"", 0.0, TARGET),
    ("\"type\":\"hosts\"", 0.3, SOURCE),
    ("\"type\":\"takes\"", 0.0, LINK),
    ("\"type\":\"takes\"", 0.5, WIRE),
    ("\"type\":\"takes\"", 1.0, SOURCE),
    ("\"type\":\"takes\"", 1.5, TARGET),
    ("\"number\":1,", 0.0, LINK),
    ("\"number\":1,", 0.2, SOURCE),
    ("\"number\":1,", 0.5, TARGET),
    ("\"number\":2,", 0.0, WIRE),
    ("\"type\":\"predicted\"", 0.0, LINK),
    ("\"type\":\"predicted\"", 0.1, TARGET),
    ("\"type\":\"stopped\"", 0.0, SOURCE),
    ("\"type\":\"stopped\"", 0.1, LINK),
    ("\"type\":\"stopped\"", 0.3, TARGET),
    ("\"at_rest\":true", 0.0, LINK),
    ("\"at_rest\":true", 0.1, SOURCE),
    ("\"at_rest\":true", 0.2, TARGET),
    ("\"at_rest\":true", 0.3, WIRE),
    ("\"type\":\"started\"", 0.0, SOURCE),
];

/// A pack is sent once it has so many bytes.
const PACK_BYTES: u64 = 32 << 20;
/// The default of --max-freeze, and what ending and starting a container take.
const NONE_MAX: Duration = Duration::from_secs(75);

fn wire_bytes(a: &Host) -> u64 {
    let sent = a.script("cat /sys/class/net/wire/statistics/tx_bytes");
    sent.parse().expect("a number")
}

/// What no chunk is known of.
fn fresh_data(a: &Host) {
    a.script("podman exec web sh -c 'head -c 60000000 /dev/urandom > /d/big'");
}

/// It is at one of the two, with all that it was, and can go back, which is done.
fn complete(a: &Host, b: &Host, when: &str, again: bool, before: &str) {
    if again {
        let (code, lines) = migrate(a, "");
        let moved = code == 0 || message(&lines) == "this is moved already";
        assert!(moved, "{when}: {lines:?}");
        assert!(runs(b) && !runs(a), "{when}");
        assert_eq!(content(b), before, "{when}");
        let (old, new) = (log_lines(a), log_lines(b));
        assert!(new.starts_with(&old), "{when}: lines were lost");
    }
}

fn go_back(a: &Host, b: &Host, when: &str, before: &str) {
    let (code, lines) = migrate(a, "--rollback --discard-target-writes");
    assert_eq!(code, 0, "{when}: {lines:?}");
    assert!(runs(a) && !runs(b), "{when}");
    assert_eq!(content(a), before, "{when}");
    assert_eq!(b.script("podman ps -aq; podman volume ls -q"), "", "{when}");
}

/// Both never run, neither for no longer than `--max-freeze`, and what was sent is not sent again.
#[test]
#[ignore = "takes ten minutes: cargo test --test podman cuts:: -- --ignored, with the variables of tests/run.sh"]
fn t_08_twenty_moments_at_which_something_is_killed() {
    let (a, b) = serving_pair(
        (Suite::Trixie, Driver::Overlay),
        (Suite::Trixie, Driver::Overlay),
    );
    // Puts podkeep there, which counts for none of them.
    assert_eq!(migrate(&a, "--dry-run").0, 0);
    let mut whole = 0;
    let longest = watched(&a, &b, || {
        for round in 0..=MOMENTS.len() {
            fresh_data(&a);
            let (before, sent) = (content(&a), wire_bytes(&a));
            let Some((line, seconds, victim)) = round.checked_sub(1).map(|at| MOMENTS[at]) else {
                complete(&a, &b, "not cut", true, &before);
                whole = wire_bytes(&a) - sent;
                go_back(&a, &b, "not cut", &before);
                continue;
            };
            cut(&a, line, seconds, victim);
            a.script("ip link set wire up");
            let when = format!("{victim} {seconds} s after {line}");
            complete(&a, &b, &when, round % 2 == 1, &before);
            let sent = wire_bytes(&a) - sent;
            eprintln!("{when}: {sent} bytes, {whole} without");
            assert!(
                sent < whole + PACK_BYTES + (4 << 20),
                "{when}: {sent} bytes, {whole} without"
            );
            go_back(&a, &b, &when, &before);
        }
    });
    eprintln!("neither ran for {longest:?} at most");
    assert!(longest < NONE_MAX, "{longest:?}");
}

/// What is killed on the way back, and when: by parts of the time that a whole rollback takes.
const ON_THE_WAY_BACK: &[(f64, &str)] = &[
    (0.1, LINK),
    (0.25, TARGET),
    (0.4, SOURCE),
    (0.5, LINK),
    (0.6, TARGET),
    (0.7, SOURCE),
    (0.8, LINK),
    (0.9, WIRE),
];

#[test]
fn t_08_a_rollback_that_is_cut_off_is_done_by_the_next() {
    let of_each = [2, 4, 6].map(|at| ON_THE_WAY_BACK[at]);
    cut_on_the_way_back(&of_each);
}

#[test]
#[ignore = "takes three minutes: cargo test --test podman cuts:: -- --ignored, with the variables of tests/run.sh"]
fn t_08_a_rollback_is_cut_off_at_eight_moments() {
    cut_on_the_way_back(ON_THE_WAY_BACK);
}

/// Both never run, and the next rollback brings back all that the target wrote.
fn cut_on_the_way_back(moments: &[(f64, &str)]) {
    let (a, b) = serving_pair(
        (Suite::Trixie, Driver::Overlay),
        (Suite::Trixie, Driver::Overlay),
    );
    let mut whole = Duration::ZERO;
    watched(&a, &b, || {
        for round in 0..=moments.len() {
            let (code, lines) = migrate(&a, "");
            assert_eq!(code, 0, "{round}: {lines:?}");
            b.script(&format!(
                "podman exec web sh -c 'echo {round} > /d/round; head -c 3000000 /dev/urandom > /d/new-{round}
                     echo {round} > /etc/own; chown 5:{round} /etc/own'"
            ));
            let (there, since) = (content(&b), Instant::now());
            let Some((part, victim)) = round.checked_sub(1).map(|at| moments[at]) else {
                assert_eq!(migrate(&a, "--rollback").0, 0);
                whole = since.elapsed();
                assert_eq!(content(&a), there);
                continue;
            };
            let when = format!("{victim} after {part} of {whole:?}");
            a.script(&format!(
                "{MOVE} --rollback > /root/cut-off 2>&1 & sleep {}; {victim} || true; wait
                 ip link set wire up",
                whole.mul_f64(part).as_secs_f64()
            ));
            let (code, lines) = migrate(&a, "--rollback");
            // It may have come to its end before.
            let done = code == 0 || message(&lines).contains("nothing to");
            assert!(done && runs(&a) && !runs(&b), "{when}: {lines:?}");
            assert_eq!(content(&a), there, "{when}");
            assert_eq!(
                a.script("podman exec web stat -c %u:%g /etc/own"),
                format!("5:{round}"),
                "{when}"
            );
            assert_eq!(b.script("podman ps -aq; podman volume ls -q"), "", "{when}");
        }
    });
}

/// Either host boots, five times each: both never run, and there is a way on.
#[test]
#[ignore = "takes four minutes: cargo test --test podman cuts:: -- --ignored, with the variables of tests/run.sh"]
fn t_08_either_host_boots_at_five_moments() {
    let (a, b) = serving_pair(
        (Suite::Trixie, Driver::Overlay),
        (Suite::Trixie, Driver::Overlay),
    );
    let moments = [
        "\"type\":\"takes\"",
        "\"number\":1,",
        "\"type\":\"stopped\"",
        "\"at_rest\":true",
        "\"type\":\"started\"",
    ];
    let rounds = moments
        .iter()
        .enumerate()
        .flat_map(|(number, line)| [(number, line, &a), (number + 1, line, &b)]);
    let longest = watched(&a, &b, || {
        for (number, line, victim) in rounds {
            fresh_data(&a);
            let before = content(&a);
            a.script("rm -f /root/lines");
            let is_source = std::ptr::eq(victim, &a);
            let when = format!(
                "boot of the {} after {line}",
                if is_source { "source" } else { "target" }
            );
            std::thread::scope(|scope| {
                let moving =
                    scope.spawn(|| a.run(&["bash", "-c", &format!("{MOVE} > /root/lines")]));
                let met = ["grep", "-q", line, "/root/lines"];
                while a.run(&met).code != 0 && !moving.is_finished() {
                    std::thread::sleep(Duration::from_millis(20));
                }
                victim.crash();
                victim.boot();
                victim.script("systemctl start podman-restart");
                join(&a, &b);
            });
            eprintln!(
                "{when}: source runs: {}, target runs: {}",
                runs(&a),
                runs(&b)
            );
            complete(&a, &b, &when, number % 2 == 0, &before);
            go_back(&a, &b, &when, &before);
        }
    });
    eprintln!("neither ran for {longest:?} at most");
}
