//! Units that run Podman, and configuration around it, as files of the host.
//!
//! Quadlet files are found where Podman's generator looks; a unit of systemd's own counts when it
//! names podman, as those do that `podman generate systemd` wrote. With a unit go its drop-ins and
//! the files that it points to. All paths are resolved, so that no component of one is a link but
//! the last; a link is kept together with what it leads to.
//!
//! Source: podman-systemd.unit(5), systemd.unit(5), containers/podman `pkg/systemd/quadlet`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::definition::{
    ConfigDefinition, ContainerDefinition, KeptFile, UnitDefinition, UnitKind,
};
use super::files::read_file;

/// Bytes of a unit's file.
const UNIT_BYTES_MAX: usize = 1 << 20;
/// Files that are looked at, and folders below each other.
const FILES_MAX: usize = 20_000;
const LEVELS_MAX: usize = 16;
/// Where root's Quadlet files are, the folder that counts first.
const QUADLET_FOLDERS: [&str; 3] = [
    "run/containers/systemd",
    "etc/containers/systemd",
    "usr/share/containers/systemd",
];
/// Units of users, which are not root's.
const USERS_FOLDER: &str = "users";
const QUADLET_KINDS: [&str; 8] = [
    "container",
    "volume",
    "network",
    "pod",
    "kube",
    "image",
    "build",
    "artifact",
];
/// Where the administrator's own units are.
const SYSTEMD_FOLDER: &str = "etc/systemd/system";
/// Links in it are named after units that systemd started.
const INVOCATIONS_FOLDER: &str = "run/systemd/units";
/// Keys that point to files, and what these are to the unit.
const POINTERS: [(&str, &str); 5] = [
    ("Yaml", "kube"),
    ("ConfigMap", "kube"),
    ("EnvironmentFile", "environment"),
    ("File", "build"),
    ("ContainersConfModule", "config"),
];
/// Configuration of containers: files, and folders of files.
const CONFIG_FILES: [&str; 8] = [
    "containers.conf",
    "storage.conf",
    "registries.conf",
    "policy.json",
    "mounts.conf",
    "seccomp.json",
    "podman-connections.json",
    "nodocker",
];
const CONFIG_FOLDERS: [&str; 4] = [
    "containers.conf.d",
    "storage.conf.d",
    "registries.conf.d",
    "registries.d",
];

/// The units of a host whose root is `root`, sorted by name.
pub fn find_units(root: &Path) -> Vec<UnitDefinition> {
    let mut found: BTreeMap<String, UnitDefinition> = BTreeMap::new();
    for folder in QUADLET_FOLDERS {
        for path in files_below(&root.join(folder)) {
            let Some((name, kind)) = quadlet_name(&path) else {
                continue;
            };
            // The same name in a folder that counts less is not used.
            if found.contains_key(&name) {
                continue;
            }
            let unit = quadlet(root, &path, &name, kind);
            found.insert(name, unit);
        }
    }
    for path in files_in(&root.join(SYSTEMD_FOLDER)) {
        let name = file_name(&path);
        if name.ends_with(".service") && names_podman(&path) && !found.contains_key(&name) {
            found.insert(name.clone(), systemd_unit(root, &path, &name));
        }
    }
    found.into_values().collect()
}

/// The other Quadlet files that a unit's own ones refer to: those of its volumes, networks, pod and image.
fn quadlets_of(root: &Path, unit: &UnitDefinition) -> Vec<String> {
    const KEYS: [&str; 5] = ["Volume", "Mount", "Network", "Pod", "Image"];
    let own = unit.files.iter();
    let own = own.filter(|file| !file.missing && ["unit", "drop-in"].contains(&&*file.role));
    let mut names = BTreeSet::new();
    for file in own {
        let path = below(root, Path::new(&file.path));
        let text = read_file(&path, UNIT_BYTES_MAX).unwrap_or_default();
        for (key, value) in settings(&String::from_utf8_lossy(&text)) {
            let words = value
                .split([':', ',', '='])
                .filter(|_| KEYS.contains(&&*key));
            let is_quadlet = |word: &&str| {
                let kind = word.rsplit_once('.').map(|(_, kind)| kind);
                !word.contains('/') && kind.is_some_and(|kind| QUADLET_KINDS.contains(&kind))
            };
            names.extend(words.filter(is_quadlet).map(str::to_owned));
        }
    }
    names.remove(&unit.name);
    names.into_iter().collect()
}

