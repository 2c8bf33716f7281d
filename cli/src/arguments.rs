//! The command line as clap sees it. Nothing here reads anything but arguments, so that the
//! reference (`docs/cli.md`), the man pages and the completions come from the same definitions.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::fit::{Fit, SelinuxChoice, UsernsChoice};
pub use self::migrate::Migrate;

#[path = "arguments/fit.rs"]
mod fit;
#[path = "arguments/migrate.rs"]
mod migrate;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed or refused, nothing matched, or check or doctor found damage that remains
  2    wrong usage
  3    finished with warnings, something is missing, or an incomplete snapshot was used
  10   there is no repository at that place
  11   another run works on one of these items
  12   the passphrase or key is missing, wrong or not sufficient
  13   a host could not be reached
  130  stopped by SIGINT (Ctrl-C)
  143  stopped by SIGTERM";

const SNAP_HELP: &str = "\
SNAP is an id (4 or more hex digits of it), `latest`, or `latest~N` for the one N before it, each
optionally followed by `@HOST`.
ITEM is KIND:NAME, such as `volume:web` or `path:/srv/data`; `volume:web:/data/x` is a path in
it. Listings write control bytes, and bytes that are not UTF-8, as \\xNN and a backslash as \\\\;
arguments are read the same way.";

/// Backs up and restores what makes up a Podman host, into one encrypted, deduplicated repository
#[derive(Parser, Debug)]
#[command(
    name = "podkeep",
    version,
    after_help = EXIT_CODES,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The repository: a path, or ssh://[LOGIN@]HOST[:PORT]/PATH [default: /var/lib/podkeep/repository for root, else podkeep/repository in the user's data folder]
    #[arg(
        short,
        long,
        global = true,
        value_name = "REPO",
        env = "PODKEEP_REPO",
        hide_env_values = true
    )]
    pub repo: Option<OsString>,

    /// Whose Podman: `local` is the caller's own, `local:USER` the rootless one of USER, for root, `ssh://[LOGIN@]HOST[:PORT][,sudo][,user=USER]` one on another machine [default: local]
    #[arg(long, global = true, value_name = "HOST")]
    pub host: Option<OsString>,

    /// Read the passphrase from this file; one trailing newline is dropped [env: PODKEEP_PASSWORD_FILE]
    #[arg(long, global = true, value_name = "FILE", conflicts_with_all = ["password_command", "key_file"])]
    pub password_file: Option<PathBuf>,

    /// Read the passphrase from what this shell command prints [env: PODKEEP_PASSWORD_COMMAND]
    #[arg(
        long,
        global = true,
        value_name = "COMMAND",
        conflicts_with = "key_file"
    )]
    pub password_command: Option<OsString>,

    /// Use the write key in this file instead of a passphrase [env: PODKEEP_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// Where the local cache lies; it may be deleted at any time [default: /var/cache/podkeep for root, else podkeep in the user's cache folder]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "PODKEEP_CACHE_DIR",
        hide_env_values = true
    )]
    pub cache_dir: Option<PathBuf>,

    /// Where podkeep is on the other host, as its shell finds it; else a static one is put there on first use
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "PODKEEP_REMOTE_PATH",
        hide_env_values = true
    )]
    pub remote_path: Option<String>,

    /// Send to and receive from other hosts at most so many bytes a second (500K, 10M)
    #[arg(long, global = true, value_name = "BYTES", value_parser = rate)]
    pub limit_rate: Option<u64>,

    /// Print one JSON object per line on standard output (docs/json.md)
    #[arg(long, global = true)]
    pub json: bool,

    /// With --json: print progress lines, too
    #[arg(long, global = true)]
    pub json_progress: bool,

    /// No progress, notes and closing lines: only results, warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say more: all paths of a warning, what vanished while it was read, what proves an image
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a repository
    ///
    /// The place must be empty or absent. Prints the repository's id and what must be kept to
    /// be able to restore.
    Init(Init),
    /// Save volumes and paths as a snapshot
    ///
    /// SELECTOR is KIND:NAME, such as `volume:web`, `volume:db*` or `path:/srv/data`. Globs (`*`
    /// and `?`) work in names, never in `path:`. Each item is a snapshot of its own that
    /// stays when the run is cut off.
    ///
    /// A layer of an image that the repository holds already is not read again, so that damage of
    /// it on this host goes unnoticed: `podkeep doctor` looks for that.
    Backup(Backup),
    /// Take archives that other tools wrote into a snapshot
    ///
    /// FILE holds images: what `podman save` or `docker save` writes (docker-archive, oci-archive),
    /// or a directory with an OCI layout or an unpacked docker-archive. An archive of a volume
    /// (`podman volume export`, `tar -C _data`) needs a name: --volume NAME=FILE. Archives may be
    /// compressed with gzip or zstd. All of one call form one snapshot.
    ///
    /// Archives are read more than once: what comes through a pipe, as in
    /// `podman save IMAGE | podkeep import -`, is kept in the cache's folder until it is imported.
    Import(Import),
    /// List snapshots
    Snapshots(Snapshots),
    /// List what a snapshot holds
    ///
    /// `image:NAME` lists what is stored of an image: its manifests and configuration below
    /// `big-data`, and the tars of its layers, bottom first. `image:NAME:/PATH` is in the image's
    /// root file system as a container sees it; `image:NAME:/` is all of it, and `image:*:/PATH`
    /// lists the path in all images that have it. With --stored it is a stored part, as it is for
    /// every other command.
    #[command(after_long_help = SNAP_HELP)]
    Ls(Ls),
    /// Write a file of a snapshot to standard output
    ///
    /// `image:NAME:/PATH` is a file in the image as a container sees it, or with --stored one
    /// of the parts that `podkeep ls` lists for `image:NAME`, such as the tar of a layer. A layer
    /// is compared with its digest once it was written; of a single file in it only the chunks are
    /// checked.
    #[command(after_long_help = SNAP_HELP)]
    Dump(Dump),
    /// Show how two snapshots differ, or a snapshot and the host
    ///
    /// `+` was added, `-` was removed, `M` has another content, `U` has other attributes.
    #[command(after_long_help = SNAP_HELP)]
    Diff(Diff),
    /// Find files by name in all snapshots
    ///
    /// PATTERN is a glob (`*` and `?`). With a `/` in it, it is compared with the path below
    /// the item (`/data/*.txt`), else with the last component. Each version of a file is listed
    /// once, with the newest snapshot that holds it.
    Find(Find),
    /// Show how large the repository is, and what takes the room
    Stats(Stats),
    /// Bring items of a snapshot back
    ///
    /// To the original place, or with --to-dir files only into a directory. With exactly one
    /// literal item DIR takes the item's content and attributes; a single file goes to DIR/NAME;
    /// a glob, --all or several items go to DIR/KIND/NAME. What is not empty is refused unless
    /// --merge or --replace says what to do with it.
    #[command(after_long_help = SNAP_HELP)]
    Restore(Restore),
    /// Move a running service to another host, user or driver
    ///
    /// Containers go with their images, volumes, networks, secrets and pods. They run while most of
    /// it is sent, and are stopped only for what changed since. The target then has them as they were,
    /// and the source keeps everything, stopped, until --finish: --rollback goes back. Run again, a
    /// migration that was cut off goes on. Needs no repository.
    ///
    /// HOST is `local`, `local:USER` or `ssh://[LOGIN@]HOST[:PORT]`, where nothing but Podman must be
    /// installed.
    Migrate(Migrate),
    /// Write an item of a snapshot in a form that other tools read
    ///
    /// An image as an OCI layout or as an archive, with its ID, its configuration and its layers bit
    /// by bit. The manifests that it was pulled by name compressed blobs that no host keeps: it gets
    /// a new one, so that its digest is another (`podkeep restore` keeps it), and they lie
    /// beside it as blobs. A volume or path as a PAX tar with extended attributes, ACLs and hard
    /// links, for GNU tar and `podman volume import`; holes are written as zeros, sockets are
    /// left out.
    ///
    /// What is written has mode 0600, and appears under its name once it is complete.
    #[command(after_long_help = SNAP_HELP)]
    Export(Export),
    /// Verify that every snapshot can be restored, and heal what can be healed
    Check(Check),
    /// Verify the images and layers in this host's own store
    ///
    /// Needs no repository and changes nothing: every layer is read and compared with the digest
    /// that its image has of it. Says of each damage which images it hits and what puts it right.
    Doctor(Doctor),
    /// Manage the keys and passphrases that open the repository
    #[command(subcommand, arg_required_else_help = true)]
    Key(Key),
    /// Print completions for a shell
    Completions(Completions),
    /// Write the manual pages, one for each command
    Man(Man),
    /// Serve a repository of this host to a podkeep on another one, over standard input and output
    ///
    /// Another podkeep starts it over ssh; nobody does by hand. In `authorized_keys`, a forced command
    /// `podkeep agent --restrict-to PATH --append-only` lets the holder of that key add snapshots to
    /// the repository at PATH, and change or delete none.
    Agent(Agent),
}

