//! From the policies that were found to policies that can be asked.

use crate::code::{Cache, Digest, State, TrustedCode, Uncompiled, Work, compile, load};
use crate::error::LoadError;
use crate::evaluate;
use crate::policy::{Contents, Policy, needs_a_grant};
use crate::sources::{Found, Origin, Sources};
use crate::{engine, file, limits};
use rlrun_spec::policy::{PolicyId, Tier};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, Linker};

/// Makes policies of what was found, through the cache.
pub(crate) struct Loader {
    pub(crate) engine: Engine,
    linker: Linker<evaluate::State>,
    cache: Option<Cache>,
    policyc: PathBuf,
    target: String,
    pub(crate) notices: Vec<String>,
    /// Milliseconds since 1970, the same for all policies of a command.
    moment: u64,
    contents: Contents,
}

/// A policy of which it is known what it is, not yet whether it can be asked.
struct Draft {
    found: Found,
    digest: Digest,
    /// The cache's name for its code, without the state.
    key: String,
    known: Known,
}

/// What the cache knows of a policy.
enum Known {
    Nothing,
    Code(TrustedCode, State),
    /// Why the compiler refuses it.
    Refusal(String),
}

/// A policy that can be asked, or why not, and code to keep.
struct Made {
    name: String,
    policy: Result<Policy, LoadError>,
    new: Option<(String, New)>,
}

/// What a compilation came to.
enum New {
    Code(TrustedCode),
    Refusal(String),
}

impl Loader {
    pub(crate) fn new(sources: &Sources) -> Result<Self, LoadError> {
        let broken = |e: wasmtime::Error| LoadError::Engine(format!("{e:#}"));
        let engine = engine::engine().map_err(broken)?;
        let linker = linker(&engine).map_err(broken)?;
        let mut notices = Vec::new();
        let cache = match Cache::open(&sources.cache_dir) {
            Ok(cache) => Some(cache),
            Err(error) => {
                let path = sources.cache_dir.display();
                notices.push(format!("policies are compiled each time: the cache {path} cannot be used: {error}"));
                None
            }
        };
        let policyc = sources.policyc.clone();
        let moment = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        let moment = sources.moment.unwrap_or(u64::try_from(moment).unwrap_or(u64::MAX));
        let inside = |look| Contents::Store(sources.data_dir.clone(), look);
        let contents = sources.look_inside.map_or(Contents::Nothing, inside);
        Ok(Loader { engine, linker, cache, policyc, target: engine::target_key(), notices, moment, contents })
    }

    pub(crate) fn load(&mut self, found: Found) -> Result<Policy, LoadError> {
        let draft = self.look_up(found)?;
        let made = self.make(draft);
        self.keep(made)
    }

    /// In the order in which they were found. Those that have to be compiled do not wait for each other.
    pub(crate) fn load_all(&mut self, found: Vec<Found>) -> Vec<Result<Policy, LoadError>> {
        let drafts: Vec<_> = found.into_iter().map(|found| self.look_up(found)).collect();
        let to_compile = drafts.iter().flatten().filter(|draft| matches!(draft.known, Known::Nothing)).count();
        let made: Vec<Result<Made, LoadError>> =
            side_by_side(drafts, helpers(to_compile), &|draft| Ok(self.make(draft?)));
        made.into_iter().map(|made| self.keep(made?)).collect()
    }

    /// Checks that it is the policy that was meant, and looks what the cache has of it.
    fn look_up(&mut self, found: Found) -> Result<Draft, LoadError> {
        let digest = self.digest(&found)?;
        if let Some((pinned, path)) = found.pinned.as_ref().filter(|(pinned, _)| *pinned != format!("sha256:{digest}"))
        {
            return Err(LoadError::NotAPolicy {
                name: found.name,
                why: format!("is not what was added: its digest is sha256:{digest}, {} has {pinned}", path.display()),
                hint: Some("put the old file back, or add the new one: rlrun policy add".to_owned()),
            });
        }
        let key = format!("{digest}-{}-{}", found.settings.digest(), self.target);
        let known = self.cache.as_mut().map_or(Known::Nothing, |cache| {
            let code = |state: State| cache.find(&state.named(&key)).map(|code| Known::Code(code, state));
            let code = [State::SetUp, State::Plain].into_iter().find_map(code);
            code.or_else(|| cache.find_refusal(&key).map(Known::Refusal)).unwrap_or(Known::Nothing)
        });
        Ok(Draft { found, digest, key, known })
    }