fn quadlet(root: &Path, path: &Path, name: &str, kind: &str) -> UnitDefinition {
    let stem = name.strip_suffix(&format!(".{kind}")).unwrap_or(name);
    let service = match kind {
        "container" | "kube" => format!("{stem}.service"),
        kind => format!("{stem}-{kind}.service"),
    };
    let mut files = Files::new(root);
    files.add(path, "unit");
    let texts = files.pointed_to(path);
    let service = named_service(&texts).unwrap_or(service);
    let folders = QUADLET_FOLDERS.iter().map(|folder| root.join(folder));
    let beside = path.parent().map(Path::to_owned);
    for folder in folders.chain(beside) {
        files.drop_ins(&folder, name);
    }
    files.drop_ins(&root.join(SYSTEMD_FOLDER), &service);
    let mut unit = UnitDefinition {
        format: 1,
        name: name.to_owned(),
        kind: UnitKind::Quadlet,
        scope: "system".into(),
        enabled: "generated".into(),
        active: active(root, &service),
        service,
        needs: Vec::new(),
        files: files.found(),
    };
    unit.needs = quadlets_of(root, &unit);
    unit
}

fn systemd_unit(root: &Path, path: &Path, name: &str) -> UnitDefinition {
    let folder = root.join(SYSTEMD_FOLDER);
    let mut files = Files::new(root);
    files.add(path, "unit");
    files.pointed_to(path);
    files.drop_ins(&folder, name);
    let stem = name.strip_suffix(".service").unwrap_or(name);
    for beside in ["timer", "socket", "path"] {
        let beside = folder.join(format!("{stem}.{beside}"));
        if beside.is_file() {
            files.add(&beside, "unit");
        }
    }
    UnitDefinition {
        format: 1,
        name: name.to_owned(),
        kind: UnitKind::Systemd,
        scope: "system".into(),
        service: name.to_owned(),
        enabled: enabled(&folder, name).into(),
        active: active(root, name),
        needs: Vec::new(),
        files: files.found(),
    }
}

/// The words of systemd: "enabled" when another unit asks for it.
fn enabled(folder: &Path, name: &str) -> &'static str {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return "";
    };
    let asks = |path: PathBuf| {
        let folder = file_name(&path);
        let asks = folder.ends_with(".wants") || folder.ends_with(".requires");
        asks && path.join(name).is_symlink()
    };
    let mut entries = entries.take(FILES_MAX).flatten();
    match entries.any(|entry| asks(entry.path())) {
        true => "enabled",
        false => "disabled",
    }
}

/// Empty where systemd does not run.
fn active(root: &Path, service: &str) -> String {
    let folder = root.join(INVOCATIONS_FOLDER);
    let word = match folder.join(format!("invocation:{service}")).is_symlink() {
        _ if !folder.is_dir() => "",
        true => "active",
        false => "inactive",
    };
    word.into()
}

/// The configuration of a host whose root is `root`, sorted by name. `containers`: of that host;
/// what their labels and configuration point to is kept, too.
pub fn find_configs(root: &Path, containers: &[&ContainerDefinition]) -> Vec<ConfigDefinition> {
    let mut configs = Vec::new();
    let folder = root.join("etc/containers");
    let mut files = Files::new(root);
    for name in CONFIG_FILES {
        files.add_if_there(&folder.join(name), "config");
    }
    for name in CONFIG_FOLDERS {
        for path in files_in(&folder.join(name)) {
            files.add(&path, "config");
        }
    }
    configs.extend(files.config("containers", "configuration of containers", BTreeMap::new()));
    configs.extend(compose(root, containers));
    let mut files = Files::new(root);
    for container in containers {
        if let Some(path) = container.seccomp_file() {
            files.add(&below(root, &path), "seccomp");
        }
    }
    configs.extend(files.config("seccomp", "seccomp profiles of containers", BTreeMap::new()));
    configs.extend(users(root));
    configs.sort_by(|a, b| a.name.cmp(&b.name));
    configs
}

