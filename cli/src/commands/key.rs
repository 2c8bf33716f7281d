use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use podkeep_engine::operations::key;

use crate::arguments::{Key, KeyExportWrite, KeyRemove, NewPassphrase};
use crate::context::{Context, Done, Identity, exit_after};
use crate::failure::Failure;
use crate::identity;
use crate::messages::{KeyLine, Message, Summary};
use crate::passphrase::{self, Origin, Passphrase, Secret};
use crate::progress::Reporter;
use crate::units::{self, Align};

pub fn run(context: &Context<'_>, command: &Key) -> Result<Done, Failure> {
    let reporter = context.reporter();
    match command {
        Key::Add(arguments) => add(context, &reporter, &arguments.new),
        Key::List(_) => list(context, &reporter),
        Key::Remove(arguments) => remove(context, &reporter, arguments),
        Key::Passwd(arguments) => passwd(context, &reporter, &arguments.new),
        Key::ExportWrite(arguments) => export_write(context, &reporter, arguments),
    }
}

/// The passphrase that is to be set, which only its own options and the terminal give: never the
/// one that opens the repository by mistake.
fn new_passphrase(arguments: &NewPassphrase) -> Result<Passphrase, Failure> {
    let origin = match (
        &arguments.new_password_file,
        &arguments.new_password_command,
    ) {
        (Some(file), _) => Origin::File(file.clone()),
        (None, Some(command)) => Origin::Command(command.clone()),
        (None, None) => Origin::Terminal,
    };
    passphrase::read_new(&origin)
}

fn add(
    context: &Context<'_>,
    reporter: &Reporter<'_>,
    arguments: &NewPassphrase,
) -> Result<Done, Failure> {
    let repository = context.open(reporter)?;
    let new = new_passphrase(arguments)?;
    let slot = key::add(&repository, &new, &identity::name(&context.whose))
        .map_err(|error| context.failure(error))?;
    Ok(changed(reporter, slot.to_hex(), "added"))
}

fn list(context: &Context<'_>, reporter: &Reporter<'_>) -> Result<Done, Failure> {
    let repository = context.open(reporter)?;
    let slots = key::list(&repository).map_err(|error| context.failure(error))?;
    let head = ["ID", "Kind", "Label", "Notes"].map(str::to_owned).to_vec();
    let mut table = vec![head];
    for slot in &slots {
        context.output.json(
            &Message::Key(KeyLine {
                id: slot.id.to_hex(),
                kind: slot.kind,
                label: slot.label.clone(),
                damage: slot.damage.clone(),
            }),
            false,
        );
        table.push(vec![
            super::short(&slot.id.to_hex()).to_owned(),
            slot.kind.to_owned(),
            slot.label.clone(),
            match &slot.damage {
                Some(damage) => format!("DAMAGED: {damage}"),
                None => String::new(),
            },
        ]);
    }
    reporter.end();
    for line in units::table(&[Align::Left; 4], &table) {
        context.output.text(&line);
    }
    let damaged = slots.iter().filter(|slot| slot.damage.is_some()).count() as u64;
    Ok(Done {
        exit: exit_after(reporter.warnings() + damaged),
        summary: Summary::Keys {
            keys: slots.len() as u64,
            findings: reporter.warnings() + damaged,
        },
        text: Vec::new(),
    })
}

fn remove(
    context: &Context<'_>,
    reporter: &Reporter<'_>,
    arguments: &KeyRemove,
) -> Result<Done, Failure> {
    let repository = context.open(reporter)?;
    let slot = key::remove(&repository, &arguments.key.to_ascii_lowercase())
        .map_err(|error| context.failure(error))?;
    Ok(changed(reporter, slot.to_hex(), "removed"))
}

fn passwd(
    context: &Context<'_>,
    reporter: &Reporter<'_>,
    arguments: &NewPassphrase,
) -> Result<Done, Failure> {
    let (repository, secret) = context.open_with_secret(reporter, Identity::Known)?;
    let Secret::Passphrase(old) = secret else {
        return Err(Failure::passphrase(
            "a write key has no passphrase to change".to_owned(),
            "use the passphrase that is to be changed",
        ));
    };
    let new = new_passphrase(arguments)?;
    let slot = key::passwd(&repository, &old, &new, &identity::name(&context.whose))
        .map_err(|error| context.failure(error))?;
    Ok(changed(reporter, slot.to_hex(), "in place of the old one"))
}

fn export_write(
    context: &Context<'_>,
    reporter: &Reporter<'_>,
    arguments: &KeyExportWrite,
) -> Result<Done, Failure> {
    let path = &arguments.file;
    let repository = context.open(reporter)?;
    // The file comes first: a key that could not be kept would be certified for nothing.
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Failure::local("make", path.display(), error))?;
    let made = key::export_write(&repository, &identity::name(&context.whose))
        .map_err(|error| context.failure(error))
        .and_then(|made| {
            file.write_all(made.text.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(|error| Failure::local("write", path.display(), error))?;
            Ok(made.author)
        });
    let author = made.inspect_err(|_| remove_unfinished(path))?;
    let mut done = changed(reporter, author.to_hex(), "made");
    done.text.push(format!(
        "In {}: it can back up, and cannot read what is stored. Use it with --key-file.",
        path.display()
    ));
    Ok(done)
}

fn remove_unfinished(path: &Path) {
    // It holds no key: that it stays costs nothing but a look.
    let _ = std::fs::remove_file(path);
}

fn changed(reporter: &Reporter<'_>, key: String, what: &str) -> Done {
    reporter.end();
    Done {
        exit: exit_after(reporter.warnings()),
        text: vec![format!("Key {} {what}", super::short(&key))],
        summary: Summary::KeyChanged {
            key,
            findings: reporter.warnings(),
        },
    }
}
