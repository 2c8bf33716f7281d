//! Both ends of the protocol, in memory: whatever way the bytes are parted, and whatever one end
//! says, the other one holds to `docs/wire-protocol.md`.

use std::collections::BTreeMap;

use podkeep_format::wire::{
    ASSEMBLY_BYTES_MAX, Answer, CALL_BYTES_MAX, Call, FIRST_CREDIT, Failure, FailureCode, Far,
    FarEvent, FrameKind, Greeting, HEADER_BYTES, Header, MAGIC, NOISE_BYTES_MAX, Near, NearEvent,
    OBJECT_BYTES_MAX, ORDER_BYTES_MAX, REQUESTS_MAX, Reply, Request, Row, TOLD_BYTES_MAX, Task,
    WINDOW_BYTES, WireError, decode_told, encode_told,
};

use crate::samples::{conversation, failure, opened};

/// Two ends and the bytes between them.
struct Pair {
    near: Near,
    far: Far,
    to_far: Vec<u8>,
    to_near: Vec<u8>,
    done: BTreeMap<u32, Result<Reply, Failure>>,
    tasks: Vec<Task>,
}

impl Pair {
    fn new() -> Self {
        let (near, far) = (Near::new("0.1.0"), Far::new("0.1.0"));
        let (to_far, to_near) = (near.greeting(), far.greeting());
        Self {
            near,
            far,
            to_far,
            to_near,
            done: BTreeMap::new(),
            tasks: Vec::new(),
        }
    }

    /// Carries everything over, `piece` bytes at a time, until nothing moves.
    fn settle(&mut self, piece: usize) {
        while !self.to_far.is_empty() || !self.to_near.is_empty() {
            for bytes in std::mem::take(&mut self.to_far).chunks(piece) {
                self.far.push(bytes);
                while let Some(event) = self.far.next_event(&mut self.to_near).unwrap() {
                    if let FarEvent::Task(task) = event {
                        self.tasks.push(task);
                    }
                }
            }
            for bytes in std::mem::take(&mut self.to_near).chunks(piece) {
                self.near.push(bytes);
                while let Some(event) = self.near.next_event().unwrap() {
                    if let NearEvent::Done { request, result } = event {
                        self.done.insert(request, result);
                    }
                }
            }
        }
    }

    fn begin(&mut self, request: &Request) -> u32 {
        self.near.begin(request, &mut self.to_far).unwrap()
    }

    /// Sends of `object` from `sent` on what there is credit for; returns how far it came.
    fn send(&mut self, number: u32, object: &[u8], mut sent: usize) -> usize {
        loop {
            let credit = self.near.credit(number);
            if credit == 0 {
                return sent;
            }
            let bytes = &object[sent..sent + credit];
            self.near.data(number, bytes, &mut self.to_far).unwrap();
            sent += credit;
        }
    }
}

