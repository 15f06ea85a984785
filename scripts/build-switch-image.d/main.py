"""Builds the image of the switch VM: a kernel, an initramfs with the switch and the IKE daemon as
its only programs, and a manifest."""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import stat
import struct
import subprocess
import sys
import tempfile

import linux

ROOT = pathlib.Path(__file__).resolve().parents[2]

ABOUT = """\
Builds what the virtual machine of a switch boots: DIR/vmlinuz (Debian's kernel), DIR/initramfs
(the switch as /init, the IKE daemon of scripts/build-ike, and the kernel's modules for VFIO; no
shell, no other program) and DIR/manifest.json (every file with its size and SHA-256). The same
sources, compiler and kernel give the same bytes. docs/operate/switch-image.md says how it boots.
"""

CODES = """\
Exit status: 0 done, 1 something does not build or does not match the manifest, 2 wrong usage.
"""

TRIPLE = "x86_64-unknown-linux-gnu"
# The drivers behind which the switch uses devices. All else that it needs is in the kernel.
MODULES = ("vfio-pci", "vfio_iommu_type1")
# The programs: the switch, and the IKE daemon.
INIT, CHARON = "init", "vswitch-charon"
# Upper bound for an image's size without its kernel.
BESIDE_KERNEL_MAX = 25_000_000


class Failure(Exception):
    """The image does not build, or is not as it must be."""


def target_directory():
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")


def build_charon():
    """The IKE daemon as one static executable without symbols."""
    if subprocess.run([ROOT / "scripts/build-ike", "--quiet"]).returncode != 0:
        raise Failure("the IKE daemon does not build, see the lines above")
    return target_directory() / "ike" / CHARON


def build_switch(profile):
    """The switch as one static executable without symbols."""
    # With --target, these flags do not apply to build scripts. This machine's paths would make the
    # bytes differ on another machine.
    flags = ["-Ctarget-feature=+crt-static", f"--remap-path-prefix={ROOT}=/vswitch"]
    cargo_home = os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo"
    flags.append(f"--remap-path-prefix={cargo_home}=/cargo")
    environment = dict(os.environ, CARGO_ENCODED_RUSTFLAGS="\x1f".join(flags))
    command = ["cargo", "build", "--locked", "--package", "vswitch", "--bin", "vswitch",
               "--target", TRIPLE, "--profile", profile]
    if not sys.stderr.isatty():
        command.append("--quiet")
    if subprocess.run(command, cwd=ROOT, env=environment).returncode != 0:
        raise Failure("the switch does not build, see the lines above")
    return target_directory() / TRIPLE / ("debug" if profile == "dev" else profile) / "vswitch"


