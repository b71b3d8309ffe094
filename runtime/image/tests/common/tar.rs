//! Archives written byte by byte, because libraries refuse to write what these tests need.

use sha2::{Digest, Sha256};
use std::io::Write;

/// A layer in the making.
#[derive(Clone, Default)]
pub struct Layer {
    bytes: Vec<u8>,
    owner: (u32, u32),
    mode: Option<u32>,
}

impl Layer {
    pub fn new() -> Self {
        Layer::default()
    }

    /// For the entries that follow.
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// For the entries that follow.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    pub fn file(self, name: &str, body: &[u8]) -> Self {
        self.entry(b'0', name.as_bytes(), b"", body)
    }

    pub fn dir(self, name: &str) -> Self {
        self.entry(b'5', name.as_bytes(), b"", b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name.as_bytes(), target.as_bytes(), b"")
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name.as_bytes(), target.as_bytes(), b"")
    }

    pub fn xattr(self, key: &str, value: &str) -> Self {
        self.pax(&[(&format!("SCHILY.xattr.{key}"), value)])
    }

    /// An extended header for the next entry.
    pub fn pax(self, records: &[(&str, &str)]) -> Self {
        let record = |(key, value): &(&str, &str)| {
            let rest = format!(" {key}={value}\n");
            // The length counts its own digits.
            let length = (1..7).map(|digits| rest.len() + digits).find(|l| l.to_string().len() + rest.len() == *l);
            format!("{}{rest}", length.unwrap())
        };
        let body: String = records.iter().map(record).collect();
        self.entry(b'x', b"pax", b"", body.as_bytes())
    }

    /// Any entry; names that do not fit into the header get a GNU long name before them.
    pub fn entry(mut self, kind: u8, name: &[u8], link: &[u8], body: &[u8]) -> Self {
        for (flag, text) in [(b'L', name), (b'K', link)] {
            if text.len() > 100 {
                self = self.entry(flag, b"././@LongLink", b"", &[text, b"\0"].concat());
            }
        }
        let header = self.header(kind, name, link, body.len() as u64);
        self.raw(&header).raw_body(body)
    }

    pub fn header(&self, kind: u8, name: &[u8], link: &[u8], size: u64) -> [u8; 512] {
        let mut block = [0u8; 512];
        let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
        put(0, &name[..name.len().min(100)]);
        let default = if kind == b'5' { 0o755 } else { 0o644 };
        put(100, format!("{:07o}\0", self.mode.unwrap_or(default)).as_bytes());
        put(108, &[&[0x80, 0, 0, 0][..], &self.owner.0.to_be_bytes()].concat());
        put(116, &[&[0x80, 0, 0, 0][..], &self.owner.1.to_be_bytes()].concat());
        put(124, &[&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat());
        put(136, b"10000000000\0");
        put(156, &[kind]);
        put(157, &link[..link.len().min(100)]);
        put(257, b"ustar  \0");
        put(148, b"        ");
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn raw_body(self, body: &[u8]) -> Self {
        let padding = body.len().next_multiple_of(512) - body.len();
        self.raw(body).raw(&vec![0; padding])
    }

    /// With the end mark.
    pub fn build(&self) -> Vec<u8> {
        [&self.bytes[..], &[0; 1024]].concat()
    }

    /// A docker-archive of this layer alone.
    pub fn archive(&self, tag: &str) -> Vec<u8> {
        archive(&[self.build()], tag)
    }
}

/// A docker-archive with these layers, bottom first.
pub fn archive(layers: &[Vec<u8>], tag: &str) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|l| hex(l)).collect();
    archive_with(layers, &diff_ids, tag)
}

/// A docker-archive that promises these diff-ids, true or not.
pub fn archive_with(layers: &[Vec<u8>], diff_ids: &[String], tag: &str) -> Vec<u8> {
    let diff_ids: Vec<String> = diff_ids.iter().map(|d| format!("sha256:{d}")).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string();
    let name = format!("{}.json", hex(config.as_bytes()));
    let files: Vec<String> = (0..layers.len()).map(|i| format!("{i}/layer.tar")).collect();
    let manifest = serde_json::json!([{"Config": name, "RepoTags": [tag], "Layers": files}]).to_string();
    let mut archive = Layer::new().file(&name, config.as_bytes());
    for (file, layer) in files.iter().zip(layers) {
        archive = archive.file(file, layer);
    }
    archive.file("manifest.json", manifest.as_bytes()).build()
}

pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
