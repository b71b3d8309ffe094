//! `-d`, `--log-driver`, `--restart` and the like: how a container lives.

use super::Invalid;
use super::health::HealthRequest;
use super::limits::bytes;
use rlrun_spec::life::Restart;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Longest current log file when nobody says otherwise: a container that writes without end must not fill the disk.
const DEFAULT_LOG_SIZE: u64 = 64 << 20;
/// The current file and the one before.
const DEFAULT_LOG_FILES: u32 = 2;

/// How a container is to live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifeRequest {
    /// `-d`.
    pub detach: bool,
    /// In the foreground, but the caller may leave it: there are keys for it, or signals are not for the container.
    #[serde(default)]
    pub leavable: bool,
    /// It waits for one more word before its program is executed (`oci create`).
    #[serde(default)]
    pub hold: rlrun_spec::life::Hold,
    /// `--log-driver` and `--log-opt`; None: nobody said.
    pub log: Option<LogRequest>,
    /// `--restart`.
    pub restart: Restart,
    /// `--stop-timeout`.
    pub stop_seconds: Option<u32>,
    /// `--timeout`.
    pub timeout_seconds: Option<u32>,
    /// `--health-*`.
    #[serde(default)]
    pub health: HealthRequest,
}

/// `--log-driver`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogRequest {
    /// `none`.
    None,
    /// `k8s-file`, which `json-file` is another name of, as in podman.
    File {
        /// `path=`; in the container's directory when None.
        path: Option<PathBuf>,
        /// `max-size=`.
        max_size: u64,
        /// `max-file=`.
        max_file: u32,
    },
    /// `journald`.
    Journald {
        /// `tag=`.
        tag: Option<String>,
    },
}

impl Default for LogRequest {
    fn default() -> Self {
        LogRequest::File { path: None, max_size: DEFAULT_LOG_SIZE, max_file: DEFAULT_LOG_FILES }
    }
}

/// `--log-driver` with its `--log-opt`; None when neither was given.
///
/// # Errors
/// For a driver that rlrun does not have, or an option that means nothing to it.
pub fn log(driver: Option<&str>, options: &[String]) -> Result<Option<LogRequest>, Invalid> {
    let mut request = match driver {
        None if options.is_empty() => return Ok(None),
        None | Some("k8s-file" | "json-file" | "") => LogRequest::default(),
        Some("none") => LogRequest::None,
        Some("journald") => LogRequest::Journald { tag: None },
        Some(other) => {
            return Err(Invalid::new("--log-driver", other, "rlrun has no such driver")
                .hint("choose k8s-file (json-file is another name of it), journald or none"));
        }
    };
    for option in options {
        set(&mut request, option)?;
    }
    Ok(Some(request))
}

fn set(request: &mut LogRequest, option: &str) -> Result<(), Invalid> {
    let bad = |why: &str| Invalid::new("--log-opt", option, why);
    let (name, value) = option.split_once('=').ok_or_else(|| bad("is not NAME=VALUE"))?;
    let (path, max_size, max_file) = match request {
        LogRequest::File { path, max_size, max_file } => (path, max_size, max_file),
        LogRequest::Journald { tag } if name == "tag" && !value.is_empty() && !value.contains(char::is_control) => {
            *tag = Some(value.to_owned());
            return Ok(());
        }
        LogRequest::Journald { .. } => return Err(bad("is not known to the driver journald").hint("tag=WORD is")),
        LogRequest::None => return Err(bad("the driver `none` takes no options")),
    };
    match name {
        "path" if value.starts_with('/') => *path = Some(PathBuf::from(value)),
        "path" => return Err(bad("is not an absolute path")),
        "max-size" => {
            let size = bytes(value).filter(|s| *s >= 4096);
            *max_size = size.ok_or_else(|| bad("is not a size of 4k or more").hint("for example max-size=10m"))?;
        }
        "max-file" => {
            let count = value.parse().ok().filter(|n| (1..=100).contains(n));
            *max_file = count.ok_or_else(|| bad("is not a number from 1 to 100"))?;
        }
        _ => return Err(bad("is not known").hint("path, max-size and max-file are")),
    }
    Ok(())
}

