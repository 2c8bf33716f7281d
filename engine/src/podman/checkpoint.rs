//! Processes that go on elsewhere: containers with what they have in memory, by Podman's checkpoints (CRIU).
//!
//! `podman container checkpoint` stops a container and leaves its processes beside it, from where `podman
//! container restore` sets them going; with `--export` it writes them to an archive, too. If one of the two
//! fails, the container runs on, or rests.
//!
//! At another host the container is made like any other, and its processes are put beside it, where Podman
//! would have left them. `podman container restore --import` is not used: it would bring the container's own
//! files in an archive without ACLs, holes and parts of seconds, and where a symbolic link was removed it
//! removes what the link led to (Podman 5.8.6). Podman writes the container's config.json, without which it
//! restores nothing, when the container is initialized; that is taken back before.
//!
//! Source: libpod, `container_internal_common.go` (`checkpoint`, `restore`, `importCheckpointTar`).

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::command::{Ended, Podman, PodmanError, Purpose, failure, parse};
use super::quiesce::{UNIT_LABEL, start};
use super::tar::{TarKind, TarParser, TarPart};

/// Until a container's memory is written, or read. What is given up on goes on below Podman all the same, and
/// stops or starts a container later: so this is longer than anybody lets a container rest.
const TIME_MAX: Duration = Duration::from_secs(3600);
/// Bytes of a log of CRIU that are looked through, from its end.
const LOG_BYTES_MAX: usize = 64 << 10;
const PART_BYTES: usize = 256 << 10;
const RESUME_TRIES: u32 = 3;
const RESUME_PAUSE: Duration = Duration::from_millis(300);
const KEPT_STATE: [&str; 2] = ["--tcp-established", "--file-locks"];
/// What CRIU logs on each call without CAP_SYS_RESOURCE, and goes on.
const HARMLESS: &str = "Can't setup RLIMIT_NOFILE for self";

/// How names of x86 features begin that programs choose their code by. The kernel lists others, too, which
/// tell of itself.
const USED: [&str; 40] = [
    "3dnow",
    "abm",
    "adx",
    "aes",
    "amx",
    "avx",
    "bmi",
    "cldemote",
    "clflush",
    "clwb",
    "clzero",
    "cmov",
    "cx",
    "erms",
    "f16c",
    "fma",
    "fsrm",
    "fxsr",
    "gfni",
    "hle",
    "lahf",
    "lzcnt",
    "mmx",
    "movbe",
    "movdir",
    "ospke",
    "pclmul",
    "pku",
    "pni",
    "popcnt",
    "prefetchw",
    "rdpid",
    "rdrand",
    "rdseed",
    "rtm",
    "sha_ni",
    "sse",
    "ssse",
    "vaes",
    "xsave",
];

/// What the processor of this machine can do that programs make use of, in the kernel's words; sorted.
pub fn processor_features() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    features_of(&text)
}

fn features_of(cpuinfo: &str) -> Vec<String> {
    let line = cpuinfo.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        matches!(name.trim(), "flags" | "Features").then(|| (name.trim() == "flags", value))
    });
    let (is_x86, words) = line.unwrap_or_default();
    let used = |word: &&str| !is_x86 || USED.iter().any(|used| word.starts_with(used));
    let words = words.split_whitespace().filter(used);
    let mut features: Vec<String> = words.map(str::to_owned).collect();
    features.sort();
    features.dedup();
    features
}

/// CRIU's version, as its parts; nothing, where it does not tell.
pub fn criu_version(podman: &Podman) -> Vec<u32> {
    let purpose = Purpose {
        action: "ask",
        object: "CRIU",
    };
    let criu = podman.beside("criu");
    let told = criu.and_then(|criu| criu.run(purpose, &["--version"], b"").ok());
    version_in(&String::from_utf8_lossy(&told.unwrap_or_default()))
}

/// "Version: 4.2.1"
fn version_in(told: &str) -> Vec<u32> {
    let line = told.lines().find_map(|line| line.strip_prefix("Version:"));
    let parts = line.unwrap_or_default().trim().split('.');
    parts.map_while(|part| part.parse().ok()).collect()
}

