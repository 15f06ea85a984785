"""Builds the programs and pages, and the Debian packages with them."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import time
import tomllib

import manual

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRIPLE = "x86_64-unknown-linux-gnu"
PROGRAMS = {"vswitch": "vswitch", "vf-provisioner": "vf-provisioner",
            "tenant-config": "tenant-config-cli"}
# What is linked into the switch from Debian's static archives.
LINKED = ("libdpdk-dev", "libnuma-dev", "libbsd-dev", "libmd-dev", "libxdp-dev", "libbpf-dev",
          "libelf-dev", "zlib1g-dev", "libc6-dev")
# And into the IKE daemon, beside strongSwan.
LINKED_IKE = ("libssl-dev", "libc6-dev")


class Failure(Exception):
    """The packages do not build, or are not as they must be."""


def log(sentence):
    print(f"package: {sentence}", file=sys.stderr, flush=True)


def output_of(command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True,
                          **options).stdout.strip()


@dataclasses.dataclass
class Sources:
    """What is built, and how."""

    root: pathlib.Path
    debug: bool = False
    # Whether another directory must give the same bytes.
    exact: bool = True
    image: pathlib.Path | None = None
    with_image: bool = True
    with_ike: bool = True

    def left_out(self):
        """The packages that are not built."""
        left_out = [] if self.with_image else ["vswitch-image"]
        return left_out if self.with_ike else [*left_out, "vswitch-ike", "vswitch-ike-source"]

    def epoch(self):
        """The seconds that all files get as their time."""
        if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
            return int(epoch)
        return int(output_of(["git", "-C", self.root, "log", "-1", "--format=%ct"]))

    def version(self):
        """Below the version that will be released."""
        workspace = tomllib.loads((self.root / "Cargo.toml").read_text())["workspace"]
        stamp = time.strftime("%Y%m%d.%H%M", time.gmtime(self.epoch()))
        return f"{workspace['package']['version']}~{stamp}"

    def target(self):
        return pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or self.root / "target")

    def cargo(self, what, environment=None):
        command = ["cargo", "build", "--locked", "--bins", *what]
        if not sys.stderr.isatty():
            command.append("--quiet")
        ran = subprocess.run(command, cwd=self.root, check=False,
                             env=dict(os.environ, **(environment or {})))
        if ran.returncode != 0:
            raise Failure("the programs do not build, see the lines above")

    def programs(self):
        """Builds the programs; their directory."""
        if self.debug and not self.exact:
            # As the tests build it: a part of the workspace has dependencies of its own features.
            self.cargo(["--workspace", "--examples"])
            return self.target() / "debug"
        # As in the switch image: this machine's paths would make the bytes differ on another one.
        # With --target, these flags do not apply to build scripts.
        home = os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo"
        flags = (f"--remap-path-prefix={self.root}=/vswitch",
                 f"--remap-path-prefix={self.target()}=/target",
                 f"--remap-path-prefix={home}=/cargo")
        environment = {"CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags)}
        profile = "dev" if self.debug else "release"
        log(f"building the programs (profile {profile}; minutes the first time)")
        packages = [f"--package={package}" for package in PROGRAMS.values()]
        self.cargo(["--profile", profile, "--target", TRIPLE, *packages], environment)
        return self.target() / TRIPLE / ("debug" if self.debug else "release")

    def pages(self, out):
        """Writes man pages and completions."""
        if not self.debug or self.exact:
            self.cargo(["--package=pages"])
        subprocess.run([self.target() / "debug/pages", out], check=True)

    def ike(self, out):
        """Puts the IKE daemon, its manual page and what it is built from into `out`."""
        command = [self.root / "scripts/build-ike", "--quiet", "--sources", out / "source"]
        if subprocess.run(command, cwd=self.root, check=False).returncode != 0:
            raise Failure("the IKE daemon does not build, see the lines above")
        program = self.target() / "ike/vswitch-charon"
        shutil.copy(program, out)
        (out / "vswitch-charon.1").write_text(manual.page(
            "vswitch-charon", "IKE daemon of one tenant's switch",
            output_of([program, "--help"]), self.epoch()))

    def switch_image(self):
        """The directory of a switch image, which is built unless one was given."""
        image = self.image or self.target() / "switch-image"
        command = [self.root / "scripts/build-switch-image", "--quiet", "--out", image.absolute()]
        if self.image:
            command.append("--list")
        if subprocess.run(command, cwd=self.root, check=False).returncode != 0:
            raise Failure("there is no good switch image, see the lines above")
        return image


def build(of, version, out):
    """Builds the packages into `out`; their files, sorted."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    tree = out / "build" / "vswitch"
    shutil.copytree(of.root / "scripts/package.d/debian", tree / "debian")
    stage(of, tree / "staged")
    write_changelog(of, tree / "debian/changelog", version)
    environment = dict(os.environ, SOURCE_DATE_EPOCH=str(of.epoch()), LC_ALL="C.UTF-8", TZ="UTC")
    command = ["dpkg-buildpackage", "--build=binary", "--unsigned-changes", "--no-check-builddeps",
               "--no-pre-clean"]
    if of.debug:
        environment["PACKAGE_COMPRESSION"] = "-z0"
    environment["DH_OPTIONS"] = " ".join(f"--no-package={name}" for name in of.left_out())
    substitutions(tree)
    with (out / "build.log").open("w") as output:
        ran = subprocess.run(command, cwd=tree, env=environment, check=False, stdout=output,
                             stderr=subprocess.STDOUT)
    if ran.returncode != 0:
        tail = (out / "build.log").read_text().splitlines()[-20:]
        raise Failure("\n".join(["dpkg-buildpackage failed:", *tail]))
    debs = [deb.rename(out / deb.name) for deb in (out / "build").glob("*.deb")]
    shutil.rmtree(out / "build")
    return sorted(debs)


