//! Which cgroup hierarchy there is, which controllers the caller may use, and how (cgroups(7)).

use super::text;
use rlrun_spec::host::{Cgroup, CgroupAccess};
use rustix::fs::{Access, access};
use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
/// Controllers of version 1 that hold a limit of rlrun's.
const V1_CONTROLLERS: [&str; 5] = ["blkio", "cpu", "cpuset", "memory", "pids"];

/// The caller's hierarchy.
#[must_use]
pub fn probe(uid: u32) -> Cgroup {
    let own = text::small("/proc/self/cgroup").unwrap_or_default();
    if rustix::fs::statfs(MOUNT).is_ok_and(|fs| fs.f_type == CGROUP2_SUPER_MAGIC) {
        return version_2(Path::new(MOUNT), Path::new("/run/user"), &own, uid);
    }
    // Version 1 hierarchies stand below a tmpfs; an empty directory has none.
    let v1 = ["pids", "memory", "cpu", "systemd"].iter().any(|name| Path::new(MOUNT).join(name).is_dir());
    if v1 { Cgroup::V1 { writable: version_1(Path::new(MOUNT), &own) } } else { Cgroup::None }
}

fn is_writable(directory: &Path) -> bool {
    access(directory, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// A subtree of the caller's own in which it is, else what its systemd user manager has to give.
fn version_2(mount: &Path, runtimes: &Path, own: &str, uid: u32) -> Cgroup {
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).map(Path::new);
    let service = format!("user@{uid}.service");
    let managed = own.is_some_and(|own| own.iter().any(|part| part == service.as_str()));
    let manager = || managers(mount, runtimes, uid);
    let directory = || own.and_then(|own| subtree(mount, own));
    // What the manager looks after is changed through it alone.
    let found = if managed { manager().or_else(directory) } else { directory().or_else(manager) };
    let (delegated, access) = found.unwrap_or((Vec::new(), CgroupAccess::None));
    Cgroup::V2 { delegated, access }
}

fn words(file: &Path) -> Vec<String> {
    text::small(file).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn managers(mount: &Path, runtimes: &Path, uid: u32) -> Option<(Vec<String>, CgroupAccess)> {
    let socket = runtimes.join(uid.to_string()).join("systemd/private");
    if access(&socket, Access::WRITE_OK).is_err() {
        return None;
    }
    let service = mount.join(format!("user.slice/user-{uid}.slice/user@{uid}.service"));
    let controllers = words(&service.join("cgroup.controllers"));
    (!controllers.is_empty()).then_some((controllers, CgroupAccess::UserManager(socket)))
}

/// The outermost cgroup above the caller that is the caller's to write: where all that a process leaves and enters is
/// below it, the process may be moved. Controllers can be handed down only from where no process is.
fn subtree(mount: &Path, own: &Path) -> Option<(Vec<String>, CgroupAccess)> {
    let writable = |dir: &&Path| {
        let dir = mount.join(dir);
        is_writable(&dir) && access(dir.join("cgroup.procs"), Access::WRITE_OK).is_ok()
    };
    let top = mount.join(own.ancestors().take_while(writable).last()?);
    let empty = text::small(top.join("cgroup.procs")).is_some_and(|procs| procs.trim().is_empty());
    let file = if empty { "cgroup.controllers" } else { "cgroup.subtree_control" };
    let controllers = words(&top.join(file));
    (!controllers.is_empty()).then_some((controllers, CgroupAccess::Directory(top)))
}

/// Controllers whose cgroup of the caller's is the caller's to write.
fn version_1(mount: &Path, own: &str) -> Vec<(String, PathBuf)> {
    let lines = own.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?, parts.next()?.trim_start_matches('/')))
    });
    let mut found = Vec::new();
    for (controllers, path) in lines {
        for controller in controllers.split(',').filter(|name| V1_CONTROLLERS.contains(name)) {
            let directory = mount.join(controller).join(path);
            if is_writable(&directory) {
                found.push((controller.to_owned(), directory));
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, create_dir_all};
    use std::io::Write as _;

    fn file(path: &Path, contents: &str) {
        create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().write_all(contents.as_bytes()).unwrap();
    }

    fn group(mount: &Path, path: &str, procs: &str, controllers: &str, below: &str) {
        let path = mount.join(path);
        file(&path.join("cgroup.procs"), procs);
        file(&path.join("cgroup.controllers"), controllers);
        file(&path.join("cgroup.subtree_control"), below);
    }

    fn v2(names: &[&str], access: CgroupAccess) -> Cgroup {
        Cgroup::V2 { delegated: names.iter().map(|n| (*n).to_owned()).collect(), access }
    }

    #[test]
    fn a_subtree_of_the_callers_own_comes_first_and_where_there_is_none_the_manager() {
        let dir = tempfile::tempdir().unwrap();
        let (mount, runtimes) = (dir.path().join("cgroup"), dir.path().join("run"));
        let socket = runtimes.join("7/systemd/private");
        file(&socket, "");
        group(&mount, "user.slice/user-7.slice/user@7.service", "", "cpu pids\n", "");
        let probe = |own: &str| version_2(&mount, &runtimes, own, 7);
        assert_eq!(probe("0::/elsewhere\n"), v2(&["cpu", "pids"], CgroupAccess::UserManager(socket.clone())));
        group(&mount, "job/shell", "5\n", "memory\n", "");
        group(&mount, "job", "", "memory\n", "");
        let job = CgroupAccess::Directory(mount.join("job"));
        assert_eq!(probe("1:name=x:/y\n0::/job/shell\n"), v2(&["memory"], job));
        // In the manager's own subtree everything is writable, and all the same it is asked.
        let own = "0::/user.slice/user-7.slice/user@7.service/app.slice/x.scope\n";
        assert_eq!(probe(own), v2(&["cpu", "pids"], CgroupAccess::UserManager(socket)));
    }

    #[test]
    fn where_processes_are_only_what_is_handed_down_already_can_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("run");
        group(dir.path(), "job", "5\n", "cpu memory\n", "");
        assert_eq!(version_2(dir.path(), &nowhere, "0::/job\n", 7), v2(&[], CgroupAccess::None));
        group(dir.path(), "job", "5\n", "cpu memory\n", "memory\n");
        let job = CgroupAccess::Directory(dir.path().join("job"));
        assert_eq!(version_2(dir.path(), &nowhere, "0::/job\n", 7), v2(&["memory"], job));
    }

    #[test]
    fn version_1_offers_what_is_writable() {
        let dir = tempfile::tempdir().unwrap();
        create_dir_all(dir.path().join("memory/mine")).unwrap();
        create_dir_all(dir.path().join("pids/mine")).unwrap();
        create_dir_all(dir.path().join("blkio/mine")).unwrap();
        create_dir_all(dir.path().join("devices/mine")).unwrap();
        let own = "5:devices:/mine\n4:memory:/mine\n3:pids:/mine\n2:cpu,cpuacct:/mine\n1:blkio:/mine\n0::/\n";
        let found: Vec<String> = version_1(dir.path(), own).into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, ["blkio", "memory", "pids"]);
    }
}