/// Why no container can be checkpointed or restored here, in words.
pub fn obstacles(podman: &Podman) -> Result<Vec<String>, PodmanError> {
    if podman.is_rootless() {
        return Ok(vec!["it takes root's Podman".into()]);
    }
    let Some(criu) = podman.beside("criu") else {
        return Ok(vec!["CRIU is not installed".into()]);
    };
    let mut found = Vec::new();
    let purpose = Purpose {
        action: "ask",
        object: "CRIU",
    };
    let checked = criu.end(purpose, &["check"], b"")?;
    if !checked.status.success() {
        let why = criu_error(&checked.stderr);
        let why = why.unwrap_or_else(|| failure(purpose, &checked).cause);
        found.push(format!("CRIU does not work: {why}"));
    }
    // It is loaded by crun when it is needed, and a package of its own.
    if podman.default_runtime()? == "crun"
        && let Some(ldconfig) = podman.beside("ldconfig")
        && let Ok(known) = ldconfig.run(purpose, &["-p"], b"")
        && !String::from_utf8_lossy(&known).contains("libcriu.so")
    {
        found.push("crun needs libcriu, which is not installed".into());
    }
    Ok(found)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    name: String,
    state: State,
    #[serde(default)]
    static_dir: PathBuf,
    #[serde(default)]
    pod: String,
    config: Config,
    host_config: HostConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    restored: bool,
    #[serde(default)]
    restore_log: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    labels: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    auto_remove: bool,
    #[serde(default)]
    userns_mode: String,
    #[serde(default)]
    pid_mode: String,
}

fn inspect(podman: &Podman, names: &[String]) -> Result<Vec<Shown>, PodmanError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let purpose = Purpose {
        action: "inspect",
        object: "containers",
    };
    let mut arguments = vec!["container", "inspect", "--format", "json"];
    arguments.extend(names.iter().map(String::as_str));
    parse(purpose, &podman.run(purpose, &arguments, b"")?)
}

/// `None`: it is not there.
fn inspect_one(podman: &Podman, name: &str) -> Result<Option<Shown>, PodmanError> {
    match inspect(podman, &[name.to_owned()]) {
        Ok(shown) => Ok(shown.into_iter().next()),
        Err(error) if error.not_found => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which of these containers cannot be checkpointed, and why; each in words.
pub fn unfit(podman: &Podman, names: &[String]) -> Result<Vec<String>, PodmanError> {
    let shown = inspect(podman, names)?.into_iter();
    Ok(shown
        .filter_map(|one| Some(format!("container {} {}", one.name, one.unfit()?)))
        .collect())
}

impl Shown {
    /// Where Podman keeps what the OCI runtime needs of it.
    fn bundle(&self) -> Option<PathBuf> {
        self.static_dir
            .is_absolute()
            .then(|| self.static_dir.clone())
    }

    fn unfit(&self) -> Option<&'static str> {
        let host = &self.host_config;
        let labels = self.config.labels.as_ref();
        if self.state.status != "running" {
            Some("is not running")
        } else if !self.pod.is_empty() {
            Some("is in a pod")
        } else if labels.is_some_and(|labels| labels.contains_key(UNIT_LABEL)) {
            Some("is run by a unit of systemd, which would not know it")
        } else if host.auto_remove {
            Some("is removed when it stops (--rm)")
        } else if host.pid_mode == "host" {
            Some("has the process IDs of its host, which others have at the target")
        } else if !host.userns_mode.is_empty() && host.userns_mode != "host" {
            Some("has a user namespace of its own")
        } else {
            None
        }
    }
}

/// Bytes of memory that the processes of these containers hold and that no file has.
pub fn memory(podman: &Podman, names: &[String]) -> Result<u64, PodmanError> {
    let shown = inspect(podman, names)?;
    let namespaces: Vec<u64> = (shown.iter())
        .filter_map(|one| namespace_of(&one.state.pid.to_string()))
        .collect();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let pids = names.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    let within = pids.filter(|pid| namespace_of(pid).is_some_and(|own| namespaces.contains(&own)));
    Ok(within.map(|pid| held_by(&pid)).sum())
}

/// Bytes of memory that a process holds, its share of what several do; those that are swapped out, too.
fn held_by(pid: &str) -> u64 {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
    match read("smaps_rollup") {
        Ok(text) => sum_of(&text, &["Pss_Anon", "Pss_Shmem", "SwapPss"]),
        // It ended, or the kernel has no such file.
        Err(_) => {
            let text = read("status").unwrap_or_default();
            sum_of(&text, &["RssAnon", "RssShmem", "VmSwap"])
        }
    }
}

/// The inode of a process's PID namespace.
fn namespace_of(pid: &str) -> Option<u64> {
    let link = format!("/proc/{pid}/ns/pid");
    Some(std::fs::metadata(link).ok()?.ino())
}

/// Of lines such as "RssAnon:   512 kB".
fn sum_of(text: &str, names: &[&str]) -> u64 {
    let lines = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let kib = value.trim().strip_suffix("kB")?.trim();
        let kib = kib.parse::<u64>().ok()?;
        names.contains(&name).then_some(kib << 10)
    });
    lines.sum()
}