fn object(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn put(object: &[u8]) -> Request {
    Request::Put {
        name: "packs/00/x".to_owned(),
        len: object.len() as u64,
        hash: *blake3::hash(object).as_bytes(),
    }
}

fn frame(kind: FrameKind, request: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        len: payload.len(),
        kind,
        request,
    };
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// A call to the store 0.
fn call_of(request: &[u8], object: &[u8]) -> Vec<u8> {
    let mut out = podkeep_format::codec::Encoder::new();
    out.u8(1).u32(7).varint(0).bytes(request).bytes(object);
    out.finish()
}

/// One defect each, for the malformed vectors.
pub fn malformed() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let greeting = |oldest, newest| {
        let greeting = Greeting {
            oldest,
            newest,
            podkeep: "0.1.0".to_owned(),
            later: Vec::new(),
        };
        greeting.encode()
    };
    let mut other_magic = greeting(1, 1);
    other_magic[11] = b'X';
    let mut too_long = greeting(1, 1);
    too_long[12..14].copy_from_slice(&2000u16.to_le_bytes());
    let size = |name: &str| {
        let name = name.to_owned();
        Request::Size { name }.encode()
    };
    let mut trailing = size("config");
    trailing.push(0);
    vec![
        ("wire-greeting", "magic", other_magic),
        ("wire-greeting", "too-long", too_long),
        ("wire-greeting", "versions-turned-around", greeting(2, 1)),
        ("wire-request", "verb", vec![0]),
        ("wire-request", "verb-behind-the-last", vec![39]),
        ("wire-request", "order-too-long", vec![32, 0x81, 0xe0, 3]),
        ("wire-request", "name-too-long", size(&"x".repeat(201))),
        ("wire-request", "trailing", trailing),
        ("wire-request", "too-many-owners", vec![12, 0xad, 2]),
        ("wire-request", "hash-cut-short", vec![3, 1, b'x', 5, 0, 0]),
        ("wire-request", "job-too-long", vec![33, 0x81, 0xe0, 3]),
        ("wire-request", "given-success", vec![37, 1, 0, 0, 0, 2, 0]),
        (
            "wire-request",
            "given-another-tag",
            [&[37, 1, 0, 0, 0, 1, 1, 9, 0][..], &[0; 32]].concat(),
        ),
        (
            "wire-request",
            "given-failure-with-more",
            [&[37, 1, 0, 0, 0, 0, 5, 1, 1, 0, 0, 0, 0][..], &[0; 32]].concat(),
        ),
        ("wire-call", "tag", vec![3]),
        ("wire-call", "over-with-more", vec![0, 0]),
        ("wire-call", "order", call_of(&[32, 2, b'{', b'}', 0], b"")),
        ("wire-call", "next", call_of(&[34], b"")),
        (
            "wire-call",
            "object-of-nothing",
            call_of(&size("config"), b"x"),
        ),
        (
            "wire-call",
            "object-missing",
            call_of(&put(b"bytes").encode(), b""),
        ),
        (
            "wire-call",
            "object-changed",
            call_of(&put(b"bytes").encode(), b"bytez"),
        ),
        (
            "wire-call",
            "object-inline-and-large",
            call_of(&put(&[7; 65_537]).encode(), b"bytes"),
        ),
        (
            "wire-call",
            "object-too-large",
            call_of(
                &Request::Put {
                    name: "packs/00/x".to_owned(),
                    len: OBJECT_BYTES_MAX + 1,
                    hash: [0; 32],
                }
                .encode(),
                b"",
            ),
        ),
        (
            "wire-call",
            "question-too-long",
            vec![2, 1, 0, 0, 0, 0x81, 0xe0, 3],
        ),
        ("wire-told", "empty", vec![2, 1, b'x', 0]),
        ("wire-told", "cut-short", vec![1, 2, b'x']),
        ("wire-told", "too-long", vec![1, 0x81, 0xe0, 3]),
        ("wire-told", "too-many", vec![0x81, 0x20]),
        ("wire-answer", "tag", vec![9]),
        ("wire-answer", "medium", vec![1, 3, 0]),
        ("wire-answer", "created", vec![2, 2]),
        ("wire-answer", "size-not-canonical", vec![4, 1, 0x80, 0]),
        ("wire-failure", "code", vec![10, 1, 0, 0]),
        ("wire-failure", "action", vec![1, 7, 0, 0]),
        ("wire-failure", "cause-not-utf8", vec![1, 1, 0, 1, 0xff]),
    ]
}

#[test]
fn a_conversation_is_the_same_however_the_bytes_are_parted() {
    let (asked, said) = conversation();
    for piece in [1, 7, 13, 1000, 1 << 20] {
        let mut far = Far::new("0.1.0");
        let mut tasks = 0;
        for bytes in asked.chunks(piece) {
            far.push(bytes);
            while let Some(event) = far.next_event(&mut Vec::new()).unwrap() {
                tasks += usize::from(matches!(event, FarEvent::Task(_)));
            }
        }
        assert_eq!(tasks, 5);
        far.end().unwrap();
        let mut near = Near::new("0.1.0");
        near.push(&said[..said.len().min(piece)]);
        assert!(near.next_event().unwrap().is_none() || said.len() >= MAGIC.len());
    }
}

#[test]
fn objects_cross_within_their_window() {
    for len in [
        0,
        1,
        FIRST_CREDIT as usize,
        FIRST_CREDIT as usize + 1,
        9_000_001,
    ] {
        let object = object(len);
        let mut pair = Pair::new();
        let number = pair.begin(&put(&object));
        let mut sent = 0;
        let mut steps = 0;
        while pair.tasks.is_empty() {
            let now = pair.send(number, &object, sent);
            assert!((now - sent) as u64 <= WINDOW_BYTES.max(FIRST_CREDIT));
            sent = now;
            pair.settle(65_000);
            steps += 1;
            assert!(steps < 100, "the window does not move");
        }
        let task = pair.tasks.remove(0);
        assert!(task.body == object);
        let answer = Answer::Stored { created: true };
        pair.far.answer(task.number, &answer, &mut pair.to_near);
        pair.settle(1 << 20);
        assert_eq!(pair.done[&number], Ok(Reply::Answer(answer)));
        assert_eq!((pair.near.open(), pair.far.open()), (0, 0));
    }
}

