//! `--filter KEY=VALUE`: values of one key are alternatives, different keys must all fit; labels must all be there.

use crate::table::seconds_of;
use regex_lite::Regex;
use rlrun_spec::{Failure, Kind, Stage};

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(Vec<(String, String)>);

impl Filters {
    /// Reads the words; `known` are the keys that the verb has.
    pub(crate) fn parse(words: &[String], known: &[&str]) -> Result<Self, Failure> {
        let pair = |word: &String| {
            let (key, value) = word.split_once('=').ok_or_else(|| wrong(word, "is no KEY=VALUE", known))?;
            match known.contains(&key) {
                true => Ok((key.to_owned(), value.to_owned())),
                false => Err(wrong(word, "no such filter", known)),
            }
        };
        words.iter().map(pair).collect::<Result<_, _>>().map(Filters)
    }

    /// The values of a key.
    pub(crate) fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// Whether a value of the key fits, or nothing was asked.
    pub(crate) fn any(&self, key: &str, fits: impl FnMut(&str) -> bool) -> bool {
        self.values(key).next().is_none() || self.values(key).any(fits)
    }

    /// Whether all values of the key fit.
    pub(crate) fn all(&self, key: &str, fits: impl FnMut(&str) -> bool) -> bool {
        self.values(key).all(fits)
    }

    /// The values of a key as regular expressions, which fit anywhere in a text.
    pub(crate) fn patterns(&self, key: &str) -> Result<Patterns, Failure> {
        let read = |word| Regex::new(word).map_err(|e| invalid(key, word, &e.to_string()));
        self.values(key).map(read).collect::<Result<_, _>>().map(Patterns)
    }

    /// Refuses a value of the key that is none of `known`.
    pub(crate) fn one_of(&self, key: &str, known: &[&str]) -> Result<(), Failure> {
        match self.values(key).find(|word| !known.contains(word)) {
            Some(word) => Err(invalid(key, word, &format!("is none of {}", known.join(", ")))),
            None => Ok(()),
        }
    }

    /// The one truth value of a key, if it was asked.
    pub(crate) fn truth(&self, key: &str) -> Result<Option<bool>, Failure> {
        let read = |word: &str| match word.to_ascii_lowercase().as_str() {
            "1" | "t" | "true" => Ok(true),
            "0" | "f" | "false" => Ok(false),
            _ => Err(invalid(key, word, "is neither true nor false")),
        };
        self.values(key).last().map(read).transpose()
    }

    /// The moments of a key, in seconds since the epoch.
    pub(crate) fn moments(&self, key: &str, now: u64) -> Result<Vec<u64>, Failure> {
        let read = |word| moment(word, now).ok_or_else(|| invalid(key, word, "is no time: 2006-01-02T15:04:05Z, 90m"));
        self.values(key).map(read).collect()
    }
}

/// Alternatives; none at all fit everything.
#[derive(Debug)]
pub(crate) struct Patterns(Vec<Regex>);

impl Patterns {
    pub(crate) fn fit(&self, text: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.is_match(text))
    }
}

fn wrong(word: &str, why: &str, known: &[&str]) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "filter", "understand --filter", word)
        .why(why)
        .hint(format!("write it KEY=VALUE; the keys are {}", known.join(", ")))
}

fn invalid(key: &str, value: &str, why: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "filter", "understand --filter", format!("{key}={value}")).why(why)
}

/// Whether labels have what a `label=` filter says: `key` or `key=value`.
pub(crate) fn label_fits<'l>(word: &str, mut labels: impl Iterator<Item = (&'l str, &'l str)>) -> bool {
    match word.split_once('=') {
        Some((key, value)) => labels.any(|label| label == (key, value)),
        None => labels.any(|(key, _)| key == word),
    }
}

