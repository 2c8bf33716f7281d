//! Giving an image that Podman loaded the identity that it had where it was saved.
//!
//! `podman load` makes a manifest of its own, so that the digests are others than those that the
//! image was pulled by, and it has no place for signatures and names by digest. So its big data
//! and its entry of images.json are replaced by those of the snapshot. That file belongs to
//! containers/storage, whose rules are kept: the exclusive lock on images.lock, a new token in it
//! before the file changes (whoever has it in memory reads it again), and a rename. Entries of
//! other images are written back byte for byte.
//!
//! Source: containers/storage `images.go`.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use super::account::{self, Account};
use super::image::{ImageDefinition, big_data_entry, strings};
use super::layout::sha256;
use super::list_lock::ListLock;
use super::storage::{BIG_DATA_BYTES_MAX, big_data_file, is_signed_schema_1};
use crate::fs::durable::{self, BESIDE};

/// Bytes of images.json. 100,000 images have some 150 MB.
const IMAGES_BYTES_MAX: u64 = 256 << 20;
/// How the names of files start that hold big data under a key that is no plain name.
const ENCODED_KEY: char = '=';

/// A failure of the adoption; the image is as it was before, or as it was to be.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {cause}")]
pub struct AdoptError {
    pub action: &'static str,
    pub path: String,
    pub cause: String,
}

impl AdoptError {
    fn new(action: &'static str, path: &Path, cause: impl std::fmt::Display) -> Self {
        Self {
            action,
            path: path.display().to_string(),
            cause: cause.to_string(),
        }
    }
}

/// What is there of the image before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// A restore loaded it: all that it has besides its layers is makeshift.
    Loaded,
    /// It was here: what it has stays, and what the snapshot has comes along.
    Present,
}

/// What became of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adoption {
    /// Names of the snapshot that belong to another image, with that image's ID: left alone.
    pub left: Vec<(String, String)>,
    /// The same, taken from that image.
    pub taken: Vec<(String, String)>,
}

/// The folder `<graph root>/<driver>-images` of a store, and no store that is read-only.
pub struct ImageRecords {
    folder: PathBuf,
    /// Whose it is, when that is not the caller.
    user: Option<Account>,
}

