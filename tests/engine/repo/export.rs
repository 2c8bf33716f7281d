//! What `export` writes, and where it does not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use podkeep_engine::fs::tar::{MemberKind, MemberReader};
use podkeep_engine::monitor::Collect;
use podkeep_engine::operations::export::{ExportTo, export};
use podkeep_engine::operations::{
    ExportForm, ExportOptions, ExportReport, ItemPath, OperationError, OperationResult, Selector,
    SnapSpec, SnapWhich,
};
use podkeep_engine::podman::{ImageDefinition, LayerDefinition};
use podkeep_engine::repo::Repository;
use podkeep_format::id::{DiffId, hex};
use podkeep_format::item::{Item, ItemKind};
use podkeep_format::tree::Content;
use serde_json::{Value, json};

use super::memory_host::{Files, MemoryHost};
use super::tars::{Session, Tar, file, layer_file, prepared};
use super::{back_up, item, noise};
use crate::fake_store::sha256;
use crate::imports::foreign::InMemory;

const CONFIG: &[u8] = b"{\"config\":1}";
const NAMES: [&str; 3] = [
    "localhost/web:1",
    "localhost/web:2",
    "localhost/web@sha256:00",
];

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&sha256(bytes)))
}

fn image() -> Item {
    Item::new(ItemKind::Image, *b"localhost/web:1")
}

/// Stores an image as a backup does. `claimed`: the DiffIDs that its layers go by.
fn save(repo: &Repository, tars: &[Tar], manifest: &[u8], claimed: &dyn Fn(&Tar) -> DiffId) {
    let mut session = Session::open(repo).unwrap();
    let inline = |bytes: &[u8]| file(bytes.len() as u64, Content::Inline(bytes.to_vec()));
    let config = digest(CONFIG);
    let mut files = vec![
        ("big-data/manifest".to_owned(), inline(manifest)),
        (
            format!("big-data/manifest-{}", digest(manifest)),
            inline(manifest),
        ),
        (format!("big-data/{config}"), inline(CONFIG)),
    ];
    let mut layers = Vec::new();
    for (number, tar) in tars.iter().enumerate() {
        let (layer, _) = session.store(tar, claimed(tar)).unwrap();
        let path = format!("layers/{number:04}-{}.tar", claimed(tar));
        files.push((path, layer_file(layer)));
        layers.push(LayerDefinition {
            diff_id: claimed(tar).to_hex(),
            size: layer.size,
            compressed_digest: None,
            compressed_size: None,
            changed: None,
        });
    }
    let id = hex(&sha256(CONFIG));
    let entry = json!({
        "id": id,
        "names": NAMES,
        "digest": digest(manifest),
        "big-data-names": ["manifest", format!("manifest-{}", digest(manifest)), config],
    });
    let definition = ImageDefinition::new(&id, entry.as_object().unwrap().clone(), layers);
    let files: Vec<_> = files.iter().map(|(p, n)| (p.as_str(), n.clone())).collect();
    let definition = definition.encode();
    session
        .publish_defined(&image(), &files, Some(&definition))
        .unwrap();
}

fn options(item: Item, form: ExportForm) -> ExportOptions {
    ExportOptions {
        snapshot: SnapSpec {
            which: SnapWhich::Latest(0),
            host: None,
        },
        item: ItemPath {
            selector: Selector { item, glob: false },
            path: Vec::new(),
        },
        form,
        replace: false,
    }
}

fn streamed(
    repo: &Repository,
    options: &ExportOptions,
) -> OperationResult<(Vec<u8>, ExportReport)> {
    let mut out = Vec::new();
    let report = export(
        repo,
        options,
        ExportTo::Stream(&mut out),
        &Collect::default(),
    )?;
    assert_eq!(report.bytes_written, out.len() as u64);
    Ok((out, report))
}

/// Regular files of a tar; the other members are only named.
fn unpacked(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut reader = MemberReader::new(InMemory(tar));
    let mut files = BTreeMap::new();
    while let Some(member) = reader.next_member().unwrap() {
        let bytes = match member.kind {
            MemberKind::File { content, size } => {
                tar[content as usize..(content + size) as usize].to_vec()
            }
            _ => Vec::new(),
        };
        let path = String::from_utf8(member.path).unwrap();
        assert!(files.insert(path, bytes).is_none(), "each member once");
    }
    files
}

fn files_below(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            files.insert(name.to_owned(), std::fs::read(&path).unwrap());
        }
    }
    files
}