#[derive(Args, Debug)]
pub struct Init {
    /// Share the chunk keys of this repository: equal files then have equal chunks in both
    ///
    /// Needs that repository's passphrase; the new one has a passphrase of its own.
    #[arg(long, value_name = "REPO")]
    pub like: Option<OsString>,

    /// Read the passphrase of the repository of --like from this file [env: PODKEEP_LIKE_PASSWORD_FILE]
    #[arg(
        long,
        value_name = "FILE",
        requires = "like",
        conflicts_with = "like_password_command"
    )]
    pub like_password_file: Option<PathBuf>,

    /// Read the passphrase of the repository of --like from what this shell command prints [env: PODKEEP_LIKE_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND", requires = "like")]
    pub like_password_command: Option<OsString>,
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["selectors", "all"]))]
pub struct Backup {
    /// What to save
    #[arg(value_name = "SELECTOR")]
    pub selectors: Vec<OsString>,

    /// Save everything of the host
    #[arg(long)]
    pub all: bool,

    /// Leave out paths that match this glob (repeatable)
    ///
    /// Compared with the path below the item; without a `/`, with the last component.
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<OsString>,

    /// Leave out these items (repeatable)
    #[arg(long, value_name = "SELECTOR")]
    pub exclude_item: Vec<OsString>,