#[test]
fn objects_wait_until_there_is_room_for_them() {
    let large = object(40 << 20);
    let mut pair = Pair::new();
    let numbers: Vec<u32> = (0..4).map(|_| pair.begin(&put(&large))).collect();
    let small = b"a heartbeat".to_vec();
    let heartbeat = pair.begin(&put(&small));
    let mut sent = vec![0; numbers.len()];
    for _ in 0..100 {
        for (number, sent) in numbers.iter().zip(&mut sent) {
            *sent = pair.send(*number, &large, *sent);
        }
        pair.settle(1 << 20);
        assert!(pair.far.held() as u64 <= ASSEMBLY_BYTES_MAX + (4 << 20));
    }
    assert_eq!(pair.tasks.len(), 2, "two of 40 MiB fit into 96");
    // A small object passes those that wait.
    pair.send(heartbeat, &small, 0);
    pair.settle(1 << 20);
    assert_eq!(pair.tasks.last().unwrap().number, heartbeat);
    while let Some(task) = pair.tasks.pop() {
        let answer = Answer::Stored { created: true };
        pair.far.answer(task.number, &answer, &mut pair.to_near);
        for _ in 0..40 {
            pair.settle(1 << 20);
            for (number, sent) in numbers.iter().zip(&mut sent) {
                *sent = pair.send(*number, &large, *sent);
            }
        }
    }
    assert_eq!(pair.done.len(), 5);
}

#[test]
fn an_object_that_arrives_changed_is_refused() {
    let mut pair = Pair::new();
    let mut wrong = put(b"these bytes");
    if let Request::Put { hash, .. } = &mut wrong {
        hash[0] ^= 1;
    }
    let number = pair.begin(&wrong);
    pair.send(number, b"these bytes", 0);
    pair.settle(1 << 20);
    assert!(pair.tasks.is_empty());
    let failure = pair.done[&number].clone().unwrap_err();
    assert_eq!(failure.code, FailureCode::Io);
    assert_eq!(failure.object, "packs/00/x");
}

#[test]
fn a_request_that_failed_early_is_cancelled() {
    let object = object(300_000);
    let mut pair = Pair::new();
    let number = pair.begin(&put(&object));
    let greeting = pair.far.greeting();
    let mut said = greeting;
    said.extend(frame(FrameKind::Failure, number, &failure().encode()));
    pair.to_near.clear();
    pair.near.push(&said);
    assert!(matches!(
        pair.near.next_event(),
        Ok(Some(NearEvent::Greeted(_)))
    ));
    assert!(matches!(
        pair.near.next_event(),
        Ok(Some(NearEvent::Done { result: Err(_), .. }))
    ));
    let mut out = Vec::new();
    assert!(pair.near.data(number, b"more", &mut out).is_err());
    pair.near.cancel(number, &mut out);
    assert_eq!(out, frame(FrameKind::Cancel, number, &[]));
    assert_eq!(pair.near.open(), 0);
}

/// T-01: what a login shell prints in front of the greeting is passed over up to a bound; beyond
/// it, the error shows what it was.
#[test]
fn t_01_noise_before_the_greeting_is_passed_over_within_a_bound() {
    let greeting = Greeting::own("0.1.0").encode();
    let lines = b"Welcome to web1\nLast login: never\n\x1b[31mred\x1b[0m\n".to_vec();
    // A word that begins as the magic does, and goes on otherwise.
    let tease = [b"x".as_slice(), &MAGIC[..9], b"y"].concat();
    let largest = vec![b'n'; NOISE_BYTES_MAX];
    for noise in [Vec::new(), lines, tease, largest] {
        for piece in [1, 100, 1 << 20] {
            let mut near = Near::new("0.1.0");
            let mut greeted = false;
            for bytes in [noise.clone(), greeting.clone()].concat().chunks(piece) {
                near.push(bytes);
                greeted |= near.next_event().unwrap().is_some();
            }
            assert!(greeted);
            assert_eq!(near.noise(), noise.len());
        }
    }
    let mut near = Near::new("0.1.0");
    near.push(b"bash: \x1b[1mno\n");
    near.push(&vec![b'n'; 70 << 10]);
    let error = near.next_event().unwrap_err();
    assert!(matches!(error, WireError::NoGreeting { .. }));
    let text = error.to_string();
    assert!(text.contains(r"bash: \x1b[1mno\x0a"), "{text}");
    assert!(text.len() < 400 && !text.contains('\x1b'), "{text}");
}

