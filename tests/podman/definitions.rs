//! What Podman knows besides files: kept as its database has it, on each version of Podman, and
//! without a secret's bytes anywhere but in sealed blocks.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::lab::{Driver, Image, Suite};
use crate::shell::Shell;

/// Bytes that nothing else has. With a line end, which must be neither lost nor doubled.
const WORDS: &str = r#"
export PODKEEP_REPO=/root/repository PODKEEP_PASSWORD=secret
export secret=pk-7f3a91-never-in-the-open
dump() { podkeep dump latest "$@"; }
"#;

/// A host with a pod, two networks, three secrets and containers with awkward values.
const HOST: &str = r#"
podman network create --subnet 10.89.7.0/24 --label a=b front
podman network create --internal back
printf '%s\n' "$secret" | podman secret create dbpass -
printf 'x' | podman secret create one -
head -c 400000 /dev/urandom > /root/big
podman secret create big /root/big
mkdir -p /srv/cfg/sub; echo cfg > /srv/cfg/sub/file; mkfifo /srv/cfg/fifo
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("/srv/x.sock")'
echo FROM_FILE=1 > /root/env
export LATER='value of the host'
podman create --name db --network front:ip=10.89.7.9,alias=database \
    -v data:/data:noexec -v /anonymous -v /srv/cfg:/cfg:ro -v /srv/x.sock:/x.sock \
    --secret dbpass,target=pw,mode=0400 --secret dbpass,type=env,target=PASSWORD \
    -e A=$'l1\nl2' -e B=x=y -e 'C= lead' -e D= -e 'E="q" '"'q'" -e 'F=$HOME' -e 'G=%h%%' \
    -e LATER --env-file /root/env --label $'k=a=b\nc' --label empty= --ulimit nofile=100:200 \
    --log-driver k8s-file --stop-signal USR1 --restart on-failure:5 \
    localhost/lab:1 sh -c 'exec  sleep "in f"'
rm /root/env; unset LATER
podman run -d --name web --network back localhost/lab:1 sh -c \
    'rm /etc/group; rm -r /seed; mkdir /seed; echo new > /seed/own; mkdir -p /srv; echo $$ > /srv/own; exec sleep inf'
until podman exec web test -e /srv/own; do sleep 0.1; done
podman create --name after --requires db --network container:web localhost/lab:1
podman run --name over --network none localhost/lab:1 sh -c 'exit 3' || true
"#;

/// All but the host and its pod, which Podman 4.3 cannot always start.
const POD: &str = "
podman pod create --name front --network front --label p=q -p 127.0.0.1:8123:80
podman create --pod front --name in-pod localhost/lab:1
";

const UNITS: &str = "
mkdir -p /etc/containers/systemd/web2.container.d
printf '[Container]\\nImage=localhost/lab:1\\nEnvironmentFile=/srv/app.env\\n' > /etc/containers/systemd/web2.container
printf '[Service]\\nRestart=always\\n' > /etc/containers/systemd/web2.container.d/1.conf
echo A=1 > /srv/app.env
";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn up(suite: Suite, driver: Driver) -> Shell {
    let lab = Shell::up(suite, driver, WORDS);
    lab.host.image(Image::Busybox);
    lab.ok(HOST);
    lab.ok(POD);
    lab.ok(UNITS);
    lab.ok("podkeep init");
    lab
}

