use serde_json::json;

use super::*;

fn id(byte: &str) -> String {
    byte.repeat(32)
}

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

fn database(path: &Path, root: &str) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE DBConfig(SchemaVersion INTEGER, GraphRoot TEXT);
             CREATE TABLE ContainerConfig(ID TEXT, Name TEXT, PodID TEXT, JSON TEXT);
             CREATE TABLE ContainerState(ID TEXT, State INTEGER, ExitCode INTEGER, JSON TEXT);
             CREATE TABLE PodConfig(ID TEXT, Name TEXT, JSON TEXT);
             CREATE TABLE PodState(ID TEXT, InfraContainerID TEXT, JSON TEXT);",
        )
        .unwrap();
    connection
        .execute("INSERT INTO DBConfig VALUES(1, ?1)", [root])
        .unwrap();
    connection
}

fn container(connection: &rusqlite::Connection, config: Value, state: Value) {
    let text = |field: &str| config[field].as_str().unwrap().to_owned();
    connection
        .execute(
            "INSERT INTO ContainerConfig VALUES(?1, ?2, NULL, ?3)",
            // As Podman does it: bytes in a column of texts.
            (text("id"), text("name"), config.to_string().into_bytes()),
        )
        .unwrap();
    connection
        .execute(
            "INSERT INTO ContainerState VALUES(?1, 0, 0, ?2)",
            [text("id"), state.to_string()],
        )
        .unwrap();
}

#[test]
fn c_17_containers_and_pods_are_what_the_database_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db.sql");
    let connection = database(&path, "/g");
    // Made by the API: no create command.
    let config = json!({
        "id": id("aa"), "name": "web", "pod": id("cc"), "RawImageName": "shop:7",
        "rootfsImageID": id("99"), "rootfsImageName": "localhost/shop:7",
        "netNsCtr": id("bb"), "Dependencies": [id("dd")],
        "networkMode": format!("container:{}", id("bb")),
        "labels": {"PODMAN_SYSTEMD_UNIT": "web.service"},
        "spec": {"process": {"env": ["A=l1\nl2"]}},
    });
    container(
        &connection,
        config.clone(),
        json!({"state": 6, "exitCode": 3}),
    );
    let infra = json!({"id": id("bb"), "name": "front-infra", "pod": id("cc"), "pause": true});
    container(
        &connection,
        infra.clone(),
        json!({"state": 3, "configPath": "/x"}),
    );
    container(
        &connection,
        json!({"id": id("dd"), "name": "db"}),
        json!({"state": 1}),
    );
    connection
        .execute(
            "INSERT INTO PodConfig VALUES(?1, 'front', ?2)",
            [id("cc"), json!({"name": "front"}).to_string()],
        )
        .unwrap();
    connection
        .execute(
            "INSERT INTO PodState VALUES(?1, NULL, ?2)",
            [id("cc"), json!({"InfraContainerID": id("bb")}).to_string()],
        )
        .unwrap();
    let state = sqlite::read(&path, Path::new("/g")).unwrap();
    let (containers, pods) = state.definitions();
    let names: Vec<&str> = containers.iter().map(|(c, _)| c.name.as_str()).collect();
    assert_eq!(names, ["db", "web"]);
    let web = &containers[1].0;
    assert_eq!(Value::Object(web.config.clone()), config);
    assert_eq!((web.status.as_str(), web.exit_code), ("exited", Some(3)));
    assert_eq!(web.image_name, "shop:7");
    assert_eq!(web.image_id, id("99"));
    assert_eq!(web.pod.as_deref(), Some("front"));
    assert_eq!(web.unit.as_deref(), Some("web.service"));
    assert_eq!(web.names.len(), 3, "{:?}", web.names);
    assert_eq!(web.names[&id("bb")], "front-infra");
    assert_eq!(web.needs(), [id("bb"), id("dd")]);
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].containers, ["web"]);
    assert_eq!(pods[0].infra_id, id("bb"));
    assert_eq!(pods[0].infra, Some(map(infra)));
    assert!(pods[0].running);
    // A reader leaves nothing behind.
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 1);
}