#[test]
fn t_01_a_prompt_between_two_messages_is_called_one() {
    let (_, said) = conversation();
    let mut near = Near::new("0.1.0");
    near.push(&said[..Greeting::own("0.1.0").encode().len()]);
    near.push(b"web1$ and more than a header");
    near.next_event().unwrap();
    let text = near.next_event().unwrap_err().to_string();
    assert!(text.contains("web1$ and"), "{text}");
}

#[test]
fn t_01_an_end_that_says_nothing_or_stops_is_told_apart() {
    let near = Near::new("0.1.0");
    let text = near.end().unwrap_err().to_string();
    assert!(text.contains("before it said anything"), "{text}");
    let mut near = Near::new("0.1.0");
    near.push(b"bash: podkeep: not found\n");
    assert!(near.next_event().unwrap().is_none());
    let text = near.end().unwrap_err().to_string();
    assert!(text.contains("bash: podkeep: not found"), "{text}");
    // The near end's own stream begins with its greeting, or is not a podkeep's.
    let mut far = Far::new("0.1.0");
    far.push(b"GET / HTTP/1.0\r\n");
    assert!(far.next_event(&mut Vec::new()).is_err());
}

#[test]
fn t_14_versions_without_one_in_common_are_refused_in_the_greeting() {
    for (oldest, newest) in [(0, 0), (2, 2), (2, 9)] {
        let theirs = Greeting {
            oldest,
            newest,
            podkeep: "9.8.7".to_owned(),
            later: vec![1, 2, 3],
        };
        let mut near = Near::new("0.1.0");
        near.push(&theirs.encode());
        let mut far = Far::new("0.1.0");
        far.push(&theirs.encode());
        for error in [
            near.next_event().unwrap_err(),
            far.next_event(&mut Vec::new()).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.contains("version 1 of the protocol"), "{text}");
            assert!(text.contains(&newest.to_string()), "{text}");
            assert!(text.contains("podkeep 9.8.7"), "{text}");
        }
    }
    // Newer ones that still speak this version are understood, with what they say besides.
    let theirs = Greeting {
        oldest: 1,
        newest: 7,
        podkeep: "9.8.7".to_owned(),
        later: vec![1, 2, 3],
    };
    let mut near = Near::new("0.1.0");
    near.push(&theirs.encode());
    assert_eq!(near.next_event(), Ok(Some(NearEvent::Greeted(theirs))));
}

/// T-08: wherever the stream is cut, no request ends as if it had been answered.
#[test]
fn t_08_a_stream_that_is_cut_anywhere_is_no_end() {
    let (asked, said) = conversation();
    for at in 0..said.len() {
        let mut near = Near::new("0.1.0");
        near.begin(&put(&[7; 200]), &mut Vec::new()).unwrap();
        near.push(&said[..at]);
        // The conversation's answers are to other questions: an error or a cut, never a clean end.
        let mut sound = true;
        while sound {
            match near.next_event() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => sound = false,
            }
        }
        assert!(!sound || near.end().is_err(), "cut at {at}");
    }
    let mut whole = 0;
    for at in 0..asked.len() {
        let mut far = Far::new("0.1.0");
        far.push(&asked[..at]);
        while far.next_event(&mut Vec::new()).unwrap().is_some() {}
        whole += usize::from(far.end().is_ok());
    }
    // Behind the greeting and each of ten frames, the put's object counting as a part of it.
    assert_eq!(whole, 11);
}

