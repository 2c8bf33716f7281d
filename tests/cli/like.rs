//! `init --like`: a repository that shares the chunk keys of another one.

use std::path::Path;
use std::process::Command;

use podkeep_engine::repo::{Credential, OpenOptions, Repository};
use podkeep_engine::store::local::LocalStore;
use podkeep_format::id::{ChunkId, ChunkKind, HostId};

use crate::{Desk, text};

/// A desk whose repository is opened with `open sesame`, and a file with that passphrase.
fn prepared() -> Desk {
    let desk = Desk::with_repository();
    std::fs::write(desk.path("passphrase"), "open sesame\n").expect("a file");
    desk
}

/// `init` at `second`, with the passphrase `second one`, like the desk's repository.
fn like(desk: &Desk, arguments: &[&str]) -> Command {
    let first = desk.path("repository");
    let first = first.to_str().expect("a path of text");
    let mut command = desk.command(&["init", "--like", first]);
    command
        .args(arguments)
        .env("PODKEEP_REPO", desk.path("second"))
        .env("PODKEEP_PASSWORD", "second one");
    command
}

/// What the id of a chunk is in a repository.
fn chunk_id(place: &Path, passphrase: &str) -> ChunkId {
    let store = LocalStore::open(place).expect("a store");
    let credential = Credential::Passphrase(passphrase.as_bytes().to_vec().into());
    let options = OpenOptions {
        cache: None,
        host: HostId([1; 16]),
        host_name: "host".into(),
    };
    let opened = Repository::open(std::sync::Arc::new(store), &credential, &options);
    let repository = opened.expect("it opens");
    repository
        .chunking()
        .ids
        .chunk_id(ChunkKind::Data, b"content")
}

#[test]
fn a_repository_like_another_has_its_chunk_ids_and_its_own_passphrase() {
    let desk = prepared();
    let file = desk.path("passphrase");
    let file = file.to_str().expect("a path of text");
    let first = chunk_id(&desk.path("repository"), "open sesame");
    let by_option = || like(&desk, &["--like-password-file", file]);
    let by_variable = || {
        let mut command = like(&desk, &[]);
        command.env("PODKEEP_LIKE_PASSWORD_FILE", file);
        command
    };
    let by_command = || like(&desk, &["--like-password-command", "echo open sesame"]);
    let ways: [&dyn Fn() -> Command; 3] = [&by_option, &by_variable, &by_command];
    for way in ways {
        let output = way().output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(chunk_id(&desk.path("second"), "second one"), first);
        std::fs::remove_dir_all(desk.path("second")).expect("removed");
        // Another repository at a place that was used is refused, so that it is forgotten.
        std::fs::remove_dir_all(desk.path("cache")).expect("removed");
    }
    let alone = desk
        .command(&["init"])
        .env("PODKEEP_REPO", desk.path("second"))
        .output();
    assert_eq!(alone.expect("the binary runs").status.code(), Some(0));
    assert_ne!(chunk_id(&desk.path("second"), "open sesame"), first);
}

#[test]
fn without_the_other_passphrase_nothing_is_made() {
    let desk = prepared();
    let refused = |command: &mut Command, code: i32, word: &str| {
        let output = command.output().expect("the binary runs");
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(word), "{told}");
        assert!(!desk.path("second").exists(), "{told}");
    };
    // PODKEEP_PASSWORD is that of the new repository.
    refused(&mut like(&desk, &[]), 12, "--like-password-file");
    let wrong = &["--like-password-command", "echo wrong"];
    refused(&mut like(&desk, wrong), 12, "opens none");
    let file = &["--like-password-file", "/nowhere"];
    refused(&mut like(&desk, file), 12, "/nowhere");
    std::fs::remove_dir_all(desk.path("repository")).expect("removed");
    let right = &["--like-password-command", "echo open sesame"];
    refused(&mut like(&desk, right), 10, "no podkeep repository");
}