/// `--restart`.
///
/// # Errors
/// For a policy that nobody knows.
pub fn restart(word: &str) -> Result<Restart, Invalid> {
    let bad = || {
        Invalid::new("--restart", word, "is no restart policy")
            .hint("choose no, on-failure[:TIMES], always or unless-stopped")
    };
    match word.split_once(':') {
        None => match word {
            "no" | "" => Ok(Restart::No),
            "on-failure" => Ok(Restart::OnFailure { at_most: None }),
            "always" => Ok(Restart::Always),
            "unless-stopped" => Ok(Restart::UnlessStopped),
            _ => Err(bad()),
        },
        Some(("on-failure", times)) => {
            times.parse().map(|times| Restart::OnFailure { at_most: Some(times) }).map_err(|_| bad())
        }
        Some(_) => Err(bad()),
    }
}

/// Seconds from the stop signal to SIGKILL; a negative number means as long as it takes, as in podman.
#[must_use]
pub fn stop_seconds(seconds: i64) -> u32 {
    // Half of what fits: whoever adds to it stays within.
    u32::try_from(seconds).unwrap_or(u32::MAX).min(u32::MAX / 2)
}

/// `--replace` with the name that it is about.
///
/// # Errors
/// When there is no name.
pub fn replace(wanted: bool, name: Option<&str>) -> Result<bool, Invalid> {
    match (wanted, name) {
        (true, None) => Err(Invalid::new("--replace", "", "replaces nothing without a name").hint("add --name NAME")),
        (wanted, _) => Ok(wanted),
    }
}

/// `--rm` with `--restart`: one of them has to give way.
///
/// # Errors
/// When both are given.
pub fn remove(wanted: bool, restart: Restart) -> Result<bool, Invalid> {
    match (wanted, restart) {
        (true, Restart::OnFailure { .. } | Restart::Always | Restart::UnlessStopped) => {
            Err(Invalid::new("--rm", restart.word(), "what is started again cannot be removed when it ends")
                .hint("leave out --rm or --restart"))
        }
        (wanted, _) => Ok(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn logs_are_files_unless_asked_otherwise() {
        assert_eq!(log(None, &[]).unwrap(), None);
        assert_eq!(log(Some("json-file"), &[]).unwrap(), Some(LogRequest::default()));
        assert_eq!(log(Some("none"), &[]).unwrap(), Some(LogRequest::None));
        let tagged = LogRequest::Journald { tag: Some("web".to_owned()) };
        assert_eq!(log(Some("journald"), &options(&["tag=web"])).unwrap(), Some(tagged));
        let all = options(&["max-size=1m", "max-file=3", "path=/x/y"]);
        let want = LogRequest::File { path: Some("/x/y".into()), max_size: 1 << 20, max_file: 3 };
        assert_eq!(log(None, &all).unwrap(), Some(want));
    }

    #[test]
    fn what_no_driver_takes_is_refused() {
        for (driver, option) in [
            ("syslog", None),
            ("journald", Some("max-size=1m")),
            ("journald", Some("tag=a\nMESSAGE=b")),
            ("none", Some("max-size=1m")),
            ("k8s-file", Some("path=relative")),
            ("k8s-file", Some("max-size=1")),
            ("k8s-file", Some("max-file=0")),
            ("k8s-file", Some("tag=x")),
            ("k8s-file", Some("max-size")),
        ] {
            let list: Vec<&str> = option.into_iter().collect();
            assert!(log(Some(driver), &options(&list)).is_err(), "{driver} {option:?}");
        }
    }

    #[test]
    fn restart_policies_are_podmans() {
        assert_eq!(restart("on-failure:3").unwrap(), Restart::OnFailure { at_most: Some(3) });
        assert_eq!(restart("unless-stopped").unwrap(), Restart::UnlessStopped);
        for bad in ["sometimes", "always:3", "on-failure:-1", "on-failure:"] {
            assert!(restart(bad).is_err(), "{bad}");
        }
    }
}
