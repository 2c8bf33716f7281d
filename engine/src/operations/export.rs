//! `export`: an item of a snapshot in a form that other tools read.
//!
//! Everything streams: a layer or a file is never held whole. What goes to a place is written beside
//! it and renamed once it is complete; what goes to a stream is complete only without an error.

mod acl;
mod beside;
mod image;
mod sink;
mod tree;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use podkeep_format::item::ItemKind;

use super::{
    ExportForm, ExportOptions, ExportReport, OperationError, OperationResult, reading, select,
};
use crate::fs::tar::TarWriter;
use crate::host::Pusher;
use crate::monitor::{Finding, FindingKind, Monitor};
use crate::repo::reader::Reader;
use crate::repo::{Repository, StoredSnapshot};
use beside::{DirectoryBeside, FileBeside};
use sink::{Counted, DirectorySink, TarSink, Written, failed};

/// Where an export goes.
pub enum ExportTo<'w> {
    Stream(&'w mut dyn Write),
    File(PathBuf),
    /// Only of an OCI layout.
    Directory(PathBuf),
    /// Only of an image, as an OCI layout: to this name in a registry, as `podman push` has it.
    Registry(&'w dyn Pusher, String),
}

pub fn export(
    repo: &Repository,
    options: &ExportOptions,
    to: ExportTo<'_>,
    monitor: &dyn Monitor,
) -> OperationResult<ExportReport> {
    let started = Instant::now();
    let _lease = reading::lease(repo, monitor)?;
    let wanted = std::slice::from_ref(&options.item);
    let (run, items) = select::resolve(repo, &options.snapshot, wanted, monitor)?;
    let reader = reading::reader(repo, monitor)?;
    let [(stored, path)] = &items[..] else {
        return Err(OperationError::Usage {
            message: format!(
                "{} matches {} items",
                options.item.selector.item,
                items.len()
            ),
            hint: "name one item".into(),
        });
    };
    let export = Export {
        reader: &reader,
        stored,
        path,
        run: run.id.to_hex(),
        form: options.form,
        asked: &options.item.selector.item.name,
        monitor,
    };
    export.refuse_what_makes_no_sense()?;
    let mut pushed = None;
    let written = match to {
        ExportTo::Stream(out) => export.to_stream(out)?,
        ExportTo::File(place) => {
            let mut file = FileBeside::make(place, options.replace)?;
            let written = export.to_stream(&mut file)?;
            file.commit()?;
            written
        }
        ExportTo::Directory(place) => {
            if options.form != ExportForm::Oci {
                return Err(OperationError::Usage {
                    message: "only an OCI layout can be a directory".into(),
                    hint: "name a file".into(),
                });
            }
            let directory = DirectoryBeside::make(place, options.replace)?;
            let mut sink = DirectorySink::new(directory.path());
            image::oci(&export, &mut sink)?;
            let written = sink.finish()?;
            directory.commit()?;
            written
        }
        ExportTo::Registry(pusher, reference) => {
            let folder = pusher.staging()?.join(format!("push-{}", export.run));
            // It goes when it is dropped.
            let layout = DirectoryBeside::make(folder, true)?;
            let mut sink = DirectorySink::new(layout.path());
            let definition = image::oci(&export, &mut sink)?;
            let written = sink.finish()?;
            let digest = pusher.push(layout.path(), &definition.id, &reference)?;
            if definition.digest() != Some(&digest) {
                let was = definition.digest().unwrap_or("none");
                monitor.finding(Finding {
                    object: stored.header.item.to_string(),
                    kind: FindingKind::Note,
                    snapshots: vec![export.run.clone()],
                    paths: Vec::new(),
                    message: format!(
                        "compressed digest not reproducible: in the registry it has the digest {digest}, \
                         and had {was} where it was saved; its ID and layers are the same"
                    ),
                });
            }
            pushed = Some(digest);
            written
        }
    };
    Ok(ExportReport {
        item: stored.header.item.clone(),
        files: written.files,
        bytes_written: written.bytes,
        digest: pushed,
        seconds: started.elapsed().as_secs_f64(),
        incomplete: !stored.body.as_ref().is_some_and(|body| body.complete),
    })
}

/// One item on its way out.
struct Export<'a> {
    reader: &'a Reader,
    stored: &'a StoredSnapshot,
    /// Below the item's root.
    path: &'a [u8],
    run: String,
    form: ExportForm,
    /// The name that was asked for.
    asked: &'a [u8],
    monitor: &'a dyn Monitor,
}

impl Export<'_> {
    fn refuse_what_makes_no_sense(&self) -> OperationResult<()> {
        let item = &self.stored.header.item;
        let usage = |message: String, hint: &str| {
            Err(OperationError::Usage {
                message,
                hint: hint.into(),
            })
        };
        match (self.form, item.kind) {
            (ExportForm::Tar, ItemKind::Volume | ItemKind::Path) => Ok(()),
            (ExportForm::Tar, _) => usage(
                format!("{item} is no volume and no path"),
                "an image is exported with --oci or --docker-archive",
            ),
            (_, ItemKind::Image) if self.path.is_empty() => Ok(()),
            (_, ItemKind::Image) => usage(
                format!("{} is a part of an image", item.at(self.path)),
                "an image is exported as a whole; `podkeep dump` writes a file of it",
            ),
            _ => usage(
                format!("{item} is no image"),
                "a volume or a path is exported with --tar",
            ),
        }
    }

    fn to_stream(&self, out: &mut dyn Write) -> OperationResult<Written> {
        let mut tar = TarWriter::new(Counted::new(out));
        let files = match self.form {
            ExportForm::Tar => tree::write(self, &mut tar)?,
            ExportForm::Oci => {
                let mut sink = TarSink::new(&mut tar);
                image::oci(self, &mut sink)?;
                sink.files()
            }
            ExportForm::DockerArchive => {
                let mut sink = TarSink::new(&mut tar);
                image::docker_archive(self, &mut sink)?;
                sink.files()
            }
        };
        let bytes = tar.finish().map_err(failed)?.bytes();
        Ok(Written { files, bytes })
    }
}
