//! `house-rules`: an example of rules about when, who and what for: opening hours, owners of images, what may be taken
//! out of a container, and a line in the audit log for each end. It wants the clock, so that it has to be granted:
//! `rlrun policy add house-rules --grant clock --settings house-rules.toml`.
//!
//! | code | what |
//! |---|---|
//! | HOUSE001 | outside of the opening hours |
//! | HOUSE002 | the image belongs to others |
//! | HOUSE003 | nothing may be taken out of these containers |
//!
//! ```toml
//! [hours]
//! days = ["mon", "tue", "wed", "thu", "fri"]
//! from = "07:00"
//! to = "19:00"
//! utc-offset-minutes = 60
//! except = ["root", "oncall"]
//!
//! [[owner]]
//! images = ["registry.example.com/payments/*"]
//! users = ["alice", "bob"]
//!
//! [copy-out]
//! deny-images = ["registry.example.com/payments/*"]
//! ```

use rlrun_policy::log::{Level, log};
use rlrun_policy::{
    Caller, Container, CopyOut, CopyOutRequest, Create, Diagnostic, Exit, ExitEvent, Policy, Severity, Subject,
    Verdict, clock, finding, glue, pattern, policy,
};
use serde::Deserialize;

/// The policy.
pub struct HouseRules;

/// `house-rules.toml`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// When containers may be started; absent: always.
    pub hours: Option<Hours>,
    /// Whose images are whose; an image that matches none is everybody's.
    pub owner: Vec<Owner>,
    /// What may not leave.
    pub copy_out: Leaving,
}

/// Opening hours.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Hours {
    /// `mon` to `sun`; empty: every day.
    #[serde(default)]
    pub days: Vec<String>,
    /// `07:00`
    pub from: String,
    /// `19:00`, not included. Before `from`: of the next day.
    pub to: String,
    /// The clock tells universal time.
    #[serde(default)]
    pub utc_offset_minutes: i32,
    /// Who is always let in.
    #[serde(default)]
    pub except: Vec<String>,
}

/// Who may start which images.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Patterns of references.
    pub images: Vec<String>,
    /// Login names.
    pub users: Vec<String>,
}

/// What stays inside.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Leaving {
    /// Patterns of references.
    pub deny_images: Vec<String>,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY: i64 = 24 * 60;

impl rlrun_policy::Settings for Settings {
    fn read(json: &str) -> Result<Self, String> {
        let settings: Settings = glue::from_json(json)?;
        if let Some(hours) = &settings.hours {
            minutes(&hours.from)?;
            minutes(&hours.to)?;
            if let Some(day) = hours.days.iter().find(|day| !DAYS.contains(&day.as_str())) {
                return Err(format!("`{day}` is no day: {}", DAYS.join(", ")));
            }
        }
        Ok(settings)
    }
}

/// Of a day.
fn minutes(text: &str) -> Result<i64, String> {
    let wrong = || format!("`{text}` is no time: 07:30");
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    let number = |digits: &str, most: i64| match digits.parse::<i64>() {
        Ok(n) if digits.len() == 2 && (0..=most).contains(&n) => Ok(n),
        Ok(_) | Err(_) => Err(wrong()),
    };
    Ok(number(hours, 24)? * 60 + number(minutes, 59)?)
}

impl Hours {
    /// Day of the week and minute of the day, where the hours are kept.
    fn local(&self, unix_ms: u64) -> (usize, i64) {
        let minutes = i64::try_from(unix_ms / 60_000).unwrap_or(i64::MAX / 2) + i64::from(self.utc_offset_minutes);
        // 1970 began on a Thursday.
        let day = (minutes.div_euclid(DAY) + 3).rem_euclid(7);
        (usize::try_from(day).unwrap_or_default(), minutes.rem_euclid(DAY))
    }

    fn are_open(&self, unix_ms: u64) -> bool {
        let (today, now) = self.local(unix_ms);
        let (from, to) = (minutes(&self.from).unwrap_or(DAY), minutes(&self.to).unwrap_or(0));
        let on = |day: usize| self.days.is_empty() || DAYS.get(day).is_some_and(|d| self.days.iter().any(|x| x == d));
        if from <= to {
            return on(today) && (from..to).contains(&now);
        }
        // Over midnight: the evening of one day and the morning after it.
        (on(today) && now >= from) || (on((today + 6) % 7) && now < to)
    }
}

impl Policy for HouseRules {
    type Settings = Settings;
}

fn matches(patterns: &[String], reference: &str) -> bool {
    patterns.iter().any(|p| pattern::glob(p, reference))
}

impl Create for HouseRules {
    fn create(settings: &Settings, container: &Container, caller: &Caller) -> Verdict {
        let mut found: Vec<Diagnostic> = Vec::new();
        let closed = |hours: &&Hours| !hours.except.contains(&caller.user) && !hours.are_open(clock::now_unix_ms());
        if let Some(hours) = settings.hours.as_ref().filter(closed) {
            let text = format!("containers are started from {} to {}", hours.from, hours.to);
            found.push(finding("HOUSE001", Severity::Medium, text).help("wait, or ask whoever keeps the hours").into());
        }
        let reference = container.image.as_ref().map(|i| i.reference.as_str()).unwrap_or_default();
        let owners: Vec<&Owner> = settings.owner.iter().filter(|o| matches(&o.images, reference)).collect();
        if !owners.is_empty() && !owners.iter().any(|o| o.users.contains(&caller.user)) {
            let text = format!("{reference} is not for {}", caller.user);
            found.push(finding("HOUSE002", Severity::High, text).at("/image/reference").into());
        }
        Verdict::judged(found)
    }
}

impl CopyOut for HouseRules {
    fn copy_out(settings: &Settings, request: &CopyOutRequest, container: &Subject, _: &Caller) -> Verdict {
        let reference = container.image.as_ref().map(|i| i.reference.as_str()).unwrap_or_default();
        if !matches(&settings.copy_out.deny_images, reference) {
            return Verdict::allow();
        }
        let text = format!("{} stays in containers of {reference}", request.source);
        Verdict::deny(finding("HOUSE003", Severity::High, text).at("/source"))
    }
}

impl Exit for HouseRules {
    fn exit(_: &Settings, event: &ExitEvent) {
        log(Level::Info, &format!("{} ended with {}", event.container.name, event.exit_code));
    }
}

policy!(HouseRules: create, copy_out, exit);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixtures() {
        rlrun_policy::fixtures::check::<HouseRules>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }

    #[test]
    fn hours_over_midnight_belong_to_the_day_they_begin_on() {
        let hours = Hours {
            days: vec!["fri".to_owned()],
            from: "22:00".to_owned(),
            to: "06:00".to_owned(),
            utc_offset_minutes: 0,
            except: Vec::new(),
        };
        // 1970-01-02 was a Friday.
        let at = |day: u64, hour: u64| hours.are_open((day * 24 + hour) * 3_600_000);
        assert!(at(1, 23) && at(2, 5) && !at(2, 23) && !at(1, 5) && !at(2, 6));
    }
}
