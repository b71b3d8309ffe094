//! Who the caller is, without the weight of the name service where a file says it.

use nix::unistd::{Uid, User};

/// The caller's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name, or the uid in digits when nobody knows one.
    pub name: String,
    /// It stands in /etc/passwd.
    pub local: bool,
}

/// The account of a uid. /etc/passwd answers in microseconds; only an account that is not there is worth loading
/// NSS modules for (nsswitch.conf(5)).
#[must_use]
pub fn of(uid: u32) -> Account {
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    if let Some(name) = name_in(&passwd, uid) {
        return Account { name, local: true };
    }
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    Account { name: user.map_or_else(|| uid.to_string(), |user| user.name), local: false }
}

/// The first login name of a uid in the text of passwd(5).
fn name_in(passwd: &[u8], uid: u32) -> Option<String> {
    let uid = uid.to_string();
    passwd.split(|b| *b == b'\n').find_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)? == uid.as_bytes()).then(|| String::from_utf8(name.to_vec()).ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::name_in;

    #[test]
    fn a_uid_is_found_in_its_own_column_only() {
        let passwd =
            b"root:x:0:0::/root:/bin/sh\nbroken\n1500:x:7:1500::/:/bin/sh\n:x:1500::\nann:x:1500:8::/:\nbob:x:1500::\n";
        assert_eq!(name_in(passwd, 1500).as_deref(), Some("ann"));
        assert_eq!(name_in(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_in(passwd, 8), None);
        assert_eq!(name_in(b"", 0), None);
    }
}
