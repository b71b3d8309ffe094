//! Ids, and names for containers that nobody named.

use crate::place::Place;
use rlrun_spec::{Failure, Kind, Stage};
use rustix::rand::{GetRandomFlags, getrandom};

const ADJECTIVES: [&str; 32] = [
    "agile", "amber", "brave", "brisk", "calm", "clever", "crisp", "eager", "fair", "gentle", "glad", "golden",
    "happy", "humble", "jolly", "keen", "kind", "lively", "lucid", "merry", "mild", "noble", "proud", "quick", "quiet",
    "rapid", "sharp", "silent", "swift", "tidy", "vivid", "wise",
];

const NOUNS: [&str; 32] = [
    "badger", "beaver", "bison", "crane", "crow", "deer", "dingo", "falcon", "ferret", "finch", "fox", "gecko",
    "heron", "ibis", "jackal", "kestrel", "lemur", "lynx", "marten", "mole", "newt", "orca", "otter", "owl", "puffin",
    "raven", "seal", "stoat", "swan", "tapir", "vole", "wren",
];

/// A new container id: 64 hex digits that nobody can foresee.
///
/// # Errors
/// When the kernel has no random numbers.
pub fn container_id() -> Result<String, Failure> {
    let mut bytes = [0_u8; 32];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|errno| {
        Failure::new(Stage::Cli, Kind::Runtime, "container-id", "make a container id", "").errno(errno.raw_os_error())
    })?;
    // Up to 256 bytes come whole (getrandom(2)).
    debug_assert_eq!(filled, bytes.len());
    Ok(bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect())
}

/// A name for `id` that no container has now. It is claimed later, and only then certain.
#[must_use]
pub fn free_name(place: &Place, id: &str) -> String {
    let digit = |at: usize| id.as_bytes().get(at).map_or(0, |b| usize::from(*b));
    let pick = |list: &[&str; 32], at: usize| list[(digit(at) * 16 + digit(at + 1)) % list.len()].to_owned();
    let name = format!("{}_{}", pick(&ADJECTIVES, 0), pick(&NOUNS, 2));
    if place.data.join("names").join(&name).symlink_metadata().is_err() {
        return name;
    }
    format!("{name}_{}", id.get(4..10).unwrap_or_default())
}

/// Another name when that one has been taken meanwhile; nobody else thinks of it.
#[must_use]
pub fn other_name(name: &str, id: &str) -> String {
    format!("{name}_{}", id.get(10..20).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hexadecimal_and_new() {
        let (one, two) = (container_id().unwrap(), container_id().unwrap());
        assert!(one.len() == 64 && one.bytes().all(|b| b.is_ascii_hexdigit()), "{one}");
        assert_ne!(one, two);
    }

    #[test]
    fn a_name_that_is_taken_gets_an_ending() {
        let (dir, place) = crate::place::tests::place();
        let id = container_id().unwrap();
        let first = free_name(&place, &id);
        assert_eq!(crate::request::container_name(&first).unwrap(), first);
        std::fs::create_dir(dir.path().join("names")).unwrap();
        // Dangling, as after a kill: taken until it is swept.
        std::os::unix::fs::symlink("nowhere", dir.path().join("names").join(&first)).unwrap();
        assert_eq!(free_name(&place, &id), format!("{first}_{}", &id[4..10]));
    }
}