    /// Machine code, made callable and linked.
    fn make(&self, draft: Draft) -> Made {
        let Draft { found, digest, key, known } = draft;
        let name = found.name.clone();
        let cached = match known {
            Known::Nothing => None,
            Known::Code(code, state) => Some((code, state)),
            Known::Refusal(why) => {
                let policy = Err(LoadError::not_a_policy(&name, why));
                return Made { name, policy, new: None };
            }
        };
        match self.component(&found, &digest, cached) {
            Ok((component, state, new)) => {
                let policy = self.linked(found, &digest, &component, state);
                Made { name, policy, new: new.map(|code| (state.named(&key), New::Code(code))) }
            }
            Err(Uncompiled { error, is_final }) => {
                let new = match &error {
                    LoadError::NotAPolicy { why, .. } if is_final => Some((key, New::Refusal(why.clone()))),
                    _ => None,
                };
                Made { name, policy: Err(error), new }
            }
        }
    }

    fn linked(&self, found: Found, digest: &Digest, component: &Component, state: State) -> Result<Policy, LoadError> {
        let settings = state.settings(&found.settings)?;
        let granted = self.granted(component, &found)?;
        let id = PolicyId { name: found.name, digest: format!("sha256:{digest}"), tier: found.tier };
        let policy = Policy::link(&self.linker, component, id, settings, found.data)?;
        let (moment, contents) = (granted.then_some(self.moment), self.contents.clone());
        Ok(Policy { moment, contents, mode: found.mode, ..policy })
    }

    /// What was compiled now is there for the next command, also of a policy that cannot be asked yet, or ever.
    fn keep(&mut self, made: Made) -> Result<Policy, LoadError> {
        let Made { name, policy, new } = made;
        if let (Some(cache), Some((key, new))) = (&mut self.cache, new) {
            let stored = match &new {
                New::Code(code) => cache.store(&key, code),
                New::Refusal(why) => cache.store_refusal(&key, why),
            };
            if let Err(error) = stored {
                self.notices.push(format!("the compiled policy {name} cannot be kept: {error}"));
            }
        }
        policy
    }

    /// Whether a policy has the clock. One that wants it and may not have it is not asked.
    fn granted(&self, component: &Component, found: &Found) -> Result<bool, LoadError> {
        let ty = component.component_type();
        let wanted = ty.imports(&self.engine).find_map(|(import, _)| needs_a_grant(import));
        match wanted {
            None => Ok(false),
            Some(capability) if found.grants.contains(capability) => Ok(true),
            Some(capability) => Err(LoadError::NotAPolicy {
                why: format!("wants the {capability}, which nobody has granted it"),
                hint: Some(match found.tier {
                    Tier::Mandatory => format!("[grants] {} = [\"{capability}\"] in policy.toml", found.name),
                    Tier::Builtin | Tier::User => format!("rlrun policy add --grant {capability}"),
                    Tier::Project => "policies of a project are granted nothing".to_owned(),
                }),
                name: found.name.clone(),
            }),
        }
    }

    fn digest(&mut self, found: &Found) -> Result<Digest, LoadError> {
        match &found.wasm {
            Origin::Builtin(builtin) => Digest::parse(builtin.sha256)
                .ok_or_else(|| LoadError::not_a_policy(&found.name, "was built with a digest that is none")),
            Origin::File { path, checked } => {
                let unreadable = |source| LoadError::Unreadable { path: path.clone(), source };
                match &mut self.cache {
                    Some(cache) => cache.source_digest(checked, limits::POLICY_BYTES).map_err(unreadable),
                    None => {
                        let mut file = checked.file.try_clone().map_err(unreadable)?;
                        Ok(Digest::of(&file::read(&mut file, path, limits::POLICY_BYTES)?))
                    }
                }
            }
        }
    }

    /// The code that was found or, where there is none, new code, which is then to be kept.
    fn component(
        &self,
        found: &Found,
        digest: &Digest,
        cached: Option<(TrustedCode, State)>,
    ) -> Result<(Component, State, Option<TrustedCode>), Uncompiled> {
        if let Some((code, state)) = cached
            // An error means another engine or another processor, whatever the name says: compile anew.
            && let Ok(component) = load(&self.engine, &code)
        {
            return Ok((component, state, None));
        }
        let (code, state) = self.compile(found, digest, Work::Code)?;
        let component = self.callable(&code, found)?;
        Ok((component, state, Some(code)))
    }

