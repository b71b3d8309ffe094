//! `--userns`.

use super::{Invalid, UserNamespaceRequest};

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
    fn other_modes_say_why_not() {
        assert!(parse("host").unwrap_err().why.contains("always has a user namespace"));
        for bad in ["auto", "nomap", "x", "keep-id:uid", "keep-id:uid=-1", "keep-id:x=1", "keep-id:uid=4294967295"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
