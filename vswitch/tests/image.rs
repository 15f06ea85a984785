//! The image of a switch's VM holds the switch, its IKE daemon and the modules it needs, and
//! nothing else.
//!
//! `scripts/build-switch-image --list` checks that; it is run here on images that it must refuse,
//! and on the one that was built last, if any.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The message of `--list` if it refuses the image in `directory`.
fn refusal(directory: &Path) -> Option<String> {
    let list = Command::new(repository().join("scripts/build-switch-image"))
        .args(["--list", "--out"])
        .arg(directory)
        .output()
        .expect("the script runs");
    (!list.status.success()).then(|| String::from_utf8_lossy(&list.stderr).into_owned())
}

/// The size and the hash of a file, as in the manifest.
fn described(name: &str, path: &Path) -> serde_json::Value {
    let sum = Command::new("sha256sum").arg(path).output().expect("a sum");
    let sum = String::from_utf8(sum.stdout).expect("text");
    let size = fs::metadata(path).expect("a file").len();
    json!({ "name": name, "size": size, "sha256": sum.split(' ').next() })
}

/// An image with a matching manifest.
struct Image(tempfile::TempDir);

impl Image {
    /// An image of static programs of a few bytes, one module, and `more`: names and contents.
    fn new(more: &[(&str, &[u8])]) -> Self {
        let image = Self(tempfile::tempdir().expect("a directory"));
        let root = image.0.path().join("root");
        // The header of a 64-bit ELF file without program headers, and so without libraries.
        let mut elf = [0; 64];
        elf[..5].copy_from_slice(b"\x7fELF\x02");
        let usual: [(&str, &[u8]); 4] = [
            ("init", &elf),
            ("vswitch-charon", &elf),
            ("modules/order", b"vfio.ko\n"),
            ("modules/vfio.ko", b"a module"),
        ];
        let mut files: Vec<_> = usual
            .iter()
            .filter(|(name, _)| more.iter().all(|(other, _)| other != name))
            .chain(more)
            .collect();
        files.sort();
        for (name, data) in &files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(&path, data).expect("a file");
            let is_program = ["init", "vswitch-charon"].contains(name);
            let mode = if is_program { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        }
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        image.pack(&root, &names);
        image
    }

    fn pack(&self, root: &Path, names: &[&str]) {
        let out = self.0.path();
        let mut cpio = Command::new("cpio")
            .args(["--quiet", "--create", "--format=newc", "--owner=0:0"])
            .current_dir(root)
            .stdin(Stdio::piped())
            .stdout(fs::File::create(out.join("initramfs")).expect("a file"))
            .spawn()
            .expect("cpio runs: scripts/setup --for emulated installs it");
        let list = names.join("\n");
        let mut stdin = cpio.stdin.take().expect("a pipe");
        stdin.write_all(list.as_bytes()).expect("room");
        drop(stdin);
        assert!(cpio.wait().expect("an end").success());
        fs::write(out.join("vmlinuz"), b"a kernel").expect("a file");
        let contents: Vec<_> = names
            .iter()
            .map(|name| described(name, &root.join(name)))
            .collect();
        let size = fs::metadata(out.join("initramfs")).expect("a file").len();
        let files = ["vmlinuz", "initramfs"].map(|name| described(name, &out.join(name)));
        let manifest = json!({
            "kernel": "6.12", "files": files, "initramfs": contents,
            "total": size + 8, "total_beside_kernel": size,
        });
        fs::write(out.join("manifest.json"), manifest.to_string()).expect("a file");
    }

    fn refusal(&self) -> Option<String> {
        refusal(self.0.path())
    }
}

#[test]
fn switch_with_its_modules_is_accepted() {
    assert_eq!(Image::new(&[]).refusal(), None);
}

#[test]
fn additional_file_is_refused() {
    for (name, data) in [
        ("bin/sh", &b"#!"[..]),
        ("modules/e1000.ko", b"another module"),
        ("etc/passwd", b"root::0:0::/:/bin/sh\n"),
    ] {
        let refusal = Image::new(&[(name, data)]).refusal().expect("refused");
        assert!(refusal.contains(name), "{refusal}");
    }
}

#[test]
fn dynamically_linked_program_is_refused() {
    let test = fs::read(std::env::current_exe().expect("this test")).expect("its bytes");
    for name in ["init", "vswitch-charon"] {
        let refusal = Image::new(&[(name, &test)]).refusal().expect("refused");
        let words = format!("/{name} in the initramfs is not linked statically");
        assert!(refusal.contains(&words), "{refusal}");
    }
}

#[test]
fn oversized_image_is_refused() {
    let module = vec![0; 25_000_000];
    let refusal = Image::new(&[("modules/vfio.ko", &module)]).refusal();
    let refusal = refusal.expect("refused");
    assert!(refusal.contains("more than 25,000,000"), "{refusal}");
}

#[test]
fn file_that_differs_from_manifest_is_refused() {
    let image = Image::new(&[]);
    fs::write(image.0.path().join("vmlinuz"), b"another!").expect("a file");
    let refusal = image.refusal().expect("refused");
    assert!(
        refusal.contains("vmlinuz is not what the manifest says"),
        "{refusal}"
    );
}

#[test]
fn latest_built_image_is_accepted() {
    let built = repository().join("target/switch-image");
    if !built.join("manifest.json").exists() {
        eprintln!("skipped: no image is built; scripts/build-switch-image builds one");
        return;
    }
    assert_eq!(refusal(&built), None);
}