fn layers() -> [Tar; 3] {
    [Tar::sample(1), Tar::sample(100), Tar::sample(1)]
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn a_layout_has_every_blob_under_its_digest_and_the_original_manifest_beside() {
    let (_, repo) = prepared();
    let original = br#"{"layers":[],"annotations":{"a":"b"}}"#;
    save(&repo, &layers(), original, &Tar::diff_id);
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path().join("layout");
    let wanted = options(image(), ExportForm::Oci);
    let to = ExportTo::Directory(place.clone());
    let report = export(&repo, &wanted, to, &Collect::default()).unwrap();
    let files = files_below(&place);
    let bytes: usize = files.values().map(Vec::len).sum();
    assert_eq!(
        (report.files, report.bytes_written),
        (files.len() as u64, bytes as u64)
    );
    let (tar, _) = streamed(&repo, &wanted).unwrap();
    assert!(unpacked(&tar) == files, "the same in one file");

    let blob = |digest: &Value| {
        let digest = digest.as_str().unwrap();
        let bytes = &files[&format!("blobs/sha256/{}", &digest[7..])];
        assert_eq!(self::digest(bytes), digest);
        bytes
    };
    assert_eq!(json_of(&files["oci-layout"])["imageLayoutVersion"], "1.0.0");
    let index = json_of(&files["index.json"]);
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let descriptor = &index["manifests"][0];
    let annotations = &descriptor["annotations"];
    assert_eq!(annotations["org.opencontainers.image.ref.name"], NAMES[0]);
    assert_eq!(annotations["io.podkeep.names"], NAMES.join(" "));
    assert_eq!(
        blob(&annotations["io.podkeep.original-manifests"]),
        original
    );
    let manifest = json_of(blob(&descriptor["digest"]));
    assert_eq!(manifest["annotations"]["a"], "b");
    assert_eq!(blob(&manifest["config"]["digest"]), CONFIG);
    for (told, tar) in manifest["layers"].as_array().unwrap().iter().zip(layers()) {
        assert!(*blob(&told["digest"]) == tar.bytes());
        assert_eq!(told["size"], tar.bytes().len());
    }
    // Two layers, of which one is there twice; configuration, two manifests; two files of the layout.
    assert_eq!(files.len(), 7);
}

#[test]
fn a_manifest_of_uncompressed_layers_is_used_as_it_is() {
    let (_, repo) = prepared();
    let layer = Tar(vec![super::tars::Part::Literal(vec![0; 1024])]);
    let size = layer.bytes().len();
    let original = format!(
        r#"{{"config":{{"digest":"{}"}},"mediaType":"m","layers":[{{"digest":"{}","size":{size}}}]}}"#,
        digest(CONFIG),
        digest(&layer.bytes()),
    );
    assert!(original.len() <= 256, "it lies in its entry");
    save(&repo, &[layer], original.as_bytes(), &Tar::diff_id);
    let (tar, _) = streamed(&repo, &options(image(), ExportForm::Oci)).unwrap();
    let index = json_of(&unpacked(&tar)["index.json"]);
    assert_eq!(index["manifests"][0]["digest"], digest(original.as_bytes()));
    assert_eq!(index["manifests"][0]["mediaType"], "m");
}

#[test]
fn an_archive_names_tags_and_has_each_layer_once() {
    let (_, repo) = prepared();
    save(&repo, &layers(), b"{}", &Tar::diff_id);
    let (tar, report) = streamed(&repo, &options(image(), ExportForm::DockerArchive)).unwrap();
    let files = unpacked(&tar);
    assert_eq!((report.files, files.len()), (4, 4));
    let image = &json_of(&files["manifest.json"])[0];
    assert_eq!(image["RepoTags"], json!([NAMES[0], NAMES[1]]));
    assert_eq!(files[image["Config"].as_str().unwrap()], CONFIG);
    for (path, tar) in image["Layers"].as_array().unwrap().iter().zip(layers()) {
        assert!(files[path.as_str().unwrap()] == tar.bytes());
    }
}

/// The layer is found to be another one once all of it was written.
#[test]
fn what_cannot_be_exported_whole_leaves_nothing() {
    let (_, repo) = prepared();
    save(&repo, &layers(), b"{}", &|_| DiffId([7; 32]));
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path().join("x");
    for (form, to) in [
        (ExportForm::Oci, ExportTo::Directory(place.clone())),
        (ExportForm::Oci, ExportTo::File(place.clone())),
        (ExportForm::DockerArchive, ExportTo::File(place.clone())),
    ] {
        let error = export(&repo, &options(image(), form), to, &Collect::default()).unwrap_err();
        assert!(error.to_string().contains("is rebuilt as"), "{error}");
        assert_eq!(scratch.path().read_dir().unwrap().count(), 0);
    }
}

/// A repository with a path of two files, and a place to export to.
fn desk() -> (Repository, tempfile::TempDir, PathBuf) {
    let (_, repo) = prepared();
    let web = item("/srv/web");
    let files = Files::from([
        ("large".to_owned(), noise(1, 3_000_000)),
        ("zeros".to_owned(), vec![0; 1_000_001]),
    ]);
    back_up(&repo, &MemoryHost::with(&web, &files), &[&web]).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path().join("web.tar");
    (repo, scratch, place)
}

#[test]
fn files_are_exported_as_a_tar_and_never_over_anything_without_a_word() {
    let (repo, scratch, place) = desk();
    let mut wanted = options(item("/srv/web"), ExportForm::Tar);
    let write = |wanted: &ExportOptions, place: &Path| {
        let to = ExportTo::File(place.to_owned());
        export(&repo, wanted, to, &Collect::default())
    };
    write(&wanted, &place).unwrap();
    let tar = std::fs::read(&place).unwrap();
    let files = unpacked(&tar);
    assert!(files.keys().eq(["./", "large", "zeros"]));
    assert!(files["large"] == noise(1, 3_000_000) && files["zeros"] == vec![0; 1_000_001]);
    assert!(streamed(&repo, &wanted).unwrap().0 == tar);

    let refused = |result: OperationResult<ExportReport>, why: &str| {
        let error = result.unwrap_err();
        assert!(matches!(error, OperationError::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains(why), "{error}");
    };
    std::fs::write(&place, "mine").unwrap();
    refused(write(&wanted, &place), "is there already");
    assert_eq!(std::fs::read(&place).unwrap(), b"mine");
    wanted.replace = true;
    write(&wanted, &place).unwrap();
    assert!(std::fs::read(&place).unwrap() == tar);

    // A directory, a link and what another export has under way stay even then.
    let folder = scratch.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    refused(write(&wanted, &folder), "nothing that an export replaces");
    let link = scratch.path().join("link");
    std::os::unix::fs::symlink(&place, &link).unwrap();
    refused(write(&wanted, &link), "nothing that an export replaces");
    let partial = scratch.path().join("web.tar.podkeep-partial");
    std::fs::write(&partial, "theirs").unwrap();
    refused(write(&wanted, &place), "is there already");
    assert_eq!(std::fs::read(&partial).unwrap(), b"theirs");
}

#[test]
fn only_a_layout_is_replaced_by_a_layout() {
    let (_, repo) = prepared();
    save(&repo, &[Tar::sample(1)], b"{}", &Tar::diff_id);
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path().join("layout");
    let mut wanted = options(image(), ExportForm::Oci);
    wanted.replace = true;
    let write = || {
        let to = ExportTo::Directory(place.clone());
        export(&repo, &wanted, to, &Collect::default())
    };
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("mine"), "").unwrap();
    assert!(write().is_err());
    assert!(place.join("mine").exists());
    std::fs::write(place.join("oci-layout"), "").unwrap();
    write().unwrap();
    assert!(!place.join("mine").exists() && place.join("index.json").exists());
    assert_eq!(scratch.path().read_dir().unwrap().count(), 1);
}

#[test]
fn forms_that_do_not_fit_the_item_are_refused_as_usage() {
    let (repo, _scratch, place) = desk();
    save(&repo, &[Tar::sample(1)], b"{}", &Tar::diff_id);
    let mut part = options(image(), ExportForm::Oci);
    part.item.path = b"layers".to_vec();
    for wanted in [
        options(item("/srv/web"), ExportForm::Oci),
        options(item("/srv/web"), ExportForm::DockerArchive),
        options(image(), ExportForm::Tar),
        part,
    ] {
        let error = streamed(&repo, &wanted).unwrap_err();
        assert!(matches!(error, OperationError::Usage { .. }), "{error:?}");
    }
    let to = ExportTo::Directory(place.clone());
    let wanted = options(item("/srv/web"), ExportForm::Tar);
    let error = export(&repo, &wanted, to, &Collect::default()).unwrap_err();
    assert!(matches!(error, OperationError::Usage { .. }), "{error:?}");
    assert!(!place.exists());
}