/// Ids that users may take, and whose services run without a login.
fn users(root: &Path) -> Option<ConfigDefinition> {
    let mut files = Files::new(root);
    let mut facts = BTreeMap::new();
    for name in ["subuid", "subgid"] {
        let path = root.join("etc").join(name);
        let text = read_file(&path, UNIT_BYTES_MAX).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        if !lines.is_empty() {
            facts.insert(name.to_owned(), lines);
        }
        files.add_if_there(&path, "config");
    }
    let mut linger = Vec::new();
    for path in files_in(&root.join("var/lib/systemd/linger")) {
        linger.push(file_name(&path));
        files.add(&path, "config");
    }
    if !linger.is_empty() {
        facts.insert("linger".into(), linger);
    }
    let description = "ids that users may take, and users whose services run without a login";
    files.config("users", description, facts)
}

/// The files of compose projects, by the labels of their containers.
fn compose(root: &Path, containers: &[&ContainerDefinition]) -> Vec<ConfigDefinition> {
    const PREFIX: &str = "com.docker.compose.project";
    let mut projects: BTreeMap<String, Files<'_>> = BTreeMap::new();
    for container in containers {
        let project = container
            .label(PREFIX)
            .or_else(|| container.label("io.podman.compose.project"));
        let Some(project) = project.filter(|p| super::is_object_name(p)) else {
            continue;
        };
        let label = |name: &str| container.label(&format!("{PREFIX}.{name}"));
        let folder = label("working_dir").map(PathBuf::from);
        let folder = folder.filter(|folder| folder.is_absolute());
        let files = projects.entry(project).or_insert_with(|| Files::new(root));
        let listed = [
            ("config_files", "compose"),
            ("environment_file", "environment"),
        ];
        for (name, role) in listed {
            let paths = label(name).unwrap_or_default();
            for path in paths.split(',').filter(|path| !path.is_empty()) {
                // Relative to the project's folder.
                let path = match &folder {
                    Some(folder) => folder.join(path),
                    None => PathBuf::from(path),
                };
                if path.is_absolute() {
                    files.add(&below(root, &path), role);
                }
            }
        }
        if let Some(folder) = &folder {
            files.add_if_there(&below(root, &folder.join(".env")), "environment");
        }
    }
    let projects = projects.into_iter().filter_map(|(project, files)| {
        let description = format!("files of the compose project {project}");
        files.config(&format!("compose-{project}"), &description, BTreeMap::new())
    });
    projects.collect()
}

/// The files of one item.
struct Files<'r> {
    root: &'r Path,
    found: BTreeSet<KeptFile>,
}

impl<'r> Files<'r> {
    fn new(root: &'r Path) -> Self {
        Self {
            root,
            found: BTreeSet::new(),
        }
    }

