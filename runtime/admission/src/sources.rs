//! Where policies come from: the tiers, and what each directory holds.

use crate::code::Digest;
use crate::error::{LoadError, of_toml};
use crate::file::{self, Checked, Trust};
use crate::limits;
use crate::lock::{LOCK, Lock};
use crate::tier_config::{TIER_CONFIG, TierConfig};
use crate::{project, pulled};
use rlrun_spec::ImageIdentity;
use rlrun_spec::policy::{Mode, PolicyId, PrivilegedFiles, Tier};
use rustix::fs::{Mode as FileMode, OFlags};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where the administrator's policies are. Fixed when rlrun is built: whoever may choose the directory at run time
/// has no mandatory policies.
pub const MANDATORY_DIR: &str = match option_env!("RLRUN_MANDATORY_POLICY_DIR") {
    Some(dir) => dir,
    None => "/etc/rlrun/policy.d",
};

/// A policy that is part of the program.
#[derive(Debug)]
pub struct Builtin {
    /// `baseline`.
    pub name: &'static str,
    /// The component.
    pub wasm: &'static [u8],
    /// Its SHA-256 in hexadecimal, taken when the program was built.
    pub sha256: &'static str,
}

/// Whether the builtin tier is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It is.
    On,
    /// It is not. Policies that the mandatory tier requires are asked all the same.
    Off,
}

/// Takes what a policy logs: who, how grave, what.
pub type LogLine = fn(&PolicyId, &str, &str);

/// Looks into the layers of an image; the path is [`Sources::data_dir`].
pub type LookInside = fn(&Path, &ImageIdentity) -> PrivilegedFiles;

/// Where to look for policies.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The policies that are part of the program.
    pub builtins: &'static [Builtin],
    /// Whether they are asked.
    pub builtin_tier: Switch,
    /// The user's directory.
    pub user_dir: PathBuf,
    /// `--policy FILE`.
    pub files: Vec<PathBuf>,
    /// The cache of machine code.
    pub cache_dir: PathBuf,
    /// The compiler, `rlrun-policyc`.
    pub policyc: PathBuf,
    /// Where rlrun keeps images and containers. Policies see it with the directories above: who can write there can
    /// do what rlrun can do.
    pub data_dir: PathBuf,
    /// The caller's home directory; None: as the user database says.
    pub home: Option<PathBuf>,
    /// Takes what policies log.
    pub log: Option<LogLine>,
    /// Where the policies that come with rlrun are, `NAME.wasm`.
    pub shipped_dir: PathBuf,
    /// What the clock tells, in milliseconds since 1970; None: now. For asking again about the past.
    pub moment: Option<u64>,
    /// Tells policies what is in an image, when they ask.
    pub look_inside: Option<LookInside>,
    /// The working directory, from which upwards `.rlrun/policy.toml` is looked for.
    pub project: Option<PathBuf>,
}

/// What has to be asked, and what the user should know of it.
pub(crate) struct Discovered {
    pub(crate) found: Vec<Found>,
    pub(crate) told: Vec<String>,
}

impl Sources {
    /// All policies that have to be asked.
    pub(crate) fn discover(&self) -> Result<Discovered, LoadError> {
        let mandatory = Path::new(MANDATORY_DIR);
        file::check_above(mandatory)?;
        self.discover_in(mandatory)
    }

    fn discover_in(&self, mandatory: &Path) -> Result<Discovered, LoadError> {
        let mut found = Vec::new();
        let mut told = Vec::new();
        let user = Directory::scan(&self.user_dir, Trust::User)?;
        let system = Directory::scan(mandatory, Trust::Root)?;
        if self.builtin_tier == Switch::On {
            for builtin in self.builtins {
                // The user's own settings for a builtin policy are the user's to choose.
                found.push(user.builtin(builtin, Tier::Builtin)?);
            }
        }
        found.extend(user.policies(Tier::User)?);
        for path in &self.files {
            found.push(named(path, &self.data_dir)?);
        }
        if let Some(directory) = &self.project {
            found.extend(project::policies(self, directory, &mut told)?);
        }
        let mut mandatory = system.policies(Tier::Mandatory)?;
        for name in system.required_builtins(self.builtins)? {
            mandatory.push(system.builtin(name, Tier::Mandatory)?);
        }
        for policy in &mut mandatory {
            // What the administrator only wants told, a user may want done; never the other way round.
            policy.mode = policy.mode.max(user.config.modes.get(&policy.name).copied().unwrap_or(policy.mode));
        }
        found.extend(mandatory);
        user.refuse_orphans(self.builtins)?;
        system.refuse_orphans(self.builtins)?;
        user.refuse_missing(self.builtins)?;
        user.refuse_strangers(self.builtins, found.iter().filter(|found| found.tier != Tier::Project))?;
        system.refuse_strangers(self.builtins, found.iter().filter(|found| found.tier == Tier::Mandatory))?;
        Ok(Discovered { found, told })
    }
}

