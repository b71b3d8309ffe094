//! Which cgroup hierarchy there is and which controllers the caller may use (cgroups(7)).

use super::text;
use rlrun_spec::host::Cgroup;
use rustix::fs::Access;
use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// The caller's hierarchy.
#[must_use]
pub fn probe(uid: u32) -> Cgroup {
    if rustix::fs::statfs(MOUNT).is_ok_and(|fs| fs.f_type == CGROUP2_SUPER_MAGIC) {
        let own = text::small("/proc/self/cgroup").unwrap_or_default();
        return Cgroup::V2 { delegated: delegated(Path::new(MOUNT), &own, uid) };
    }
    // Version 1 hierarchies stand below a tmpfs; an empty directory has none.
    let v1 = ["pids", "memory", "cpu", "systemd"].iter().any(|name| Path::new(MOUNT).join(name).is_dir());
    if v1 { Cgroup::V1 } else { Cgroup::None }
}

/// Controllers of the first cgroup that is the caller's to write: its own, else that of its systemd user manager,
/// in which a scope can be had over D-Bus.
fn delegated(mount: &Path, own: &str, uid: u32) -> Vec<String> {
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).map(PathBuf::from);
    let manager = PathBuf::from(format!("user.slice/user-{uid}.slice/user@{uid}.service"));
    let writable = |dir: &PathBuf| rustix::fs::access(dir.join("cgroup.procs"), Access::WRITE_OK).is_ok();
    let group = own.into_iter().chain([manager]).map(|group| mount.join(group)).find(writable);
    let controllers = group.and_then(|dir| text::small(dir.join("cgroup.controllers")));
    controllers.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_comes_before_the_user_managers() {
        let dir = tempfile::tempdir().unwrap();
        let group = |path: &str, controllers: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::File::create(path.join("cgroup.procs")).unwrap();
            std::io::Write::write_all(
                &mut std::fs::File::create(path.join("cgroup.controllers")).unwrap(),
                controllers.as_bytes(),
            )
            .unwrap();
        };
        group("user.slice/user-7.slice/user@7.service", "cpu pids\n");
        assert_eq!(delegated(dir.path(), "1:name=x:/y\n0::/job\n", 7), ["cpu", "pids"]);
        group("job", "memory");
        assert_eq!(delegated(dir.path(), "0::/job\n", 7), ["memory"]);
        assert!(delegated(dir.path(), "0::/elsewhere\n", 8).is_empty());
    }
}