#[test]
fn what_no_near_end_may_say_ends_the_conversation() {
    let size = Request::Size {
        name: "config".to_owned(),
    };
    let size = size.encode();
    let large = put(&object(200_000)).encode();
    let data = vec![0; 60_000];
    let too_many: Vec<u8> = (1..=REQUESTS_MAX as u32 + 1)
        .flat_map(|number| frame(FrameKind::Request, number, &size))
        .collect();
    let cases = [
        frame(FrameKind::Answer, 1, &[7]),
        frame(FrameKind::Credit, 1, &[0; 4]),
        frame(FrameKind::Pong, 0, &[]),
        frame(FrameKind::Data, 1, b"of nothing"),
        frame(FrameKind::Cancel, 1, &[]),
        frame(FrameKind::Request, 1, &[200]),
        frame(FrameKind::Request, 1, &[]),
        [
            frame(FrameKind::Request, 2, &size),
            frame(FrameKind::Request, 2, &size),
        ]
        .concat(),
        [
            frame(FrameKind::Request, 2, &size),
            frame(FrameKind::Data, 2, b"more"),
        ]
        .concat(),
        // Bytes behind the credit, and bytes behind the object.
        [
            frame(FrameKind::Request, 1, &put(&[0; 10]).encode()),
            frame(FrameKind::Data, 1, &[0; 11]),
        ]
        .concat(),
        [
            frame(FrameKind::Request, 1, &large),
            (0..50)
                .flat_map(|_| frame(FrameKind::Data, 1, &data))
                .collect(),
        ]
        .concat(),
        too_many,
        vec![0; 100],
    ];
    for (number, case) in cases.iter().enumerate() {
        let mut far = Far::new("0.1.0");
        far.push(&Greeting::own("0.1.0").encode());
        far.push(case);
        let mut out = Vec::new();
        let ended = loop {
            match far.next_event(&mut out) {
                Ok(Some(_)) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert!(ended, "case {number}");
    }
}

#[test]
fn what_no_far_end_may_say_ends_the_conversation() {
    let rows = |names: &[&str]| {
        let mut out = podkeep_format::codec::Encoder::new();
        for name in names {
            let row = Row {
                name: (*name).to_owned(),
                size: 1,
            };
            row.encode(&mut out);
        }
        out.finish()
    };
    let content = |len| Answer::Content { len, hash: [0; 32] }.encode();
    // Requests 1 to 4: a size, content of at most 10 bytes, a listing, and a put of 100,000.
    let cases = [
        frame(FrameKind::Request, 1, &[11]),
        frame(FrameKind::Ping, 0, &[]),
        frame(FrameKind::Cancel, 1, &[]),
        frame(FrameKind::Answer, 9, &Answer::Size(None).encode()),
        frame(FrameKind::Data, 1, b"data"),
        frame(FrameKind::Answer, 1, &opened().encode()),
        frame(FrameKind::Answer, 1, &[4, 2]),
        frame(FrameKind::Failure, 1, &[99, 1, 0, 0]),
        // More than was asked for, other bytes than are answered for, fewer.
        frame(FrameKind::Data, 2, &[0; 11]),
        [
            frame(FrameKind::Data, 2, &[0; 5]),
            frame(FrameKind::Answer, 2, &content(5)),
        ]
        .concat(),
        frame(FrameKind::Answer, 2, &content(3)),
        frame(FrameKind::Data, 3, &rows(&["b", "a"])),
        frame(FrameKind::Data, 3, &rows(&["a", "a"])),
        frame(FrameKind::Data, 3, &[1]),
        frame(FrameKind::Answer, 3, &Answer::Listed { rows: 1 }.encode()),
        frame(
            FrameKind::Credit,
            4,
            &(WINDOW_BYTES as u32 + 1).to_le_bytes(),
        ),
        frame(
            FrameKind::Answer,
            4,
            &Answer::Stored { created: true }.encode(),
        ),
        [
            frame(FrameKind::Answer, 1, &Answer::Size(None).encode()),
            frame(FrameKind::Answer, 1, &Answer::Size(None).encode()),
        ]
        .concat(),
        vec![0xff; 40],
    ];
    let name = || "packs/00/x".to_owned();
    for (number, case) in cases.iter().enumerate() {
        let mut near = Near::new("0.1.0");
        for request in [
            Request::Size { name: name() },
            Request::Get {
                name: name(),
                bytes_max: 10,
            },
            Request::List {
                folder: String::new(),
            },
            put(&[0; 100_000]),
        ] {
            near.begin(&request, &mut Vec::new()).unwrap();
        }
        near.push(&Greeting::own("0.1.0").encode());
        near.push(case);
        let ended = loop {
            match near.next_event() {
                Ok(Some(_)) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert!(ended, "case {number}");
    }
}

#[test]
fn an_object_that_is_too_large_is_never_begun() {
    let request = Request::Put {
        name: "packs/00/x".to_owned(),
        len: OBJECT_BYTES_MAX + 1,
        hash: [0; 32],
    };
    let mut near = Near::new("0.1.0");
    assert!(near.begin(&request, &mut Vec::new()).is_err());
    // Whoever begins it nonetheless is refused that one request.
    let mut far = Far::new("0.1.0");
    far.push(&Greeting::own("0.1.0").encode());
    far.push(&frame(FrameKind::Request, 1, &request.encode()));
    let mut out = Vec::new();
    while far.next_event(&mut out).unwrap().is_some() {}
    let header = Header::decode(out.first_chunk::<HEADER_BYTES>().unwrap()).unwrap();
    assert_eq!(header.kind, FrameKind::Failure);
    far.push(&frame(FrameKind::Data, 1, b"on its way"));
    far.push(&frame(FrameKind::Cancel, 1, &[]));
    assert_eq!(far.next_event(&mut out), Ok(None));
    assert_eq!(far.open(), 0);
}

/// What a run wants and says fits into one answer, whatever it is.
#[test]
fn calls_and_what_is_told_fit_into_their_bound() {
    let largest = object(FIRST_CREDIT as usize);
    let call = Call::Store {
        number: u32::MAX,
        store: u64::MAX,
        request: Request::Put {
            name: "x".repeat(200),
            len: largest.len() as u64,
            hash: *blake3::hash(&largest).as_bytes(),
        },
        object: largest,
    };
    let bytes = call.encode();
    assert!(bytes.len() <= CALL_BYTES_MAX, "{}", bytes.len());
    assert_eq!(Call::decode(&bytes), Ok(call));
    let question = Call::Ask {
        number: 1,
        question: vec![7; ORDER_BYTES_MAX],
    };
    assert!(question.encode().len() <= CALL_BYTES_MAX);
    assert_eq!(Call::decode(&question.encode()), Ok(question));
    let told: Vec<Vec<u8>> = (1..40).map(|n| vec![7; n * TOLD_BYTES_MAX / 40]).collect();
    let mut rest = told.as_slice();
    let mut heard = Vec::new();
    while !rest.is_empty() {
        let (count, bytes) = encode_told(rest.iter().map(Vec::as_slice));
        assert!(count > 0 && bytes.len() <= CALL_BYTES_MAX);
        heard.extend(decode_told(&bytes).unwrap());
        rest = &rest[count..];
    }
    assert_eq!(heard, told);
    assert_eq!(decode_told(&[0]), Ok(Vec::new()));
    let (count, _) = encode_told([&[7; TOLD_BYTES_MAX][..]; 3].into_iter());
    assert_eq!(count, 2, "as many as fit");
    assert!(decode_told(&vec![1; CALL_BYTES_MAX + 2]).is_err());
}

/// An answer that came with its data at once is looked at as one that came in frames.
#[test]
fn an_answer_with_all_of_its_data_is_an_answer_to_its_request() {
    let get = |bytes_max| Request::Get {
        name: "config".to_owned(),
        bytes_max,
    };
    let content = |bytes: &[u8]| Answer::Content {
        len: bytes.len() as u64,
        hash: *blake3::hash(bytes).as_bytes(),
    };
    let reply = Reply::of(&get(5), content(b"bytes"), b"bytes");
    assert_eq!(reply, Ok(Reply::Content(b"bytes".to_vec())));
    assert!(Reply::of(&get(4), content(b"bytes"), b"bytes").is_err());
    assert!(Reply::of(&get(5), content(b"bytes"), b"bytez").is_err());
    assert!(Reply::of(&get(5), Answer::Size(None), b"").is_err());
    assert!(Reply::of(&Request::Next, Answer::Size(None), b"").is_err());
    let delete = Request::Delete {
        name: "config".to_owned(),
    };
    assert!(Reply::of(&delete, Answer::Deleted(true), b"").is_ok());
    assert!(Reply::of(&delete, Answer::Deleted(true), b"x").is_err());
}
