//! Maps of the user's own: `--uidmap`, `--gidmap`.

use super::{IdPlan, fitting, plan};
use crate::host::cause::{Cause, Surroundings};
use crate::request::userns::MapWord;
use rlrun_spec::container::UserNamespace;
use rlrun_spec::host::HostFacts;
use rlrun_spec::{Failure, IdMapping, Kind, Stage};

/// The maps that the words ask for. Their second number counts through the ids that the caller has: 0 is its own, 1 and
/// on are the subordinate ones, as podman counts them.
///
/// # Errors
/// When an id is named twice or is not the caller's, and when what every container needs is missing.
pub fn mapped(host: &HostFacts, uids: &[MapWord], gids: &[MapWord]) -> Result<UserNamespace, Failure> {
    let refused = |cause: Cause| cause.failure(host, &Surroundings::read());
    let IdPlan { maps, single } = plan(host, &UserNamespace::Default).map_err(refused)?;
    if let Some(cause) = single {
        return Err(refused(cause));
    }
    let uids = one("--uidmap", uids, &maps.uids, host.uid, host.kernel)?;
    let gids = one("--gidmap", gids, &maps.gids, host.gid, host.kernel)?;
    let count = |lines: &[IdMapping]| lines.iter().map(|line| line.count).fold(0, u32::saturating_add);
    if count(&gids) == 1 && count(&uids) > 1 {
        return Err(Failure::new(Stage::Cli, Kind::Usage, "id-map", "--gidmap", "the maps")
            .why("with no group but your own newgidmap forbids to set groups, which every change of users does")
            .hint("give it a subordinate group too: --gidmap 0:0:2"));
    }
    Ok(UserNamespace::Mapped { uids, gids })
}

fn one(
    option: &'static str,
    words: &[MapWord],
    granted: &[IdMapping],
    own: u32,
    kernel: (u32, u32),
) -> Result<Vec<IdMapping>, Failure> {
    let failure = |object: String| Failure::new(Stage::Cli, Kind::Usage, "id-map", option, object);
    let mut lines: Vec<IdMapping> = Vec::new();
    for word in words {
        let found = host_ids(word, granted);
        let covered = found.iter().map(|line| u64::from(line.count)).sum::<u64>();
        if covered != u64::from(word.count) {
            let mut ids = granted.iter().map(|line| line.count).fold(0, u32::saturating_add);
            ids = ids.saturating_sub(1);
            return Err(failure(word.to_string()).why("it names ids that are not yours").hint(format!(
                "0 is your own id, and 1 to {ids} are your subordinate ones (`rlrun unshare cat /proc/self/uid_map`)"
            )));
        }
        lines.extend(found);
    }
    lines.sort_by_key(|line| line.container);
    for pair in lines.windows(2) {
        let [before, after] = pair else { continue };
        if u64::from(before.container) + u64::from(before.count) > u64::from(after.container) {
            return Err(failure(after.container.to_string()).why("two of the maps give this id of the container"));
        }
    }
    let mut by_host = lines.clone();
    by_host.sort_by_key(|line| line.host);
    if by_host.windows(2).any(|p| u64::from(p[0].host) + u64::from(p[0].count) > u64::from(p[1].host)) {
        return Err(failure("the maps".to_owned()).why("two of them give away the same id of the host"));
    }
    let all = lines.iter().map(|line| u64::from(line.container) + u64::from(line.count)).max().unwrap_or(0);
    let has = |id: u32, of: fn(&IdMapping) -> u32| {
        lines.iter().any(|line| id >= of(line) && u64::from(id) < u64::from(of(line)) + u64::from(line.count))
    };
    if !has(0, |line| line.container) {
        return Err(failure("the maps".to_owned()).why("none of them gives id 0, which every container starts with"));
    }
    if !has(own, |line| line.host) {
        return Err(failure("the maps".to_owned())
            .why("your own id is in none of them, and the files that make up a container belong to it")
            .hint(format!("give it a place that nobody uses: {option} {all}:0:1")));
    }
    let kept = fitting(lines.clone(), own, kernel);
    if kept != lines {
        return Err(failure("the maps".to_owned()).why("they have more lines than this kernel takes"));
    }
    Ok(lines)
}

