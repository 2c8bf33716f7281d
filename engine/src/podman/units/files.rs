//! The files of a unit or of a configuration, each by its resolved path.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::places::UnitPlaces;
use crate::podman::definition::{ConfigDefinition, KeptFile};
use crate::podman::files::read_file;

/// Bytes of a unit's file.
pub(super) const UNIT_BYTES_MAX: usize = 1 << 20;
/// Files that are looked at, and folders below each other.
pub(super) const FILES_MAX: usize = 20_000;
const LEVELS_MAX: usize = 16;
/// Keys that point to files, and what these are to the unit.
const POINTERS: [(&str, &str); 5] = [
    ("Yaml", "kube"),
    ("ConfigMap", "kube"),
    ("EnvironmentFile", "environment"),
    ("File", "build"),
    ("ContainersConfModule", "config"),
];

/// The files of one item.
pub(super) struct Files<'r> {
    places: &'r UnitPlaces,
    found: BTreeSet<KeptFile>,
}

impl<'r> Files<'r> {
    pub(super) fn new(places: &'r UnitPlaces) -> Self {
        Self {
            places,
            found: BTreeSet::new(),
        }
    }

    /// A file, and what it leads to if it is a link.
    pub(super) fn add(&mut self, path: &Path, role: &str) {
        if self.found.len() >= FILES_MAX {
            return;
        }
        let resolved = path
            .parent()
            .and_then(|parent| std::fs::canonicalize(parent).ok());
        let place = match (resolved, path.file_name()) {
            (Some(parent), Some(name)) => parent.join(name),
            _ => path.to_owned(),
        };
        let is_file = std::fs::metadata(path).is_ok_and(|facts| facts.is_file());
        self.keep(&place, role, !is_file);
        if is_file
            && place.is_symlink()
            && let Ok(target) = std::fs::canonicalize(&place)
        {
            self.keep(&target, role, false);
        }
    }

    pub(super) fn add_if_there(&mut self, path: &Path, role: &str) {
        if std::fs::symlink_metadata(path).is_ok() {
            self.add(path, role);
        }
    }

    fn keep(&mut self, path: &Path, role: &str, missing: bool) {
        let missing = missing || !self.places.keeps(path);
        // Of a host that lies below another root: as it would see it.
        let below = path.strip_prefix(&self.places.root).unwrap_or(path);
        let path = Path::new("/").join(below);
        // No unit names a file that is not UTF-8.
        let Some(path) = path.to_str() else { return };
        if self.found.iter().any(|file| file.path == path) {
            return;
        }
        self.found.insert(KeptFile {
            path: path.to_owned(),
            role: role.to_owned(),
            missing,
        });
    }

    /// Adds the files that a unit's file points to; returns its text.
    pub(super) fn pointed_to(&mut self, unit: &Path) -> String {
        let text = read_file(unit, UNIT_BYTES_MAX).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let folder = std::fs::canonicalize(unit)
            .ok()
            .and_then(|unit| unit.parent().map(Path::to_owned));
        for (key, value) in settings(&text) {
            let Some((_, role)) = POINTERS.iter().find(|(pointer, _)| *pointer == key) else {
                continue;
            };
            // `-`: it need not be there.
            let (value, optional) = match value.strip_prefix('-') {
                Some(value) => (value, true),
                None => (value.as_str(), false),
            };
            let value = &*self.places.expand(value.trim_matches('"'));
            let path = match (Path::new(value).is_absolute(), &folder) {
                (true, _) => below(&self.places.root, Path::new(value)),
                (false, Some(folder)) => folder.join(value),
                (false, None) => continue,
            };
            match optional || value.contains("://") {
                true => self.add_if_there(&path, role),
                false => self.add(&path, role),
            }
        }
        text
    }

    /// Adds the drop-ins of a unit in a folder of units: its own, those of the beginnings of its
    /// name up to a dash, and those of its kind.
    pub(super) fn drop_ins(&mut self, folder: &Path, name: &str) {
        let Some((stem, kind)) = name.rsplit_once('.') else {
            return;
        };
        let dashes = stem.match_indices('-').map(|(at, _)| &stem[..=at]);
        let folders: Vec<String> = dashes
            .map(|begin| format!("{begin}.{kind}.d"))
            .chain([format!("{name}.d"), format!("{kind}.d")])
            .collect();
        for drop_ins in folders {
            for path in files_in(&folder.join(drop_ins)) {
                if path
                    .extension()
                    .is_some_and(|extension| extension == "conf")
                {
                    self.add(&path, "drop-in");
                    self.pointed_to(&path);
                }
            }
        }
    }

    pub(super) fn found(self) -> Vec<KeptFile> {
        self.found.into_iter().collect()
    }

    /// `None`: there is nothing.
    pub(super) fn config(
        self,
        name: &str,
        description: &str,
        facts: BTreeMap<String, Vec<String>>,
    ) -> Option<ConfigDefinition> {
        if self.found.is_empty() && facts.is_empty() {
            return None;
        }
        Some(ConfigDefinition {
            format: 1,
            name: name.to_owned(),
            description: description.to_owned(),
            home: self.places.home(),
            facts,
            files: self.found(),
        })
    }
}

/// An absolute path of the host, below `root`.
pub(super) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The lines `Key=Value` of a unit's file; a backslash at the end goes on in the next line.
pub(super) fn settings(text: &str) -> Vec<(String, String)> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    let lines = lines.filter(|line| !line.starts_with(['#', ';', '[']));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

pub(super) fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Files and links of one folder, sorted; none of one that cannot be listed.
pub(super) fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let entries = entries.take(FILES_MAX).flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// The same, of a folder and of those below it that `enters` says yes to: their name, and whether they lie
/// in the folder itself.
pub(super) fn files_below(folder: &Path, enters: impl Fn(&Path, bool) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), 0)];
    while let Some((folder, level)) = open.pop() {
        found.extend(files_in(&folder));
        if level == LEVELS_MAX || found.len() > FILES_MAX {
            continue;
        }
        let entries = std::fs::read_dir(&folder).into_iter().flatten();
        for entry in entries.take(FILES_MAX).flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let name = entry.file_name();
            if is_folder && enters(Path::new(&name), level == 0) {
                open.push((entry.path(), level + 1));
            }
        }
    }
    found.sort();
    found
}
