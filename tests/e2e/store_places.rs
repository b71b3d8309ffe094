//! Stores on file systems that are not made for them.

use rlrun_tests::{Case, case, until};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A FUSE file system of the test's user, in the place of what else is mounted over homes.
struct Mounted<'a> {
    case: &'a Case,
    at: PathBuf,
}

impl<'a> Mounted<'a> {
    fn new(case: &'a Case) -> Self {
        let [lower, upper, work, at] = ["lower", "upper", "work", "at"].map(|name| case.make_dir(name));
        let text = |path: &Path| path.display().to_string();
        let options = format!("lowerdir={},upperdir={},workdir={}", text(&lower), text(&upper), text(&work));
        let mut command = case.user().command("fuse-overlayfs");
        assert!(command.args(["-o", &options]).arg(&at).status().unwrap().success());
        Mounted { case, at }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let ended = |command: &mut Command| command.arg(&self.at).status().is_ok_and(|status| status.success());
        // fusermount3(1) needs /etc/mtab, which a minimal root does not have; root needs neither.
        let by_user = || ended(self.case.user().command("fusermount3").arg("-u"));
        let unmount = || by_user() || ended(&mut Command::new("umount"));
        assert!(until(10, || unmount().then_some(())).is_some());
    }
}

#[test]
fn a_store_on_fuse_says_what_does_not_work_there() {
    let case = case!(Userns, Subid, Fuse);
    let mounted = Mounted::new(&case);
    let there = |words: &[&str]| case.rlrun(words).env("RLRUN_DATA_HOME", mounted.at.join("store")).run();
    let doctor = there(&["doctor"]);
    assert!(doctor.out().contains("on fuse") && doctor.out().contains("RLRUN_DATA_HOME"), "{}", doctor.out());
    there(&["info", "--format", "{{index .store.graphStatus \"Backing Filesystem\"}}"]).ok().prints("fuse");
    // One file of somebody else's than root, and nothing comes in.
    let archive = case.make_file("own.tar", rlrun_tests::base_rootfs().clone().file_of("x", (5, 5), 0o644, "x").tar());
    let import = there(&["import", archive.to_str().unwrap(), "localhost/own:1"]);
    import.refused(125, "the store is on fuse").complains("subordinate id").complains("RLRUN_DATA_HOME");
    there(&["images", "-q"]).ok().prints("");
}