/// Stops a container by ID and writes its processes to `archive`, which is not there. If that fails, it mostly
/// runs on; where it does not, its processes lie beside it.
pub fn dump(podman: &Podman, id: &str, archive: &Path) -> Result<(), PodmanError> {
    let object = format!("container {id}");
    let purpose = Purpose {
        action: "checkpoint",
        object: &object,
    };
    let export = format!("--export={}", archive.display());
    // Volumes and its own files go their own way.
    let mut arguments = vec![
        "container",
        "checkpoint",
        &export,
        "--compress=none",
        "--ignore-volumes",
        "--ignore-rootfs",
    ];
    arguments.extend(KEPT_STATE);
    arguments.push(id);
    let ended = podman.end_within(purpose, &arguments, b"", TIME_MAX)?;
    match ended.status.success() {
        true => Ok(()),
        false => Err(explained(purpose, &ended, "")),
    }
}

/// Sets a container going where it was checkpointed, unless it ran since. If that fails, it does not run, as
/// far as [`standing`] tells.
pub fn resume(podman: &Podman, id: &str) -> Result<(), PodmanError> {
    let object = format!("container {id} from its checkpoint");
    let purpose = Purpose {
        action: "restore",
        object: &object,
    };
    let format = "{{.State.StartedAt.Unix}} {{.State.RestoredAt.Unix}} {{.StaticDir}}";
    let told = podman.run(
        purpose,
        &["container", "inspect", "--format", format, id],
        b"",
    )?;
    let told = String::from_utf8_lossy(&told);
    let mut words = told.trim().splitn(3, ' ');
    let mut second = || words.next().and_then(|word| word.parse::<i64>().ok());
    let ran = second().max(second());
    let bundle = Path::new(words.next().unwrap_or_default());
    let taken = std::fs::metadata(bundle.join(PROCESSES).join(INVENTORY)).ok();
    match taken {
        None => return Err(purpose.error("it has none")),
        Some(taken) if ran.is_some_and(|ran| ran > taken.mtime()) => {
            return Err(purpose.error("it ran since that was taken, and may have written"));
        }
        Some(_) => {}
    }
    let mut arguments = vec!["container", "restore"];
    arguments.extend(KEPT_STATE);
    arguments.push(id);
    restore(podman, purpose, id, &arguments)
}

/// The same, several times if need be, since Podman's database may be locked; then it is started, and its
/// processes are forgotten. Returns why they do not go on, if they do not. `Err`: it does not run.
pub fn resume_or_start(podman: &Podman, id: &str) -> Result<Option<PodmanError>, PodmanError> {
    let mut tries = 0;
    let why = loop {
        let Err(error) = resume(podman, id) else {
            return Ok(None);
        };
        if standing(podman, id)? == Standing::Runs {
            return Ok(None);
        }
        tries += 1;
        if tries == RESUME_TRIES {
            break error;
        }
        std::thread::sleep(RESUME_PAUSE);
    };
    let id = [id.to_owned()];
    start(podman, &id)?;
    forget(podman, &id)?;
    Ok(Some(why))
}

