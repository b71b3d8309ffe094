//! `cis`: section 5 of the CIS Docker Benchmark 1.6.0, "Container Runtime", each check by its number.
//!
//! What the benchmark asks of every container, and an ordinary one of rlrun fulfils, is denied where it is not
//! fulfilled. What it asks and few containers fulfil is a warning, until the settings say `strict = true` or name it.
//!
//! ```toml
//! strict = false             # true: every check denies
//! deny = ["5.11"]            # these deny
//! warn = ["5.4"]             # these warn
//! skip = ["5.27"]            # these are not looked at
//! allow-capabilities = ["CAP_NET_RAW"]
//! allow-privileged-ports = [443]
//! ```

mod checks;

use rlrun_policy::{
    Caller, Container, Create, Diagnostic, Exec, ExecRequest, Policy, Severity, Verdict, finding, glue, policy,
};
use serde::Deserialize;

/// The policy.
pub struct Cis;

/// `cis.toml`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Every check denies.
    pub strict: bool,
    /// Numbers of checks that deny.
    pub deny: Vec<String>,
    /// Numbers of checks that warn.
    pub warn: Vec<String>,
    /// Numbers of checks that are left out.
    pub skip: Vec<String>,
    /// 5.4: beyond the default ones.
    pub allow_capabilities: Vec<String>,
    /// 5.8: ports below 1024 that may be published.
    pub allow_privileged_ports: Vec<u16>,
    /// 5.9: ports that may be published although the image does not expose them.
    pub allow_ports: Vec<u16>,
}

impl rlrun_policy::Settings for Settings {
    fn read(json: &str) -> Result<Self, String> {
        let settings: Settings = glue::from_json(json)?;
        for number in settings.deny.iter().chain(&settings.warn).chain(&settings.skip) {
            if !checks::CHECKS.iter().any(|check| check.number == number) {
                return Err(format!("`{number}` is no check: 5.2 to 5.32, without 5.1 (swarm) and 5.30 (docker0)"));
            }
            let said = [&settings.deny, &settings.warn, &settings.skip].into_iter().filter(|l| l.contains(number));
            if said.count() > 1 {
                return Err(format!("{number} is in two of deny, warn and skip"));
            }
        }
        Ok(settings)
    }
}

impl Policy for Cis {
    type Settings = Settings;
}

/// What becomes of a finding.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Deny,
    Warn,
    Skip,
}

impl Settings {
    fn effect(&self, check: &checks::Check) -> Effect {
        let named = |list: &[String]| list.iter().any(|n| n == check.number);
        match () {
            () if named(&self.skip) => Effect::Skip,
            () if named(&self.warn) => Effect::Warn,
            () if named(&self.deny) || self.strict || check.ordinary => Effect::Deny,
            () => Effect::Warn,
        }
    }
}

/// Denials with all that is denied; else the warnings.
fn judge(settings: &Settings, found: impl Fn(&checks::Check) -> Vec<(String, String)>) -> Verdict {
    let (mut denied, mut warned): (Vec<Diagnostic>, Vec<Diagnostic>) = (Vec::new(), Vec::new());
    for check in &checks::CHECKS {
        let (list, severity) = match settings.effect(check) {
            Effect::Skip => continue,
            Effect::Deny => (&mut denied, Severity::High),
            Effect::Warn => (&mut warned, Severity::Low),
        };
        for (path, message) in found(check) {
            let code = format!("CIS-{}", check.number);
            list.push(finding(&code, severity, message).at(path).help(check.help).into());
        }
    }
    if denied.is_empty() { warned.into_iter().fold(Verdict::allow(), Verdict::warn) } else { Verdict::judged(denied) }
}

impl Create for Cis {
    fn create(settings: &Settings, container: &Container, _: &Caller) -> Verdict {
        judge(settings, |check| match check.asks {
            checks::Asks::Container(look) => look(settings, container),
            checks::Asks::Exec(_) => Vec::new(),
        })
    }
}

impl Exec for Cis {
    fn exec(settings: &Settings, request: &ExecRequest, _: &Container, _: &Caller) -> Verdict {
        judge(settings, |check| match check.asks {
            checks::Asks::Exec(look) => look(request),
            checks::Asks::Container(_) => Vec::new(),
        })
    }
}

policy!(Cis: create, exec);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixtures() {
        rlrun_policy::fixtures::check::<Cis>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }

    #[test]
    fn every_number_is_there_once_and_has_a_case() {
        let numbers: Vec<&str> = checks::CHECKS.iter().map(|check| check.number).collect();
        let all: Vec<String> = (2..=32).filter(|n| *n != 30).map(|n| format!("5.{n}")).collect();
        assert_eq!(numbers, all);
        let cases = rlrun_policy::fixtures::Case::load_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures").as_ref());
        let cases = cases.unwrap_or_else(|e| panic!("{e}"));
        for number in numbers {
            let code = format!("CIS-{number}");
            assert!(cases.iter().any(|case| case.expect.codes.contains(&code)), "no case finds {code}");
        }
    }
}
