"""Checks that everything the documentation names exists: commands with their options, files, links,
and functions of the source.

    docs.py        checks README.md, CONTRIBUTING.md and docs/; needs the debug binaries

What a document names on purpose although it is not there, as a file that a user makes, is listed in
docs.allow, a line each: the document, the name, and the reason.
"""

import fnmatch
import functools
import pathlib
import re
import subprocess
import sys
import tomllib

from commands import Programs

ROOT = pathlib.Path(__file__).resolve().parents[2]
ALLOWED = pathlib.Path(__file__).with_name("docs.allow")

# A word in code that ends so is a source file or a page of this repository.
OWN_SUFFIXES = (".rs", ".py", ".md")
# Crates of others, whose items are not in our sources.
FOREIGN_CRATES = {"std", "core", "alloc", "libc", "nix", "clap", "tokio", "serde",
                  "serde_json", "smoltcp"}


class Document:
    """A Markdown page, in the parts that are checked: (line number, text)."""

    def __init__(self, path, text):
        self.path = path
        self.blocks, prose = [], []
        fence, block = None, []
        for number, line in enumerate(text.splitlines(), 1):
            if mark := re.match(r"\s*(```+|~~~+)", line):
                if fence is None:
                    fence, block = mark[1], []
                elif mark[1].startswith(fence):
                    self.blocks += joined(block)
                    fence = None
                prose.append("")
            else:
                block.append((number, line))
                prose.append(line if fence is None else "")
        self.spans = list(matches(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", prose, group=2))
        without_code = [re.sub(r"`[^`]*`", lambda code: "x" * len(code[0]), line) for line in prose]
        self.links = list(matches(r"\]\(([^)\s]+)\)", without_code, group=1))
        self.anchors = {slug(line.lstrip("#")) for line in prose if re.match(r"#+ ", line)}


def joined(lines):
    """Lines of a block, with those that a backslash continues as one."""
    result = []
    for number, line in lines:
        if result and result[-1][1].endswith("\\"):
            start, text = result[-1]
            result[-1] = start, text[:-1] + line.strip()
        else:
            result.append((number, line))
    return result


def matches(pattern, lines, group):
    """Matches within paragraphs: a piece of code may be wrapped."""
    start = 0
    for end in [*(at for at, line in enumerate(lines) if not line.strip()), len(lines)]:
        paragraph = "\n".join(lines[start:end])
        for match in re.finditer(pattern, paragraph, re.DOTALL):
            number = start + paragraph[:match.start()].count("\n") + 1
            yield number, " ".join(match[group].split())
        start = end


def slug(heading):
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


class Sources:
    """The repository's files, and what its Rust sources declare."""

    def __init__(self, root):
        self._root = root
        listed = subprocess.run(["git", "-C", root, "ls-files"], check=True, text=True,
                                stdout=subprocess.PIPE).stdout.splitlines()
        self.files = {file for file in listed if (root / file).exists()}
        self.directories = {str(parent) for file in self.files
                            for parent in pathlib.PurePath(file).parents} - {"."}
        self.top = {directory for directory in self.directories if "/" not in directory}

    @functools.cached_property
    def _rust(self):
        """(the modules that a file may be in, its text) of each Rust source."""
        return [(self._modules(pathlib.PurePath(file)), (self._root / file).read_text())
                for file in self.files if file.endswith(".rs")]

    def _modules(self, file):
        """The names on its path, and of its crate."""
        names = {*file.with_suffix("").parts}
        for directory in file.parents:
            if str(manifest := directory / "Cargo.toml") in self.files:
                package = tomllib.loads((self._root / manifest).read_text()).get("package", {})
                names.add(package.get("name", ""))
                break
        return {name.replace("-", "_") for name in names}

    def has_path(self, path, document):
        """Whether there is such a file or directory: from the root, beside the document, or with
        this end."""
        path = path.rstrip("/")
        beside = pathlib.PurePath(document).parent / path
        known = self.files | self.directories
        if "*" in path:
            return any(fnmatch.fnmatch(file, pattern) for file in self.files
                       for pattern in (path, f"*/{path}"))
        return path in known or str(beside) in known or any(
            file.endswith(f"/{path}") for file in known)

    def declares(self, context, name):
        """Whether the module, crate or type `context` has an item of that name."""
        item = rf"(fn|struct|enum|union|trait|type|const|static|mod|macro_rules!)\s+{name}\b"
        of_module = re.compile(rf"^(?!\s).*\b{item}|^pub.* use .*\b{name}\b"
                               rf"|#\[test\]\n(\s*(//|#).*\n)*\s+fn {name}\b", re.MULTILINE)
        of_type = re.compile(rf"^\s+.*\b{item}|^\s+(pub(\(\w+\))?\s+)?{name}\s*[,({{:=]",
                             re.MULTILINE)
        has_type = re.compile(rf"\b(struct|enum|union|trait)\s+{context}\b"
                              rf"|\bimpl\b[^{{\n]*\b{context}\b")
        return any(context in modules and of_module.search(text)
                   or has_type.search(text) and of_type.search(text)
                   for modules, text in self._rust)


class Checker:
    """Finds what is named and does not exist."""

    def __init__(self, sources, programs, documents):
        self._sources, self._programs = sources, programs
        self._documents = {document.path: document for document in documents}
        # (document, line number, name, what is wrong)
        self.problems = []

    def check(self):
        for document in self._documents.values():
            for number, target in document.links:
                self._check_link(document, number, target)
            for number, code in document.spans:
                self._check_code(document, number, code)
                self._check_symbol(document, number, code)
            for number, line in document.blocks:
                self._check_code(document, number, line)
        return self.problems

    def _report(self, document, number, name, problem):
        self.problems.append((document.path, number, name, problem))

    def _check_link(self, document, number, target):
        if re.match(r"[a-z]+:", target):
            return
        path, _, anchor = target.partition("#")
        place = (ROOT / document.path).parent / path if path else ROOT / document.path
        if not place.exists():
            self._report(document, number, target, "links to a file that does not exist")
            return
        name = str(place.resolve().relative_to(ROOT))
        if anchor and name in self._documents and anchor not in self._documents[name].anchors:
            self._report(document, number, target, "links to a heading that does not exist")

    def _check_code(self, document, number, code):
        for problem in self._programs.problems(code):
            self._report(document, number, code, problem)
        for word in re.split(r"[\s,;()\"'=<>|:]+", code):
            word = word.rstrip(".")
            if self._is_own_path(word) and not self._sources.has_path(word, document.path):
                self._report(document, number, word, "is no path of this repository")

    def _is_own_path(self, word):
        stands_for_others = re.search(r"[…$@{}\[\]]|\b[A-Z]{3,}\b(?!\.md)", word)
        if stands_for_others or word.startswith(("/", "~", "-", "..")):
            return False
        first, slash, rest = word.partition("/")
        return (slash and rest and first in self._sources.top) or (
            word.endswith(OWN_SUFFIXES) and word not in OWN_SUFFIXES)

    def _check_symbol(self, document, number, code):
        if not re.fullmatch(r"[A-Za-z_]\w*(::[A-Za-z_]\w*)+(\(\))?", code):
            return
        parts = code.removesuffix("()").split("::")
        is_ipv6 = all(re.fullmatch(r"[0-9a-f]{1,4}", part) for part in parts)
        is_ours = not is_ipv6 and parts[0] not in FOREIGN_CRATES
        if is_ours and not self._sources.declares(*parts[-2:]):
            self._report(document, number, code, "is not in the sources")


def allowed():
    """{(document, name)} that may be named without being there."""
    entries = set()
    for line in ALLOWED.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            document, name, _reason = (part.strip() for part in line.split("|"))
            entries.add((document, name))
    return entries


def without(problems, exceptions):
    """The problems that are not excepted, and the exceptions that are not needed, as sentences."""
    used = set()
    for document, number, name, problem in problems:
        if (document, name) in exceptions:
            used.add((document, name))
        else:
            yield f"{document}:{number}: `{name}` {problem}"
    for document, name in sorted(exceptions - used):
        yield f"scripts/test.d/docs.allow: `{name}` of {document} needs no exception any more"


def main():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    documents = [Document(str(page.relative_to(ROOT)), page.read_text()) for page in pages]
    checker = Checker(Sources(ROOT), Programs(ROOT), documents)
    sentences = list(without(checker.check(), allowed()))
    for sentence in sentences:
        print(sentence)
    print(f"{len(documents)} pages, {len(sentences)} problems")
    return int(bool(sentences))


if __name__ == "__main__":
    sys.exit(main())