/// Seconds since the epoch of a time as podman takes it: seconds, RFC 3339, a date or a date with a time (UTC), or how
/// long ago: `10m`, `1h30m`.
pub(crate) fn moment(text: &str, now: u64) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.bytes().all(|b| b.is_ascii_digit())
        && let Ok(seconds) = seconds.parse()
    {
        return Some(seconds);
    }
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        19 => format!("{text}Z"),
        _ => text.to_owned(),
    };
    seconds_of(&whole).or_else(|| now.checked_sub(duration(text)?))
}

/// Seconds of a duration in Go's form.
fn duration(text: &str) -> Option<u64> {
    // Days are ours: what was asked last week should not have to be counted in hours.
    const UNITS: [(&str, f64); 7] =
        [("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9), ("d", 86_400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let count: f64 = rest[..digits].parse().ok()?;
        let (unit, seconds) = UNITS.iter().find(|(unit, _)| rest[digits..].starts_with(unit))?;
        total += count * seconds;
        rest = &rest[digits + unit.len()..];
    }
    // Whole seconds: nothing here is told more finely. Longer than a century is a mistake.
    let whole = std::time::Duration::try_from_secs_f64(total).ok()?.as_secs();
    (!text.is_empty() && whole < 100 * 366 * 86_400).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filters(words: &[&str]) -> Result<Filters, String> {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        Filters::parse(&words, &["id", "label", "label!", "dangling"]).map_err(|f| f.to_string())
    }

    #[test]
    fn values_of_one_key_are_alternatives() {
        let some = filters(&["id=a", "id=b", "label=x=y", "label=z"]).unwrap();
        assert!(some.any("id", |v| v == "b") && !some.any("id", |v| v == "c") && some.any("name", |_| false));
        assert!(!some.all("label", |v| v == "z") && some.all("none", |_| false));
        assert_eq!(some.values("label").collect::<Vec<_>>(), ["x=y", "z"]);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(filters(&["nope=1"]).unwrap_err().contains("nope=1: no such filter"));
        assert!(filters(&["id"]).unwrap_err().contains("no KEY=VALUE"));
        assert!(filters(&["dangling=x"]).unwrap().truth("dangling").is_err());
        assert_eq!(filters(&["dangling=true"]).unwrap().truth("dangling").unwrap(), Some(true));
    }

    #[test]
    fn patterns_are_regular_expressions() {
        let fits = |words: &[&str], text: &str| filters(words).unwrap().patterns("id").unwrap().fit(text);
        assert!(fits(&["id=^web$"], "web") && !fits(&["id=^web$"], "web2") && fits(&["id=eb"], "web2"));
        assert!(fits(&["id=^a", "id=^w"], "web") && fits(&[], "web"));
        assert!(filters(&["id=("]).unwrap().patterns("id").is_err());
    }

    #[test]
    fn labels_fit_by_key_or_by_both() {
        let fits = |word| label_fits(word, [("a", "1"), ("b", "")].into_iter());
        assert!(fits("a") && fits("a=1") && fits("b=") && !fits("a=2") && !fits("c"));
    }

    #[test]
    fn times_of_all_forms() {
        assert_eq!(moment("1700000000", 0), Some(1_700_000_000));
        assert_eq!(moment("1700000000.25", 0), Some(1_700_000_000));
        assert_eq!(moment("1970-01-02", 0), Some(86_400));
        assert_eq!(moment("1970-01-01T01:00:00", 0), Some(3600));
        assert_eq!(moment("1970-01-01T01:00:00+01:00", 0), Some(0));
        assert_eq!(moment("1h30m", 10_000), Some(4600));
        assert_eq!(moment("7d", 700_000), Some(700_000 - 604_800));
        assert_eq!(moment("1.5m", 100), Some(10));
        assert_eq!(moment("500ms", 100), Some(100));
        for bad in ["", "m", "1", "-5m", "1x", "999999999h", "yesterday"] {
            assert!(bad == "1" || moment(bad, 1 << 40).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_time_makes_it_panic_and_a_duration_is_past(text in "[0-9hms.:TZ+µ -]{0,20}") {
            let ago = moment(&text, 5);
            prop_assert!(ago.is_none_or(|t| t <= 5 || !text.contains(['h', 'm', 's'])));
        }
    }
}