/// Removes the processes that lie beside containers: they are of no use where they do not go on, and hold what
/// was in memory.
pub fn forget(podman: &Podman, names: &[String]) -> Result<(), PodmanError> {
    for name in names {
        if let Some(bundle) = inspect_one(podman, name)?.and_then(|one| one.bundle()) {
            remove_kept(&bundle);
        }
    }
    Ok(())
}

/// Sets a container that was made and never ran going with the processes of an archive. If that fails, it
/// does not run, as far as [`standing`] tells.
pub fn resume_from(podman: &Podman, name: &str, archive: &Path) -> Result<(), PodmanError> {
    let object = format!("container {name}");
    let purpose = Purpose {
        action: "prepare",
        object: &object,
    };
    podman.run(purpose, &["init", name], b"")?;
    podman.run(purpose, &["container", "cleanup", name], b"")?;
    let bundle = inspect_one(podman, name)?.and_then(|one| one.bundle());
    let bundle = bundle
        .ok_or_else(|| purpose.error("Podman does not tell where it keeps what belongs to it"))?;
    unpack(archive, Some(&bundle)).map_err(|cause| purpose.error(cause))?;
    let restored = resume(podman, name);
    if restored.is_err() && standing(podman, name)? == Standing::Rests {
        remove_kept(&bundle);
    }
    restored
}

/// Whether an archive is whole and has processes; the cause is in words.
pub fn verify(archive: &Path) -> Result<(), String> {
    unpack(archive, None)
}

/// What CRIU begins to read with.
const INVENTORY: &str = "inventory.img";
/// What Podman keeps beside a container of its processes, and how it names that in an archive.
const PROCESSES: &str = "checkpoint";
/// What it was given by its networks, so that it is given the same again, and what lies in /dev/shm.
const BESIDE: [&str; 2] = ["network.status", "devshm-checkpoint.tar"];

/// The place of a member of an archive below the bundle; `None`: it is not needed here. Nobody has to be
/// believed what is in an archive.
fn place_of(member: &[u8]) -> Option<PathBuf> {
    let name = std::str::from_utf8(member).ok()?;
    let plain = |name: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        !name.is_empty() && !name.starts_with('.') && name.bytes().all(allowed)
    };
    match name.split_once('/') {
        None => BESIDE.contains(&name).then(|| PathBuf::from(name)),
        Some((PROCESSES, name)) => plain(name).then(|| Path::new(PROCESSES).join(name)),
        Some(_) => None,
    }
}

/// Below the bundle; without one, what is in the archive is only looked at. Errors are in words.
fn unpack(archive: &Path, bundle: Option<&Path>) -> Result<(), String> {
    let about = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("{path}: {error}")
    };
    if let Some(bundle) = bundle {
        remove_kept(bundle);
        let processes = bundle.join(PROCESSES);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&processes);
        made.map_err(about(&processes))?;
    }
    let inventory = Path::new(PROCESSES).join(INVENTORY);
    let mut has_inventory = false;
    let mut tar = File::open(archive).map_err(about(archive))?;
    let mut parser = TarParser::new();
    let mut open: Option<(PathBuf, File)> = None;
    let mut bytes = vec![0; PART_BYTES];
    loop {
        let len = tar.read(&mut bytes).map_err(about(archive))?;
        if len == 0 {
            break;
        }
        parser.push(&bytes[..len], &mut |part| {
            match part {
                TarPart::Entry(entry) => {
                    open = None;
                    let place = match entry.kind {
                        TarKind::File => place_of(&entry.name),
                        _ => None,
                    };
                    has_inventory |= place.as_ref() == Some(&inventory);
                    if let (Some(bundle), Some(place)) = (bundle, place) {
                        let path = bundle.join(place);
                        let mut options = File::options();
                        options.write(true).create_new(true).mode(0o600);
                        let file = options.open(&path).map_err(about(&path))?;
                        open = Some((path, file));
                    }
                }
                TarPart::Content(content) => {
                    if let Some((path, file)) = &mut open {
                        file.write_all(content).map_err(about(path))?;
                    }
                }
                TarPart::Raw(_) => {}
            }
            Ok(())
        })?;
    }
    parser.finish()?;
    match has_inventory {
        true => Ok(()),
        false => Err(format!("{}: it holds no processes", archive.display())),
    }
}

