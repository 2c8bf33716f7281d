//! The fidelity table: containers with every option of `podman create` that is listed in
//! `fidelity/options.txt`, backed up, destroyed and restored, on each version of Podman. What they are is
//! told by `podman container inspect` and by the configuration that the OCI runtime gets, on both sides;
//! podkeep's own comparison has no part in it.
//!
//! `docs/fidelity.md` is the table. To try another option, add its line to `options.txt`; to write the page
//! anew: `PODKEEP_WRITE_DOCS=1 cargo test --workspace --test podman fidelity`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::lab::{Driver, Image, Suite};
use crate::replay::WORDS;
use crate::shell::Shell;

/// Read when the test runs, so that a line can be tried without building anything.
const OPTIONS: &str = "options.txt";
const SETUP: &str = "setup.sh";

/// Suite, what it is called, its version.
const PODMANS: [(Suite, &str, (u32, u32)); 3] = [
    (Suite::Bookworm, "4.3.1", (4, 3)),
    (Suite::Trixie, "5.4.2", (5, 4)),
    (Suite::Sid, "5.8", (5, 8)),
];

/// What differs between any two containers of the same options: group, field, reason. `*` stands for
/// anything.
const ANEW: [(&str, &str, &str); 26] = [
    ("*", "/Created", "new-object"),
    ("*", "*/io.kubernetes.cri-o.Created", "new-object"),
    ("*", "/State/StartedAt", "new-object"),
    ("*", "/State/FinishedAt", "new-object"),
    ("*", "/State/CheckpointedAt", "new-object"),
    ("*", "/State/Pid", "new-object"),
    ("*", "/State/ConmonPid", "new-object"),
    ("*", "/State/CgroupPath", "new-object"),
    ("*", "/State/ExitCode", "new-object"),
    ("*", "/State/Health/*", "new-object"),
    ("*", "/lockNumber", "new-object"),
    ("*", "/GraphDriver/Data/*", "new-object"),
    ("*", "/NetworkSettings/SandboxKey", "new-object"),
    ("*", "*SandboxID", "new-object"),
    ("*", "/Config/Secrets[*]/ID", "new-object"),
    ("*", "oci:/root/path", "new-object"),
    ("*", "oci:/linux/namespaces[*]/path", "new-object"),
    ("*", "/NetworkSettings/IPAddress", "chosen-anew"),
    ("*", "/NetworkSettings/MacAddress", "chosen-anew"),
    (
        "*",
        "/NetworkSettings/Networks/podman/IPAddress",
        "chosen-anew",
    ),
    (
        "*",
        "/NetworkSettings/Networks/podman/MacAddress",
        "chosen-anew",
    ),
    (
        "joins",
        "/NetworkSettings/Networks/named/*Address",
        "chosen-anew",
    ),
    (
        "static",
        "/NetworkSettings/Networks/named/*Address",
        "chosen-anew",
    ),
    (
        "static",
        "/NetworkSettings/Networks/inner/*Address",
        "chosen-anew",
    ),
    ("*", "/Config/Env: HOSTNAME", "pinned-hostname"),
    (
        "*",
        "/NetworkSettings/Networks/*/Aliases: the old short ID",
        "pinned-hostname",
    ),
];
/// Lists without an order.
const UNORDERED: [&str; 6] = ["Env", "env", "Aliases", "options", "Options", "Binds"];
const UNORDERED_TOO: &str = "/Dependencies";

/// One option.
struct Row<'a> {
    group: &'a str,
    option: &'a str,
    /// A JSON pointer, after "oci:" into the OCI configuration.
    place: &'a str,
    value: &'a str,
    since: (u32, u32),
}

fn read(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/podman/fidelity");
    std::fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn rows(options: &str) -> Vec<Row<'_>> {
    let version = |text: &str| {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    options
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let fields: Vec<&str> = line.split(" | ").map(str::trim).collect();
            let row = |since| Row {
                group: fields[0],
                option: fields[1],
                place: fields[2],
                value: fields[3],
                since,
            };
            match fields.len() {
                4 => row((0, 0)),
                5 => row(version(fields[4]).unwrap_or_else(|| panic!("no version: {line}"))),
                _ => panic!("no row of four or five fields: {line}"),
            }
        })
        .collect()
}

