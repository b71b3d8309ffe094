//! `--device`: a device node of the host, bound into the container.

use super::Invalid;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRequest {
    /// On the host, links resolved.
    pub source: PathBuf,
    /// Inside.
    pub inside: String,
    /// It is a block device; else a character device.
    pub block: bool,
    /// Device number.
    pub number: (u32, u32),
}

/// Reads `HOST[:CONTAINER][:rwm]`. A directory stands for the devices in it.
///
/// # Errors
/// When it is no device, or is to be restricted in a way that needs a cgroup of root's.
pub fn device(word: &str) -> Result<Vec<DeviceRequest>, Invalid> {
    let invalid = |why: String| Invalid::new("--device", word, why);
    let is_access = |w: &str| !w.is_empty() && w.bytes().all(|b| matches!(b, b'r' | b'w' | b'm'));
    let parts: Vec<&str> = word.split(':').collect();
    let (source, inside, access) = match parts[..] {
        [source] => (source, source, None),
        [source, access] if is_access(access) => (source, source, Some(access)),
        [source, inside] => (source, inside, None),
        [source, inside, access] => (source, inside, Some(access)),
        _ => return Err(invalid("has too many parts".to_owned())),
    };
    match access {
        None => {}
        Some(access) if is_access(access) && access.contains('r') && access.contains('w') => {}
        Some(access) => {
            return Err(invalid(format!("{access}: nothing restricts a device for an ordinary user but its own mode"))
                .hint("leave it out, or write rw"));
        }
    }
    if source.contains('=') {
        return Err(invalid("devices by CDI name are not supported yet".to_owned()).hint("name the node: /dev/..."));
    }
    if !inside.starts_with('/') {
        return Err(invalid(format!("{inside} is not an absolute path")));
    }
    let real = std::fs::canonicalize(source).map_err(|e| invalid(e.to_string()))?;
    let stat = std::fs::metadata(&real).map_err(|e| invalid(e.to_string()))?;
    if !stat.is_dir() {
        return Ok(vec![node(word, real, inside)?]);
    }
    let entries = std::fs::read_dir(&real).map_err(|e| invalid(e.to_string()))?;
    let below = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_char_device() || t.is_block_device()));
    let found: Result<Vec<_>, _> =
        below.map(|e| node(word, e.path(), &format!("{inside}/{}", e.file_name().to_string_lossy()))).collect();
    match found? {
        none if none.is_empty() => Err(invalid("no device is in it".to_owned())),
        all => Ok(all),
    }
}

fn node(word: &str, source: PathBuf, inside: &str) -> Result<DeviceRequest, Invalid> {
    let invalid = |why: String| Invalid::new("--device", word, why);
    let stat = std::fs::metadata(&source).map_err(|e| invalid(e.to_string()))?;
    let kind = stat.file_type();
    if !kind.is_char_device() && !kind.is_block_device() {
        return Err(invalid("is not a device".to_owned()).hint("-v mounts files and directories"));
    }
    let inside = super::mount::destination("--device", word, inside)?;
    let number = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
    Ok(DeviceRequest { source, inside, block: kind.is_block_device(), number })
}

impl DeviceRequest {
    /// As the configuration has it, for policies to see.
    #[must_use]
    pub fn to_oci(&self) -> LinuxDevice {
        let mut device = LinuxDevice::default();
        device
            .set_path(PathBuf::from(&self.inside))
            .set_typ(if self.block { LinuxDeviceType::B } else { LinuxDeviceType::C })
            .set_major(i64::from(self.number.0))
            .set_minor(i64::from(self.number.1));
        device
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_a_node_and_nothing_else() {
        let found = device("/dev/null:/dev/other:rwm").unwrap();
        assert_eq!((found[0].inside.as_str(), found[0].number, found[0].block), ("/dev/other", (1, 3), false));
        assert_eq!(device("/dev/zero").unwrap()[0].inside, "/dev/zero");
        for bad in [
            "/etc/passwd",
            "/nonexistent",
            "/dev/null:r",
            "/dev/null:/x:m",
            "/dev/null:x",
            "vendor/gpu=0",
            "/dev/null:/proc/x",
        ] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }
}