    fn callable(&self, code: &TrustedCode, found: &Found) -> Result<Component, LoadError> {
        load(&self.engine, code).map_err(|e| LoadError::not_a_policy(&found.name, format!("{e:#}")))
    }

    fn compile(&self, found: &Found, digest: &Digest, work: Work) -> Result<(TrustedCode, State), Uncompiled> {
        let settings = found.settings.json()?;
        match &found.wasm {
            Origin::Builtin(builtin) => compile(&self.policyc, &found.name, builtin.wasm, &settings, work),
            Origin::File { path, checked } => {
                let bytes = reread(path, checked)?;
                // The bytes that are compiled are the bytes that were hashed: a file can be written in between.
                if Digest::of(&bytes) != *digest {
                    return Err(LoadError::not_a_policy(&found.name, "the file is changing").into());
                }
                compile(&self.policyc, &found.name, &bytes, &settings, work)
            }
        }
    }

    /// The policy as its author's compiler left it, with settings that it is given each time it is asked: for tests
    /// with many settings, which one compilation serves.
    pub(crate) fn load_plain(&mut self, found: Found, settings: &str) -> Result<Policy, LoadError> {
        let digest = self.digest(&found)?;
        let key = format!("{digest}-plain-{}", self.target);
        let cached = self.cache.as_mut().and_then(|cache| cache.find(&key));
        let component = match cached.and_then(|code| load(&self.engine, &code).ok()) {
            Some(component) => component,
            None => {
                let code = self.compile(&found, &digest, Work::Plain)?.0;
                if let Some(cache) = &mut self.cache {
                    // Without a place to keep it the next test compiles again.
                    cache.store(&key, &code).unwrap_or_default();
                }
                self.callable(&code, &found)?
            }
        };
        let id = PolicyId { name: found.name, digest: format!("sha256:{digest}"), tier: found.tier };
        let policy = Policy::link(&self.linker, &component, id, Some(settings.to_owned()), found.data)?;
        // An author tries the clock before anybody grants it.
        Ok(Policy { moment: Some(self.moment), ..policy })
    }

    /// Saves what was learned and tells what the user should know.
    pub(crate) fn finish(&mut self) -> Vec<String> {
        if let Some(Err(error)) = self.cache.take().map(Cache::save) {
            self.notices.push(format!("the index of compiled policies cannot be written: {error}"));
        }
        std::mem::take(&mut self.notices)
    }
}

/// Everything that a policy may import.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<evaluate::State>> {
    let mut linker = Linker::new(engine);
    crate::bindings::Asked::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut evaluate::State| state)?;
    Ok(linker)
}

fn reread(path: &Path, checked: &file::Checked) -> Result<Vec<u8>, LoadError> {
    use std::io::Seek as _;
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let mut file = checked.file.try_clone().map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    file::read(&mut file, path, limits::POLICY_BYTES)
}

/// How many threads help. Reading code that is there takes no longer than it takes to begin a thread; compilers are
/// processes of half a second, one for each processor.
fn helpers(to_compile: usize) -> usize {
    if to_compile < 2 {
        return 0;
    }
    let processors = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize);
    to_compile.min(processors).saturating_sub(1)
}

/// Works on all of them, this thread and as many others, and returns the results in their order. Where no thread can be
/// had it takes longer.
fn side_by_side<T: Send, U: Send>(tasks: Vec<T>, helpers: usize, work: &(impl Fn(T) -> U + Sync)) -> Vec<U> {
    let queue = Mutex::new(tasks.into_iter().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let take = || std::iter::from_fn(next).map(|(at, task)| (at, work(task))).collect::<Vec<_>>();
    let mut done = std::thread::scope(|scope| {
        let started = (0..helpers).map_while(|_| std::thread::Builder::new().spawn_scoped(scope, take).ok());
        let started: Vec<_> = started.collect();
        let mut done = take();
        for helper in started {
            match helper.join() {
                Ok(results) => done.extend(results),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stand_in_the_order_of_the_tasks() {
        for helpers in [0, 1, 3] {
            let squares = side_by_side((0..50_u64).collect(), helpers, &|n| n * n);
            assert_eq!(squares, (0..50).map(|n| n * n).collect::<Vec<_>>());
        }
        assert!(side_by_side(Vec::<u8>::new(), 1, &|n| n).is_empty());
    }

    #[test]
    fn code_that_is_there_is_read_without_help() {
        assert_eq!([helpers(0), helpers(1)], [0, 0]);
        assert!(helpers(10) < 10);
    }
}
