//! What the engine tells while it works: bars on a terminal, progress lines in JSON, and findings.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use podkeep_engine::monitor::{Finding, FindingKind, FrozenFor, Monitor, Progress};
use podkeep_format::item::Escaped;
use podkeep_format::snapshot::Consistency;

use crate::afar::Told;
use crate::messages::{FindingLine, Message, ProgressLine};
use crate::output::Output;
use crate::signals::Signals;
use crate::units;

/// Between two progress lines of `--json-progress`.
const LINE_INTERVAL: Duration = Duration::from_millis(500);
/// Paths of one warning that are shown without `-v`.
const PATHS_SHOWN: usize = 3;

struct State {
    line: ProgressLine,
    last_line: Option<Instant>,
    /// Files and bytes that the other end does not know of yet.
    untold: (u64, u64),
    counts: BTreeMap<FindingKind, u64>,
}

/// The command line's [`Monitor`].
pub struct Reporter<'a> {
    output: &'a Output,
    signals: Signals,
    lines: bool,
    /// Items are stored, so that it matters how much of them is new.
    stores: bool,
    bar: Option<ProgressBar>,
    started: Instant,
    warnings: AtomicU64,
    state: Mutex<State>,
}

impl<'a> Reporter<'a> {
    /// `lines`: whether `--json-progress` is given.
    pub fn new(output: &'a Output, signals: Signals, lines: bool) -> Self {
        let quiet = output.manner.quiet || output.manner.json || output.is_afar();
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = output.bars.add(ProgressBar::no_length());
            bar.set_style(without_total());
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Self {
            output,
            signals,
            lines,
            stores: false,
            bar,
            started: Instant::now(),
            warnings: AtomicU64::new(0),
            state: Mutex::new(State {
                line: ProgressLine::default(),
                last_line: None,
                untold: (0, 0),
                counts: BTreeMap::new(),
            }),
        }
    }

    /// With what is new of each item.
    pub fn of_a_backup(self) -> Self {
        Self {
            stores: true,
            ..self
        }
    }