    /// Leave out the content of directories that a valid CACHEDIR.TAG marks
    #[arg(long)]
    pub exclude_caches: bool,

    /// Read what is mounted below an item, too
    #[arg(long)]
    pub cross_mounts: bool,

    /// Save only what is selected, not what a container, pod or unit needs
    ///
    /// Without it a container brings its image, volumes, networks, secrets, pod, unit, and the
    /// containers that it needs.
    #[arg(long)]
    pub only: bool,

    /// Save files and directories of the host that containers mount, too
    #[arg(long)]
    pub include_binds: bool,

    /// Save the files that containers log into, too
    #[arg(long)]
    pub include_logs: bool,

    /// What is done to running containers while what they write is read: live, pause or stop [default: pause]
    ///
    /// All containers that share volumes or a pod are paused or stopped at the same time, for as
    /// short as can be, and go on by themselves even when podkeep is killed. Those that Podman
    /// removes when they stop (`--rm`, Quadlet) are never stopped but paused. A container's label
    /// `io.podkeep.backup.consistency` comes first.
    #[arg(long, value_enum, value_name = "LEVEL", hide_possible_values = true)]
    pub consistency: Option<Level>,

    /// Containers go on when they were at rest for so long; what was not read by then is saved as
    /// with `live`, and said so
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = freeze_duration)]
    pub max_freeze: Duration,

    #[command(flatten)]
    pub saving: Saving,
}

/// What is done to containers.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Nothing
    Live,
    /// Paused: what they write is of one moment, as after a power cut
    Pause,
    /// Stopped and started again: what they write is as after a clean end
    Stop,
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["files", "volume"]))]
pub struct Import {
    /// Archives of images; `-` is standard input
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// A tar of the content of a volume, which gets this name (repeatable)
    #[arg(long, value_name = "NAME=FILE")]
    pub volume: Vec<OsString>,

