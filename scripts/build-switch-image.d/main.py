"""Builds the image of the switch VM: a kernel, an initramfs with the switch as its only program, and a manifest."""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(1, str(ROOT / "scripts/lib"))
import linux

ABOUT = """\
Builds what the virtual machine of a switch boots: DIR/vmlinuz (Debian's kernel), DIR/initramfs (the switch as /init, and
the kernel's modules for VFIO; no shell, no other program) and DIR/manifest.json (every file with its size and SHA-256).
The same sources, compiler and kernel give the same bytes. docs/switch-image.md says how it is booted.
"""

CODES = "Exit status: 0 done, 1 something does not build or does not agree with the manifest, 2 wrong usage."

TRIPLE = "x86_64-unknown-linux-gnu"
# What the switch drives devices through; the rest that it needs is in the kernel.
MODULES = ("vfio-pci", "vfio_iommu_type1")


def build_switch(profile):
    """The switch as one static executable without symbols."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    # With --target, these are for what runs in the machine, and not for what builds it. The paths of this machine
    # would make the bytes differ on another.
    flags = ["-Ctarget-feature=+crt-static", f"--remap-path-prefix={ROOT}=/vswitch"]
    cargo_home = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo")
    flags.append(f"--remap-path-prefix={cargo_home}=/cargo")
    environment = dict(os.environ, CARGO_ENCODED_RUSTFLAGS="\x1f".join(flags))
    command = ["cargo", "build", "--quiet", "--locked", "--package", "vswitch", "--bin", "vswitch",
               "--target", TRIPLE, "--profile", profile]
    if subprocess.run(command, cwd=ROOT, env=environment).returncode != 0:
        raise SystemExit("build-switch-image: the switch does not build, see the lines above")
    return target / TRIPLE / ("debug" if profile == "dev" else profile) / "vswitch"


def build(out, profile, log):
    kernel = linux.find()
    log(f"building the switch (profile {profile}; minutes the first time)")
    switch = build_switch(profile)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        root = pathlib.Path(scratch) / "root"
        root.mkdir()
        subprocess.run(["strip", "--strip-all", "-o", root / "init", switch], check=True)
        kernel.put_modules(MODULES, root / "modules")
        for file in root.rglob("*"):
            file.chmod(0o755 if file.is_dir() or file.name == "init" else 0o644)
        contents = [describe(file, file.relative_to(root)) for file in sorted(root.rglob("*")) if file.is_file()]
        archive = linux.pack(root)
        if linux.pack(root) != archive:
            raise SystemExit("build-switch-image: two archives of the same files differ")
        new = pathlib.Path(scratch) / "initramfs"
        new.write_bytes(archive)
        shutil.copyfile(kernel.image, pathlib.Path(scratch) / "vmlinuz")
        manifest = {
            "kernel": kernel.release,
            "files": [describe(new.with_name(name), name) for name in ("vmlinuz", "initramfs")],
            "initramfs": contents,
        }
        sizes = {file["name"]: file["size"] for file in manifest["files"]}
        manifest["total"] = sum(sizes.values())
        manifest["total_beside_kernel"] = sizes["initramfs"]
        (new.with_name("manifest.json")).write_text(json.dumps(manifest, indent=2) + "\n")
        # A machine that boots meanwhile has the old file or the new one.
        for name in ("vmlinuz", "initramfs", "manifest.json"):
            new.with_name(name).chmod(0o644)
            new.with_name(name).rename(out / name)
    return manifest


def describe(file, name):
    data = file.read_bytes()
    return {"name": str(name), "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def show(out):
    """Lists an image, after comparing it with its manifest."""
    path = out / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise SystemExit(f"build-switch-image: there is no {path}: build the image first") from None
    for file in manifest["files"]:
        if describe(out / file["name"], file["name"]) != file:
            raise SystemExit(f"build-switch-image: {out / file['name']} is not what {path} says: build the image again")
    print(f"{'SIZE':>12}  {'SHA-256':64}  FILE")
    for prefix, files in (("", manifest["files"]), ("initramfs:/", manifest["initramfs"])):
        for file in files:
            print(f"{file['size']:>12,}  {file['sha256']}  {prefix}{file['name']}")
    print(f"kernel {manifest['kernel']}; {manifest['total']:,} bytes, {manifest['total_beside_kernel']:,} beside the kernel")


def main():
    parser = argparse.ArgumentParser(
        prog="scripts/build-switch-image", description=ABOUT, epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, default=ROOT / "target/switch-image",
                        help="where to put it (default target/switch-image)")
    parser.add_argument("--list", action="store_true", help="build nothing; list an image that is there")
    parser.add_argument("--profile", default="image", metavar="NAME",
                        help="cargo's profile for the switch, as `dev` for a quick one (default image)")
    parser.add_argument("--quiet", action="store_true", help="say nothing")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    if not arguments.list:
        build(out, arguments.profile, (lambda _: None) if arguments.quiet else log_to_stderr)
    if not arguments.quiet:
        show(out)
    return 0


def log_to_stderr(sentence):
    print(f"build-switch-image: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
