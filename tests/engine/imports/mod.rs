//! Archives that other tools wrote, imported into a repository in memory and restored from it.

mod decoders;
pub mod foreign;
mod hostile;
mod images;
mod volumes;

use std::path::{Path, PathBuf};

use podkeep_engine::host::HostError;
use podkeep_engine::host::archive::Archives;
use podkeep_engine::host::local::LocalHost;
use podkeep_engine::monitor::{Collect, Finding};
use podkeep_engine::operations::{
    BackupReport, ImportOptions, ItemPath, OperationResult, RestoreOptions, Selector, SnapSpec,
    SnapWhich, import, restore,
};
use podkeep_engine::repo::Repository;
use podkeep_format::id::hex;
use podkeep_format::item::{Item, ItemKind};
use serde_json::{Value, json};

use crate::fake_store::{Ending, Tar, sha256};
use crate::mktree::Scratch;
use crate::repo::tars::prepared;

/// A repository, and a place for archives.
struct Bench {
    repo: Repository,
    scratch: Scratch,
}

impl Bench {
    fn new() -> Self {
        Self {
            repo: prepared().1,
            scratch: Scratch::new(),
        }
    }

    /// A file of the scratch directory.
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.scratch.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn archives(&self, images: &[&Path], volumes: &[(&str, &Path)]) -> Result<Archives, HostError> {
        let images: Vec<PathBuf> = images.iter().map(|path| path.to_path_buf()).collect();
        let volumes = volumes.iter();
        let volumes: Vec<(String, PathBuf)> = volumes
            .map(|(name, path)| ((*name).to_owned(), path.to_path_buf()))
            .collect();
        let spool = self.scratch.join("spool");
        Archives::open(self.scratch.join("state"), &images, &volumes, &spool)
    }

    fn import(
        &self,
        images: &[&Path],
        volumes: &[(&str, &Path)],
    ) -> OperationResult<(BackupReport, Vec<Finding>)> {
        let archives = self.archives(images, volumes)?;
        let monitor = Collect::default();
        let options = ImportOptions {
            threads: 2,
            ..ImportOptions::default()
        };
        let report = import::import(&self.repo, &archives, &options, &monitor)?;
        Ok((report, monitor.findings.into_inner().unwrap()))
    }

    /// Imports the content of volume `v`, which must be whole, and restores it to a directory.
    fn volume(&self, archive: &Path) -> PathBuf {
        let (report, findings) = self.import(&[], &[("v", archive)]).unwrap();
        assert!(report.complete, "{findings:?}");
        self.restored(&volume("v"))
    }

    /// What the latest snapshot has of an item, in a new directory.
    fn restored(&self, item: &Item) -> PathBuf {
        self.restored_from(SnapWhich::Latest(0), item)
    }

    /// The same; `latest` is never incomplete.
    fn restored_from(&self, which: SnapWhich, item: &Item) -> PathBuf {
        let host = LocalHost::new(self.scratch.join("state"));
        let number = std::fs::read_dir(self.scratch.path()).unwrap().count();
        let to = self.scratch.join(&format!("restored-{number}"));
        let options = RestoreOptions {
            items: vec![ItemPath {
                selector: Selector {
                    item: item.clone(),
                    glob: false,
                },
                path: Vec::new(),
            }],
            to_dir: Some(to.clone()),
            threads: 2,
            ..RestoreOptions::of(SnapSpec { which, host: None })
        };
        let monitor = Collect::default();
        restore::restore(&self.repo, &host, &options, &monitor).unwrap();
        assert_eq!(monitor.findings.into_inner().unwrap(), []);
        to
    }
}

fn volume(name: &str) -> Item {
    Item::new(ItemKind::Volume, name.as_bytes())
}

fn image(name: &str) -> Item {
    Item::new(ItemKind::Image, name.as_bytes())
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&sha256(bytes)))
}

/// An image's configuration.
fn config(layers: &[&[u8]]) -> Vec<u8> {
    let layers: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05.678Z",
        "rootfs": {"type": "layers", "diff_ids": layers},
    });
    serde_json::to_vec(&config).unwrap()
}

/// A file for a tar.
type File = (String, Vec<u8>);

/// The files of a docker-archive of one image.
fn saved_files(name: &str, layers: &[&[u8]]) -> Vec<File> {
    let config = config(layers);
    let config_file = format!("{}.json", hex(&sha256(&config)));
    let mut files: Vec<File> = Vec::new();
    for layer in layers {
        files.push((format!("{}.tar", hex(&sha256(layer))), layer.to_vec()));
    }
    let manifest = json!([{
        "Config": config_file,
        "RepoTags": [name],
        "Layers": files.iter().map(|(name, _)| name).collect::<Vec<_>>(),
    }]);
    files.push((config_file, config));
    files.push((
        "manifest.json".into(),
        serde_json::to_vec(&manifest).unwrap(),
    ));
    files
}

/// The files of an OCI layout of one image; `pack` compresses a layer.
fn layout_files(name: &str, layers: &[&[u8]], pack: impl Fn(&[u8]) -> Vec<u8>) -> Vec<File> {
    let mut files: Vec<File> = Vec::new();
    let mut blob = |bytes: Vec<u8>| -> Value {
        let digest = digest(&bytes);
        let size = bytes.len();
        files.push((format!("blobs/sha256/{}", &digest[7..]), bytes));
        json!({"digest": digest, "size": size})
    };
    let config = blob(config(layers));
    let layers: Vec<Value> = layers.iter().map(|layer| blob(pack(layer))).collect();
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let mut own = blob(serde_json::to_vec_pretty(&manifest).unwrap());
    own["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [own]});
    files.push(("index.json".into(), serde_json::to_vec(&index).unwrap()));
    files.push((
        "oci-layout".into(),
        b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec(),
    ));
    files
}

fn tar_of(files: &[File]) -> Vec<u8> {
    let mut tar = Tar::default();
    for (name, bytes) in files {
        tar = tar.file(name, bytes);
    }
    tar.end(Ending::Blocks(2)).bytes
}

fn folder_of(files: &[File], at: &Path) {
    for (name, bytes) in files {
        let path = at.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}
