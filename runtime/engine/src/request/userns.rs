//! `--userns`.

use super::{Invalid, UserNamespaceRequest};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Reads `--userns`: nothing, `keep-id`, `keep-id:uid=N,gid=N`.
///
/// # Errors
/// For `host`, which rootless containers cannot have, and for what this version does not know.
pub fn parse(word: &str) -> Result<UserNamespaceRequest, Invalid> {
    let invalid = |why: &str| Invalid::new("--userns", word, why);
    let (mode, options) = word.split_once(':').unwrap_or((word, ""));
    match mode {
        "" if options.is_empty() => Ok(UserNamespaceRequest::Default),
        "keep-id" => keep_id(options).ok_or_else(|| invalid("is not understood").hint("write keep-id:uid=N,gid=N")),
        "host" => Err(invalid("a rootless container always has a user namespace of its own")
            .hint("leave --userns out: root inside is your own user outside")),
        "auto" | "nomap" | "container" | "ns" | "private" => {
            Err(invalid("this mode is not supported yet").hint("use --userns=keep-id, or leave it out"))
        }
        _ => Err(invalid("no such mode").hint("use --userns=keep-id, or leave it out")),
    }
}

/// `--uidmap CONTAINER:FROM:COUNT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapWord {
    /// The first id inside.
    pub container: u32,
    /// The first id outside.
    pub from: u32,
    /// How many.
    pub count: u32,
    /// `@`: `from` is an id of the host, and not a number of the caller's ids.
    pub of_host: bool,
}

impl fmt::Display for MapWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = if self.of_host { "@" } else { "" };
        write!(f, "{}:{at}{}:{}", self.container, self.from, self.count)
    }
}

/// One word of `--uidmap` or `--gidmap`.
///
/// # Errors
/// When it is not two numbers, or three.
pub fn map(option: &'static str, word: &str) -> Result<MapWord, Invalid> {
    let parts: Vec<&str> = word.split(':').collect();
    let (container, from, count) = match parts[..] {
        [container, from] => (container, from, "1"),
        [container, from, count] => (container, from, count),
        _ => ("", "", ""),
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u32>().ok()).flatten().filter(|n| *n != u32::MAX)
    };
    let (from, of_host) = from.strip_prefix('@').map_or((from, false), |from| (from, true));
    let read = (number(container), number(from), number(count).filter(|n| *n > 0));
    if let (Some(container), Some(from), Some(count)) = read
        && container.checked_add(count).is_some()
        && from.checked_add(count).is_some()
    {
        return Ok(MapWord { container, from, count, of_host });
    }
    Err(Invalid::new(option, word, "is not understood")
        .hint("write CONTAINER:FROM:COUNT, where 0 of FROM is your own id and 1 your first subordinate one"))
}

/// `--uidmap` and `--gidmap` beside `--userns`. Where only one of them is given, it is both.
///
/// # Errors
/// When a word is not understood, or both decide the map.
pub fn with_maps(userns: &str, uids: &[String], gids: &[String]) -> Result<UserNamespaceRequest, Invalid> {
    if uids.is_empty() && gids.is_empty() {
        return parse(userns);
    }
    if !userns.is_empty() && userns != "private" {
        return Err(Invalid::new("--userns", userns, "and --uidmap or --gidmap cannot be given together"));
    }
    let read = |option, words: &[String]| words.iter().map(|word| map(option, word)).collect::<Result<Vec<_>, _>>();
    let (uids, gids) = match (uids, gids) {
        (both, []) | ([], both) => (read("--uidmap", both)?, read("--gidmap", both)?),
        (uids, gids) => (read("--uidmap", uids)?, read("--gidmap", gids)?),
    };
    Ok(UserNamespaceRequest::Mapped { uids, gids })
}

fn keep_id(options: &str) -> Option<UserNamespaceRequest> {
    let (mut uid, mut gid) = (None, None);
    for option in options.split(',').filter(|o| !o.is_empty()) {
        let (name, value) = option.split_once('=')?;
        let id = Some(value.parse::<u32>().ok().filter(|id| *id != u32::MAX)?);
        match name {
            "uid" => uid = id,
            "gid" => gid = id,
            _ => return None,
        }
    }
    Some(UserNamespaceRequest::KeepId { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_id_may_name_ids() {
        assert_eq!(parse("").unwrap(), UserNamespaceRequest::Default);
        assert_eq!(parse("keep-id").unwrap(), UserNamespaceRequest::KeepId { uid: None, gid: None });
        let named = parse("keep-id:uid=5,gid=6").unwrap();
        assert_eq!(named, UserNamespaceRequest::KeepId { uid: Some(5), gid: Some(6) });
    }

    #[test]
    fn one_map_is_both() {
        let word = MapWord { container: 0, from: 1, count: 5, of_host: false };
        let both = UserNamespaceRequest::Mapped { uids: vec![word], gids: vec![word] };
        assert_eq!(with_maps("", &["0:1:5".to_owned()], &[]).unwrap(), both);
        assert_eq!(with_maps("", &[], &["0:1:5".to_owned()]).unwrap(), both);
        assert!(with_maps("keep-id", &["0:1:5".to_owned()], &[]).is_err());
        assert_eq!(map("--uidmap", "7:@1000").unwrap().to_string(), "7:@1000:1");
        for bad in ["", "0", "0:1:0", "0:1:2:3", "a:1:2", "0:-1:2", "0:4294967294:5", "+0:1:2"] {
            assert!(map("--uidmap", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_modes_say_why_not() {
        assert!(parse("host").unwrap_err().why.contains("always has a user namespace"));
        for bad in ["auto", "nomap", "x", "keep-id:uid", "keep-id:uid=-1", "keep-id:x=1", "keep-id:uid=4294967295"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
