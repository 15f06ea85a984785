"""Builds `vswitch-charon`: strongSwan from Debian's source package, linked statically with the
plugin of vswitch/ike."""

import argparse
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ROOT / "vswitch/ike"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
CACHE /= "vswitch-ike"

ABOUT = """\
Builds target/ike/vswitch-charon, the IKE daemon of a tenant's switch: strongSwan from Debian's
source package, which apt checks, with the plugin of vswitch/ike, as one static program. strongSwan
itself is built once (2 minutes) and kept in ~/.cache/vswitch-ike.
"""

CODES = """\
Exit status: 0 done, 1 something cannot be had or does not build, 2 wrong usage.
"""

# The release whose interfaces the plugin is written for.
RELEASE = "5.9.8"
# What the daemon needs, and nothing else: IKEv2, VICI, one library of cryptography, certificates.
PLUGINS = ("constraints", "kdf", "nonce", "openssl", "pem", "pkcs1", "pkcs8", "pubkey",
           "revocation", "vici", "x509")
CONFIGURE = ("--quiet", "--disable-defaults", "--disable-shared", "--enable-static",
             "--enable-monolithic", "--enable-charon", "--enable-ikev2",
             *(f"--enable-{plugin}" for plugin in PLUGINS))
# Log levels 3 and 4 print keys: they are not compiled.
FLAGS = ("-O2", "-g0", "-fPIE", "-fstack-protector-strong", "-fstack-clash-protection",
         "-fcf-protection", "-D_FORTIFY_SOURCE=2", "-DDEBUG_LEVEL=2", "-ffunction-sections",
         "-fdata-sections")
SANITIZE = ("-O1", "-g", "-fPIE", "-fno-omit-frame-pointer", "-DDEBUG_LEVEL=2",
            "-fsanitize=address,undefined")
WARNINGS = ("-std=gnu11", "-Wall", "-Wextra", "-Wformat=2", "-Wshadow", "-Wvla", "-Werror")
# The methods of an interface have parameters that not every implementation uses, and the format
# of the log function has strongSwan's own specifiers.
INTERFACES = ("-Wno-unused-parameter", "-Wno-format-nonliteral")
LINK = ("-Wl,--gc-sections", "-Wl,-z,relro,-z,now")
LIBRARIES = ("src/libcharon/.libs/libcharon.a", "src/libstrongswan/.libs/libstrongswan.a")
SYSTEM = ("-lcrypto", "-lm", "-lpthread", "-ldl")


class Failure(Exception):
    """It cannot be built."""


def log(sentence):
    print(f"build-ike: {sentence}", file=sys.stderr, flush=True)


def run(command, **options):
    """Runs a command quietly; its last lines go into the error."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, **options)
    if done.returncode != 0:
        lines = "\n".join(done.stdout.splitlines()[-20:])
        raise Failure(f"{' '.join(str(word) for word in command[:4])} failed:\n{lines}")
    return done.stdout


def versions():
    """The versions of the source package that apt knows, the newest first."""
    shown = subprocess.run(["apt-cache", "showsrc", "--only-source", "strongswan"],
                           capture_output=True, text=True, check=False).stdout
    found = set(re.findall(rf"^Version: ({re.escape(RELEASE)}-\S+)$", shown, re.MULTILINE))
    if not found:
        raise Failure(f"apt knows no source package strongswan {RELEASE}: "
                      "scripts/setup --for ike adds it")
    ordered = subprocess.run(["sort", "-rV"], input="\n".join(found), capture_output=True,
                             text=True, check=True).stdout
    return ordered.split()


def source(update):
    """The source package's description (.dsc), with its archives beside it."""
    directory = CACHE / "source"
    cached = sorted(directory.glob("strongswan_*.dsc"))
    if cached and not update:
        return cached[-1]
    directory.mkdir(parents=True, exist_ok=True)
    refused = None
    for version in versions():
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            try:
                # apt checks the package by the archive's signature.
                run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "source",
                     "--download-only", f"strongswan={version}"], cwd=scratch)
            except Failure as failure:
                # A mirror may know a version before it has its files.
                log(f"strongSwan {version} cannot be downloaded; trying the one before")
                refused = failure
                continue
            for file in directory.iterdir():
                file.unlink()
            for file in pathlib.Path(scratch).iterdir():
                shutil.move(file, directory / file.name)
        return next(directory.glob("strongswan_*.dsc"))
    raise refused


def digest(*parts):
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def version_of_tools():
    compiler = run(["gcc", "--version"]).splitlines()[0]
    library = run(["dpkg-query", "-W", "-f=${Version}", "libssl-dev"])
    return f"{compiler} {library}"


