//! Policies that are loaded while the rest of a start is decided.

use super::{Choice, loaded, sources};
use crate::place::Place;
use rlrun_admission::{LoadError, PolicySet, Sources};
use rlrun_spec::Failure;
use std::thread::{Builder, JoinHandle};

/// Policies on their way. Mapping machine code takes longer than looking at the host and the image, and needs neither:
/// a thread does it meanwhile. It has ended when the policies are there, so nothing that forks or makes namespaces
/// sees it; nothing of the kind may come before [`Loading::get`].
pub(crate) struct Loading<'a> {
    place: &'a Place,
    sources: Sources,
    thread: Option<JoinHandle<Result<PolicySet, LoadError>>>,
    set: Option<Box<PolicySet>>,
}

impl<'a> Loading<'a> {
    /// Begins, where there is a second processor for it.
    ///
    /// # Errors
    /// When a word of the choice means no policy.
    pub(crate) fn begin(place: &'a Place, choice: Choice) -> Result<Self, Failure> {
        let sources = sources(place, choice)?;
        let own = sources.clone();
        // At the limit of processes (RLIMIT_NPROC) there is no thread, and it is done later.
        let begin = || Builder::new().name("rlrun:policies".to_owned()).spawn(move || PolicySet::load(&own)).ok();
        let thread = if processors() > 1 { begin() } else { None };
        Ok(Loading { place, sources, thread, set: None })
    }

    /// Every policy that has to be asked, waited for.
    ///
    /// # Errors
    /// When one cannot be loaded: nothing may start without its word.
    pub(crate) fn get(&mut self) -> Result<&PolicySet, Failure> {
        let set = match (self.set.take(), self.thread.take()) {
            (Some(set), _) => set,
            (None, Some(thread)) => {
                let set = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                Box::new(loaded(self.place, set, &self.sources.files)?)
            }
            (None, None) => Box::new(loaded(self.place, PolicySet::load(&self.sources), &self.sources.files)?),
        };
        Ok(self.set.insert(set))
    }

    /// Leaves their memory to the end of this process, by exec or exit; taking it apart first only costs time.
    pub(crate) fn leave(mut self) {
        std::mem::forget(self.set.take());
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        // The start has failed of something else; a compiler that is at work is not left behind.
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// How many processors this process may use; `available_parallelism` also reads cgroup files, which takes longer than
/// the thread saves.
fn processors() -> u32 {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count())
}
