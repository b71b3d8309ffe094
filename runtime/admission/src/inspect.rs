//! `rlrun policy ls` and `rlrun policy check`: the same loading, told instead of acted upon.

use crate::error::LoadError;
use crate::evaluate::Session;
use crate::loader::Loader;
use crate::policy::{Hook, Policy, needs_a_grant};
use crate::sources::{self, Found, Origin, Sources};
use rlrun_spec::policy::{Diagnostic, Mode, PolicyId, Tier};
use std::path::{Path, PathBuf};

/// One line of `rlrun policy ls`.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its tier.
    pub tier: Tier,
    /// The file; None for a builtin policy.
    pub path: Option<PathBuf>,
    /// What loading it told.
    pub outcome: Result<Inspection, LoadError>,
}

/// What a policy is.
#[derive(Debug)]
pub struct Inspection {
    /// Who.
    pub id: PolicyId,
    /// The hooks that it implements.
    pub hooks: Vec<Hook>,
    /// Everything that it imports and exports, for whoever wants to hold it to that.
    pub imports: Vec<String>,
    /// See there.
    pub exports: Vec<String>,
    /// Of the capabilities those that somebody has to grant.
    pub grants: Vec<&'static str>,
    /// What its no does.
    pub mode: Mode,
    /// Interfaces that it imports: what it can reach.
    pub capabilities: Vec<String>,
    /// Interfaces that it exports and that this version does not ask.
    pub unasked: Vec<String>,
    /// Its settings as JSON.
    pub settings: String,
    /// Fuel for instantiation, and for `lifecycle.init` where its outcome is not kept with the code.
    pub init_fuel: u64,
    /// Why it does not accept its settings; empty when it does.
    pub problems: Vec<Diagnostic>,
}

/// Every policy that would be asked, those that cannot be loaded included.
///
/// # Errors
/// When the directories themselves cannot be used.
pub fn list(sources: &Sources) -> Result<Vec<Listed>, LoadError> {
    let mut loader = Loader::new(sources)?;
    let listed = sources.discover()?.found.into_iter().map(|found| listed(&mut loader, found)).collect();
    loader.finish();
    Ok(listed)
}

fn listed(loader: &mut Loader, found: Found) -> Listed {
    let (name, tier) = (found.name.clone(), found.tier);
    let path = match &found.wasm {
        Origin::Builtin(_) => None,
        Origin::File { path, .. } => Some(path.clone()),
    };
    let settings = found.settings.clone();
    let outcome = loader.load(found).and_then(|policy| Ok(inspect(loader, &policy, settings.json()?)));
    Listed { name, tier, path, outcome }
}

/// Loads one file, with FILE.toml beside it or the settings file named, and looks at it.
///
/// # Errors
/// When it is not a policy that can be asked.
pub fn check(file: &Path, settings: Option<&Path>, sources: &Sources) -> Result<Inspection, LoadError> {
    let mut loader = Loader::new(sources)?;
    let mut found = sources::named(file, &sources.data_dir)?;
    // Only looked at: what it would have to be granted is told.
    found.grants.insert("clock".to_owned());
    if let Some(path) = settings {
        found.settings = sources::named_settings(path)?;
    }
    let settings = found.settings.json()?;
    let policy = loader.load(found)?;
    let inspection = inspect(&loader, &policy, settings);
    loader.finish();
    Ok(inspection)
}

fn inspect(loader: &Loader, policy: &Policy, settings: String) -> Inspection {
    let ty = policy.pre.component().component_type();
    let interfaces = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let exports = interfaces(ty.exports(&loader.engine).map(|(name, _)| name).collect());
    let imports = interfaces(ty.imports(&loader.engine).map(|(name, _)| name).collect());
    let (init_fuel, problems) = match Session::open(&loader.engine, policy, None, None) {
        Ok(session) => (session.init_fuel(), Vec::new()),
        Err(refusal) => (0, refusal.diagnostics),
    };
    Inspection {
        id: policy.id.clone(),
        hooks: Hook::ALL.into_iter().filter(|hook| policy.has(*hook)).collect(),
        grants: imports.iter().filter_map(|import| needs_a_grant(import)).collect(),
        mode: policy.mode,
        exports: exports.clone(),
        imports: imports.clone(),
        // Types reach nothing.
        capabilities: imports.into_iter().filter(|i| crate::policy::is_capability(i)).collect(),
        unasked: exports
            .into_iter()
            .filter(|e| !Hook::ALL.iter().any(|hook| hook.interfaces().contains(&e.as_str())))
            .collect(),
        settings,
        init_fuel,
        problems,
    }
}