    /// A file, and what it leads to if it is a link.
    fn add(&mut self, path: &Path, role: &str) {
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

    fn add_if_there(&mut self, path: &Path, role: &str) {
        if std::fs::symlink_metadata(path).is_ok() {
            self.add(path, role);
        }
    }

    fn keep(&mut self, path: &Path, role: &str, missing: bool) {
        // Of a host that lies below another root: as it would see it.
        let below = path.strip_prefix(self.root).unwrap_or(path);
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
    fn pointed_to(&mut self, unit: &Path) -> String {
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
            let value = value.trim_matches('"');
            let path = match (Path::new(value).is_absolute(), &folder) {
                (true, _) => below(self.root, Path::new(value)),
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
    fn drop_ins(&mut self, folder: &Path, name: &str) {
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

    fn found(self) -> Vec<KeptFile> {
        self.found.into_iter().collect()
    }

    /// `None`: there is nothing.
    fn config(
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
            facts,
            files: self.found(),
        })
    }
}

/// An absolute path of the host, below `root`.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The lines `Key=Value` of a unit's file; a backslash at the end goes on in the next line.
fn settings(text: &str) -> Vec<(String, String)> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    let lines = lines.filter(|line| !line.starts_with(['#', ';', '[']));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

/// The service that a Quadlet file names itself.
fn named_service(text: &str) -> Option<String> {
    let settings = settings(text);
    let (_, name) = settings.iter().rfind(|(key, _)| key == "ServiceName")?;
    let plain = !name.is_empty() && !name.contains(['/', '%']) && !name.starts_with(['-', '.']);
    plain.then(|| format!("{name}.service"))
}

fn names_podman(path: &Path) -> bool {
    let text = read_file(path, UNIT_BYTES_MAX).unwrap_or_default();
    String::from_utf8_lossy(&text).contains("podman")
}

/// The name of a Quadlet file and its kind.
fn quadlet_name(path: &Path) -> Option<(String, &'static str)> {
    let name = path.file_name()?.to_str()?;
    let extension = path.extension()?.to_str()?;
    let kind = QUADLET_KINDS.iter().find(|kind| **kind == extension)?;
    (!name.starts_with(['.', '-'])).then(|| (name.to_owned(), *kind))
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Files and links of one folder, sorted; none of one that cannot be listed.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let entries = entries.take(FILES_MAX).flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// The same, of a folder and of those below it.
fn files_below(folder: &Path) -> Vec<PathBuf> {
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
            let drop_ins = Path::new(&name).extension().is_some_and(|e| e == "d");
            let of_users = level == 0 && name == USERS_FOLDER;
            if is_folder && !drop_ins && !of_users {
                open.push((entry.path(), level + 1));
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::podman::ConfigSource;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn paths(files: &[KeptFile]) -> Vec<&str> {
        files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn a_unit_comes_with_its_drop_ins_and_what_it_points_to() {
        let folder = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(folder.path()).unwrap();
        let quadlets = "etc/containers/systemd";
        put(
            &root,
            &format!("{quadlets}/app/web-a.container"),
            "[Container]\nEnvironmentFile=/srv/env\n# EnvironmentFile=/no\n\
             EnvironmentFile=-/srv/optional\n[Kube]\nYaml=pod.yaml\nConfigMap = \\\n gone.yaml\n",
        );
        put(&root, &format!("{quadlets}/app/pod.yaml"), "");
        put(&root, "srv/env", "A=1");
        put(
            &root,
            &format!("{quadlets}/app/web-a.container.d/1.conf"),
            "",
        );
        put(&root, &format!("{quadlets}/web-.container.d/2.conf"), "");
        put(&root, &format!("{quadlets}/container.d/3.conf"), "");
        put(&root, &format!("{quadlets}/container.d/readme"), "");
        put(&root, &format!("{quadlets}/users/u.container"), "");
        put(&root, &format!("{quadlets}/db.volume"), "[Volume]\n");
        put(&root, "usr/share/containers/systemd/db.volume", "hidden");
        put(&root, "etc/systemd/system/web-a.service.d/x.conf", "");
        put(
            &root,
            "etc/systemd/system/other.service",
            "ExecStart=/bin/true",
        );
        put(
            &root,
            "opt/gen.service",
            "ExecStart=/usr/bin/podman start x",
        );
        let system = root.join("etc/systemd/system");
        symlink(root.join("opt/gen.service"), system.join("gen.service")).unwrap();
        put(&root, "etc/systemd/system/gen.timer", "");
        std::fs::create_dir_all(system.join("multi-user.target.wants")).unwrap();
        symlink(
            "../gen.service",
            system.join("multi-user.target.wants/gen.service"),
        )
        .unwrap();
        std::fs::create_dir_all(root.join(INVOCATIONS_FOLDER)).unwrap();
        symlink(
            "0",
            root.join(INVOCATIONS_FOLDER)
                .join("invocation:web-a.service"),
        )
        .unwrap();

        let units = find_units(&root);
        let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
        assert_eq!(names, ["db.volume", "gen.service", "web-a.container"]);
        let [db, gen_, web] = &units[..] else {
            panic!("three units")
        };
        assert_eq!(db.service, "db-volume.service");
        assert_eq!(paths(&db.files), ["/etc/containers/systemd/db.volume"]);
        assert_eq!(
            (gen_.enabled.as_str(), gen_.active.as_str()),
            ("enabled", "inactive")
        );
        assert_eq!(
            paths(&gen_.files),
            [
                "/etc/systemd/system/gen.service",
                "/etc/systemd/system/gen.timer",
                "/opt/gen.service"
            ]
        );
        assert_eq!(
            (web.service.as_str(), web.active.as_str()),
            ("web-a.service", "active")
        );
        assert_eq!(
            paths(&web.files),
            [
                "/etc/containers/systemd/app/gone.yaml",
                "/etc/containers/systemd/app/pod.yaml",
                "/etc/containers/systemd/app/web-a.container",
                "/etc/containers/systemd/app/web-a.container.d/1.conf",
                "/etc/containers/systemd/container.d/3.conf",
                "/etc/containers/systemd/web-.container.d/2.conf",
                "/etc/systemd/system/web-a.service.d/x.conf",
                "/srv/env",
            ]
        );
        let missing: Vec<&KeptFile> = web.files.iter().filter(|file| file.missing).collect();
        assert_eq!(missing.len(), 1);
        for unit in &units {
            assert_eq!(UnitDefinition::decode(&unit.encode()).as_ref(), Ok(unit));
        }
    }

    #[test]
    fn v_14_the_files_of_compose_projects_are_found_by_labels() {
        let folder = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(folder.path()).unwrap();
        put(&root, "srv/shop/compose.yaml", "");
        put(&root, "srv/shop/.env", "PW=1");
        put(&root, "etc/containers/containers.conf", "");
        put(&root, "etc/containers/auth.json", "a password");
        put(&root, "etc/containers/registries.conf.d/x.conf", "");
        put(&root, "etc/subuid", "u:100000:65536\n\n");
        put(&root, "var/lib/systemd/linger/u", "");
        put(&root, "srv/profile.json", "{}");
        let config = serde_json::json!({
            "labels": {
                "com.docker.compose.project": "shop",
                "com.docker.compose.project.working_dir": "/srv/shop",
                "com.docker.compose.project.config_files": "compose.yaml,/srv/gone.yaml",
            },
            "spec": {"annotations": {"io.podman.annotations.seccomp": "/srv/profile.json"}},
        });
        let mut container = ContainerDefinition {
            format: 1,
            id: String::new(),
            name: "web".into(),
            source: ConfigSource::Sqlite,
            config: config.as_object().unwrap().clone(),
            status: String::new(),
            exit_code: None,
            image_id: String::new(),
            image_name: String::new(),
            pod: None,
            unit: None,
            names: BTreeMap::new(),
            runtime_spec: None,
        };
        let configs = find_configs(&root, &[&container]);
        let names: Vec<&str> = configs.iter().map(|config| config.name.as_str()).collect();
        assert_eq!(names, ["compose-shop", "containers", "seccomp", "users"]);
        assert_eq!(
            paths(&configs[0].files),
            ["/srv/gone.yaml", "/srv/shop/.env", "/srv/shop/compose.yaml"]
        );
        assert!(configs[0].files[0].missing);
        assert_eq!(
            paths(&configs[1].files),
            [
                "/etc/containers/containers.conf",
                "/etc/containers/registries.conf.d/x.conf"
            ]
        );
        assert_eq!(paths(&configs[2].files), ["/srv/profile.json"]);
        assert_eq!(configs[3].facts["subuid"], ["u:100000:65536"]);
        assert_eq!(configs[3].facts["linger"], ["u"]);
        for config in &configs {
            assert_eq!(
                ConfigDefinition::decode(&config.encode()).as_ref(),
                Ok(config)
            );
        }
        container.config.clear();
        assert_eq!(find_configs(&root, &[&container]).len(), 2);
    }
}
