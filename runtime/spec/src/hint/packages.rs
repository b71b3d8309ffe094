//! What to type to install something, by distribution.

/// A family of distributions that share a package manager and package names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distro {
    /// Debian, Ubuntu and theirs.
    Debian,
    /// Fedora, RHEL and theirs.
    Fedora,
    /// openSUSE, SLES.
    Suse,
    /// Arch.
    Arch,
    /// Alpine.
    Alpine,
    /// Not known, or not asked.
    #[default]
    Unknown,
}

impl Distro {
    /// From the text of os-release(5): `ID` first, then each word of `ID_LIKE`.
    #[must_use]
    pub fn from_os_release(text: &str) -> Distro {
        let value = |key: &str| {
            text.lines()
                .find_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.trim().trim_matches(['"', '\''])))
        };
        let ids = [value("ID"), value("ID_LIKE")];
        let known = ids.into_iter().flatten().flat_map(str::split_whitespace).map(Distro::from_id);
        known.into_iter().find(|d| *d != Distro::Unknown).unwrap_or_default()
    }

    fn from_id(id: &str) -> Distro {
        match id {
            "debian" | "ubuntu" => Distro::Debian,
            "fedora" | "rhel" | "centos" => Distro::Fedora,
            "suse" | "opensuse" | "sles" => Distro::Suse,
            "arch" => Distro::Arch,
            "alpine" => Distro::Alpine,
            _ => Distro::Unknown,
        }
    }
}

/// A program that rlrun starts and does not ship.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// newuidmap and newgidmap.
    Uidmap,
    /// slirp4netns.
    Slirp4netns,
    /// fuse-overlayfs.
    FuseOverlayfs,
    /// fuse2fs.
    Fuse2fs,
}

impl Package {
    fn name(self, distro: Distro) -> &'static str {
        match (self, distro) {
            (Package::Uidmap, Distro::Debian | Distro::Unknown) => "uidmap",
            (Package::Uidmap, Distro::Fedora) => "shadow-utils",
            (Package::Uidmap, Distro::Suse | Distro::Arch) => "shadow",
            (Package::Uidmap, Distro::Alpine) => "shadow-uidmap",
            (Package::Slirp4netns, _) => "slirp4netns",
            (Package::FuseOverlayfs, _) => "fuse-overlayfs",
            (Package::Fuse2fs, Distro::Fedora | Distro::Suse) => "e2fsprogs",
            (Package::Fuse2fs, Distro::Alpine) => "e2fsprogs-extra",
            (Package::Fuse2fs, Distro::Debian | Distro::Arch | Distro::Unknown) => "fuse2fs",
        }
    }

    /// The command. On an unknown distribution both of the most common ones.
    #[must_use]
    pub fn install(self, distro: Distro) -> String {
        let name = self.name(distro);
        match distro {
            Distro::Debian => format!("sudo apt-get install {name}"),
            Distro::Fedora => format!("sudo dnf install {name}"),
            Distro::Suse => format!("sudo zypper install {name}"),
            Distro::Arch => format!("sudo pacman -S {name}"),
            Distro::Alpine => format!("sudo apk add {name}"),
            Distro::Unknown => {
                let [debian, fedora] = [Distro::Debian, Distro::Fedora].map(|d| self.install(d));
                format!("{debian} (Debian, Ubuntu) or {fedora} (Fedora, RHEL)")
            }
        }
    }
}
