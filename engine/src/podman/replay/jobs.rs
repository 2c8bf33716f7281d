//! Timers and jobs of a host that remove or replace containers, images and volumes by themselves: the
//! guides that people follow install them.

use std::path::{Path, PathBuf};

use crate::podman::files::read_file;

const FOLDERS: [&str; 10] = [
    "etc/systemd/system",
    "etc/systemd/user",
    "usr/lib/systemd/system",
    "usr/local/lib/systemd/system",
    "etc/cron.d",
    "etc/cron.hourly",
    "etc/cron.daily",
    "etc/cron.weekly",
    "etc/cron.monthly",
    "var/spool/cron/crontabs",
];
const CRONTAB: &str = "etc/crontab";
/// Below the home of a user.
const OF_USER: &str = ".config/systemd/user";
const AUTO_UPDATE: &str = "timers.target.wants/podman-auto-update.timer";
/// Podman's own, which prunes nothing that a person did not ask for.
const OF_PODMAN: &str = "podman-";
const FILES_MAX: usize = 10_000;
const FILE_BYTES_MAX: usize = 64 << 10;

/// In words, sorted. `home`: of the user whose Podman it is.
pub fn jobs(root: &Path, home: Option<&Path>) -> Vec<String> {
    let folders = FOLDERS.iter().map(|folder| root.join(folder));
    let folders: Vec<PathBuf> = folders.chain(home.map(|home| home.join(OF_USER))).collect();
    let mut jobs = Vec::new();
    let is_enabled = |folder: &PathBuf| folder.join(AUTO_UPDATE).symlink_metadata().is_ok();
    if folders.iter().any(is_enabled) {
        jobs.push("podman-auto-update.timer is enabled: it may replace containers".into());
    }
    let files = folders.iter().flat_map(|folder| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).take(FILES_MAX)
    });
    for path in files.chain([root.join(CRONTAB)]) {
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with(OF_PODMAN)) {
            continue;
        }
        if let Some(command) = pruning(root, &path) {
            let path = Path::new("/").join(path.strip_prefix(root).unwrap_or(&path));
            jobs.push(format!(
                "{} runs `{command}`, which removes what no running container uses",
                path.display()
            ));
        }
    }
    jobs.sort();
    jobs.dedup();
    jobs
}

/// The command in a unit or crontab that prunes, or the script that a unit starts and which does.
fn pruning(root: &Path, path: &Path) -> Option<String> {
    let text = read(path)?;
    if let Some(command) = text.lines().find_map(prunes) {
        return Some(command);
    }
    let commands = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("ExecStart="));
    let words = commands.flat_map(|line| line.split_whitespace().take(3));
    let words = words.map(|word| word.trim_start_matches(['-', '@', ':', '+', '!']));
    let mut scripts = words.filter(|word| word.starts_with('/'));
    scripts.find_map(|script| {
        let text = read(&root.join(script.trim_start_matches('/')))?;
        let command = text.lines().find_map(prunes);
        command
            .filter(|_| text.starts_with("#!"))
            .map(|command| format!("{script}: {command}"))
    })
}

fn read(path: &Path) -> Option<String> {
    String::from_utf8(read_file(path, FILE_BYTES_MAX).ok()?).ok()
}

fn prunes(line: &str) -> Option<String> {
    let line = line.trim();
    let from = line.find("podman").filter(|_| !line.starts_with('#'))?;
    let command = line[from..]
        .split([';', '&', '|', '"', '\''])
        .next()?
        .trim();
    command.contains(" prune").then(|| command.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn jobs_that_prune_are_found_where_people_put_them() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let home = root.join("home/alice");
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert!(jobs(root, Some(&home)).is_empty());
        put(
            "etc/crontab",
            "0 3 * * * root podman volume prune -f; true\n",
        );
        put(
            "etc/cron.daily/tidy",
            "#!/bin/sh\n# podman system prune\npodman image ls\n",
        );
        put(
            "etc/systemd/system/tidy.service",
            "[Service]\nExecStart=-/bin/bash /usr/local/bin/tidy --now\n",
        );
        put(
            "usr/local/bin/tidy",
            "#!/bin/bash\nset -e\nsudo podman system prune -af && true\n",
        );
        put(
            "usr/lib/systemd/system/podman-clean.service",
            "[Service]\nExecStart=/usr/bin/podman system prune\n",
        );
        put(
            "home/alice/.config/systemd/user/mine.service",
            "[Service]\nExecStart=/usr/bin/podman container prune -f\n",
        );
        let found = jobs(root, Some(&home));
        let expected = [
            ("/etc/crontab", "`podman volume prune -f`"),
            (
                "/etc/systemd/system/tidy.service",
                "/usr/local/bin/tidy: podman system prune -af`",
            ),
            (
                "/home/alice/.config/systemd/user/mine.service",
                "podman container prune -f`",
            ),
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (job, (path, command)) in found.iter().zip(expected) {
            assert!(job.starts_with(path) && job.contains(command), "{job}");
        }
        assert_eq!(jobs(root, None).len(), 2);
        put("etc/systemd/system/timers.target.wants/other.timer", "");
        let wants = root.join("etc/systemd/system").join(AUTO_UPDATE);
        symlink("/usr/lib/systemd/system/podman-auto-update.timer", wants).unwrap();
        assert!(jobs(root, None)[2].starts_with("podman-auto-update.timer is enabled"));
    }
}
