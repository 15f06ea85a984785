"""The fuzz targets: each is a test of a crate, with a corpus beside it."""

import pathlib
import re
import subprocess
import tomllib
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Target(NamedTuple):
    """A test that calls bolero."""

    name: str
    package: str
    # The directory of its manifest.
    crate: pathlib.Path
    source: pathlib.Path
    # As libFuzzer and the test's own path name it, without the crate.
    test: str

    @property
    def directory(self):
        """Where bolero keeps the target's corpus, and what made it fail."""
        return self.source.parent / "__fuzz__" / self.test.replace("::", "__")

    @property
    def binary(self):
        """The options by which cargo builds the test's binary alone."""
        if self.source.relative_to(self.crate).parts[0] != "tests":
            return ["--lib"]
        manifest = tomllib.loads((self.crate / "Cargo.toml").read_text())
        features = [feature for test in manifest.get("test", []) if test["name"] == self.source.stem
                    for feature in test.get("required-features", [])]
        return ["--test", self.source.stem, "--features", ",".join(features)]

    @property
    def corpus(self):
        return self.directory / "corpus"


def targets(root=ROOT):
    """All targets of the repository, by name."""
    listed = subprocess.run(["git", "-C", root, "ls-files", "--cached", "--others",
                             "--exclude-standard", "*.rs"],
                            check=True, text=True, stdout=subprocess.PIPE).stdout.splitlines()
    found = {}
    for file in sorted(listed):
        source = root / file
        if not source.exists():
            continue
        text = source.read_text()
        for check in re.finditer(r"bolero::check!", text):
            *_, match = re.finditer(r"#\[test\]\s+fn (\w+)\(\)", text[:check.start()])
            manifest = next(directory / "Cargo.toml" for directory in source.parents
                            if (directory / "Cargo.toml").exists())
            package = tomllib.loads(manifest.read_text())["package"]["name"]
            module = inner_module(manifest.parent, source, text, match.start())
            name = match[1]
            test = "::".join([*module, name])
            found[name] = Target(name, package, manifest.parent, source, test)
    return dict(sorted(found.items()))


def inner_module(crate, source, text, place):
    """The modules that hold the test, from the crate's root: none in a file of `tests`."""
    relative = source.relative_to(crate).with_suffix("").parts
    if relative[0] == "tests":
        return []
    path = [part for part in relative[1:] if part not in ("mod", "lib", "main")]
    inside = re.findall(r"^mod (\w+) \{", text[:place], re.MULTILINE)
    return [*path, *inside[-1:]]
