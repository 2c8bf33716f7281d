//! `bolt_state.db`: libpod's buckets, read from a copy that is taken under a shared lock.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde_json::{Map, Value};

use super::bolt::{Bolt, BoltError, Bucket, Element, FILE_BYTES_MAX};
use super::{
    ConfigSource, OBJECTS_MAX, StoredContainer, StoredPod, StoredState, apply_state, check_object,
    object,
};

/// Podman holds its lock for the time of one change.
const LOCK_TIME_MAX: Duration = Duration::from_secs(30);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

pub fn read(path: &Path) -> Result<StoredState, String> {
    let bytes = copy(path).map_err(|error| error.to_string())?;
    read_bolt(&bytes)
}

/// The whole file as it is between two changes: bbolt locks it exclusively for each.
fn copy(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let since = Instant::now();
    loop {
        match flock(file.as_fd(), FlockOperation::NonBlockingLockShared) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if since.elapsed() < LOCK_TIME_MAX => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // Closed with the file.
    super::super::files::read_all(file, FILE_BYTES_MAX)
}

/// The state in the bytes of a whole `bolt_state.db`. Errors are in words.
pub fn read_bolt(bytes: &[u8]) -> Result<StoredState, String> {
    let bolt = Bolt::open(bytes).map_err(in_words)?;
    let root = Folder::new(&bolt, bolt.root())?;
    let mut containers = Vec::new();
    for (key, bucket) in root.bucket(b"ctr")?.buckets()? {
        let entry = Folder::new(&bolt, bucket)?;
        let mut container = StoredContainer {
            id: id_of(key)?,
            config: object("a container's configuration", entry.value(b"config")?)?,
            ..StoredContainer::default()
        };
        container.name = name_in(&container.config);
        check_object("container", &container.id, &container.name)?;
        apply_state(
            &mut container,
            &object("a container's state", entry.value(b"state")?)?,
        );
        // The networks that it has now; its configuration keeps those that it was made with.
        if let Some(networks) = entry.find_bucket(b"networks") {
            let mut now = Map::new();
            for (name, element) in bolt.elements(networks).map_err(in_words)? {
                let Element::Value(options) = element else {
                    return Err("a container's network is no value".into());
                };
                let options = object("the options of a network", options)?;
                now.insert(text(name)?, Value::Object(options));
            }
            if !now.is_empty() || container.config.contains_key("newNetworks") {
                container
                    .config
                    .insert("newNetworks".into(), Value::Object(now));
            }
        }
        push(&mut containers, container)?;
    }
    let mut pods = Vec::new();
    for (key, bucket) in root.bucket(b"pod")?.buckets()? {
        let entry = Folder::new(&bolt, bucket)?;
        let config = object("a pod's configuration", entry.value(b"config")?)?;
        let (id, name) = (id_of(key)?, name_in(&config));
        check_object("pod", &id, &name)?;
        let state = object("a pod's state", entry.value(b"state")?)?;
        let pod = StoredPod {
            infra_id: super::infra_id(&state),
            id,
            name,
            config,
        };
        push(&mut pods, pod)?;
    }
    Ok(StoredState {
        source: ConfigSource::BoltDb,
        containers,
        pods,
        lossy: None,
    })
}

/// A bucket's keys.
struct Folder<'b> {
    elements: Vec<(&'b [u8], Element<'b>)>,
    bolt: &'b Bolt<'b>,
}

impl<'b> Folder<'b> {
    fn new(bolt: &'b Bolt<'b>, bucket: Bucket<'b>) -> Result<Self, String> {
        let elements = bolt.elements(bucket).map_err(in_words)?;
        Ok(Self { elements, bolt })
    }

    fn find(&self, key: &[u8]) -> Option<Element<'b>> {
        let found = self.elements.iter().find(|(other, _)| *other == key);
        found.map(|(_, element)| *element)
    }

    fn value(&self, key: &[u8]) -> Result<&'b [u8], String> {
        match self.find(key) {
            Some(Element::Value(value)) => Ok(value),
            _ => Err(format!("an entry has no {}", String::from_utf8_lossy(key))),
        }
    }

    fn find_bucket(&self, key: &[u8]) -> Option<Bucket<'b>> {
        match self.find(key) {
            Some(Element::Bucket(bucket)) => Some(bucket),
            _ => None,
        }
    }

    fn bucket(&self, key: &[u8]) -> Result<Self, String> {
        let name = || format!("it has no {}", String::from_utf8_lossy(key));
        Self::new(self.bolt, self.find_bucket(key).ok_or_else(name)?)
    }

    /// Those of its keys that are buckets.
    fn buckets(&self) -> Result<Vec<(&'b [u8], Bucket<'b>)>, String> {
        let buckets = self
            .elements
            .iter()
            .filter_map(|(key, element)| match element {
                Element::Bucket(bucket) => Some((*key, *bucket)),
                Element::Value(_) => None,
            });
        Ok(buckets.collect())
    }
}

fn push<T>(list: &mut Vec<T>, element: T) -> Result<(), String> {
    if list.len() == OBJECTS_MAX {
        return Err(format!("it has more than {OBJECTS_MAX} containers or pods"));
    }
    list.push(element);
    Ok(())
}

fn name_in(config: &Map<String, Value>) -> String {
    let name = config.get("name").and_then(Value::as_str);
    name.unwrap_or_default().to_owned()
}

fn id_of(key: &[u8]) -> Result<String, String> {
    text(key)
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a name is not UTF-8".into())
}

fn in_words(error: BoltError) -> String {
    error.to_string()
}
