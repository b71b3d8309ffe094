//! `@NAME@`: containers run as another user than root.

use rlrun_policy::{Caller, Container, Create, Policy, Restriction, Severity, Verdict, finding, policy, settings};
use serde::Deserialize;

/// The policy.
pub struct ThisPolicy;

/// `@NAME@.toml`. A misspelt setting is an error.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Images that may run as root; they begin like this.
    #[serde(default)]
    pub allow: Vec<String>,
}

settings!(Settings);

impl Policy for ThisPolicy {
    type Settings = Settings;
}

impl Create for ThisPolicy {
    fn create(settings: &Settings, container: &Container, _caller: &Caller) -> Verdict {
        let image = container.image.as_ref().map(|image| image.reference.as_str()).unwrap_or_default();
        if container.uid != 0 || settings.allow.iter().any(|allowed| image.starts_with(allowed.as_str())) {
            return Verdict::allow().restrict(Restriction::NoNewPrivileges);
        }
        Verdict::deny(
            finding("ROOT001", Severity::High, "the container runs as root")
                .at("/uid")
                .help("run it as somebody: --user 1000:1000"),
        )
    }
}

policy!(ThisPolicy: create);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        rlrun_policy::fixtures::check::<super::ThisPolicy>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