/// The ids of a word, in as many lines as the grants they are from.
fn host_ids(word: &MapWord, granted: &[IdMapping]) -> Vec<IdMapping> {
    let (start, end) = (u64::from(word.from), u64::from(word.from) + u64::from(word.count));
    let mut lines = Vec::new();
    for line in granted {
        let first = u64::from(if word.of_host { line.host } else { line.container });
        let (low, high) = (start.max(first), end.min(first + u64::from(line.count)));
        if low < high {
            let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            lines.push(IdMapping {
                container: number(u64::from(word.container) + (low - start)),
                host: number(u64::from(line.host) + (low - first)),
                count: number(high - low),
            });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::test_facts;
    use crate::request::userns::map;

    fn uids(words: &[&str]) -> Result<Vec<IdMapping>, Failure> {
        let words: Vec<MapWord> = words.iter().map(|w| map("--uidmap", w).unwrap()).collect();
        match mapped(&test_facts(), &words, &words)? {
            UserNamespace::Mapped { uids, .. } => Ok(uids),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ids_are_counted_through_what_the_caller_has() {
        let host = test_facts();
        let sub = host.subuids[0].start;
        let m = |container, host, count| IdMapping { container, host, count };
        assert_eq!(uids(&["0:1:10", "10:0:1"]).unwrap(), [m(0, sub, 10), m(10, host.uid, 1)]);
        // Over the border between the own id and the range: two lines, as newuidmap wants them.
        assert_eq!(uids(&["0:0:3"]).unwrap(), [m(0, host.uid, 1), m(1, sub, 2)]);
        assert_eq!(uids(&[&format!("0:@{}:1", host.uid)]).unwrap(), [m(0, host.uid, 1)]);
    }

    #[test]
    fn what_cannot_be_mapped_says_why() {
        let why = |words: &[&str]| uids(words).unwrap_err().to_string();
        assert!(why(&["0:1:10"]).contains("your own id"));
        assert!(why(&["1:0:10"]).contains("id 0"));
        assert!(why(&["0:0:10", "5:20:1"]).contains("this id of the container"));
        assert!(why(&["0:0:10", "20:5:1"]).contains("same id of the host"));
        assert!(why(&["0:0:4294967290"]).contains("not yours"));
        assert!(why(&["0:@0:1"]).contains("not yours"));
        let word = |text: &str| vec![map("--uidmap", text).unwrap()];
        assert!(mapped(&test_facts(), &word("0:0:5"), &word("0:0:1")).unwrap_err().to_string().contains("set groups"));
        assert!(mapped(&test_facts(), &word("0:0:1"), &word("0:0:1")).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn maps_never_leave_the_grant_and_never_overlap(words in proptest::collection::vec((0u32..200_000, 0u32..200_000, 1u32..100_000), 1..5)) {
            let words: Vec<MapWord> = words.into_iter().map(|(container, from, count)| MapWord { container, from, count, of_host: false }).collect();
            let host = test_facts();
            if let Ok(UserNamespace::Mapped { uids, .. }) = mapped(&host, &words, &words) {
                let granted = plan(&host, &UserNamespace::Default).unwrap().maps.uids;
                for line in &uids {
                    let inside = |g: &IdMapping| line.host >= g.host && line.host + line.count <= g.host + g.count;
                    proptest::prop_assert!(granted.iter().any(inside), "{line:?}");
                }
                for (i, a) in uids.iter().enumerate() {
                    for b in &uids[i + 1..] {
                        proptest::prop_assert!(a.host + a.count <= b.host || b.host + b.count <= a.host);
                        proptest::prop_assert!(a.container + a.count <= b.container || b.container + b.count <= a.container);
                    }
                }
            }
        }
    }
}
