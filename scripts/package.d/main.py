"""Builds the Debian packages, tries them, and compares two builds; `scripts/package --help` says
more."""

import argparse
import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

from building import ROOT, Failure, Sources, build
from trial import Trial

ABOUT = """\
Builds Debian packages for Debian 12 (amd64) in target/package: vswitch, vf-provisioner,
vswitch-ike, vswitch-ike-source, vswitch-image and vswitch-doc. docs/operate/install.md says what
is in them.

--test builds two versions of them, installs the first in a fresh Debian 12 with systemd (a
container of systemd-nspawn, without the host's network), and boots it: with an invalid tenant
file among good ones, after a reboot, an upgrade, a removal and a purge, it compares what is there.
--twice builds everything again, from a copy of the sources in another directory, and compares.
"""

CODES = """\
Exit status: 0 done, 1 it does not build, a test failed or the builds differ, 2 wrong usage.
"""


def parse():
    parser = argparse.ArgumentParser(
        prog="scripts/package", description=ABOUT, epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, default=ROOT / "target/package",
                        help="where to put the packages (default target/package)")
    parser.add_argument("--version", metavar="VERSION",
                        help="their version (default: the workspace's, and the commit's time)")
    parser.add_argument("--debug", action="store_true",
                        help="debug builds of the programs, as the tests have them")
    parser.add_argument("--image", metavar="DIR", type=pathlib.Path,
                        help="package this switch image instead of building one")
    parser.add_argument("--no-image", action="store_true", help="leave vswitch-image out")
    parser.add_argument("--no-ike", action="store_true",
                        help="leave vswitch-ike and vswitch-ike-source out")
    parser.add_argument("--test", action="store_true", help="also try them (needs root)")
    parser.add_argument("--lintian", action="store_true", help="also check them with lintian")
    parser.add_argument("--twice", action="store_true",
                        help="also build again elsewhere, and compare")
    arguments = parser.parse_args()
    if arguments.no_ike and not arguments.no_image:
        parser.error("--no-ike needs --no-image: the image holds the IKE daemon, whose sources "
                     "must be offered with it")
    if arguments.image and arguments.no_image:
        parser.error("--image and --no-image exclude each other")
    if arguments.test and arguments.no_ike:
        parser.error("--test tries vswitch-ike too: it cannot be used with --no-ike")
    if arguments.test and os.geteuid() != 0:
        parser.error("--test needs root: run it with sudo")
    return arguments


def digests(debs):
    return {deb.name: hashlib.sha256(deb.read_bytes()).hexdigest() for deb in debs}


def sources(arguments, root=ROOT):
    exact = arguments.twice or not arguments.debug
    return Sources(root=root, debug=arguments.debug, exact=exact, image=arguments.image,
                   with_image=not arguments.no_image, with_ike=not arguments.no_ike)


def lintian(debs):
    """Every finding of lintian is a failure, informational ones too."""
    command = ["lintian", "--display-info", "--fail-on", "error,warning,info", *debs]
    if subprocess.run(command, check=False).returncode != 0:
        raise Failure("lintian has findings, see the lines above")


def build_twice(arguments, version, first):
    """Builds a copy of the sources in another directory, with nothing of the first build."""
    with tempfile.TemporaryDirectory(prefix="vswitch-package-") as directory:
        elsewhere = pathlib.Path(directory) / "a-copy-of-the-sources"
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, elsewhere], check=True)
        os.environ.pop("CARGO_TARGET_DIR", None)
        second = build(sources(arguments, elsewhere), version, pathlib.Path(directory) / "out")
        one, other = digests(first), digests(second)
        for name in sorted(one | other):
            same = one.get(name) == other.get(name)
            print(f"{one.get(name)}  {name}: {'the same twice' if same else 'DIFFERS'}")
        if one != other:
            kept = arguments.out / "second"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(pathlib.Path(directory) / "out", kept)
            raise Failure(f"two builds differ; the second is in {kept}")


def run(arguments):
    out = arguments.out.absolute()
    of = sources(arguments)
    version = arguments.version or of.version()
    debs = build(of, version, out)
    for deb, digest in zip(debs, digests(debs).values()):
        print(f"{digest}  {deb.name}")
    if arguments.lintian:
        lintian(debs)
    if arguments.twice:
        build_twice(arguments, version, debs)
    if arguments.test:
        newer = build(of, version + "+next", out / "next")
        Trial(out / "trial", debs, newer).run()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run(parse())
    except Failure as failure:
        print(f"package: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