#[test]
fn a_database_of_another_shape_or_store_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db.sql");
    let connection = database(&path, "/g");
    assert!(sqlite::read(&path, Path::new("/g")).is_ok());
    let error = sqlite::read(&path, Path::new("/h")).unwrap_err();
    assert!(error.contains("another store"), "{error}");
    container(
        &connection,
        json!({"id": id("aa"), "name": "--help"}),
        json!({}),
    );
    let error = sqlite::read(&path, Path::new("/g")).unwrap_err();
    assert!(error.contains("name"), "{error}");
    connection
        .execute("DELETE FROM ContainerConfig", [])
        .unwrap();
    connection
        .execute("UPDATE DBConfig SET SchemaVersion = 2", [])
        .unwrap();
    let error = sqlite::read(&path, Path::new("/g")).unwrap_err();
    assert!(error.contains("schema 2"), "{error}");
    connection
        .query_row("PRAGMA journal_mode = wal", [], |row| {
            row.get::<_, String>(0)
        })
        .unwrap();
    let error = sqlite::read(&path, Path::new("/g")).unwrap_err();
    assert!(error.contains("journaled"), "{error}");
    std::fs::write(&path, "short").unwrap();
    assert!(sqlite::read(&path, Path::new("/g")).is_err());
}

#[test]
fn c_14_the_values_of_secrets_are_not_in_the_effective_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let spec = json!({"process": {"env": ["A=1", "PW=hunter2\nx", "PWX=2"]}});
    std::fs::write(&path, spec.to_string()).unwrap();
    let mut state = StoredState {
        source: ConfigSource::Sqlite,
        containers: vec![StoredContainer {
            id: id("aa"),
            name: "web".into(),
            config: map(json!({"secret_env": {"PW": {"name": "dbpass"}},
                               "secrets": [{"name": "cert"}]})),
            ..StoredContainer::default()
        }],
        pods: Vec::new(),
        lossy: None,
    };
    let web = state.definitions().0.remove(0).0;
    assert_eq!(web.secrets(), ["cert", "dbpass"]);
    let effective = effective_spec(&web, &path).unwrap().unwrap();
    assert_eq!(effective["process"]["env"], json!(["A=1", "PWX=2"]));
    assert_eq!(effective_spec(&web, Path::new("")).unwrap(), None);
    let gone = folder.path().join("gone");
    assert_eq!(effective_spec(&web, &gone).unwrap(), None);
    std::fs::write(&path, "{").unwrap();
    assert!(effective_spec(&web, &path).is_err());
    state.containers.clear();
    assert!(state.definitions().0.is_empty());
}

#[test]
fn c_22_what_a_container_mounts_of_the_host_is_listed() {
    let config = json!({
        "id": id("aa"), "name": "web",
        "userVolumes": ["/cfg", "/run/x.sock", "/data", "/o"],
        "namedVolumes": [{"volumeName": "data", "dest": "/data"}],
        "overlayVolumes": [{"source": "/srv/o", "dest": "/o"},
                           {"source": "/v/shared/_data", "dest": "/s"}],
        "ctrImageVolumes": [{"source": "lab:1", "dest": "/img"}],
        "newNetworks": {"front": {}, "back": {"static_ips": ["10.1.1.2"]}},
        "logPath": "/var/log/ctr.log",
        "spec": {
            "annotations": {"io.podman.annotations.autoremove": "TRUE",
                            "io.podman.annotations.seccomp": "/etc/x.json"},
            "mounts": [
                {"destination": "/cfg", "type": "bind", "source": "/srv/cfg"},
                {"destination": "/run/x.sock", "type": "bind", "source": "/run/x.sock"},
                {"destination": "/sys", "type": "bind", "source": "/sys"},
                {"destination": "/proc", "type": "proc", "source": "proc"},
            ],
        },
    });
    let state = StoredState {
        source: ConfigSource::Sqlite,
        containers: vec![StoredContainer {
            id: id("aa"),
            name: "web".into(),
            config: map(config),
            ..StoredContainer::default()
        }],
        pods: Vec::new(),
        lossy: None,
    };
    let web = state.definitions().0.remove(0).0;
    let volumes = Path::new("/v");
    assert_eq!(web.volumes(volumes), ["data", "shared"]);
    assert_eq!(web.networks(), ["back", "front"]);
    assert_eq!(web.image_mounts(), ["lab:1"]);
    let binds = ["/run/x.sock", "/srv/cfg", "/srv/o"].map(PathBuf::from);
    assert_eq!(web.binds(volumes), binds);
    assert_eq!(web.log_file(), Some("/var/log/ctr.log".into()));
    assert_eq!(web.seccomp_file(), Some("/etc/x.json".into()));
    assert!(web.auto_remove());
}