    #[command(flatten)]
    pub saving: Saving,
}

#[derive(Args, Debug)]
pub struct Snapshots {
    /// Only those of this host
    #[arg(long, value_name = "HOST")]
    pub of: Option<String>,
}

#[derive(Args, Debug)]
pub struct Ls {
    /// Which snapshot
    #[arg(value_name = "SNAP")]
    pub snapshot: OsString,
    /// Which item, or path in it; else the items of the snapshot
    #[arg(value_name = "ITEM[:/PATH]")]
    pub item: Option<OsString>,

    /// Of an image: what is stored of it, not the files in it
    #[arg(long, requires = "item")]
    pub stored: bool,
}

#[derive(Args, Debug)]
pub struct Dump {
    /// Which snapshot
    #[arg(value_name = "SNAP")]
    pub snapshot: OsString,
    /// Which file
    ///
    /// A container, pod, network, secret, unit or configuration without a path is its definition, as
    /// JSON; `secret:NAME:/data` is a secret's bytes.
    #[arg(value_name = "ITEM:/PATH")]
    pub item: OsString,

    /// Of an image: a part that is stored of it, not a file in it
    #[arg(long)]
    pub stored: bool,
}

#[derive(Args, Debug)]
pub struct Diff {
    /// The older side
    #[arg(value_name = "A")]
    pub before: OsString,
    /// The newer side: a snapshot, or `live` for what is on the host now
    #[arg(value_name = "B")]
    pub after: OsString,
}

#[derive(Args, Debug)]
pub struct Find {
    /// A glob over names or paths
    #[arg(value_name = "PATTERN")]
    pub pattern: OsString,
}

#[derive(Args, Debug)]
pub struct Stats {}

#[derive(Args, Debug)]
#[command(
    group = clap::ArgGroup::new("what").required(true).multiple(true).args(["items", "all", "repair_layers"]),
    override_usage = "podkeep restore [OPTIONS] <SNAP> <ITEM[:/PATH]...|--all>\n       \
                      podkeep restore [OPTIONS] <SNAP> --repair-layers [image:NAME]..."
)]
pub struct Restore {
    /// Which snapshot
    #[arg(value_name = "SNAP")]
    pub snapshot: OsString,

    /// Which items, or paths in them
    #[arg(value_name = "ITEM[:/PATH]")]
    pub items: Vec<OsString>,

    /// Everything that the snapshot holds
    #[arg(long, conflicts_with = "items")]
    pub all: bool,

    /// Restore only what is selected, not what a container, pod or unit needs
    #[arg(long, conflicts_with_all = ["all", "to_dir", "repair_layers"])]
    pub only: bool,

    /// Restore files into this directory, which is made when absent
    #[arg(long, value_name = "DIR")]
    pub to_dir: Option<PathBuf>,

    /// Restore the one selected item under this name
    #[arg(long = "as", value_name = "NAME", conflicts_with_all = ["all", "to_dir"])]
    pub rename: Option<OsString>,

    /// Into what is there: the snapshot wins for each entry, others stay
    #[arg(long, conflicts_with = "replace")]
    pub merge: bool,

    /// In the place of what is there: exactly the snapshot
    ///
    /// A container, pod, network or secret of the same name is removed first; one that runs only
    /// with --replace-running.
    #[arg(long)]
    pub replace: bool,

    /// Move a name that belongs to another image on the host to the restored one
    #[arg(long)]
    pub retag: bool,

    /// Give what belongs to users and groups that have no place here to this one
    ///
    /// A rootless Podman has a range of ids only. Without it, a restore that would meet others is
    /// refused and names them. GID is UID when left out; both are as containers see them.
    #[arg(long, value_name = "UID[:GID]", value_parser = parse_owner)]
    pub squash_unmapped: Option<(u32, u32)>,

    /// What SELinux labels restored files get: those of the place where they go, or those that were saved
    ///
    /// Saved ones have the categories of a container that is gone: another one may not read what has them.
    #[arg(long, value_name = "LABELS", value_enum, default_value_t = SelinuxChoice::Place)]
    pub selinux: SelinuxChoice,