/// C-01, C-02, C-14, C-17, C-19, C-22: what is kept equals what Podman says where it says it.
fn kept_as_podman_has_it(lab: &Shell, source: &str) {
    let told = lab.exits("podkeep backup --all -v", 0);
    for line in [
        "/srv/x.sock",
        "--include-binds",
        "container  db",
        "pod        front",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let shown = &json(&lab.ok("podman container inspect db"))[0];
    let kept = json(&lab.ok("dump container:db"));
    assert_eq!(kept["source"], source);
    assert_eq!(kept["id"], shown["Id"]);
    assert_eq!(kept["status"], "created");
    assert_eq!(kept["image_name"], "localhost/lab:1");
    let config = &kept["config"];
    let texts = |value: &Value| -> BTreeSet<String> {
        let list = value.as_array().expect("a list").iter();
        list.map(|text| text.as_str().expect("a text").to_owned())
            .collect()
    };
    // The configuration has what Podman itself adds at the start: it is no part of it.
    let environment = texts(&config["spec"]["process"]["env"]);
    let mut by_podman = texts(&shown["Config"]["Env"]);
    by_podman
        .retain(|variable| !variable.starts_with("HOSTNAME=") && !variable.starts_with("HOME="));
    let same: BTreeSet<String> = environment.intersection(&by_podman).cloned().collect();
    assert_eq!(
        same.len(),
        by_podman
            .iter()
            .filter(|v| !v.starts_with("PASSWORD="))
            .count()
    );
    for variable in [
        "A=l1\nl2",
        "LATER=value of the host",
        "FROM_FILE=1",
        "E=\"q\" 'q'",
        "G=%h%%",
    ] {
        assert!(
            environment.contains(variable),
            "{variable:?}: {environment:?}"
        );
    }
    assert_eq!(config["labels"], shown["Config"]["Labels"]);
    assert_eq!(
        config["command"],
        json(r#"["sh","-c","exec  sleep \"in f\""]"#)
    );
    // What inspect hides of a container that never ran.
    assert_eq!(config["newNetworks"]["front"]["static_ips"][0], "10.89.7.9");
    let secrets = config["secrets"].as_array().expect("secrets");
    assert_eq!(secrets[0]["Target"], "pw");
    assert_eq!(config["secret_env"]["PASSWORD"]["name"], "dbpass");
    let volumes = config["namedVolumes"].as_array().expect("volumes").len();
    assert_eq!(volumes, 2);

    let web = json(&lab.ok("dump container:web"));
    assert_eq!(web["status"], "running");
    let runtime = json(&lab.ok("cat $(podman inspect web --format '{{.OCIConfigPath}}')"));
    assert_eq!(web["runtime_spec"], runtime);
    let after = json(&lab.ok("dump container:after"));
    let names: BTreeSet<&str> = after["names"]
        .as_object()
        .expect("names")
        .values()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(names, BTreeSet::from(["db", "web"]));
    let over = json(&lab.ok("dump container:over"));
    assert_eq!(
        (over["status"].as_str(), &over["exit_code"]),
        (Some("exited"), &json("3"))
    );

    let network = json(&lab.ok("dump network:front"));
    assert_eq!(
        network["config"],
        json(&lab.ok("cat /etc/containers/networks/front.json"))
    );
    let pod = json(&lab.ok("dump pod:front"));
    assert_eq!(pod["containers"], json(r#"["in-pod"]"#));
    assert_eq!(pod["infra"]["newPortMappings"][0]["host_port"], 8123);
    assert_eq!(pod["config"]["labels"]["p"], "q");
}

/// The writable layer: what was added and changed, and what was removed.
fn own_files_of_a_container(lab: &Shell) {
    let listed = lab.ok("podkeep --json ls latest container:web");
    let kind = |path: &str| -> Option<String> {
        let lines = listed.lines().map(json);
        let found = lines
            .filter(|line| line["type"] == "entry")
            .find(|line| line["path"] == path);
        found.map(|line| line["kind"].as_str().expect("a kind").to_owned())
    };
    assert_eq!(
        kind("/etc/group").as_deref(),
        Some("char-device"),
        "{listed}"
    );
    assert_eq!(kind("/seed/own").as_deref(), Some("file"));
    assert_eq!(kind("/srv/own").as_deref(), Some("file"));
    for path in [
        "/bin/busybox",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/run/.containerenv",
    ] {
        assert_eq!(kind(path), None, "{path}: {listed}");
    }
    assert_eq!(lab.ok("dump container:web:/seed/own"), "new");
}

/// C-14, "Secrets" of what must be shown: the bytes are exact, and nowhere in the open.
fn secrets_are_exact_and_sealed(lab: &Shell) {
    lab.ok(
        "test \"$(dump secret:dbpass:/data | od -c)\" = \"$(printf '%s\\n' \"$secret\" | od -c)\"
         test \"$(dump secret:one:/data | od -c)\" = \"$(printf x | od -c)\"
         dump secret:big:/data | cmp - /root/big",
    );
    // Everything that podkeep says, in text and in JSON, and all that it keeps.
    lab.ok(
        "{ podkeep backup --all -v; podkeep --json --json-progress backup --all; podkeep snapshots
           podkeep ls latest; podkeep --json ls latest; podkeep check --read-data
           for item in secret:dbpass container:db container:web pod:front; do
               podkeep ls latest $item; podkeep --json ls latest $item; podkeep dump latest $item
           done
           printf other | podman secret create other -
           podkeep diff latest live; podkeep --json diff latest live
           podkeep find '*'; podkeep stats; } > /root/said 2>&1",
    );
    // `!` in front of a command would keep bash from ending.
    lab.ok("test -s /root/said
         for form in \"$secret\" \"$(printf '%s\\n' \"$secret\" | base64)\"; do
             if grep -r -F -q -s -e \"$form\" /root/said /root/repository /root/.cache \\
                 /var/cache /var/lib/podkeep /tmp; then exit 1; fi
         done");
    // The search finds what is there to be found: Podman's own file holds it.
    lab.ok(
        "grep -r -F -q -e \"$(printf '%s\\n' \"$secret\" | base64)\" \
            /var/lib/containers/storage/secrets",
    );
}

fn units_and_selection(lab: &Shell) {
    lab.says(
        "podkeep ls latest unit:web2.container",
        0,
        &[
            "/etc/containers/systemd/web2.container.d/1.conf",
            "/srv/app.env",
            "\"service\": \"web2.service\"",
        ],
    );
    assert_eq!(lab.ok("dump unit:web2.container:/srv/app.env"), "A=1");
    let config = json(&lab.ok("dump config:users"));
    assert_eq!(config["facts"]["subuid"][0], "u:100000:65536");
    // A container brings what it needs, and nothing else.
    let listed = lab.ok("podkeep --json backup --dry-run container:after");
    let mut items: Vec<String> = listed
        .lines()
        .map(json)
        .filter(|line| line["type"] == "item")
        .map(|line| line["item"].as_str().expect("an item").to_owned())
        .filter(|item| item.len() < 60)
        .collect();
    items.sort();
    assert_eq!(
        items,
        [
            "container:after",
            "container:db",
            "container:web",
            "image:localhost/lab:1",
            "network:back",
            "network:front",
            "secret:dbpass",
            "volume:data"
        ]
    );
    lab.says(
        "podkeep backup --dry-run --only container:after",
        0,
        &["1 item"],
    );
    lab.says(
        "podkeep backup --dry-run --include-binds container:db",
        0,
        &["path:/srv/cfg"],
    );
    lab.says("podkeep snapshots", 0, &["5 ctr"]);
    // An unchanged host: no definition differs.
    let differences = lab.ok("podkeep --json diff latest live");
    let fields: Vec<&str> = differences
        .lines()
        .filter(|line| line.contains("\"field-difference\""))
        .collect();
    assert!(fields.is_empty(), "{fields:?}");
    lab.ok("podman stop -t 0 web");
    let differences = lab.ok("podkeep --json diff latest live");
    assert!(
        differences.contains("\"field\":\"/status\""),
        "{differences}"
    );
}

#[test]
fn c_01_c_02_c_14_c_17_c_19_c_22_definitions_of_podman_4_3() {
    let lab = up(Suite::Bookworm, Driver::Overlay);
    kept_as_podman_has_it(&lab, "boltdb");
    own_files_of_a_container(&lab);
    secrets_are_exact_and_sealed(&lab);
}

#[test]
fn c_02_definitions_of_podman_5_4() {
    let lab = up(Suite::Trixie, Driver::Overlay);
    kept_as_podman_has_it(&lab, "sqlite");
    own_files_of_a_container(&lab);
    units_and_selection(&lab);
    secrets_are_exact_and_sealed(&lab);
}

#[test]
fn c_14_definitions_of_podman_5_8_on_another_driver() {
    let lab = up(Suite::Sid, Driver::Btrfs);
    kept_as_podman_has_it(&lab, "sqlite");
    own_files_of_a_container(&lab);
    secrets_are_exact_and_sealed(&lab);
    // A driver that keeps it elsewhere is asked through Podman.
    lab.ok("mkdir /root/shell
         printf 'x\\n\\n' | podman secret create --driver shell \
             --driver-opts list='ls /root/shell' --driver-opts lookup='cat /root/shell/$SECRET_ID' \
             --driver-opts store='cat > /root/shell/$SECRET_ID' \
             --driver-opts delete='rm /root/shell/$SECRET_ID' shelled -
         podkeep backup --all
         test \"$(dump secret:shelled:/data | od -c)\" = \"$(printf 'x\\n\\n' | od -c)\"
         rm /root/shell/*");
    lab.says("podkeep backup --all", 3, &["secret:shelled", "shell"]);
}