/// Makes the containers, one for each group, named after it. Options that this Podman lacks have to be
/// refused.
fn script(rows: &[Row<'_>], version: (u32, u32)) -> String {
    let mut script = read(SETUP);
    let groups: BTreeSet<&str> = rows.iter().map(|row| row.group).collect();
    for group in groups {
        let (mut options, mut arguments) = (String::new(), String::new());
        for row in rows.iter().filter(|row| row.group == group) {
            match row.option.strip_prefix("@ ") {
                _ if row.since > version => {
                    let _ = writeln!(
                        script,
                        "not podman create --name lacking {} $I >/dev/null 2>&1",
                        row.option
                    );
                }
                Some(argument) => arguments.push_str(argument),
                None => {
                    let _ = write!(options, " {}", row.option);
                }
            }
        }
        let image = match options.contains("--rootfs") {
            true => "",
            false => "$I",
        };
        let _ = writeln!(
            script,
            "podman create --name {group} {options} {image} {arguments} >/dev/null"
        );
    }
    script
}

/// What Podman says of containers, and what it gave to the OCI runtime.
struct Told {
    inspect: BTreeMap<String, Value>,
    oci: BTreeMap<String, Value>,
}

/// Makes the configurations of the containers and reads them. The OCI runtime of this machine cannot
/// make all of them; what it was given is there all the same. IDs are replaced by what they are of.
fn told(lab: &Shell, ids: &mut Vec<(String, String)>) -> Told {
    let read = lab.ok("podman start base joined >/dev/null
         podman ps -a --no-trunc --format '{{.ID}} {{.Names}}'
         podman pod ls --no-trunc --format '{{.ID}} {{.Name}}'");
    for line in read.lines() {
        let (id, name) = line.split_once(' ').expect("an ID and a name");
        let name = match name.ends_with("-infra") {
            true => "infra",
            false => name,
        };
        ids.push((id.to_owned(), name.to_owned()));
    }
    let all = lab.ok(
        "names=$(podman ps -a --format '{{.Names}}' | grep -v -e -infra -e '^base$' -e '^joined$')
         podman init $names >/dev/null 2>&1 || true
         podman container inspect $names 2>/dev/null; echo ,
         folders=$(podman container inspect $names --format '{{.Name}} {{.StaticDir}}' 2>/dev/null)
         printf '{'
         while read -r name folder; do
             printf '\"%s\": ' $name; cat $folder/config.json; printf ',\n'
         done <<< \"$folders\"
         printf '\"\": 0}'",
    );
    let mut all = format!("[{all}]");
    for (id, name) in ids.iter() {
        // A machine ID is half of one, a hostname the first twelve digits.
        for digits in [64, 32, 12] {
            all = all.replace(&id[..digits], &format!("<{name}>"));
        }
    }
    let all: Value = serde_json::from_str(&all).unwrap_or_else(|error| panic!("{error}: {all}"));
    let by_name = all[0].as_array().expect("a list").iter();
    let name = |one: &Value| one["Name"].as_str().expect("a name").to_owned();
    let oci = all[1].as_object().expect("configurations").iter();
    Told {
        inspect: by_name.map(|one| (name(one), one.clone())).collect(),
        oci: oci.map(|(name, one)| (name.clone(), one.clone())).collect(),
    }
}

/// Whether `*` in a pattern may stand for what makes it the text.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len()).any(|at| text.is_char_boundary(at) && fits(rest, &text[at..]))
        }),
    }
}

/// A text without the number that Podman drew for a folder.
fn undrawn(text: &str) -> String {
    let mut text = text.to_owned();
    for before in ["/userdata/overlay/", "/userdata/subpath"] {
        let mut from = 0;
        while let Some(at) = text[from..].find(before) {
            let start = from + at + before.len();
            let digits = text[start..].bytes().take_while(u8::is_ascii_digit).count();
            text.replace_range(start..start + digits, "N");
            from = start;
        }
    }
    text
}

/// Leaves by where they are. Entries of a list are known by what they are of.
fn flatten(value: &Value, path: String, group: &str, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                flatten(value, format!("{path}/{key}"), group, into);
            }
        }
        Value::Array(list) if list.iter().all(Value::is_string) => {
            let mut texts: Vec<String> =
                list.iter().map(|text| undrawn(&text.to_string())).collect();
            let last = path.rsplit('/').next().unwrap_or_default();
            if UNORDERED.contains(&last) || path == UNORDERED_TOO {
                texts.sort();
                texts.dedup();
                // What a pinned hostname adds.
                texts.retain(|text| *text != format!("\"HOSTNAME=<{group}>\""));
            }
            into.insert(path, format!("[{}]", texts.join(", ")));
        }
        Value::Array(list) => {
            let names = ["destination", "Destination", "type", "Name"];
            let name = |value: &Value| {
                let mut found = names.iter().filter_map(|name| value.get(name)?.as_str());
                found.next().map(str::to_owned)
            };
            let all: Vec<Option<String>> = list.iter().map(name).collect();
            for (index, value) in list.iter().enumerate() {
                let path = match &all[index] {
                    Some(name) if all.iter().filter(|other| **other == all[index]).count() == 1 => {
                        format!("{path}[{name}]")
                    }
                    _ => format!("{path}/{index}"),
                };
                flatten(value, path, group, into);
            }
        }
        value => drop(into.insert(path, undrawn(&value.to_string()))),
    }
}

fn differences(before: &Told, after: &Told) -> Vec<String> {
    let mut found = Vec::new();
    for (group, inspect) in &before.inspect {
        let Some(again) = after.inspect.get(group) else {
            found.push(format!("{group} is not there"));
            continue;
        };
        let (mut was, mut is) = (BTreeMap::new(), BTreeMap::new());
        flatten(inspect, String::new(), group, &mut was);
        flatten(again, String::new(), group, &mut is);
        flatten(&before.oci[group], "oci:".into(), group, &mut was);
        flatten(&after.oci[group], "oci:".into(), group, &mut is);
        let fields: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        for field in fields
            .into_iter()
            .filter(|field| was.get(*field) != is.get(*field))
        {
            let is_anew = ANEW
                .iter()
                .any(|(of, pattern, _)| fits(of, group) && fits(pattern, field));
            if !is_anew {
                let (was, is) = (was.get(field), is.get(field));
                found.push(format!("{group} {field}: {was:?} -> {is:?}"));
            }
        }
    }
    found
}