    /// Findings so far that are warnings: they make exit code 0 a 3.
    pub fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Relaxed)
    }

    /// How many findings of a kind there were.
    pub fn count(&self, kind: FindingKind) -> u64 {
        self.state().counts.get(&kind).copied().unwrap_or(0)
    }

    /// Says something that is worth knowing and no warning.
    pub fn note(&self, object: String, message: String) {
        self.finding(Finding {
            object,
            kind: FindingKind::Note,
            snapshots: Vec::new(),
            paths: Vec::new(),
            message,
        });
    }

    /// To the podkeep at the other end: what came a little at a time goes together.
    fn pass_on(&self, progress: &Progress<'_>) {
        let mut state = self.state();
        if let Progress::Advance { files, bytes } = progress {
            state.untold.0 += files;
            state.untold.1 += bytes;
            let due = |last: Instant| last.elapsed() >= LINE_INTERVAL / 2;
            if !state.last_line.is_none_or(due) {
                return;
            }
            state.last_line = Some(Instant::now());
        }
        let (files, bytes) = std::mem::take(&mut state.untold);
        drop(state);
        if (files, bytes) != (0, 0) {
            self.output.tell(|| Told::Advance { files, bytes });
        }
        if !matches!(progress, Progress::Advance { .. }) {
            self.output.tell(|| Told::progress(progress));
        }
    }

    /// Takes the bar away; the closing lines follow.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Monitor for Reporter<'_> {
    fn finding(&self, finding: Finding) {
        if finding.kind.is_warning() {
            self.warnings.fetch_add(1, Ordering::Relaxed);
        }
        *self.state().counts.entry(finding.kind).or_default() += 1;
        if self.output.tell(|| Told::finding(&finding)) {
            return;
        }
        if self.output.manner.json {
            self.output
                .json(&Message::Finding(FindingLine::from(&finding)), true);
            return;
        }
        let shown = match finding.kind {
            FindingKind::Vanished | FindingKind::Proof => self.output.manner.verbose,
            FindingKind::Note => !self.output.manner.quiet,
            _ => true,
        };
        if shown {
            let paths = if self.output.manner.verbose {
                usize::MAX
            } else {
                PATHS_SHOWN
            };
            self.output.aside(&finding_text(&finding, paths));
        }
    }

    fn progress(&self, progress: Progress<'_>) {
        if self.output.is_afar() {
            self.pass_on(&progress);
            return;
        }
        if self.bar.is_none() && !self.lines {
            if let Progress::ItemDone { .. } = progress {
                self.output.remark(&item_text(&progress, self.stores));
            }
            return;
        }
        let mut state = self.state();
        let mut at_once = false;
        match &progress {
            Progress::Phase(phase) => {
                state.line = ProgressLine {
                    phase: (*phase).to_owned(),
                    ..ProgressLine::default()
                };
                at_once = true;
            }
            Progress::Expect { files, bytes } => {
                state.line.files_expected = *files;
                state.line.bytes_expected = *bytes;
            }
            Progress::Advance { files, bytes } => {
                state.line.files += files;
                state.line.bytes += bytes;
            }
            Progress::ItemStart { item } => {
                state.line.item = (*item).to_owned();
                at_once = true;
            }
            Progress::ItemDone { .. } => {}
        }
        if let Some(bar) = &self.bar {
            show(
                bar,
                &state.line,
                matches!(progress, Progress::Expect { .. }),
            );
        }
        if self.lines {
            let due = state
                .last_line
                .is_none_or(|last| last.elapsed() >= LINE_INTERVAL);
            if at_once || due {
                state.last_line = Some(Instant::now());
                let mut line = state.line.clone();
                line.seconds = self.started.elapsed().as_secs_f64();
                self.output.json(&Message::Progress(line), true);
            }
        }
        drop(state);
        if let Progress::ItemDone { .. } = progress {
            self.output.remark(&item_text(&progress, self.stores));
        }
    }

    fn interrupted(&self) -> bool {
        self.signals.received().is_some()
    }
}

fn show(bar: &ProgressBar, line: &ProgressLine, total_changed: bool) {
    if total_changed && line.bytes_expected > 0 {
        bar.set_style(with_total());
        bar.set_length(line.bytes_expected);
    }
    bar.set_position(line.bytes);
    bar.set_message(if line.item.is_empty() {
        line.phase.clone()
    } else {
        line.item.clone()
    });
}

fn without_total() -> ProgressStyle {
    style("  {spinner} {bytes}   {bytes_per_sec}   {msg}")
}

fn with_total() -> ProgressStyle {
    style(
        "  [{bar:20.}] {percent:>3} %   {bytes} of {total_bytes}   {bytes_per_sec}   {eta} left   {msg}",
    )
}

/// The templates above are constants; one that indicatif cannot read shows its default bar.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("#>-")
}

/// `volume:web:/a: cannot read it: Permission denied`, with further paths behind.
fn finding_text(finding: &Finding, paths_max: usize) -> String {
    let word = match finding.kind {
        FindingKind::Proof => "Proof",
        kind if kind.is_warning() => "Warning",
        _ => "Note",
    };
    let joint = if finding.object.starts_with("path:") {
        "/"
    } else {
        ":/"
    };
    match finding.paths.as_slice() {
        [] => format!("{word}: {}: {}", finding.object, finding.message),
        [path] => format!(
            "{word}: {}{joint}{}: {}",
            finding.object,
            Escaped(path),
            finding.message
        ),
        paths => {
            let mut text = format!("{word}: {}: {}: ", finding.object, finding.message);
            for (i, path) in paths.iter().take(paths_max).enumerate() {
                if i > 0 {
                    text.push_str(", ");
                }
                text.push_str(&format!("/{}", Escaped(path)));
            }
            if paths.len() > paths_max {
                text.push_str(&format!(" and {} more", paths.len() - paths_max));
            }
            text
        }
    }
}

