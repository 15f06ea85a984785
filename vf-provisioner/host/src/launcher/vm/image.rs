//! The image that a switch's machine boots: `vmlinuz`, `initramfs`, and a manifest with their
//! digests.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

const MANIFEST: &str = "manifest.json";
/// The files that every image has.
pub(super) const KERNEL: &str = "vmlinuz";
pub(super) const INITRAMFS: &str = "initramfs";
/// The IKE daemon in the initramfs, which older images do not have.
const IKE: &str = "vswitch-charon";
const ADVICE: &str = "install vswitch-image, build it with scripts/build-switch-image, or name \
                      another in --vm-image";

/// An image whose files match its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    /// Its directory.
    pub(super) dir: PathBuf,
    /// The SHA-256 of its manifest.
    pub(super) sha256: String,
    /// Whether it has an IKE daemon.
    pub(super) has_ike: bool,
}

#[derive(Deserialize)]
struct Manifest {
    files: Vec<Entry>,
    #[serde(default)]
    initramfs: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    size: u64,
    sha256: String,
}

impl Image {
    /// Reads the manifest and compares every file with it.
    pub(super) fn open(dir: &Path) -> Result<Self, String> {
        let path = dir.join(MANIFEST);
        let text = fs::read(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => format!("there is no {}: {ADVICE}", path.display()),
            _ => format!("cannot read {}: {error}", path.display()),
        })?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|error| format!("{}: {error}: {ADVICE}", path.display()))?;
        for name in [KERNEL, INITRAMFS] {
            let Some(entry) = manifest.files.iter().find(|entry| entry.name == name) else {
                return Err(format!("{} does not list {name}: {ADVICE}", path.display()));
            };
            let file = dir.join(name);
            let (size, sha256) = digest(&file)
                .map_err(|error| format!("cannot read {}: {error}: {ADVICE}", file.display()))?;
            if (size, &sha256) != (entry.size, &entry.sha256) {
                return Err(format!(
                    "{} is not what {} says: it has {size} bytes with SHA-256 {sha256}, and should \
                     have {} with {}: {ADVICE}",
                    file.display(),
                    path.display(),
                    entry.size,
                    entry.sha256,
                ));
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            sha256: hex(&Sha256::digest(&text)),
            has_ike: manifest.initramfs.iter().any(|entry| entry.name == IKE),
        })
    }

    /// Why no IKE daemon can run in its machine, if none can.
    pub(super) fn without_ike(&self) -> Option<String> {
        let dir = self.dir.display();
        (!self.has_ike).then(|| format!("the image {dir} has no IKE daemon: {ADVICE}"))
    }
}

fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut sha256 = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        size += read as u64;
        sha256.update(&buffer[..read]);
    }
    Ok((size, hex(&sha256.finalize())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_that_differs_from_its_manifest_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || Image::open(dir.path());
        let missing = open().expect_err("nothing is there");
        assert!(missing.contains("there is no") && missing.contains("scripts/build-switch-image"));

        let write =
            |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
        write("vmlinuz", "kernel");
        write("initramfs", "switch");
        let entry = |name: &str, text: &str| {
            let sha256 = hex(&Sha256::digest(text));
            serde_json::json!({"name": name, "size": text.len(), "sha256": sha256})
        };
        let files = [entry("vmlinuz", "kernel"), entry("initramfs", "switch")];
        write(
            "manifest.json",
            &serde_json::json!({"files": files}).to_string(),
        );
        let image = open().expect("it is whole");
        assert_eq!(image.sha256.len(), 64);

        write("initramfs", "swatch");
        let damaged = open().expect_err("it differs");
        assert!(damaged.contains("initramfs is not what"), "{damaged}");
        write("initramfs", "switch");
        write(
            "manifest.json",
            &serde_json::json!({"files": files[..1]}).to_string(),
        );
        let short = open().expect_err("a file is not listed");
        assert!(short.contains("does not list initramfs"), "{short}");
        write("manifest.json", "{");
        assert!(open().is_err());
    }
}