impl ImageRecords {
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            user: None,
        }
    }

    /// The records of another user's store: what is done there, is done in that user's name.
    pub fn of_user(mut self, user: Option<&Account>) -> Self {
        self.user = user.cloned();
        self
    }

    /// Puts the identity of `definition` on the image with its ID. `big_data` holds the files of
    /// its big data, named as in a snapshot's tree. With `retag`, names that belong to
    /// another image are taken from it. Durable on return.
    pub fn adopt(
        &self,
        definition: &ImageDefinition,
        big_data: &Path,
        before: Before,
        retag: bool,
    ) -> Result<Adoption, AdoptError> {
        let pieces = read_pieces(definition, big_data)?;
        let adopt = || self.adopt_pieces(definition, &pieces, before, retag);
        match &self.user {
            None => adopt(),
            Some(user) => account::in_the_name_of(user, adopt)
                .map_err(|cause| AdoptError::new("write to", &self.folder, cause))?,
        }
    }

    fn adopt_pieces(
        &self,
        definition: &ImageDefinition,
        pieces: &[(&str, Vec<u8>)],
        before: Before,
        retag: bool,
    ) -> Result<Adoption, AdoptError> {
        let lock = self.lock()?;
        let path = self.folder.join("images.json");
        let mut entries = self.read(&path)?;
        let mut own = None;
        let mut names = Names::new(definition, retag);
        for (index, raw) in entries.iter_mut().enumerate() {
            let mut entry: Map<String, Value> = serde_json::from_str(raw.get())
                .map_err(|error| AdoptError::new("understand", &path, error))?;
            if entry.get("id").and_then(Value::as_str) == Some(&definition.id) {
                own = Some((index, entry));
            } else if names.settle(&mut entry) {
                *raw = to_raw(&entry, &path)?;
            }
        }
        let (index, existing) = match own {
            Some(own) => own,
            // A manifest list is big data alone, and nothing has to be loaded for it.
            None if definition.layers.is_empty() => {
                entries.push(to_raw(&Map::new(), &path)?);
                (entries.len() - 1, Map::new())
            }
            None => {
                let cause = format!("it has no image {}", definition.id);
                return Err(AdoptError::new("find the image in", &path, cause));
            }
        };
        let before = match is_makeshift(definition, &existing) {
            true => before,
            // Somebody pulled or tagged it since.
            false => Before::Present,
        };
        let changed = merged(definition, &existing, before, &names.ours);
        self.write_big_data(definition, pieces, &existing, before)?;
        if changed != existing || !names.adoption.taken.is_empty() {
            entries[index] = to_raw(&changed, &path)?;
            let marked = lock.mark();
            marked.map_err(|error| AdoptError::new("mark", &path, error))?;
            let bytes = serde_json::to_vec(&entries)
                .map_err(|error| AdoptError::new("write", &path, error))?;
            replace(&path, &bytes)?;
        }
        self.remove_unlisted(&definition.id, &changed);
        Ok(names.adoption)
    }

    fn lock(&self) -> Result<ListLock, AdoptError> {
        let path = self.folder.join("images.lock");
        ListLock::take(&path).map_err(|error| AdoptError::new("lock", &path, error))
    }

    fn read(&self, path: &Path) -> Result<Vec<Box<RawValue>>, AdoptError> {
        let size = match std::fs::metadata(path) {
            Ok(facts) => facts.len(),
            // The store has had no image yet.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(AdoptError::new("read", path, error)),
        };
        if size > IMAGES_BYTES_MAX {
            return Err(AdoptError::new("read", path, "it is too large"));
        }
        let bytes = std::fs::read(path).map_err(|error| AdoptError::new("read", path, error))?;
        // Podman takes an empty file, which a power cut leaves, for an empty list.
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        // Go writes `null` for an empty list.
        let entries: Option<_> = serde_json::from_slice(&bytes)
            .map_err(|error| AdoptError::new("understand", path, error))?;
        Ok(entries.unwrap_or_default())
    }

    /// Of an image that was here, what is there and sound stays.
    fn write_big_data(
        &self,
        definition: &ImageDefinition,
        pieces: &[(&str, Vec<u8>)],
        existing: &Map<String, Value>,
        before: Before,
    ) -> Result<(), AdoptError> {
        let folder = self.folder.join(&definition.id);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        match made {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(AdoptError::new("make", &folder, error));
            }
            _ => {}
        }
        for (key, bytes) in pieces {
            let target = folder.join(big_data_file(key));
            let keep = match read_piece(&target) {
                Ok(there) if there == *bytes => true,
                Ok(there) => before == Before::Present && is_sound(existing, key, &there),
                Err(_) => false,
            };
            if !keep {
                replace(&target, bytes)?;
            }
        }
        Ok(())
    }

    /// Big data that the image does not list: of the makeshift identity, of this restore or of one that
    /// was cut off before it came here. Who adds big data holds the lock until it is listed.
    fn remove_unlisted(&self, id: &str, entry: &Map<String, Value>) {
        let listed: Vec<String> = strings(entry, "big-data-names")
            .map(big_data_file)
            .collect();
        // A file that nothing lists only takes room: what cannot be removed is no failure.
        let Ok(files) = std::fs::read_dir(self.folder.join(id)) else {
            return;
        };
        for file in files.flatten() {
            let name = file.file_name();
            let name = name.to_string_lossy();
            let is_ours = name.starts_with(ENCODED_KEY) || name.starts_with(BESIDE);
            if is_ours && !listed.iter().any(|listed| *listed == name) {
                let _ = std::fs::remove_file(file.path());
            }
        }
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), AdoptError> {
    durable::replace(path, bytes).map_err(|error| AdoptError::new("write", path, error))
}