fn remove_kept(bundle: &Path) {
    // What is not there is removed; what cannot be removed is found by whoever writes it.
    let _ = std::fs::remove_dir_all(bundle.join(PROCESSES));
    for name in BESIDE {
        let _ = std::fs::remove_file(bundle.join(name));
    }
}

/// What a container that was to be set going does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Gone,
    /// It does not run, and nothing says that it did.
    Rests,
    /// It or a part of it runs or is paused.
    Runs,
    /// It ran, and ended.
    Ran,
}

pub fn standing(podman: &Podman, name: &str) -> Result<Standing, PodmanError> {
    Ok(match inspect_one(podman, name)?.map(|one| one.state) {
        None => Standing::Gone,
        Some(state) if state.runs() => Standing::Runs,
        Some(state) if state.restored => Standing::Ran,
        Some(_) => Standing::Rests,
    })
}

impl State {
    fn runs(&self) -> bool {
        matches!(&*self.status, "running" | "paused" | "stopping")
    }
}

fn restore(
    podman: &Podman,
    purpose: Purpose<'_>,
    container: &str,
    arguments: &[&str],
) -> Result<(), PodmanError> {
    let ended = podman.end_within(purpose, arguments, b"", TIME_MAX)?;
    if ended.status.success() {
        return Ok(());
    }
    // What CRIU says lies beside the container, if that was made.
    let shown = inspect(podman, &[container.to_owned()]).unwrap_or_default();
    let log = shown
        .first()
        .and_then(|one| std::fs::read(&one.state.restore_log).ok());
    let log = log.unwrap_or_default();
    let log = &log[log.len().saturating_sub(LOG_BYTES_MAX)..];
    Err(explained(purpose, &ended, &String::from_utf8_lossy(log)))
}

fn explained(purpose: Purpose<'_>, ended: &Ended, log: &str) -> PodmanError {
    let mut error = failure(purpose, ended);
    if let Some(why) = criu_error(log).or_else(|| criu_error(&ended.stderr)) {
        error.cause = format!("CRIU says: {why}");
    }
    error
}

