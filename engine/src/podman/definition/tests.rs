use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::*;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

fn id(byte: &str) -> String {
    byte.repeat(32)
}

fn container() -> ContainerDefinition {
    ContainerDefinition {
        format: 1,
        id: id("ab"),
        name: "web".into(),
        source: ConfigSource::Sqlite,
        config: object(json!({
            "id": id("ab"),
            "spec": {"process": {"env": ["A=l1\nl2", "PW=hunter2"]}},
            "a-field-of-tomorrow": [1, -2, 18_446_744_073_709_551_615_u64],
        })),
        status: "exited".into(),
        exit_code: Some(-3),
        image_id: id("cd"),
        image_name: "shop:7".into(),
        pod: Some("front".into()),
        unit: Some("web.service".into()),
        names: BTreeMap::from([(id("ef"), "db".into())]),
        runtime_spec: Some(object(json!({"ociVersion": "1.1.0"}))),
    }
}

fn pod() -> PodDefinition {
    PodDefinition {
        format: 1,
        id: id("01"),
        name: "front".into(),
        config: object(json!({"name": "front"})),
        infra: Some(object(json!({"isInfra": true}))),
        infra_id: id("02"),
        running: true,
        containers: vec!["web".into()],
    }
}

fn network() -> NetworkDefinition {
    NetworkDefinition {
        format: 1,
        name: "back".into(),
        config: object(json!({"name": "back", "subnets": [{"subnet": "10.89.5.0/24"}]})),
        is_default_unchanged: false,
    }
}

fn secret() -> SecretDefinition {
    SecretDefinition {
        format: 1,
        id: "0123456789abcdef012345678".into(),
        name: "dbpass".into(),
        driver: "file".into(),
        driver_options: BTreeMap::from([("path".into(), "/x".into())]),
        labels: BTreeMap::from([("empty".into(), String::new())]),
        metadata: BTreeMap::new(),
        created_at: "2026-01-02T03:04:05Z".into(),
        updated_at: String::new(),
        data: Some(b"hunter2\xff\n".to_vec()),
    }
}

fn unit() -> UnitDefinition {
    UnitDefinition {
        needs: vec!["data.volume".into()],
        format: 1,
        name: "web.container".into(),
        kind: UnitKind::Quadlet,
        scope: "user".into(),
        home: Some("/home/u".into()),
        service: "web.service".into(),
        enabled: "generated".into(),
        active: "active".into(),
        files: vec![KeptFile {
            path: "/etc/containers/systemd/web.container".into(),
            role: "unit".into(),
            missing: false,
        }],
    }
}

fn config() -> ConfigDefinition {
    ConfigDefinition {
        format: 1,
        name: "containers".into(),
        description: "configuration of containers".into(),
        home: None,
        facts: BTreeMap::from([("subuid".into(), vec!["u:100000:65536".into()])]),
        files: Vec::new(),
    }
}

/// Whether `decode` refuses what becomes of `bytes` when `from` is written as `to`.
fn refuses<T>(
    bytes: Vec<u8>,
    decode: impl Fn(&[u8]) -> Result<T, String>,
    changes: &[(&str, &str)],
) {
    let text = String::from_utf8(bytes).unwrap();
    assert!(decode(text.as_bytes()).is_ok(), "{text}");
    // Of a later version: what is not known is passed over.
    let more = text.replacen('{', "{\"later\":[1],", 1);
    assert!(decode(more.as_bytes()).is_ok());
    let all = [("\"format\":1", "\"format\":2")];
    for (from, to) in all.iter().chain(changes) {
        let odd = text.replacen(from, to, 1);
        assert_ne!(odd, text, "{from}");
        assert!(decode(odd.as_bytes()).is_err(), "{odd}");
    }
    assert!(decode(b"").is_err());
    let long = [text.as_bytes(), &vec![b' '; DEFINITION_BYTES_MAX]].concat();
    assert!(decode(&long).is_err());
}

#[test]
fn what_is_encoded_is_decoded_with_fields_that_nobody_knows() {
    let (c, p, n) = (container(), pod(), network());
    assert_eq!(ContainerDefinition::decode(&c.encode()), Ok(c));
    assert_eq!(PodDefinition::decode(&p.encode()), Ok(p));
    assert_eq!(NetworkDefinition::decode(&n.encode()), Ok(n));
    let (s, u, o) = (secret(), unit(), config());
    assert_eq!(SecretDefinition::decode(&s.encode()), Ok(s));
    assert_eq!(UnitDefinition::decode(&u.encode()), Ok(u));
    assert_eq!(ConfigDefinition::decode(&o.encode()), Ok(o));
}

#[test]
fn odd_definitions_are_refused() {
    refuses(
        container().encode(),
        ContainerDefinition::decode,
        &[
            ("\"name\":\"web\"", "\"name\":\"--help\""),
            ("\"name\":\"web\"", "\"name\":\"../web\""),
            ("\"pod\":\"front\"", "\"pod\":\"a b\""),
            (&id("cd"), "cd"),
            (&id("ef"), "ef"),
            ("\"db\"", "\"\""),
            ("\"sqlite\"", "\"somewhere\""),
        ],
    );
    refuses(
        pod().encode(),
        PodDefinition::decode,
        &[
            ("\"name\":\"front\",\"config\"", "\"name\":\"\",\"config\""),
            ("[\"web\"]", "[\"-web\"]"),
            (&id("02"), "2"),
        ],
    );
    refuses(
        network().encode(),
        NetworkDefinition::decode,
        &[
            ("\"name\":\"back\"", "\"name\":\"front\""),
            (
                "\"config\":{\"name\":\"back\"",
                "\"config\":{\"name\":\"x\"",
            ),
        ],
    );
    refuses(
        secret().encode(),
        SecretDefinition::decode,
        &[
            ("\"name\":\"dbpass\"", "\"name\":\"a/b\""),
            ("012345678\"", "01234567g\""),
            ("\"driver\":\"file\"", "\"driver\":\"\""),
            ("\"data\":\"a", "\"data\":\"*"),
        ],
    );
    refuses(
        unit().encode(),
        UnitDefinition::decode,
        &[
            ("\"name\":\"web.container\"", "\"name\":\"a/../b\""),
            ("\"service\":\"web.service\"", "\"service\":\"--now\""),
            ("/etc/containers", "/etc/../containers"),
            ("\"/etc/containers", "\"etc/containers"),
        ],
    );
    refuses(
        config().encode(),
        ConfigDefinition::decode,
        &[("\"name\":\"containers\"", "\"name\":\"..\"")],
    );
}

#[test]
fn secrets_do_not_show_in_what_is_written_for_people() {
    let mut secret = secret();
    let shown = format!("{secret:?} {:?} {:?}", container(), pod());
    assert!(!shown.contains("hunter2"), "{shown}");
    let plain = String::from_utf8(secret.without_data().encode()).unwrap();
    assert!(!plain.contains("\"data\":"), "{plain}");
    // Whatever is wrong with it, the message quotes nothing of it.
    for odd in [
        r#""data":["hunter2"]"#,
        r#""data":"hunter2*""#,
        r#""data":7,"id":"hunter2""#,
    ] {
        let error = SecretDefinition::decode(format!("{{{odd}}}").as_bytes()).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
    secret.data = Some(vec![0; SECRET_BYTES_MAX + 1]);
    assert!(SecretDefinition::decode(&secret.encode()).is_err());
    secret.data = Some(vec![0; SECRET_BYTES_MAX]);
    assert!(SecretDefinition::decode(&secret.encode()).is_ok());
}