def build(out, profile, log):
    kernel = linux.find()
    log(f"building the switch (profile {profile}; minutes the first time)")
    switch = build_switch(profile)
    log("building the IKE daemon (2 minutes the first time)")
    charon = build_charon()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        scratch = pathlib.Path(scratch)
        contents, archive = initramfs(scratch / "root", switch, charon, kernel)
        (scratch / "initramfs").write_bytes(archive)
        shutil.copyfile(kernel.image, scratch / "vmlinuz")
        files = [describe((scratch / name).read_bytes(), name) for name in ("vmlinuz", "initramfs")]
        manifest = {
            "kernel": kernel.release,
            "files": files,
            "initramfs": contents,
            "total": sum(file["size"] for file in files),
            "total_beside_kernel": len(archive),
        }
        (scratch / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        check(scratch)
        # A machine that boots meanwhile sees the old file or the new one.
        for name in ("vmlinuz", "initramfs", "manifest.json"):
            (scratch / name).chmod(0o644)
            (scratch / name).rename(out / name)


def initramfs(root, switch, charon, kernel):
    """The description of the initramfs's files, and its bytes."""
    root.mkdir()
    subprocess.run(["strip", "--strip-all", "-o", root / INIT, switch], check=True)
    shutil.copyfile(charon, root / CHARON)
    kernel.put_modules(MODULES, root / "modules")
    for file in root.rglob("*"):
        file.chmod(0o755 if file.is_dir() or file.name in (INIT, CHARON) else 0o644)
    contents = [describe(file.read_bytes(), str(file.relative_to(root)))
                for file in sorted(root.rglob("*")) if file.is_file()]
    archive = linux.pack(root)
    if linux.pack(root) != archive:
        raise Failure("two archives of the same files differ")
    return contents, archive


def describe(data, name):
    return {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def unpack(archive):
    """The entries of an archive in cpio's `newc` format: (name, mode, owner, group, links,
    data)."""
    at, entries = 0, []
    while True:
        if archive[at:at + 6] != b"070701":
            raise Failure(f"the initramfs is no cpio archive at byte {at}")
        _, mode, owner, group, links, _, size, *_, length, _ = (
            int(archive[start:start + 8], 16) for start in range(at + 6, at + 110, 8))
        name = archive[at + 110:at + 109 + length].decode()
        data = (at + 110 + length + 3) & ~3
        at = (data + size + 3) & ~3
        if name == "TRAILER!!!":
            return entries
        entries.append((name, mode, owner, group, links, archive[data:data + size]))


def check(image):
    """Compares an image with its manifest, and with what an image may contain; the manifest."""
    manifest = json.loads((image / "manifest.json").read_text())
    for file in manifest["files"]:
        if describe((image / file["name"]).read_bytes(), file["name"]) != file:
            raise Failure(f"{image / file['name']} is not what the manifest says: "
                          "build the image again")
    found, order = [], None
    for name, mode, owner, group, links, data in unpack((image / "initramfs").read_bytes()):
        if stat.S_ISDIR(mode) and name == "modules" and stat.S_IMODE(mode) == 0o755:
            continue
        found.append(describe(data, name))
        if name == "modules/order":
            order = data.decode().split()
        check_mode(name, mode, (owner, group), links)
        if name in (INIT, CHARON) and interpreter(data):
            raise Failure(f"/{name} in the initramfs is not linked statically: "
                          "the machine has no libraries")
    if found != manifest["initramfs"]:
        raise Failure("the initramfs does not hold what the manifest says: build the image again")
    check_names({file["name"] for file in found}, order or ())
    beside = manifest["total_beside_kernel"]
    if beside > BESIDE_KERNEL_MAX:
        raise Failure(f"the initramfs has {beside:,} bytes, more than {BESIDE_KERNEL_MAX:,}")
    return manifest


def check_mode(name, mode, owners, links):
    """A file of root's with one name; only the programs are executable."""
    wanted = 0o755 if name in (INIT, CHARON) else 0o644
    regular = stat.S_ISREG(mode) and stat.S_IMODE(mode) == wanted
    if not regular or owners != (0, 0) or links != 1:
        owner, group = owners
        raise Failure(f"{name} in the initramfs: mode {mode:o}, owner {owner}:{group}, "
                      f"{links} links; it must be a file of mode {wanted:o}, owner 0:0, "
                      "with one name")


def check_names(names, order):
    """The programs and the listed modules, and nothing else."""
    allowed = {INIT, CHARON, "modules/order", *(f"modules/{module}" for module in order)}
    if names != allowed:
        others = sorted(allowed.symmetric_difference(names))
        raise Failure(f"the initramfs is to hold /{INIT}, /{CHARON} and the modules in "
                      f"/modules/order alone, but not so: {others}")


def interpreter(executable):
    """Whether an ELF file for 64 bits names a program that loads its libraries. What is no such
    file counts too."""
    offset, = struct.unpack_from("<Q", executable, 32)
    size, count = struct.unpack_from("<HH", executable, 54)
    kinds = {struct.unpack_from("<I", executable, offset + size * number)[0]
             for number in range(count)}
    return executable[:5] != b"\x7fELF\x02" or 3 in kinds


def show(manifest):
    print(f"{'SIZE':>12}  {'SHA-256':64}  FILE")
    for prefix, files in (("", manifest["files"]), ("initramfs:/", manifest["initramfs"])):
        for file in files:
            print(f"{file['size']:>12,}  {file['sha256']}  {prefix}{file['name']}")
    total, beside = manifest["total"], manifest["total_beside_kernel"]
    print(f"kernel {manifest['kernel']}; {total:,} bytes, {beside:,} beside the kernel")


def main():
    parser = argparse.ArgumentParser(
        prog="scripts/build-switch-image", description=ABOUT, epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path,
                        default=ROOT / "target/switch-image",
                        help="where to put it (default target/switch-image)")
    parser.add_argument("--list", action="store_true",
                        help="build nothing; check that an image holds what its manifest says "
                             "and nothing else, and list it")
    parser.add_argument("--profile", default="image", metavar="NAME",
                        help="cargo's profile for the switch, as `dev` for a quick one "
                             "(default image)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    try:
        if not arguments.list:
            build(out, arguments.profile, (lambda _: None) if arguments.quiet else log_to_stderr)
        manifest = check(out)
    except FileNotFoundError as error:
        log_to_stderr(f"there is no {error.filename}: build the image first")
        return 1
    except Failure as failure:
        log_to_stderr(str(failure))
        return 1
    if not arguments.quiet:
        show(manifest)
    return 0


def log_to_stderr(sentence):
    print(f"build-switch-image: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
