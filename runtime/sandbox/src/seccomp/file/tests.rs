use super::*;

fn here(capabilities: &Capabilities) -> Here<'_> {
    Here { capabilities, arch: "amd64", kernel: (5, 10) }
}

/// The kinds of conditions that the profiles of docker and podman have.
const PROFILE: &str = r#"{
    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS",
    "archMap": [
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}
    ],
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {}},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "EPERM", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["arm_sync_file_range"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm", "arm64"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "args": null, "includes": {"minKernel": "4.8"}},
        {"names": ["landlock_restrict_self"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "5.13"}},
        {"name": "clone", "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}
    ]
}"#;

fn names(section: &LinuxSeccomp, action: LinuxSeccompAction) -> Vec<&str> {
    let rules = section.syscalls().iter().flatten().filter(|rule| rule.action() == action);
    rules.flat_map(|rule| rule.names().iter().map(String::as_str)).collect()
}

#[test]
fn conditions_are_decided_for_this_container_on_this_machine() {
    let plain = decide(PROFILE, &here(&Capabilities::new())).unwrap();
    assert_eq!(names(&plain, LinuxSeccompAction::ScmpActAllow), ["read", "write", "ptrace", "clone"]);
    assert_eq!(names(&plain, LinuxSeccompAction::ScmpActErrno), ["mount"]);
    assert_eq!(plain.default_errno_ret(), Some(38));
    let expected = vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32];
    assert_eq!(plain.architectures().as_ref(), Some(&expected));
    let admin = decide(PROFILE, &here(&[Capability::SysAdmin].into())).unwrap();
    assert_eq!(names(&admin, LinuxSeccompAction::ScmpActAllow), ["read", "write", "mount", "ptrace", "clone"]);
    assert!(names(&admin, LinuxSeccompAction::ScmpActErrno).is_empty());
    assert!(super::super::compile(&plain).is_ok());
}

#[test]
fn what_is_not_understood_is_an_error_that_names_it() {
    let bad = [
        (r#"{"defaultAction": "SCMP_ACT_ALLOW", "sycalls": []}"#, "sycalls"),
        (r#"{"defaultAction": "SCMP_ACT_PERHAPS"}"#, "SCMP_ACT_PERHAPS"),
        (r#"{"syscalls": []}"#, "defaultAction"),
        (r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ERRNO"}]}"#, "names no system call"),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"], "action": "SCMP_ACT_ERRNO", "exludes": {}}]}"#,
            "exludes",
        ),
        (r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "EWHAT"}"#, "EWHAT"),
        (
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "EPERM", "defaultErrnoRet": 38}"#,
            "EPERM is 1 and not 38",
        ),
        ("", "EOF"),
        ("[]", "invalid"),
    ];
    for (text, word) in bad {
        let error = decide(text, &here(&Capabilities::new())).unwrap_err();
        assert!(error.contains(word), "{text}: {error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = load_profile(Path::new("/no/such/profile.json"), &Capabilities::new()).unwrap_err();
    assert_eq!(error.to_string(), "/no/such/profile.json: No such file or directory (os error 2)");
}
