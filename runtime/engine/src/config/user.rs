//! `-u` and the image's `User`, looked up in the image's own passwd(5) and group(5). Both files are hostile input:
//! a line that is not as it should be names nobody.

use rlrun_spec::{Failure, Kind, Stage};

/// Who the payload is, inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// uid.
    pub uid: u32,
    /// gid.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory, `/` when nobody says otherwise.
    pub home: String,
}

/// The image's files; empty when it has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files<'a> {
    /// `/etc/passwd`.
    pub passwd: &'a str,
    /// `/etc/group`.
    pub group: &'a str,
}

/// A name that stands in neither file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// In passwd(5).
    #[error("the image has no user of this name")]
    User(String),
    /// In group(5).
    #[error("the image has no group of this name")]
    Group(String),
    /// Beyond what the kernel takes.
    #[error("is not a user or group id")]
    Id(String),
}

impl From<Unknown> for Failure {
    fn from(unknown: Unknown) -> Self {
        let (operation, hint) = match &unknown {
            Unknown::User(_) => ("find the user", "name a user of the image's /etc/passwd, or a number: -u 1000"),
            Unknown::Group(_) => {
                ("find the group", "name a group of the image's /etc/group, or a number: -u 1000:1000")
            }
            Unknown::Id(_) => ("find the user", "ids go from 0 to 4294967294"),
        };
        let why = unknown.to_string();
        let (Unknown::User(name) | Unknown::Group(name) | Unknown::Id(name)) = unknown;
        Failure::new(Stage::Cli, Kind::CannotInvoke, "find-user", operation, name).why(why).hint(hint)
    }
}

/// One line of passwd(5).
struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        let (uid, gid) = (id(fields.nth(1)?)?, id(fields.next()?)?);
        Some(User { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

/// Name, gid and members of each line of group(5).
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        let gid = id(fields.nth(1)?)?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

/// An id that the kernel takes: all but (uid_t) -1, which means "leave it" (setresuid(2)).
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// Finds `user`, `uid`, `user:group` and the like; empty is root.
///
/// # Errors
/// For a name that the image does not know, or a number that is no id.
pub fn find(words: &str, files: Files<'_>) -> Result<Account, Unknown> {
    let (user, group) = match words.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (words, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = id(user);
    // A name may consist of digits, so names come first, as in getpwnam(3) callers everywhere.
    let known = users(files.passwd)
        .find(|u| u.name == user)
        .or_else(|| number.and_then(|n| users(files.passwd).find(|u| u.uid == n)));
    let mut account = match (&known, number) {
        (Some(u), _) => Account { uid: u.uid, gid: u.gid, groups: Vec::new(), home: home(u.home) },
        (None, Some(uid)) => Account { uid, gid: 0, groups: Vec::new(), home: home("") },
        (None, None) if user.bytes().all(|b| b.is_ascii_digit()) => return Err(Unknown::Id(user.to_owned())),
        (None, None) => return Err(Unknown::User(user.to_owned())),
    };
    match group {
        Some(word) => account.gid = find_group(word, files)?,
        // With a group on the command line the user's other ones do not count, as in docker and podman.
        None => {
            let name = known.map(|u| u.name);
            account.groups = groups(files.group)
                .filter(|(_, _, members)| name.is_some_and(|n| members.split(',').any(|m| m == n)))
                .map(|(_, gid, _)| gid)
                .collect();
        }
    }
    Ok(account)
}

/// A group by name or number.
///
/// # Errors
/// For a name that the image does not know, or a number that is no id.
pub fn find_group(word: &str, files: Files<'_>) -> Result<u32, Unknown> {
    if let Some((_, gid, _)) = groups(files.group).find(|(name, _, _)| *name == word) {
        return Ok(gid);
    }
    if !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()) {
        return id(word).ok_or_else(|| Unknown::Id(word.to_owned()));
    }
    Err(Unknown::Group(word.to_owned()))
}

/// The name of a user.
#[must_use]
pub fn user_name(uid: u32, files: Files<'_>) -> Option<String> {
    users(files.passwd).find(|user| user.uid == uid).map(|user| user.name.to_owned())
}

/// The name of a group.
#[must_use]
pub fn group_name(gid: u32, files: Files<'_>) -> Option<String> {
    groups(files.group).find(|(_, number, _)| *number == gid).map(|(name, _, _)| name.to_owned())
}

/// Whether passwd(5) knows this uid.
#[must_use]
pub fn knows_uid(passwd: &str, uid: u32) -> bool {
    users(passwd).any(|u| u.uid == uid)
}

/// Whether group(5) knows this gid.
#[must_use]
pub fn knows_gid(group: &str, gid: u32) -> bool {
    groups(group).any(|(_, g, _)| g == gid)
}

fn home(field: &str) -> String {
    let good = field.starts_with('/') && !field.contains('\0');
    if good { field.to_owned() } else { "/".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: Files<'_> = Files {
        passwd: "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n77:x:5:5::/:/x\n\
            bad\nbad2:x:y:0::/:/\n:x:9:9::/:/\nrel:x:8:8::../../etc:/x\nmax:x:4294967295:0::/:/x\n",
        group: "root:x:0:\nstaff:x:50:ann,bob\nann:x:1001:\nbad\nadm:x:4:xann,ann\n",
    };

    fn account(words: &str) -> Account {
        find(words, FILES).unwrap()
    }

    #[test]
    fn names_numbers_and_groups() {
        let want = Account { uid: 1000, gid: 1001, groups: vec![50, 4], home: "/home/ann".into() };
        assert_eq!(account("ann"), want);
        assert_eq!(account("1000"), want);
        assert_eq!(account("ann:staff"), Account { gid: 50, groups: vec![], ..want.clone() });
        assert_eq!(account("ann:7"), Account { gid: 7, groups: vec![], ..want });
        assert_eq!(account("").home, "/root");
        assert_eq!(account(":staff").gid, 50);
        assert_eq!(account("2000"), Account { uid: 2000, gid: 0, groups: vec![], home: "/".into() });
    }

    #[test]
    fn a_name_of_digits_wins_over_the_number() {
        assert_eq!(account("77").uid, 5);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        assert_eq!(find("nobody", FILES), Err(Unknown::User("nobody".into())));
        assert_eq!(find("ann:nogroup", FILES), Err(Unknown::Group("nogroup".into())));
        for id in ["4294967295", "99999999999", "0:4294967295"] {
            assert!(matches!(find(id, FILES), Err(Unknown::Id(_))), "{id}");
        }
        assert!(find("bad2", FILES).is_err());
        assert!(find("max", FILES).is_err());
        assert!(find("-1", FILES).is_err());
    }

    #[test]
    fn a_home_is_an_absolute_path() {
        assert_eq!(account("rel").home, "/");
    }

    #[test]
    fn an_image_without_files_has_numbers_only() {
        let none = Files::default();
        assert_eq!(find("", none).unwrap().uid, 0);
        assert_eq!(find("5:6", none).unwrap().gid, 6);
        assert!(find("root", none).is_err());
    }

    proptest::proptest! {
        #[test]
        fn hostile_files_name_no_impossible_ids(passwd in "([a-z0-9:/-]{0,30}\n){0,5}", group in "([a-z0-9:,]{0,20}\n){0,5}", words in "[a-z0-9:]{0,6}") {
            if let Ok(account) = find(&words, Files { passwd: &passwd, group: &group }) {
                proptest::prop_assert!(account.uid != u32::MAX && account.gid != u32::MAX);
                proptest::prop_assert!(account.home.starts_with('/') && !account.groups.contains(&u32::MAX));
            }
        }
    }
}
