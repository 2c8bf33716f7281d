//! Units that run Podman, and configuration around it, as files of the host or of a user.
//!
//! Quadlet files are found where Podman's generator looks; a unit of systemd's own counts when it
//! names podman, as those do that `podman generate systemd` wrote. With a unit go its drop-ins and
//! the files that it points to. All paths are resolved, so that no component of one is a link but
//! the last; a link is kept together with what it leads to.
//!
//! Source: podman-systemd.unit(5), systemd.unit(5), containers/podman `pkg/systemd/quadlet`.

mod files;
mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use self::files::{
    FILES_MAX, Files, UNIT_BYTES_MAX, below, file_name, files_below, files_in, settings,
};
pub use self::places::UnitPlaces;
use super::definition::{ConfigDefinition, ContainerDefinition, UnitDefinition, UnitKind};
use super::files::read_file;

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

/// The units of a host or user, sorted by name.
pub fn find_units(places: &UnitPlaces) -> Vec<UnitDefinition> {
    let mut found: BTreeMap<String, UnitDefinition> = BTreeMap::new();
    // Drop-ins are looked for by the names of units.
    let enters = |name: &Path, is_first: bool| {
        let is_of_users = is_first && !places.is_of_user() && name == Path::new(USERS_FOLDER);
        !is_of_users && name.extension().is_none_or(|extension| extension != "d")
    };
    for folder in &places.quadlets {
        for path in files_below(folder, enters) {
            let Some((name, kind)) = quadlet_name(&path) else {
                continue;
            };
            // The same name in a folder that counts less is not used.
            if found.contains_key(&name) || !places.keeps(&path) {
                continue;
            }
            let unit = quadlet(places, &path, &name, kind);
            found.insert(name, unit);
        }
    }
    for path in files_in(&places.systemd) {
        let name = file_name(&path);
        let is_unit = name.ends_with(".service") && places.keeps(&path) && names_podman(&path);
        if is_unit && !found.contains_key(&name) {
            found.insert(name.clone(), systemd_unit(places, &path, &name));
        }
    }
    found.into_values().collect()
}