    /// Only repair layers of these images (none named: of all) that are damaged in this host's
    /// store, where they are
    ///
    /// Puts back the content of damaged files, and what Podman keeps of a layer besides its files.
    /// Layers that a container is on are refused: stop it first.
    #[arg(long, conflicts_with_all = ["all", "to_dir", "rename", "merge", "replace", "retag", "squash_unmapped"])]
    pub repair_layers: bool,

    /// Start the containers and units that ran, pause those that were paused
    ///
    /// In the order of who needs whom; health checks are waited for, 60 s at most each.
    #[arg(long, conflicts_with_all = ["to_dir", "repair_layers"])]
    pub start: bool,

    /// Start containers whose image is for another architecture, too
    #[arg(long, requires = "start")]
    pub start_foreign: bool,

    /// Stop the containers that run and use a volume that is restored, and start them again afterwards
    ///
    /// Where a unit runs the container, the unit is stopped and started.
    #[arg(long, conflicts_with_all = ["to_dir", "repair_layers"])]
    pub stop: bool,

    #[command(flatten)]
    pub fit: Fit,

    /// Say what would be done, change nothing
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub patience: Patience,
}

#[derive(Args, Debug)]
#[command(
    group = clap::ArgGroup::new("form").required(true).args(["oci", "docker_archive", "tar", "push"]),
    override_usage = "podkeep export [OPTIONS] <SNAP> <ITEM[:/PATH]> <--oci PLACE|--docker-archive FILE|--tar FILE|--push REF>"
)]
pub struct Export {
    /// Which snapshot
    #[arg(value_name = "SNAP")]
    pub snapshot: OsString,

    /// Which image, or which volume or path or directory in one
    #[arg(value_name = "ITEM[:/PATH]")]
    pub item: OsString,

    /// An image as an OCI layout: into a directory that is made, or into one tar where PLACE ends
    /// in `.tar` or is `-`
    #[arg(long, value_name = "PLACE")]
    pub oci: Option<PathBuf>,

    /// An image as one file that `podman load` and `docker load` take; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub docker_archive: Option<PathBuf>,

    /// The files of a volume or path as a tar; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub tar: Option<PathBuf>,

    /// An image into a registry, as REF (`registry.example/web:1`), with this host's skopeo or Podman
    /// and what they know of registries and credentials
    #[arg(long, value_name = "REF")]
    pub push: Option<String>,

    /// Replace the file, or the OCI layout, that is there
    #[arg(long, conflicts_with = "push")]
    pub replace: bool,
}

#[derive(Args, Debug)]
pub struct Check {
    /// Read and decode all packs, or about this share of them, too
    #[arg(
        long,
        value_name = "PERCENT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "100",
        value_parser = clap::value_parser!(u8).range(1..=100)
    )]
    pub read_data: Option<u8>,

    /// Vouch for what write keys stored, after decoding it: other hosts may then deduplicate
    /// against it
    #[arg(long)]
    pub endorse: bool,
}

#[derive(Args, Debug)]
pub struct Doctor {}

#[derive(Subcommand, Debug)]
pub enum Key {
    /// Add a passphrase that reads everything
    Add(KeyAdd),
    /// List keys
    List(KeyList),
    /// Remove a key; a removed write key is revoked
    Remove(KeyRemove),
    /// Change the passphrase
    Passwd(KeyPasswd),
    /// Write a new write key to a file: it can back up, but not read what is stored
    ExportWrite(KeyExportWrite),
}

#[derive(Args, Debug)]
pub struct NewPassphrase {
    /// Read the new passphrase from this file
    #[arg(long, value_name = "FILE", conflicts_with = "new_password_command")]
    pub new_password_file: Option<PathBuf>,
    /// Read the new passphrase from what this shell command prints
    #[arg(long, value_name = "COMMAND")]
    pub new_password_command: Option<OsString>,
}

#[derive(Args, Debug)]
pub struct KeyAdd {
    #[command(flatten)]
    pub new: NewPassphrase,
}