/// Reads a piece of big data: a regular file of at most [`BIG_DATA_BYTES_MAX`] bytes, and no link.
pub(super) fn read_piece(path: &Path) -> std::io::Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(BIG_DATA_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    match bytes.len() {
        len if len > BIG_DATA_BYTES_MAX => Err(std::io::Error::other("it is too large")),
        _ => Ok(bytes),
    }
}

/// All pieces, before anything is changed: each has the size and digest that the entry says.
fn read_pieces<'d>(
    definition: &'d ImageDefinition,
    from: &Path,
) -> Result<Vec<(&'d str, Vec<u8>)>, AdoptError> {
    let pieces = definition.big_data().map(|piece| {
        let source = from.join(big_data_entry(piece.key));
        let bytes = read_piece(&source).map_err(|error| AdoptError::new("read", &source, error))?;
        let is_config = match piece.key.strip_prefix("sha256:") {
            Some(digits) => sha256(&bytes).to_hex() == digits,
            None => true,
        };
        if !is_config || !is_sound(&definition.entry, piece.key, &bytes) {
            let cause = "it is not what the image's record says of it";
            return Err(AdoptError::new("use", &source, cause));
        }
        Ok((piece.key, bytes))
    });
    pieces.collect()
}

/// Whether a piece has the size and digest that an entry says. One that an entry says nothing of
/// is not known to be sound.
fn is_sound(entry: &Map<String, Value>, key: &str, bytes: &[u8]) -> bool {
    let of = |field: &str| entry.get(field).and_then(|map| map.get(key));
    let size = of("big-data-sizes").and_then(Value::as_u64);
    let digest = of("big-data-digests").and_then(Value::as_str);
    let has_size = size.is_none_or(|size| size == bytes.len() as u64);
    let has_digest = match digest.and_then(|digest| digest.strip_prefix("sha256:")) {
        Some(digits) => sha256(bytes).to_hex() == digits || is_signed_schema_1(bytes),
        None => true,
    };
    has_size && has_digest && (size.is_some() || digest.is_some())
}

/// Whether an image is as `podman load` leaves one: without a name, or with one made of the
/// layout's place.
fn is_makeshift(definition: &ImageDefinition, existing: &Map<String, Value>) -> bool {
    let place = format!("{}.layout", definition.id);
    strings(existing, "names").all(|name| name.contains(&place))
}

/// Which of the snapshot's names the image gets.
struct Names {
    retag: bool,
    ours: Vec<String>,
    adoption: Adoption,
}

impl Names {
    fn new(definition: &ImageDefinition, retag: bool) -> Self {
        Self {
            retag,
            ours: definition.names().map(str::to_owned).collect(),
            adoption: Adoption::default(),
        }
    }

    /// Settles the names that this entry, another image's, has too: a name belongs to one image.
    /// Returns whether the entry lost some.
    fn settle(&mut self, entry: &mut Map<String, Value>) -> bool {
        let shared: Vec<String> = strings(entry, "names")
            .filter(|name| self.ours.iter().any(|ours| ours == name))
            .map(str::to_owned)
            .collect();
        if shared.is_empty() {
            return false;
        }
        let id = entry.get("id").and_then(Value::as_str).unwrap_or_default();
        let told: Vec<_> = shared
            .iter()
            .map(|name| (name.clone(), id.to_owned()))
            .collect();
        if self.retag {
            self.adoption.taken.extend(told);
            let left: Vec<String> = strings(entry, "names")
                .filter(|name| !shared.iter().any(|shared| shared == name))
                .map(str::to_owned)
                .collect();
            set_names(entry, &left);
            return true;
        }
        self.adoption.left.extend(told);
        self.ours.retain(|name| !shared.contains(name));
        false
    }
}