/// The other Quadlet files that a unit's own ones refer to: those of its volumes, networks, pod and image.
fn quadlets_of(places: &UnitPlaces, unit: &UnitDefinition) -> Vec<String> {
    const KEYS: [&str; 5] = ["Volume", "Mount", "Network", "Pod", "Image"];
    let own = unit.files.iter();
    let own = own.filter(|file| !file.missing && ["unit", "drop-in"].contains(&&*file.role));
    let mut names = BTreeSet::new();
    for file in own {
        let path = below(&places.root, Path::new(&file.path));
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

fn quadlet(places: &UnitPlaces, path: &Path, name: &str, kind: &str) -> UnitDefinition {
    let stem = name.strip_suffix(&format!(".{kind}")).unwrap_or(name);
    let service = match kind {
        "container" | "kube" => format!("{stem}.service"),
        kind => format!("{stem}-{kind}.service"),
    };
    let mut files = Files::new(places);
    files.add(path, "unit");
    let texts = files.pointed_to(path);
    let service = named_service(&texts).unwrap_or(service);
    let folders = places.quadlets.iter().map(PathBuf::as_path);
    for folder in folders.chain(path.parent()) {
        files.drop_ins(folder, name);
    }
    files.drop_ins(&places.systemd, &service);
    let mut unit = UnitDefinition {
        format: 1,
        name: name.to_owned(),
        kind: UnitKind::Quadlet,
        scope: places.scope(),
        home: places.home(),
        enabled: "generated".into(),
        active: active(places, &service),
        service,
        needs: Vec::new(),
        files: files.found(),
    };
    unit.needs = quadlets_of(places, &unit);
    unit
}

fn systemd_unit(places: &UnitPlaces, path: &Path, name: &str) -> UnitDefinition {
    let folder = places.systemd.as_path();
    let mut files = Files::new(places);
    files.add(path, "unit");
    files.pointed_to(path);
    files.drop_ins(folder, name);
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
        scope: places.scope(),
        home: places.home(),
        service: name.to_owned(),
        enabled: enabled(folder, name).into(),
        active: active(places, name),
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
fn active(places: &UnitPlaces, service: &str) -> String {
    let Some(folder) = &places.invocations else {
        return String::new();
    };
    let word = match folder.join(format!("invocation:{service}")).is_symlink() {
        _ if !folder.is_dir() => "",
        true => "active",
        false => "inactive",
    };
    word.into()
}

/// The configuration of a host or user, sorted by name. `containers`: of that Podman; what their
/// labels and configuration point to is kept, too.
pub fn find_configs(
    places: &UnitPlaces,
    containers: &[&ContainerDefinition],
) -> Vec<ConfigDefinition> {
    let root = places.root.as_path();
    let mut configs = Vec::new();
    let folder = &places.configuration;
    let mut files = Files::new(places);
    for name in CONFIG_FILES {
        files.add_if_there(&folder.join(name), "config");
    }
    for name in CONFIG_FOLDERS {
        for path in files_in(&folder.join(name)) {
            files.add(&path, "config");
        }
    }
    configs.extend(files.config("containers", "configuration of containers", BTreeMap::new()));
    configs.extend(compose(places, containers));
    let mut files = Files::new(places);
    for container in containers {
        if let Some(path) = container.seccomp_file() {
            files.add(&below(root, &path), "seccomp");
        }
    }
    configs.extend(files.config("seccomp", "seccomp profiles of containers", BTreeMap::new()));
    if !places.is_of_user() {
        configs.extend(users(places));
    }
    configs.sort_by(|a, b| a.name.cmp(&b.name));
    configs
}

/// Ids that users may take, and whose services run without a login.
fn users(places: &UnitPlaces) -> Option<ConfigDefinition> {
    let root = places.root.as_path();
    let mut files = Files::new(places);
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
    // What the administrator wrote for users, who cannot write it back.
    let of_users = places.configuration.join("systemd").join(USERS_FOLDER);
    for path in files_below(&of_users, |_, _| true) {
        files.add(&path, "unit");
    }
    let description = "ids that users may take, users whose services run without a login, and units \
                       that root wrote for users";
    files.config("users", description, facts)
}

/// The files of compose projects, by the labels of their containers.
fn compose(places: &UnitPlaces, containers: &[&ContainerDefinition]) -> Vec<ConfigDefinition> {
    let root = places.root.as_path();
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
        let files = projects
            .entry(project)
            .or_insert_with(|| Files::new(places));
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::places::INVOCATIONS_FOLDER;
    use super::*;
    use crate::podman::{ConfigSource, KeptFile};

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
        let invocations = root.join("run").join(INVOCATIONS_FOLDER);
        std::fs::create_dir_all(&invocations).unwrap();
        symlink("0", invocations.join("invocation:web-a.service")).unwrap();

        let units = find_units(&UnitPlaces::of_system(&root));
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
        let of_users = "etc/containers/systemd/users/1000";
        put(&root, &format!("{of_users}/web.container.d/1.conf"), "");
        put(&root, &format!("{of_users}/web.container"), "");
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
        let configs = find_configs(&UnitPlaces::of_system(&root), &[&container]);
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
        let kept = paths(&configs[3].files);
        for name in ["web.container", "web.container.d/1.conf"] {
            let path = format!("/{of_users}/{name}");
            assert!(kept.contains(&&*path), "{kept:?}");
        }
        for config in &configs {
            assert_eq!(
                ConfigDefinition::decode(&config.encode()).as_ref(),
                Ok(config)
            );
        }
        container.config.clear();
        assert_eq!(
            find_configs(&UnitPlaces::of_system(&root), &[&container]).len(),
            2
        );
    }
}