def strongswan(update, flags):
    """The built tree of strongSwan, from the cache or anew."""
    description = source(update)
    key = digest(description.read_text(), *CONFIGURE, *flags, version_of_tools())
    tree = CACHE / f"built-{key}"
    if (tree / "complete").exists():
        return tree, description
    log(f"building {description.stem} (2 minutes, once)")
    shutil.rmtree(tree, ignore_errors=True)
    # It checks the archives by the description's hashes.
    run(["dpkg-source", "--no-check", "-x", description, tree])
    run(["./configure", *CONFIGURE, f"CFLAGS={' '.join(flags)}"], cwd=tree)
    for library in ("libstrongswan", "libcharon"):
        run(["make", "-s", f"-j{os.cpu_count()}", "-C", f"src/{library}"], cwd=tree)
    (tree / "complete").touch()
    return tree, description


def compile_program(tree, flags, out):
    """Compiles the plugin and links the program, unless it is there for the same inputs."""
    files = sorted(SOURCES.glob("*.[ch]"))
    key = digest(tree.name, *flags, *WARNINGS, *LINK, *(file.read_text() for file in files))
    stamp = out.with_suffix(".built")
    if out.exists() and stamp.exists() and stamp.read_text() == key:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    includes = [f"-isystem{tree}/src/{name}" for name in ("libstrongswan", "libcharon", "include")]
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        objects = []
        for file in files:
            if file.suffix == ".c":
                objects.append(pathlib.Path(scratch) / f"{file.stem}.o")
                run(["gcc", *flags, *WARNINGS, *INTERFACES, "-D_GNU_SOURCE", "-include",
                     tree / "config.h", *includes, "-c", file, "-o", objects[-1]])
        program = pathlib.Path(scratch) / "program"
        static = () if "-g" in flags else ("-static-pie",)
        run(["gcc", *flags, *static, *LINK, "-o", program, *objects,
             *(tree / library for library in LIBRARIES), *SYSTEM])
        if static:
            run(["strip", "--strip-all", program])
        program.rename(out)
    stamp.write_text(key)


def copy_sources(description, directory):
    """Copies what the program is made of, as this repository has it, and strongSwan's source
    package."""
    for name in ("scripts/build-ike", "scripts/build-ike.d", "scripts/lib/python", "scripts/setup",
                 "vswitch/ike"):
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, target)
    package = directory / "strongswan"
    package.mkdir()
    for file in (description, *sorted(description.parent.glob("strongswan_*.tar.*"))):
        shutil.copy2(file, package)


def fuzz(seconds, directory):
    """Tries what the switch may send, on the parser alone, under libFuzzer."""
    program, corpus = directory / "fuzz-message", directory / "fuzz-corpus"
    directory.mkdir(parents=True, exist_ok=True)
    corpus.mkdir(exist_ok=True)
    run(["clang", "-g", "-O1", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror",
         "-fsanitize=fuzzer,address,undefined", SOURCES / "fuzz/message.c", SOURCES / "message.c",
         "-o", program])
    said = run([program, f"-max_total_time={seconds}", corpus, SOURCES / "fuzz/corpus"],
               cwd=directory)
    return said.splitlines()[-1]


def main():
    parser = argparse.ArgumentParser(
        prog="scripts/build-ike", description=ABOUT, epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true",
                        help="look for a newer source package of the same release")
    parser.add_argument("--sanitize", action="store_true",
                        help="build vswitch-charon-asan, with AddressSanitizer, for fuzzing")
    parser.add_argument("--fuzz", metavar="SECONDS", type=int,
                        help="build nothing else; try hostile messages on the plugin's parser")
    parser.add_argument("--sources", metavar="DIR", type=pathlib.Path,
                        help="also copy what it is built from to this new directory, for those who "
                             "get the program (GPL)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    arguments = parser.parse_args()
    flags = SANITIZE if arguments.sanitize else FLAGS
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    out = target / "ike" / ("vswitch-charon-asan" if arguments.sanitize else "vswitch-charon")
    CACHE.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        if arguments.fuzz:
            print(fuzz(arguments.fuzz, target / "ike"))
            return 0
        # Two at once would build in one tree.
        with (CACHE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tree, description = strongswan(arguments.update, flags)
            compile_program(tree, flags, out)
            if arguments.sources:
                copy_sources(description, arguments.sources)
    except (Failure, FileExistsError) as failure:
        log(str(failure))
        return 1
    if not arguments.quiet:
        took = time.monotonic() - began
        print(f"{out}: {out.stat().st_size:,} bytes, {description.stem.replace('_', ' ')}, "
              f"{took:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
