//! `--security-opt`. An unknown one is an error: a typing mistake must not leave a container less confined.

use super::Invalid;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `seccomp=`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// The built-in profile.
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// A profile of the user.
    Profile(PathBuf),
}

/// `unmask=`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmask {
    /// `unmask=ALL`.
    pub all: bool,
    /// Single paths.
    pub paths: Vec<String>,
}

/// All `--security-opt` together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityRequest {
    /// `seccomp=`.
    pub seccomp: Seccomp,
    /// `no-new-privileges=`, on unless the user turns it off.
    pub no_new_privileges: bool,
    /// `mask=`, paths to hide beside the usual ones.
    pub mask: Vec<String>,
    /// `unmask=`.
    pub unmask: Unmask,
}

impl Default for SecurityRequest {
    fn default() -> Self {
        SecurityRequest {
            seccomp: Seccomp::Default,
            no_new_privileges: true,
            mask: Vec::new(),
            unmask: Unmask::default(),
        }
    }
}

/// All options in the order given; later ones win.
///
/// # Errors
/// When one is unknown or not supported.
pub fn request(words: &[String]) -> Result<SecurityRequest, Invalid> {
    let mut request = SecurityRequest::default();
    for word in words {
        take(&mut request, word)?;
    }
    Ok(request)
}

fn take(request: &mut SecurityRequest, word: &str) -> Result<(), Invalid> {
    let invalid = |why: &str| Invalid::new("--security-opt", word, why);
    // docker's older spelling has a colon.
    let (name, value) = match word.split_once(['=', ':']) {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    match (name, value) {
        ("no-new-privileges", None | Some("true")) => request.no_new_privileges = true,
        ("no-new-privileges", Some("false")) => request.no_new_privileges = false,
        ("seccomp", Some("unconfined")) => request.seccomp = Seccomp::Unconfined,
        ("seccomp", Some("")) | ("seccomp", None) => return Err(invalid("names no profile")),
        ("seccomp", Some(path)) => request.seccomp = Seccomp::Profile(PathBuf::from(path)),
        ("mask", Some(paths)) => request.mask.extend(absolute_paths(paths).ok_or_else(|| invalid(NOT_A_PATH))?),
        ("unmask", Some("ALL" | "all")) => request.unmask.all = true,
        ("unmask", Some(paths)) => {
            request.unmask.paths.extend(absolute_paths(paths).ok_or_else(|| invalid(NOT_A_PATH))?);
        }
        // Nothing is labelled and no profile is applied, so these ask for what already is.
        ("label", Some("disable")) | ("apparmor", Some("unconfined")) => {}
        ("label" | "apparmor" | "proc-opts" | "systempaths", _) => {
            return Err(invalid("is not supported yet"));
        }
        _ => {
            return Err(invalid("unknown option")
                .hint("known are seccomp=, no-new-privileges, mask=, unmask=, label=disable, apparmor=unconfined"));
        }
    }
    Ok(())
}

const NOT_A_PATH: &str = "holds a path that is not absolute or has a pattern";

fn absolute_paths(list: &str) -> Option<Vec<String>> {
    let good = |p: &str| p.starts_with('/') && !p.contains(['*', '?', '[', '\0']) && !p.contains("/..");
    let paths: Vec<_> = list.split(':').map(|p| p.trim_end_matches('/').to_owned()).collect();
    paths.iter().all(|p| good(p)).then_some(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<SecurityRequest, Invalid> {
        request(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn no_new_privileges_is_on_until_turned_off() {
        assert!(parse(&[]).unwrap().no_new_privileges);
        assert!(parse(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(!parse(&["no-new-privileges=false"]).unwrap().no_new_privileges);
        assert!(!parse(&["no-new-privileges:false"]).unwrap().no_new_privileges);
        assert!(parse(&["no-new-privileges=maybe"]).is_err());
    }

    #[test]
    fn profiles_and_paths() {
        assert_eq!(parse(&["seccomp=unconfined"]).unwrap().seccomp, Seccomp::Unconfined);
        assert_eq!(parse(&["seccomp=./p.json"]).unwrap().seccomp, Seccomp::Profile("./p.json".into()));
        assert_eq!(parse(&["mask=/a:/b/"]).unwrap().mask, ["/a", "/b"]);
        assert!(parse(&["unmask=ALL"]).unwrap().unmask.all);
        assert_eq!(parse(&["unmask=/proc/kcore"]).unwrap().unmask.paths, ["/proc/kcore"]);
    }

    #[test]
    fn typing_mistakes_are_errors() {
        for bad in [
            "",
            "secomp=unconfined",
            "seccomp",
            "seccomp=",
            "apparmor=x",
            "label=type:x",
            "mask=a",
            "unmask=/proc/*",
            "mask=/a/../b",
            "mask=",
            "proc-opts=hidepid=2",
        ] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }
}