/// A policy that has to be asked, not yet loaded.
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) tier: Tier,
    pub(crate) wasm: Origin,
    pub(crate) settings: Settings,
    pub(crate) data: Option<PathBuf>,
    /// What its no does.
    pub(crate) mode: Mode,
    /// Capabilities that it has because somebody said so.
    pub(crate) grants: BTreeSet<String>,
    /// The digest that it has to have, and who says so.
    pub(crate) pinned: Option<(String, PathBuf)>,
}

/// Settings as written, TOML. They are parsed only when the policy has not been set up with them before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    path: PathBuf,
    text: String,
}

impl Settings {
    /// Written in another file.
    pub(crate) fn within(path: &Path, table: &toml::Table) -> Self {
        Settings { path: path.to_owned(), text: table.to_string() }
    }

    /// None when the file does not exist.
    pub(crate) fn read(path: PathBuf, trust: Trust) -> Result<Option<Self>, LoadError> {
        let text = file::read_text(&path, trust, limits::SETTINGS_BYTES)?;
        Ok(text.map(|text| Settings { path, text }))
    }

    /// The same text means the same settings.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }

    /// As a policy gets them.
    ///
    /// # Errors
    /// When they are not TOML.
    pub(crate) fn json(&self) -> Result<String, LoadError> {
        let invalid = |why: String| LoadError::Settings { path: self.path.clone(), why };
        let table: toml::Table =
            toml::from_str(&self.text).map_err(|e: toml::de::Error| invalid(of_toml(&e, &self.text)))?;
        serde_json::to_string(&table).map_err(|e| invalid(e.to_string()))
    }
}

