//! What is told while images come and go: on a terminal only, a bar for each blob that is on its way and a line for each
//! that is done.

use super::short;
use crate::table::size;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rlrun_engine::images::Progress;
use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Nothing of it exists before there is something to tell: most commands never get here.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    /// On their way, by name.
    bars: Mutex<HashMap<String, ProgressBar>>,
}

const MEASURED: &str = "{prefix} [{wide_bar}] {decimal_bytes} / {decimal_total_bytes}, {decimal_bytes_per_sec}";
/// Its size is known when it is over.
const UNMEASURED: &str = "{prefix} {decimal_bytes}, {decimal_bytes_per_sec}";

/// What is told while something long goes on.
pub(crate) fn progress(quiet: bool) -> impl Fn(&Progress) + Sync {
    let told = !quiet && std::io::stderr().is_terminal();
    let bars: OnceLock<Bars> = OnceLock::new();
    move |event| {
        if told {
            bars.get_or_init(Bars::new).tell(event);
        }
    }
}

impl Bars {
    fn new() -> Self {
        Bars { all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), bars: Mutex::default() }
    }

    fn tell(&self, event: &Progress) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Progress::Trying(reference) => self.line(&format!("Trying to pull {reference}...")),
            Progress::BlobStarted { name, size } => {
                let bar = self.all.add(ProgressBar::new(*size).with_prefix(copying(name)));
                bar.set_style(style(*size));
                bars.insert(name.clone(), bar);
            }
            Progress::BlobProgress { name, done } => bars.get(name).into_iter().for_each(|bar| bar.set_position(*done)),
            Progress::BlobDone(name) => {
                let bytes = self.end(bars.remove(name));
                let bytes = bytes.map(|bytes| format!(" ({})", size(bytes))).unwrap_or_default();
                self.line(&format!("{} done{bytes}", copying(name)));
            }
            Progress::Present(name) => {
                self.end(bars.remove(name));
                self.line(&format!("{} skipped: already exists", copying(name)));
            }
            Progress::Unpacking { layers: 1 } => self.line("Unpacking 1 layer"),
            Progress::Unpacking { layers } => self.line(&format!("Unpacking {layers} layers")),
            Progress::Checking { done, total } => {
                let bar = bars.entry("check".to_owned()).or_insert_with(|| {
                    let bar = self.all.add(ProgressBar::new(*total).with_prefix("Checking"));
                    bar.with_style(style(*total))
                });
                bar.set_position(*done);
            }
            Progress::Finished(_) => {}
        }
    }

    /// Above the bars.
    fn line(&self, text: &str) {
        // The bars make room: printed through them, a line would be filled with blanks that a resize wraps.
        self.all.suspend(|| eprintln!("{text}"));
    }

    /// How long the blob was.
    fn end(&self, bar: Option<ProgressBar>) -> Option<u64> {
        let bar = bar?;
        let bytes = bar.length().filter(|n| *n > 0).or(Some(bar.position())).filter(|n| *n > 0);
        bar.finish_and_clear();
        self.all.remove(&bar);
        bytes
    }
}

impl Drop for Bars {
    /// What was given up leaves no half bar behind.
    fn drop(&mut self) {
        self.all.clear().ok();
    }
}

fn style(size: u64) -> ProgressStyle {
    let template = if size == 0 { UNMEASURED } else { MEASURED };
    // The templates are this file's; the default shows the position all the same.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

fn copying(name: &str) -> String {
    format!("Copying blob {}", short(name))
}