/// `  volume     pgdata         1,214 files   925 MB   19.8 MB new`
fn item_text(progress: &Progress<'_>, stores: bool) -> String {
    let Progress::ItemDone {
        item,
        files,
        bytes,
        bytes_new,
        warnings,
        frozen,
    } = progress
    else {
        return String::new();
    };
    let (kind, name) = item.split_once(':').unwrap_or(("", item));
    let (name, count) = match kind {
        // What people know an image by is neither the whole of its ID nor its number of files.
        "image" => (units::image_name(name), String::new()),
        "volume" | "path" => (name.to_owned(), units::counted(*files, "file", "files")),
        // What makes it up is its definition.
        _ if *files == 0 => (name.to_owned(), String::new()),
        _ => (name.to_owned(), units::counted(*files, "file", "files")),
    };
    let mut text = format!(
        "  {kind:<9}  {name:<24}  {count:>14}  {:>8}",
        units::size(*bytes)
    );
    match (*bytes, *bytes_new) {
        _ if !stores => {}
        (0, 0) if *files == 0 && matches!(kind, "volume" | "path") => text.push_str("  empty"),
        (_, 0) => text.push_str("  unchanged"),
        (_, new) => text.push_str(&format!("  {:>8} new", units::size(new))),
    }
    if let Some(FrozenFor { how, seconds, .. }) = frozen {
        let word = match how {
            Consistency::Stop => "stopped",
            _ => "paused",
        };
        text.push_str(&format!("  {word} {}", units::duration(*seconds)));
    }
    if *warnings > 0 {
        text.push_str(&format!(
            "  {}",
            units::counted(*warnings, "warning", "warnings")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(kind: FindingKind, object: &str, paths: &[&[u8]]) -> Finding {
        Finding {
            object: object.to_owned(),
            kind,
            snapshots: Vec::new(),
            paths: paths.iter().map(|path| path.to_vec()).collect(),
            message: "changed while it was read".to_owned(),
        }
    }

    #[test]
    fn a_warning_names_what_it_is_about() {
        let text = |object, paths: &[&[u8]]| {
            finding_text(&finding(FindingKind::Changed, object, paths), 2)
        };
        assert_eq!(
            text("volume:uploads", &[b"img/a\n"]),
            "Warning: volume:uploads:/img/a\\x0a: changed while it was read"
        );
        assert_eq!(
            text("path:/srv", &[b"a"]),
            "Warning: path:/srv/a: changed while it was read"
        );
        assert_eq!(
            text("volume:uploads", &[b"a", b"b", b"c"]),
            "Warning: volume:uploads: changed while it was read: /a, /b and 1 more"
        );
    }

    #[test]
    fn an_item_is_one_line() {
        let text = |bytes_new, warnings| {
            let done = Progress::ItemDone {
                item: "volume:pgdata",
                files: 1214,
                bytes: 925_000_000,
                bytes_new,
                warnings,
                frozen: None,
            };
            item_text(&done, true)
        };
        assert_eq!(
            text(19_800_000, 1),
            "  volume     pgdata                       1,214 files    925 MB   19.8 MB new  1 warning"
        );
        assert!(text(0, 0).ends_with("unchanged"));
    }

    #[test]
    fn an_item_says_for_how_long_its_containers_were_at_rest() {
        let text = |how| {
            let frozen = Some(FrozenFor {
                how,
                seconds: 0.31,
                expected: 0.2,
            });
            let done = Progress::ItemDone {
                item: "volume:pgdata",
                files: 1,
                bytes: 10,
                bytes_new: 0,
                warnings: 1,
                frozen,
            };
            item_text(&done, true)
        };
        assert!(text(Consistency::Pause).ends_with("unchanged  paused 0.3 s  1 warning"));
        assert!(text(Consistency::Stop).ends_with("unchanged  stopped 0.3 s  1 warning"));
    }

    #[test]
    fn bar_templates_can_be_read() {
        for template in [
            "  {spinner} {bytes}   {bytes_per_sec}   {msg}",
            "  [{bar:20.}] {percent:>3} %   {bytes} of {total_bytes}   {bytes_per_sec}   {eta} left   {msg}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