/// Where the bytes of a policy are.
pub(crate) enum Origin {
    Builtin(&'static Builtin),
    File { path: PathBuf, checked: Checked },
}

/// One directory of policies.
struct Directory {
    path: PathBuf,
    trust: Trust,
    wasm: BTreeSet<String>,
    toml: BTreeSet<String>,
    data: BTreeSet<String>,
    config: TierConfig,
    lock: Lock,
}

impl Directory {
    /// A directory that does not exist is empty. One that cannot be read may hold policies that must be asked.
    fn scan(path: &Path, trust: Trust) -> Result<Self, LoadError> {
        let mut dir = Directory {
            path: path.to_owned(),
            trust,
            wasm: BTreeSet::new(),
            toml: BTreeSet::new(),
            data: BTreeSet::new(),
            config: TierConfig::default(),
            lock: Lock::default(),
        };
        let unreadable =
            |errno: rustix::io::Errno| LoadError::Unreadable { path: path.to_owned(), source: errno.into() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match rustix::fs::open(path, flags, FileMode::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => return Ok(dir),
            Err(errno) => return Err(unreadable(errno)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(unreadable)?;
        trust.check(&stat).map_err(|why| LoadError::Untrusted { path: path.to_owned(), why })?;
        for entry in rustix::fs::Dir::new(fd).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            dir.sort_in(name);
        }
        if dir.toml.contains(TIER_CONFIG) {
            dir.config = TierConfig::read(&path.join(format!("{TIER_CONFIG}.toml")), trust)?;
        }
        dir.lock = Lock::read_trusted(&path.join(LOCK), trust)?;
        Ok(dir)
    }

    /// Whatever is hidden or has another ending is a README, an editor's copy: not a policy.
    fn sort_in(&mut self, file_name: &str) {
        let Some((stem, extension)) = file_name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()) else { return };
        if file_name.starts_with('.') {
            return;
        }
        match extension {
            "wasm" => self.wasm.insert(stem.to_owned()),
            "toml" => self.toml.insert(stem.to_owned()),
            "data" => self.data.insert(stem.to_owned()),
            _ => false,
        };
    }

    fn policies(&self, tier: Tier) -> Result<Vec<Found>, LoadError> {
        self.wasm.iter().map(|name| self.policy(name, tier)).collect()
    }

    fn policy(&self, name: &str, tier: Tier) -> Result<Found, LoadError> {
        if name == TIER_CONFIG {
            return Err(LoadError::not_a_policy(name, format!("{TIER_CONFIG}.toml has another meaning: rename it")));
        }
        let path = self.path.join(format!("{name}.wasm"));
        let gone = || LoadError::Unreadable { path: path.clone(), source: rustix::io::Errno::NOENT.into() };
        let checked = file::open(&path, self.trust)?.ok_or_else(gone)?;
        self.found(name, tier, Origin::File { path, checked })
    }

    fn builtin(&self, builtin: &'static Builtin, tier: Tier) -> Result<Found, LoadError> {
        self.found(builtin.name, tier, Origin::Builtin(builtin))
    }

    fn found(&self, name: &str, tier: Tier, wasm: Origin) -> Result<Found, LoadError> {
        // Beside NAME.wasm the settings belong to that file, not to a builtin policy of the same name.
        let own = matches!(wasm, Origin::File { .. }) || !self.wasm.contains(name);
        let path = self.path.join(format!("{name}.toml"));
        let read = if own && self.toml.contains(name) { Settings::read(path, self.trust)? } else { None };
        let settings = read.unwrap_or_default();
        let data = (own && self.data.contains(name)).then(|| self.path.join(format!("{name}.data")));
        let mode = self.config.modes.get(name).copied().unwrap_or_default();
        let mut grants = self.config.grants.get(name).cloned().unwrap_or_default();
        let locked = self.lock.policies.get(name).filter(|_| matches!(wasm, Origin::File { .. }));
        grants.extend(locked.into_iter().flat_map(|locked| locked.grants.iter().cloned()));
        let pinned = locked.map(|locked| (locked.digest.clone(), self.path.join(LOCK)));
        Ok(Found { name: name.to_owned(), tier, wasm, settings, data, mode, grants, pinned })
    }

    /// Builtin policies that the administrator requires, or has settings for. What else is required must be here.
    fn required_builtins(&self, builtins: &'static [Builtin]) -> Result<Vec<&'static Builtin>, LoadError> {
        self.refuse_missing(builtins)?;
        let named = |b: &&Builtin| self.config.required.iter().any(|r| r == b.name) || self.toml.contains(b.name);
        Ok(builtins.iter().filter(|b| named(b) && !self.wasm.contains(b.name)).collect())
    }

    /// What somebody requires, or has added, and is not there.
    fn refuse_missing(&self, builtins: &[Builtin]) -> Result<(), LoadError> {
        let absent = |name: &&String| !self.wasm.contains(*name);
        let required = self.config.required.iter().filter(absent);
        if let Some(name) = required.clone().find(|name| !builtins.iter().any(|b| b.name == *name)) {
            let path = self.path.join(format!("{TIER_CONFIG}.toml"));
            return Err(LoadError::Required { name: name.clone(), path });
        }
        match self.lock.policies.keys().find(absent) {
            Some(name) => Err(LoadError::Required { name: name.clone(), path: self.path.join(LOCK) }),
            None => Ok(()),
        }
    }

    /// A mode or a grant for a policy that is not there, maybe because its name is misspelt. `theirs` are those that this
    /// directory has a say in.
    fn refuse_strangers<'a>(
        &self,
        builtins: &[Builtin],
        theirs: impl Iterator<Item = &'a Found> + Clone,
    ) -> Result<(), LoadError> {
        let known = |name: &&String| {
            theirs.clone().any(|found| found.name == **name) || builtins.iter().any(|builtin| builtin.name == *name)
        };
        let mode = self.config.modes.keys().find(|name| !known(name)).map(|name| ("modes", name));
        let grant = || self.config.grants.keys().find(|name| !known(name)).map(|name| ("grants", name));
        mode.or_else(grant).map_or(Ok(()), |(table, name)| {
            Err(LoadError::Settings {
                path: self.path.join(format!("{TIER_CONFIG}.toml")),
                why: format!("[{table}] {name}: there is no policy of that name"),
            })
        })
    }

    /// Settings or data for no policy: somebody believes that something is in force which is not.
    fn refuse_orphans(&self, builtins: &[Builtin]) -> Result<(), LoadError> {
        let known =
            |name: &String| self.wasm.contains(name) || builtins.iter().any(|b| b.name == name) || name == TIER_CONFIG;
        let orphan = |names: &BTreeSet<String>, extension: &str| {
            names.iter().find(|name| !known(name)).map(|name| LoadError::Settings {
                path: self.path.join(format!("{name}.{extension}")),
                why: format!("belongs to no policy: there is no {name}.wasm beside it"),
            })
        };
        orphan(&self.toml, "toml").or_else(|| orphan(&self.data, "data")).map_or(Ok(()), Err)
    }
}

/// `--policy FILE`, with FILE.toml and FILE.data beside it.
pub(crate) fn named(path: &Path, data_dir: &Path) -> Result<Found, LoadError> {
    let gone = || LoadError::Unreadable { path: path.to_owned(), source: rustix::io::Errno::NOENT.into() };
    let checked = file::open(path, Trust::Named)?.ok_or_else(gone)?;
    let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let data = Some(path.with_extension("data")).filter(|p| p.is_dir());
    let settings = Settings::read(path.with_extension("toml"), Trust::Named)?.unwrap_or_default();
    let wasm = Origin::File { path: path.to_owned(), checked };
    let (mode, grants) = (Mode::Enforce, BTreeSet::new());
    let pinned = pulled::pin(path, &settings, data_dir)?;
    Ok(Found { name, tier: Tier::User, wasm, settings, data, mode, grants, pinned })
}

/// A settings file that the user named; it has to exist.
pub(crate) fn named_settings(path: &Path) -> Result<Settings, LoadError> {
    let gone = || LoadError::Unreadable { path: path.to_owned(), source: rustix::io::Errno::NOENT.into() };
    Settings::read(path.to_owned(), Trust::Named)?.ok_or_else(gone)
}
