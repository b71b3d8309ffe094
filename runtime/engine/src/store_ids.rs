//! Under which ids the files of the store are. A layer is unpacked once, and what of it is not root's belongs to
//! subordinate ids; a caller who is granted others later would find it somebody else's, or nobody's, without a word.

use crate::host::idmap::{self, IdPlan};
use crate::place::Place;
use crate::policies::project::replace;
use rlrun_spec::IdMaps;
use rlrun_spec::container::UserNamespace;
use rlrun_spec::host::HostFacts;
use rlrun_spec::ids::IdMapping;
use std::fmt::Write as _;
use std::fs;

/// Below the data directory.
const FILE: &str = "ids";

/// [`notice`] where a container has these maps. The store's are those of the default user namespace, whatever its are.
pub(crate) fn notice_with(place: &Place, host: &HostFacts, userns: &UserNamespace, ids: &IdPlan) -> Option<String> {
    match userns {
        UserNamespace::Default => notice(place, ids),
        UserNamespace::KeepId { .. } | UserNamespace::Mapped { .. } => {
            notice(place, &idmap::plan(host, &UserNamespace::Default).ok()?)
        }
    }
}

/// What the user should know of the store's ids, with the plan of today's default user namespace; None where they are
/// those of the store. The first look notes them, and so does every one that finds them grown.
pub(crate) fn notice(place: &Place, ids: &IdPlan) -> Option<String> {
    let (path, now) = (place.data.join(FILE), text(&ids.maps));
    let noted = fs::read_to_string(&path).unwrap_or_default();
    if noted.is_empty() && ids.single.is_some() && is_unpacked(place) {
        return None;
    }
    if noted == now {
        return None;
    }
    // A store that is older than the note is taken for what it is now. That ranges were taken away is the cause of more
    // than the one user that is left: files of the others cannot be reached.
    if !noted.is_empty() && is_unpacked(place) && !is_part(&noted, &now) {
        return Some(format!(
            "the images here were unpacked under other subordinate ids ({}; now {}): files that are not root's have the \
             wrong owner, or nobody\nhint: give the old ids back in /etc/subuid and /etc/subgid, or `rlrun system reset` and pull \
             the images again",
            ranges(&noted),
            ranges(&now)
        ));
    }
    // Where it cannot be noted the next command looks again.
    replace(&path, now.as_bytes()).unwrap_or_default();
    None
}

/// A line for users and one for groups: container id, host id and how many, each.
fn text(maps: &IdMaps) -> String {
    let mut text = String::new();
    for lines in [&maps.uids, &maps.gids] {
        for IdMapping { container, host, count } in lines {
            // Writing to a String cannot fail.
            write!(text, "{container} {host} {count},").unwrap_or_default();
        }
        text.push('\n');
    }
    text
}

/// Whether every id of the one is the same in the other: a grant that has grown at its end changes no file. With the
/// caller's id alone all files became root's, whosever they are in the image.
fn is_part(old: &str, new: &str) -> bool {
    let fits = |old: &IdMapping, new: &IdMapping| {
        (old.container, old.host) == (new.container, new.host) && old.count <= new.count
    };
    let (old, new) = (parse(old), parse(new));
    let alone = |maps: &[Vec<IdMapping>]| maps.iter().all(|lines| lines.len() < 2);
    alone(&old) == alone(&new)
        && old.iter().zip(&new).all(|(old, new)| old.iter().all(|old| new.iter().any(|new| fits(old, new))))
}

fn parse(text: &str) -> Vec<Vec<IdMapping>> {
    let line = |line: &str| line.split(',').filter_map(mapping).collect();
    text.lines().map(line).collect()
}

fn mapping(words: &str) -> Option<IdMapping> {
    let numbers: Vec<u32> = words.split(' ').map_while(|word| word.parse().ok()).collect();
    let [container, host, count] = numbers[..] else { return None };
    Some(IdMapping { container, host, count })
}

/// The users of it beside root, as /etc/subuid has them.
fn ranges(text: &str) -> String {
    let lines = parse(text).into_iter().next().unwrap_or_default();
    let beside: Vec<String> =
        lines.iter().filter(|l| l.container > 0).map(|l| format!("{}:{}", l.host, l.count)).collect();
    if beside.is_empty() { "none".to_owned() } else { beside.join(", ") }
}

fn is_unpacked(place: &Place) -> bool {
    fs::read_dir(place.data.join("layers")).is_ok_and(|mut layers| layers.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cause::Cause;
    use rlrun_spec::MapWriter;
    use std::path::Path;

    fn ids(lines: &[(u32, u32, u32)]) -> IdPlan {
        let lines = |_| lines.iter().map(|&(container, host, count)| IdMapping { container, host, count }).collect();
        let single = (lines(()) as Vec<_>).len() == 1;
        let maps = IdMaps { uids: lines(()), gids: lines(()), writer: MapWriter::Single };
        IdPlan { maps, single: single.then_some(Cause::NoAccount(1000)) }
    }

    fn place(data: &Path) -> Place {
        Place { data: data.to_owned(), cache: data.join("cache"), config: data.join("config") }
    }

    #[test]
    fn other_ids_are_told_until_they_are_the_old_ones_again() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let alone = ids(&[(0, 1000, 1)]);
        let first = ids(&[(0, 1000, 1), (1, 100_000, 65536)]);
        let moved = ids(&[(0, 1000, 1), (1, 300_000, 65536)]);
        assert_eq!(notice(&place, &moved), None, "the first look");
        assert_eq!(notice(&place, &first), None, "nothing is unpacked");
        fs::create_dir_all(place.data.join("layers/one")).unwrap();
        let told = notice(&place, &moved).unwrap();
        assert!(told.contains("(100000:65536; now 300000:65536)") && told.contains("hint: "), "{told}");
        assert!(notice(&place, &alone).unwrap().contains("(100000:65536; now none)"));
        assert_eq!(notice(&place, &first), None);
        let grown = ids(&[(0, 1000, 1), (1, 100_000, 65536), (65537, 300_000, 65536)]);
        assert_eq!(notice(&place, &grown), None);
        assert!(notice(&place, &first).is_some(), "what was unpacked since may use all of it");
    }

    #[test]
    fn what_was_unpacked_for_the_caller_alone_has_lost_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        assert_eq!(notice(&place, &ids(&[(0, 1000, 1)])), None);
        fs::create_dir_all(place.data.join("layers/one")).unwrap();
        let told = notice(&place, &ids(&[(0, 1000, 1), (1, 100_000, 65536)])).unwrap();
        assert!(told.contains("(none; now 100000:65536)"), "{told}");
    }
}