/// Rows whose value the source does not have.
fn without_effect<'a>(rows: &'a [Row<'_>], version: (u32, u32), told: &'a Told) -> Vec<String> {
    let shown = |row: &Row<'_>| {
        let (of, pointer) = match row.place.strip_prefix("oci:") {
            Some(pointer) => (&told.oci, pointer),
            None => (&told.inspect, row.place),
        };
        let value = of.get(row.group).and_then(|one| one.pointer(pointer));
        value.map(Value::to_string).unwrap_or_default()
    };
    rows.iter()
        .filter(|row| row.since <= version && !shown(row).contains(row.value))
        .map(|row| format!("{}: {} shows {}", row.option, row.place, shown(row)))
        .collect()
}

/// All options on one Podman. Returns what went wrong.
fn try_on(suite: Suite, version: (u32, u32), rows: &[Row<'_>]) -> Vec<String> {
    let lab = Shell::up(suite, Driver::Overlay, WORDS);
    lab.host.image(Image::Busybox);
    lab.ok(&script(rows, version));
    let mut ids = Vec::new();
    let before = told(&lab, &mut ids);
    lab.ok("podkeep init >/dev/null; podkeep backup --all >/dev/null; destroy");
    let said = lab.run("podkeep restore latest --all");
    let mut wrong = Vec::new();
    if said.code != 0 {
        wrong.push(format!("the restore is not without warnings: {said:?}"));
    }
    let after = told(&lab, &mut ids);
    wrong.extend(without_effect(rows, version, &before));
    wrong.extend(differences(&before, &after));
    wrong
        .iter()
        .map(|line| format!("{suite}: {line}"))
        .collect()
}

fn page(rows: &[Row<'_>]) -> String {
    let mut page = String::from(
        "# Fidelity\n\n\
         Containers with the options below were made, backed up, destroyed and restored, on each of three versions of\n\
         Podman. `=`: all that `podman container inspect` says of the container and all of the configuration that the OCI\n\
         runtime gets are after the restore as before. `n/a`: this Podman has no such option (and refuses it).\n\n\
         Written by `tests/podman/fidelity.rs`, which runs all of it; `tests/podman/fidelity/options.txt` is the list.\n\n\
         | option of `podman create` | the source has |",
    );
    for (_, name, _) in PODMANS {
        let _ = write!(page, " {name} |");
    }
    page.push_str("\n|---|---|");
    page.push_str(&"---|".repeat(PODMANS.len()));
    page.push('\n');
    let cell = |text: &str| format!("`{}`", text.replace('|', "\\|"));
    for row in rows {
        let option = match row.option.strip_prefix("@ ") {
            Some(arguments) => format!("IMAGE {arguments}"),
            None => row.option.to_owned(),
        };
        let _ = write!(page, "| {} | {} |", cell(&option), cell(row.value));
        for (_, _, version) in PODMANS {
            let shown = match row.since <= version {
                true => "=",
                false => "n/a",
            };
            let _ = write!(page, " {shown} |");
        }
        page.push('\n');
    }
    page.push_str(
        "\nWhat any two containers of the same options have otherwise, and so does not count (the reasons are those of\n\
         `restore`'s own proof; IDs are compared by what they are of, and the numbers that Podman draws for folders of\n\
         overlay mounts and subpaths are left out):\n\n| field | of | reason |\n|---|---|---|\n",
    );
    for (group, field, reason) in ANEW {
        let of = match group {
            "*" => "all".to_owned(),
            group => format!(
                "the container with `{}`",
                rows.iter()
                    .find(|row| row.group == group)
                    .map_or(group, |row| row.option)
            ),
        };
        let _ = writeln!(page, "| {} | {of} | {reason} |", cell(field));
    }
    page
}

#[test]
fn every_option_comes_back_on_every_podman() {
    let options = read(OPTIONS);
    let rows = rows(&options);
    assert!(rows.len() >= 100, "{} options", rows.len());
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let hosts: Vec<_> = PODMANS
            .iter()
            .map(|(suite, _, version)| scope.spawn(|| try_on(*suite, *version, &rows)))
            .collect();
        let ended = hosts.into_iter().map(|host| host.join());
        // What it panicked with is told by itself.
        let failed = |_| vec!["a host failed".to_owned()];
        ended
            .flat_map(|wrong| wrong.unwrap_or_else(failed))
            .collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let current = page(&rows);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/fidelity.md");
    if std::env::var_os("PODKEEP_WRITE_DOCS").is_some() {
        std::fs::write(&path, &current).expect("docs/fidelity.md can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == current,
        "docs/fidelity.md is not current: run with PODKEEP_WRITE_DOCS=1"
    );
}
