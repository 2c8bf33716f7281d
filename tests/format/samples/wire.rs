//! What two podkeeps say to each other.

use podkeep_format::wire::{
    Action, Answer, Call, Failure, FailureCode, Far, FarEvent, Near, Request, Row, WireMedium,
};

use super::bytes32;

pub fn opened() -> Answer {
    Answer::Opened {
        medium: WireMedium::Settles { secs: 120 },
        capacity: 1 << 40,
    }
}

pub fn failure() -> Failure {
    Failure {
        code: FailureCode::NoSpace,
        action: Action::Write,
        object: "/srv/backup/packs/ab/abcd".to_owned(),
        cause: "No space left on device (os error 28)".to_owned(),
    }
}

pub fn request() -> Request {
    Request::Put {
        name: "packs/ab/abcd".to_owned(),
        len: 33_554_432,
        hash: bytes32("an object"),
    }
}

/// A lease that a run at the far end puts into the near end's store.
pub fn call() -> Call {
    let object = b"a heartbeat".to_vec();
    Call::Store {
        number: 7,
        store: 0,
        request: Request::Put {
            name: "leases/00/1".to_owned(),
            len: object.len() as u64,
            hash: *blake3::hash(&object).as_bytes(),
        },
        object,
    }
}

/// What a near end says in a short conversation, and what the far end says.
pub fn conversation() -> (Vec<u8>, Vec<u8>) {
    let mut near = Near::new("0.1.0");
    let mut far = Far::new("0.1.0");
    let (mut asked, mut said) = (near.greeting(), far.greeting());
    far.push(&asked);
    let mut to_near = 0;
    let object: Vec<u8> = (0..200u8).collect();
    let requests = [
        Request::Open {
            path: b"/srv/backup".to_vec(),
        },
        Request::Put {
            name: "leases/00/1".to_owned(),
            len: object.len() as u64,
            hash: *blake3::hash(&object).as_bytes(),
        },
        Request::List {
            folder: "leases".to_owned(),
        },
        Request::Get {
            name: "leases/00/1".to_owned(),
            bytes_max: 1000,
        },
        Request::Delete {
            name: "leases/00/2".to_owned(),
        },
    ];
    for request in requests {
        let from = asked.len();
        let number = near.begin(&request, &mut asked).expect("a request");
        if request.body().is_some() {
            near.data(number, &object, &mut asked).expect("credit");
        }
        near.ping(&mut asked);
        far.push(&asked[from..]);
        while let Some(event) = far.next_event(&mut said).expect("a sound stream") {
            let FarEvent::Task(task) = event else {
                continue;
            };
            let answer = match task.request {
                Request::Put { .. } => Answer::Stored { created: true },
                Request::List { .. } => {
                    let row = Row {
                        name: "leases/00/1".to_owned(),
                        size: 200,
                    };
                    far.rows(task.number, &[row], &mut said);
                    Answer::Listed { rows: 1 }
                }
                Request::Get { .. } => {
                    far.content(task.number, &object, &mut said);
                    Answer::Content {
                        len: object.len() as u64,
                        hash: *blake3::hash(&object).as_bytes(),
                    }
                }
                Request::Delete { .. } => {
                    far.fail(task.number, &failure(), &mut said);
                    continue;
                }
                _ => opened(),
            };
            far.answer(task.number, &answer, &mut said);
        }
        near.push(&said[to_near..]);
        to_near = said.len();
        while near.next_event().expect("a sound stream").is_some() {}
    }
    near.bye(&mut asked);
    (asked, said)
}