/// The image's new entry.
fn merged(
    definition: &ImageDefinition,
    existing: &Map<String, Value>,
    before: Before,
    names: &[String],
) -> Map<String, Value> {
    let mut entry = definition.entry.clone();
    // Copies of layers for user namespaces are the old host's.
    for field in ["layer", "mapped-layers"] {
        match existing.get(field) {
            Some(value) => entry.insert(field.into(), value.clone()),
            None => entry.remove(field),
        };
    }
    set_names(&mut entry, names);
    if before == Before::Loaded {
        return entry;
    }
    if let Some(digest) = existing.get("digest") {
        entry.insert("digest".into(), digest.clone());
    }
    for field in ["names", "names-history", "big-data-names"] {
        let mut values: Vec<&str> = strings(&entry, field).collect();
        for value in strings(existing, field) {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        if !values.is_empty() {
            let values = json!(values);
            entry.insert(field.into(), values);
        }
    }
    for field in ["big-data-sizes", "big-data-digests"] {
        let mut pairs = existing
            .get(field)
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        if let Some(saved) = entry.get(field).and_then(Value::as_object) {
            for (key, value) in saved {
                pairs.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        entry.insert(field.into(), Value::Object(pairs));
    }
    entry
}

/// An image without a name has no list of them, as Podman writes it.
fn set_names(entry: &mut Map<String, Value>, names: &[String]) {
    match names.is_empty() {
        true => entry.remove("names"),
        false => entry.insert("names".into(), json!(names)),
    };
}

fn to_raw(entry: &Map<String, Value>, path: &Path) -> Result<Box<RawValue>, AdoptError> {
    to_raw_value(entry).map_err(|error| AdoptError::new("write", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::podman::image::LayerDefinition;

    const OURS: &str = "aa";
    const OTHER: &str = "bb";

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is no object"),
        }
    }

    fn original() -> String {
        format!("sha256:{}", sha256(b"original"))
    }

    fn definition() -> ImageDefinition {
        let entry = json!({
            "id": OURS.repeat(32),
            "digest": original(),
            "names": ["localhost/app:1", "localhost/app:2"],
            "names-history": ["localhost/app:0"],
            "layer": "the-layer-of-the-source",
            "mapped-layers": ["m"],
            "big-data-names": ["manifest"],
            "big-data-sizes": {"manifest": 8},
            "big-data-digests": {"manifest": original()},
            "created": "2024-01-01T00:00:00Z",
            "flags": {"unknown": true},
        });
        let layer = LayerDefinition {
            diff_id: "cd".repeat(32),
            size: 1024,
            compressed_digest: None,
            compressed_size: None,
            changed: None,
        };
        ImageDefinition::new(&OURS.repeat(32), object(entry), vec![layer])
    }

    struct Store {
        folder: tempfile::TempDir,
        big_data: tempfile::TempDir,
    }

    impl Store {
        /// The entry of another image is written as no serialiser would.
        fn new(other_names: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let big_data = tempfile::tempdir().unwrap();
            let (ours, other) = (OURS.repeat(32), OTHER.repeat(32));
            let images = format!(
                "[{{\"names\": {other_names},  \"id\":\"{other}\", \"z\": 1.50}},{{\"id\":\"{ours}\",\
                 \"digest\":\"sha256:makeshift\",\"names\":[\"localhost/var/{ours}.layout:latest\"],\"layer\":\"top\",\
                 \"big-data-names\":[\"manifest\",\"signature-1\"],\"big-data-sizes\":{{\"signature-1\":0}},\
                 \"big-data-digests\":{{\"signature-1\":\"sha256:e\"}}}}]"
            );
            std::fs::write(folder.path().join("images.json"), images).unwrap();
            std::fs::write(folder.path().join("images.lock"), [7; 64]).unwrap();
            let own = folder.path().join(&ours);
            std::fs::create_dir(&own).unwrap();
            std::fs::write(own.join("manifest"), "makeshift").unwrap();
            std::fs::write(own.join(big_data_file("signature-1")), "").unwrap();
            std::fs::write(big_data.path().join("manifest"), "original").unwrap();
            Self { folder, big_data }
        }

        fn adopt(&self, before: Before, retag: bool) -> Result<Adoption, AdoptError> {
            let records = ImageRecords::new(self.folder.path());
            records.adopt(&definition(), self.big_data.path(), before, retag)
        }

        fn text(&self) -> String {
            std::fs::read_to_string(self.folder.path().join("images.json")).unwrap()
        }

        fn entry(&self, id: &str) -> Map<String, Value> {
            let all: Vec<Map<String, Value>> = serde_json::from_str(&self.text()).unwrap();
            let found = all.into_iter().find(|entry| entry["id"] == id.repeat(32));
            found.unwrap()
        }

        fn files(&self) -> Vec<String> {
            let own = self.folder.path().join(OURS.repeat(32));
            let entries = std::fs::read_dir(own).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        }

        fn token(&self) -> Vec<u8> {
            std::fs::read(self.folder.path().join("images.lock")).unwrap()
        }
    }

    #[test]
    fn a_loaded_image_becomes_what_it_was_and_others_stay_to_the_byte() {
        let store = Store::new(r#"["localhost/other:1"]"#);
        let other = store.text().split("},").next().unwrap().to_owned();
        let adoption = store.adopt(Before::Loaded, false).unwrap();
        assert_eq!(adoption, Adoption::default());
        let mut expected = definition().entry;
        expected.insert("layer".into(), json!("top"));
        expected.remove("mapped-layers");
        assert_eq!(store.entry(OURS), expected);
        assert!(store.text().starts_with(&other), "{}", store.text());
        assert_eq!(store.files(), ["manifest"]);
        let manifest = store.folder.path().join(OURS.repeat(32)).join("manifest");
        assert_eq!(std::fs::read(manifest).unwrap(), b"original");
        let token = store.token();
        assert_eq!(token.len(), 64);
        assert_ne!(token, [7; 64]);
        // A second time there is nothing to do, and nobody need read it again.
        store.adopt(Before::Loaded, false).unwrap();
        assert_eq!(store.token(), token);
    }

    #[test]
    fn an_image_that_was_here_keeps_what_it_has() {
        let store = Store::new("null");
        store.adopt(Before::Present, false).unwrap();
        let entry = store.entry(OURS);
        assert_eq!(
            entry["names"],
            json!([
                "localhost/app:1",
                "localhost/app:2",
                format!("localhost/var/{}.layout:latest", OURS.repeat(32))
            ])
        );
        assert_eq!(entry["big-data-names"], json!(["manifest", "signature-1"]));
        assert_eq!(
            entry["big-data-digests"],
            json!({"manifest": original(), "signature-1": "sha256:e"})
        );
        assert_eq!(store.files(), [&big_data_file("signature-1"), "manifest"]);
    }

    #[test]
    fn i_23_a_name_of_another_image_stays_there_unless_it_is_to_move() {
        let names = r#"["localhost/app:2", "localhost/other:1"]"#;
        let told = vec![("localhost/app:2".to_owned(), OTHER.repeat(32))];

        let store = Store::new(names);
        let adoption = store.adopt(Before::Loaded, false).unwrap();
        assert_eq!((&adoption.left, adoption.taken.len()), (&told, 0));
        assert_eq!(store.entry(OURS)["names"], json!(["localhost/app:1"]));
        assert_eq!(store.entry(OTHER)["names"].as_array().unwrap().len(), 2);

        let store = Store::new(names);
        let adoption = store.adopt(Before::Loaded, true).unwrap();
        assert_eq!((adoption.left.len(), &adoption.taken), (0, &told));
        assert_eq!(store.entry(OURS)["names"], definition().entry["names"]);
        assert_eq!(store.entry(OTHER)["names"], json!(["localhost/other:1"]));
    }

    #[test]
    fn an_image_without_a_name_has_no_list_of_names() {
        let store = Store::new(r#"["localhost/app:1", "localhost/app:2"]"#);
        store.adopt(Before::Loaded, false).unwrap();
        assert_eq!(store.entry(OURS).get("names"), None);
        let store = Store::new(r#"["localhost/app:1"]"#);
        store.adopt(Before::Loaded, true).unwrap();
        assert_eq!(store.entry(OTHER).get("names"), None);
    }

    /// A restore was cut off after its load, and somebody gave the image a name: what it has now
    /// is no longer makeshift.
    #[test]
    fn an_image_that_was_named_since_is_not_makeshift() {
        let store = Store::new("null");
        let path = store.folder.path().join("images.json");
        let place = format!("localhost/var/{}.layout:latest", OURS.repeat(32));
        let text = store.text().replace(&place, "localhost/mine:1");
        std::fs::write(&path, text).unwrap();
        store.adopt(Before::Loaded, false).unwrap();
        let names = &store.entry(OURS)["names"];
        assert_eq!(names.as_array().unwrap().len(), 3, "{names}");
        assert_eq!(store.files(), [&big_data_file("signature-1"), "manifest"]);
    }

    /// A restore was cut off between its new record and what it removes after it.
    #[test]
    fn big_data_that_nothing_lists_goes_with_the_next_restore() {
        let store = Store::new("null");
        store.adopt(Before::Loaded, false).unwrap();
        let own = store.folder.path().join(OURS.repeat(32));
        std::fs::write(own.join(big_data_file("manifest-sha256:ab")), "").unwrap();
        std::fs::write(own.join(".tmp-podkeep-manifest"), "").unwrap();
        std::fs::write(own.join("unknown"), "").unwrap();
        store.adopt(Before::Present, false).unwrap();
        assert_eq!(store.files(), ["manifest", "unknown"]);
    }

    /// What another image's snapshot claims of this one must not get at it.
    #[test]
    fn a_piece_that_is_not_what_its_record_says_changes_nothing() {
        for bytes in ["planted!", "too long to be it"] {
            let store = Store::new("null");
            std::fs::write(store.big_data.path().join("manifest"), bytes).unwrap();
            let before = (store.text(), store.token());
            let error = store.adopt(Before::Present, false).unwrap_err();
            assert!(error.to_string().contains("not what"), "{error}");
            assert_eq!((store.text(), store.token()), before);
            let own = store.folder.path().join(OURS.repeat(32));
            assert_eq!(std::fs::read(own.join("manifest")).unwrap(), b"makeshift");
        }
        let store = Store::new("null");
        let manifest = store.big_data.path().join("manifest");
        std::fs::remove_file(&manifest).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &manifest).unwrap();
        assert!(store.adopt(Before::Loaded, false).is_err());
    }

    #[test]
    fn an_image_without_layers_is_made_from_nothing() {
        let store = Store::new("null");
        std::fs::write(store.folder.path().join("images.json"), "null").unwrap();
        let mut list = definition();
        list.layers.clear();
        list.entry.remove("layer");
        list.entry.remove("mapped-layers");
        let records = ImageRecords::new(store.folder.path());
        records
            .adopt(&list, store.big_data.path(), Before::Loaded, false)
            .unwrap();
        assert_eq!(store.entry(OURS), list.entry);
    }

    #[test]
    fn what_is_not_there_or_not_understood_is_left_alone() {
        let store = Store::new("null");
        let images = store.folder.path().join("images.json");
        std::fs::write(&images, "[]").unwrap();
        let error = store.adopt(Before::Loaded, false).unwrap_err();
        assert!(error.to_string().contains("it has no image"), "{error}");
        std::fs::write(&images, "[{}").unwrap();
        let error = store.adopt(Before::Loaded, false).unwrap_err();
        assert!(error.to_string().contains("understand"), "{error}");
        let store_two = Store::new("null");
        std::fs::remove_file(store_two.big_data.path().join("manifest")).unwrap();
        let before = store_two.text();
        assert!(store_two.adopt(Before::Loaded, false).is_err());
        assert_eq!(store_two.text(), before);
    }
}