#[derive(Args, Debug)]
pub struct KeyList {}

#[derive(Args, Debug)]
pub struct KeyRemove {
    /// The key's id, or its first 4 or more hex digits
    #[arg(value_name = "KEY")]
    pub key: String,
}

#[derive(Args, Debug)]
pub struct KeyPasswd {
    #[command(flatten)]
    pub new: NewPassphrase,
}

#[derive(Args, Debug)]
pub struct KeyExportWrite {
    /// The file, which must not exist; it gets mode 0600
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

#[derive(Args, Debug)]
pub struct Completions {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
pub struct Man {
    /// Directory for the pages, which is made when absent
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

impl Command {
    /// The name that `{"type":"start"}` carries.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Init(_) => "init",
            Self::Backup(_) => "backup",
            Self::Import(_) => "import",
            Self::Snapshots(_) => "snapshots",
            Self::Ls(_) => "ls",
            Self::Dump(_) => "dump",
            Self::Diff(_) => "diff",
            Self::Find(_) => "find",
            Self::Stats(_) => "stats",
            Self::Restore(_) => "restore",
            Self::Migrate(_) => "migrate",
            Self::Export(_) => "export",
            Self::Check(_) => "check",
            Self::Doctor(_) => "doctor",
            Self::Key(Key::Add(_)) => "key add",
            Self::Key(Key::List(_)) => "key list",
            Self::Key(Key::Remove(_)) => "key remove",
            Self::Key(Key::Passwd(_)) => "key passwd",
            Self::Key(Key::ExportWrite(_)) => "key export-write",
            Self::Completions(_) => "completions",
            Self::Man(_) => "man",
            Self::Agent(_) => "agent",
        }
    }
}

/// Of what makes a snapshot.
#[derive(Args, Debug)]
pub struct Saving {
    /// A word to find the snapshot by (repeatable)
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,

    /// Read and compare, say what would be saved, store nothing
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub patience: Patience,
}

#[derive(Args, Debug, Clone)]
pub struct Agent {
    /// Serve the repository at this path, and nothing else
    #[arg(long, value_name = "PATH")]
    pub restrict_to: Option<PathBuf>,

    /// Let snapshots be added, and nothing be changed or deleted
    #[arg(long, requires = "restrict_to")]
    pub append_only: bool,

    /// Serve nothing: say whether this program's own bytes have this BLAKE3
    #[arg(long, value_name = "HASH", hide = true, conflicts_with = "restrict_to")]
    pub check: Option<String>,
}

/// With items that another run works on.
#[derive(Args, Debug)]
pub struct Patience {
    /// Wait this long for an item that another run works on (30s, 10m, 2h)
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration, hide_default_value = true)]
    pub wait: Duration,
}

/// What people write for bytes a second: a whole number, and `K`, `M` or `G` for powers of 1000.
fn rate(text: &str) -> Result<u64, String> {
    let wrong = || "it is a number of bytes a second, such as 500K or 10M".to_owned();
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1000),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1_000_000),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number: Option<u64> = is_number.then(|| digits.parse().ok()).flatten();
    let rate = number.and_then(|number| number.checked_mul(factor));
    rate.filter(|rate| *rate > 0).ok_or_else(wrong)
}

/// What people write for a duration: a whole number and `s`, `m`, `h` or `d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "it is a number with a unit: 30s, 10m, 2h, 1d".to_owned();
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number = &text[..text.len() - 1];
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let number: Option<u64> = is_number.then(|| number.parse().ok()).flatten();
    let seconds = number.and_then(|number| number.checked_mul(seconds));
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

/// The same, long enough to freeze something.
fn freeze_duration(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    match time.as_secs() {
        1..=86_400 => Ok(time),
        _ => Err("it is from 1s to 1d".to_owned()),
    }
}

#[cfg(test)]
#[path = "arguments/tests.rs"]
mod tests;

/// `UID[:GID]`.
fn parse_owner(text: &str) -> Result<(u32, u32), String> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    let number = |word: &str| word.parse().map_err(|_| format!("{word:?} is no id"));
    Ok((number(uid)?, number(gid)?))
}