/// The first thing that CRIU could not do: what follows is that it could not do what stands on that.
/// "(00.107601) Error (criu/sk-inet.c:200): inet: Connected TCP socket, consider ..."
fn criu_error(log: &str) -> Option<String> {
    let errors = log.lines().filter_map(|line| {
        let (_, rest) = line.split_once("Error (")?;
        let (_, message) = rest.split_once("): ")?;
        (!message.contains(HARMLESS)).then_some(message.trim())
    });
    errors.map(super::command::shortened).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_criu_could_not_do_is_told_in_its_words() {
        let said = "--- excerpt from CRIU log `/x/dump.log`\n\
            (00.001414) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n\
            (00.107601) Error (criu/sk-inet.c:200): inet: Connected TCP socket, consider using --tcp-established option.\n\
            (00.107611) Error (criu/cr-dump.c:1545): Dump files (pid: 1374) failed with -1\n\
            --- end of excerpt\nCRIU checkpointing failed: -52: Invalid exchange\n";
        assert_eq!(
            criu_error(said).as_deref(),
            Some("inet: Connected TCP socket, consider using --tcp-established option.")
        );
        let log = "(00.065539)      1: Thread    1 stack  0x2a8c0\n\
            (00.065550)      1: Error (criu/files-reg.c:2294): File . has bad mode 040755 (expect 040555)\n";
        let told = criu_error(log);
        assert_eq!(
            told.as_deref(),
            Some("File . has bad mode 040755 (expect 040555)")
        );
        assert_eq!(
            criu_error("Error: no container with name or ID \"c\""),
            None
        );
    }

    #[test]
    fn a_version_is_read() {
        assert_eq!(version_in("Version: 4.2.1\nGitID: v4\n"), [4, 2, 1]);
        assert!(version_in("Version: 4.2") < version_in("Version: 4.10"));
        assert_eq!(version_in(""), Vec::<u32>::new());
    }

    #[test]
    fn what_a_processor_can_do_is_read() {
        let features =
            features_of("processor\t: 0\nflags\t\t: sse2 avx2 fpu user_shstk\n\nflags\t\t: avx\n");
        assert_eq!(features, ["avx2", "sse2"]);
        assert_eq!(features_of("Features\t: fp sve\n"), ["fp", "sve"]);
    }

    #[test]
    fn memory_that_no_file_has_is_counted() {
        let status = "Name:\tdb\nVmRSS:\t  900 kB\nRssAnon:\t     512 kB\nRssFile:\t 300 kB\nRssShmem:\t      88 kB\n";
        assert_eq!(sum_of(status, &["RssAnon", "RssShmem"]), 600 << 10);
        assert!(held_by("self") > 0);
    }

    #[test]
    fn an_archive_brings_what_is_expected_of_it_and_nothing_else() {
        use crate::fs::tar::{NewMember, TarType, TarWriter};
        use podkeep_format::tree::Time;

        let around = tempfile::tempdir().unwrap();
        let bundle = around.path().join("bundle");
        std::fs::create_dir(&bundle).unwrap();
        std::fs::write(bundle.join("config.json"), "ours").unwrap();
        std::os::unix::fs::symlink(around.path(), bundle.join("network.status")).unwrap();
        let mut tar = TarWriter::new(Vec::new());
        let mut member = |path: &str, what: TarType<'_>| {
            let member = NewMember {
                path: path.as_bytes(),
                what,
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: Time::default(),
                records: &[],
            };
            tar.member(&member).unwrap();
            if let TarType::File { .. } = member.what {
                tar.content(b"bytes").unwrap();
            }
        };
        for path in [
            "checkpoint/inventory.img",
            "network.status",
            "config.json",
            "spec.dump",
            "checkpoint/../config.json",
            "checkpoint/deep/er",
            "checkpoint/.hidden",
            "../out",
            "/out",
            "secrets/key",
        ] {
            member(path, TarType::File { size: 5 });
        }
        member("checkpoint/link", TarType::Symlink(b"/etc/passwd"));
        let bytes = tar.finish().unwrap();
        let archive = around.path().join("archive");
        std::fs::write(&archive, &bytes).unwrap();
        unpack(&archive, Some(&bundle)).unwrap();
        let names = |folder: &Path| {
            let entries = std::fs::read_dir(folder).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        assert_eq!(
            names(&bundle),
            ["checkpoint", "config.json", "network.status"]
        );
        assert_eq!(names(&bundle.join("checkpoint")), ["inventory.img"]);
        assert_eq!(names(around.path()), ["archive", "bundle"]);
        assert_eq!(std::fs::read(bundle.join("config.json")).unwrap(), b"ours");
        assert_eq!(
            std::fs::read(bundle.join("network.status")).unwrap(),
            b"bytes"
        );

        // Cut off, it is told; again, it starts from nothing.
        std::fs::write(&archive, &bytes[..514]).unwrap();
        assert!(unpack(&archive, Some(&bundle)).is_err());
        assert!(verify(&archive).is_err());
        std::fs::write(&archive, &bytes).unwrap();
        unpack(&archive, Some(&bundle)).unwrap();
        assert_eq!(verify(&archive), Ok(()));
        remove_kept(&bundle);
        assert_eq!(names(&bundle), ["config.json"]);
        // Whole, and without processes.
        let mut empty = TarWriter::new(Vec::new());
        let member = NewMember {
            path: b"artifacts/",
            what: TarType::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            records: &[],
        };
        empty.member(&member).unwrap();
        std::fs::write(&archive, empty.finish().unwrap()).unwrap();
        assert!(verify(&archive).unwrap_err().contains("no processes"));
    }
}
