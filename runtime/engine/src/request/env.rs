//! `-e` and `--env-file`. A bare name takes the caller's value. A `*` is refused: a pattern that copies whatever
//! the caller's environment happens to hold into a container is how secrets leak (CVE-2026-57231).

use super::Invalid;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::Read as _;
use std::path::Path;

/// Longest file that is read; the kernel gives a program no more environment than this anyway (`execve(2)`).
const MAX_FILE: u64 = 4 << 20;

/// What becomes of the variables that nobody named on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// `--unsetenv`: these are taken away.
    pub unset: Vec<String>,
    /// `--unsetenv-all`: all of them.
    pub unset_all: bool,
    /// `--env-merge`: values in which `${NAME}` stands for a variable of the image.
    pub merge: Vec<(String, String)>,
}

/// Puts variables in the place of `$NAME` and `${NAME}`; one that there is not is empty.
#[must_use]
pub fn expand(template: &str, variable: &dyn Fn(&str) -> Option<String>) -> String {
    let (mut text, mut rest) = (String::new(), template);
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, next) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(both) => both,
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(end)
            }
        };
        match name {
            "" => text.push('$'),
            name => text.push_str(&variable(name).unwrap_or_default()),
        }
        rest = next;
    }
    text + rest
}

/// The caller's environment, as a function so that tests need not change their own.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// `-e NAME=value` or `-e NAME`; None when the caller has no such variable.
///
/// # Errors
/// When there is no name, it holds a `*`, or the caller's value is not UTF-8.
pub fn variable(option: &'static str, word: &str, lookup: Lookup<'_>) -> Result<Option<(String, String)>, Invalid> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    if name.is_empty() {
        return Err(Invalid::new(option, word, "has no name").hint("write NAME=value or NAME"));
    }
    if value.is_none() && name.contains('*') {
        return Err(Invalid::new(option, word, "patterns are not taken, because they copy secrets by accident")
            .hint("name each variable"));
    }
    if word.contains('\0') {
        return Err(Invalid::new(option, name, "holds a NUL byte"));
    }
    match value {
        Some(value) => Ok(Some((name.to_owned(), value.to_owned()))),
        None => match lookup(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some((name.to_owned(), value))),
            Some(Err(_)) => Err(Invalid::new(option, name, "its value in your environment is not UTF-8")),
        },
    }
}

/// The lines of an environment file: `NAME=value`, `NAME`, comments, blank lines. Quotes are not special.
///
/// # Errors
/// When a line has no name or holds a pattern.
pub fn file_text(text: &str, lookup: Lookup<'_>) -> Result<Vec<(String, String)>, Invalid> {
    // Editors on Windows begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut all = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        all.extend(variable("--env-file", line, lookup)?);
    }
    Ok(all)
}

/// Reads an environment file.
///
/// # Errors
/// When it cannot be read, is too long, is not UTF-8, or [`file_text`] refuses it.
pub fn file(path: &Path, lookup: Lookup<'_>) -> Result<Vec<(String, String)>, Invalid> {
    let bad = |why: String| {
        let hint = "it names a text file of lines NAME=value or NAME";
        Invalid::new("--env-file", path.display().to_string(), why).hint(hint)
    };
    let mut text = String::new();
    let mut file = std::fs::File::open(path).map_err(|e| bad(e.to_string()))?.take(MAX_FILE + 1);
    let length = file.read_to_string(&mut text).map_err(|e| bad(e.to_string()))?;
    if length as u64 > MAX_FILE {
        return Err(bad("is longer than 4 MiB".to_owned()));
    }
    file_text(&text, lookup)
}

/// The variables that tell programs about a proxy; podman passes them on, and so do we where there is a network.
pub(crate) const PROXIES: [&str; 8] =
    ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY"];

/// The caller's proxy settings. One that is not UTF-8 is left out: nobody asked for it by name.
#[must_use]
pub fn proxies(lookup: Lookup<'_>) -> Vec<(String, String)> {
    PROXIES.iter().filter_map(|name| variable("--http-proxy", name, lookup).ok().flatten()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Option<OsString> {
        use std::os::unix::ffi::OsStringExt as _;
        match name {
            "SET" => Some("from host".into()),
            "BAD" => Some(OsString::from_vec(vec![0xff])),
            _ => None,
        }
    }

    fn one(word: &str) -> Result<Option<(String, String)>, Invalid> {
        variable("--env", word, &host)
    }

    #[test]
    fn a_value_is_taken_as_it_is() {
        assert_eq!(one("A=b=c *").unwrap(), Some(("A".into(), "b=c *".into())));
        assert_eq!(one("A=").unwrap(), Some(("A".into(), String::new())));
    }

    #[test]
    fn a_bare_name_takes_the_value_of_the_caller_if_there_is_one() {
        assert_eq!(one("SET").unwrap(), Some(("SET".into(), "from host".into())));
        assert_eq!(one("UNSET").unwrap(), None);
    }

    #[test]
    fn patterns_and_nameless_values_are_refused() {
        for bad in ["*", "AWS_*", "=x", "", "BAD", "A=\0"] {
            assert!(one(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_has_comments_and_blank_lines() {
        let all = file_text("\u{feff}# c\n\n  A=1\r\nSET\nUNSET\nB='x'  \n", &host).unwrap();
        let want = [("A", "1"), ("SET", "from host"), ("B", "'x'  ")];
        assert_eq!(all, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert!(file_text("A_*\n", &host).is_err());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = file(Path::new("/nonexistent/env"), &host).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/env"), "{error}");
    }
}