def stage(of, staged):
    """Puts everything that packages hold where debian/*.install looks for it."""
    (staged / "bin").mkdir(parents=True)
    programs = of.programs()
    for program in PROGRAMS:
        shutil.copy(programs / program, staged / "bin")
    of.pages(staged / "pages")
    (staged / "completions").mkdir()
    for program in PROGRAMS:
        shutil.copy(staged / f"pages/bash/{program}.bash", staged / "completions" / program)
    if of.with_image:
        shutil.copytree(of.switch_image(), staged / "switch-image")
    if of.with_ike:
        (staged / "ike").mkdir()
        of.ike(staged / "ike")
    shutil.copytree(of.root / "docs", staged / "docs")
    shutil.copytree(of.root / "examples", staged / "examples")
    shutil.copy(of.root / "README.md", staged)


def write_changelog(of, file, version):
    date = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(of.epoch()))
    file.write_text(f"vswitch ({version}) unstable; urgency=medium\n\n"
                    "  * See CHANGELOG.md in vswitch-doc.\n\n"
                    f" -- The vswitch maintainers <maintainers@vswitch.invalid>  {date}\n")
    with (file.parent / "vswitch-doc.docs").open("a") as docs:
        docs.write("staged/CHANGELOG.md\n")
    shutil.copy(of.root / "CHANGELOG.md", file.parent.parent / "staged")


def substitutions(tree):
    """Which versions of Debian's sources are linked statically, or contained."""
    debian = tree / "debian"
    def sources_of(packages):
        form = "${source:Package} (= ${source:Version})\n"
        lines = output_of(["dpkg-query", "--show", f"--showformat={form}", *packages]).splitlines()
        return ", ".join(sorted(set(lines)))
    linked = sources_of(LINKED)
    (debian / "vswitch.substvars").write_text(f"vswitch:Built-Using={linked}\n")
    of_image = linked.split(", ")
    for description in tree.glob("staged/ike/source/strongswan/*.dsc"):
        version = description.stem.removeprefix("strongswan_")
        linked = f"{sources_of(LINKED_IKE)}, strongswan (= {version})"
        (debian / "vswitch-ike.substvars").write_text(f"ike:Built-Using={linked}\n")
        # The image has the same daemon.
        of_image += linked.split(", ")
    of_image = ", ".join(sorted(set(of_image)))
    (debian / "vswitch-image.substvars").write_text(f"image:Built-Using={of_image}\n")
