//! What `exec` and `attach` take beside what `run` does.

use super::Invalid;
use std::path::Path;

/// podman's keys.
pub const DETACH_KEYS: &str = "ctrl-p,ctrl-q";

/// Which container is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// This one, by name, id or the beginning of one.
    Named(String),
    /// The newest (`--latest`).
    Latest,
}

/// `rlrun exec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecWords {
    /// Where.
    pub container: Which,
    /// What.
    pub command: Vec<String>,
    /// `--env-file` and `-e`, later ones win.
    pub env: Vec<(String, String)>,
    /// `-u`.
    pub user: Option<String>,
    /// `-w`.
    pub workdir: Option<String>,
    /// `-i`.
    pub interactive: bool,
    /// `-t`.
    pub tty: bool,
    /// `--privileged`.
    pub privileged: bool,
    /// `-d`.
    pub detach: bool,
    /// `--detach-keys`.
    pub detach_keys: Vec<u8>,
    /// `--preserve-fds`.
    pub preserve_fds: u32,
}

impl ExecWords {
    /// A command without anything special.
    #[must_use]
    pub fn plain(container: Which, command: Vec<String>) -> ExecWords {
        ExecWords {
            container,
            command,
            env: Vec::new(),
            user: None,
            workdir: None,
            interactive: false,
            tty: false,
            privileged: false,
            detach: false,
            detach_keys: Vec::new(),
            preserve_fds: 0,
        }
    }
}

/// `--detach-keys`: letters and `ctrl-LETTER`, divided by commas; nothing for none.
///
/// # Errors
/// For a key that no terminal sends.
pub fn detach_keys(words: &str) -> Result<Vec<u8>, Invalid> {
    let bad = || {
        Invalid::new("--detach-keys", words, "is no list of keys")
            .hint("write letters and ctrl-LETTER divided by commas: ctrl-p,ctrl-q; an empty list for none")
    };
    let key = |word: &str| match (word.strip_prefix("ctrl-").map(str::as_bytes), word.as_bytes()) {
        // A control character is its letter without bits 6 and 7 (ascii(7)).
        (Some([c @ (b'a'..=b'z' | b'A'..=b'Z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]), _) => Ok(c & 0x1f),
        (None, [c]) if c.is_ascii_graphic() => Ok(*c),
        _ => Err(bad()),
    };
    words.split(',').filter(|_| !words.is_empty()).map(key).collect()
}

/// `--cidfile`: the id that `run --cidfile` wrote.
///
/// # Errors
/// When the file cannot be read or is empty.
pub fn id_of_file(path: &Path) -> Result<String, Invalid> {
    let bad =
        |why: String| Invalid::new("--cidfile", path.display().to_string(), why).hint("run --cidfile FILE writes one");
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    let id = text.lines().next().unwrap_or_default().trim();
    if id.is_empty() { Err(bad("holds no id".to_owned())) } else { Ok(id.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_letters_and_control_letters() {
        assert_eq!(detach_keys(DETACH_KEYS).unwrap(), [16, 17]);
        assert_eq!(detach_keys("ctrl-@,ctrl-[,a").unwrap(), [0, 27, b'a']);
        assert!(detach_keys("").unwrap().is_empty());
        for bad in ["ctrl-", "ctrl-pp", "ab", "a,,b", ",", "ctrl-1", "ä", " "] {
            assert!(detach_keys(bad).is_err(), "{bad}");
        }
    }
}
