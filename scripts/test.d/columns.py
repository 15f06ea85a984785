"""Checks that no line of source, script or page is longer than 100 columns.

In Markdown, tables and blocks of code may be: they cannot be wrapped.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLUMNS_MAX = 100
SUFFIXES = (".rs", ".py", ".sh", ".md")


def is_checked(path):
    """By its name, or as a script by its first line."""
    if path.suffix:
        return path.suffix in SUFFIXES
    with path.open("rb") as file:
        return re.match(rb"#!.*\b(ba)?sh\b", file.readline()) is not None


def too_long(text, markdown=False):
    """(line number, columns) of each line that is too long."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if markdown and re.match(r"\s*(```|~~~)", line):
            fenced = not fenced
        if len(line) <= COLUMNS_MAX or (markdown and (fenced or not can_be_wrapped(line))):
            continue
        yield number, len(line)


def can_be_wrapped(line):
    """A table's row cannot, nor a heading, nor a line that begins with a word of that length."""
    first = re.match(r"\s*([-*] |\d+\. )?\S*", line)[0]
    return not line.lstrip().startswith(("|", "#")) and len(first) <= COLUMNS_MAX


def main():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "--cached", "--others",
                             "--exclude-standard"], check=True, text=True, stdout=subprocess.PIPE)
    files = problems = 0
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if not path.is_file() or path.is_symlink() or not is_checked(path):
            continue
        files += 1
        lines = list(too_long(path.read_text(), path.suffix == ".md"))
        problems += len(lines)
        for number, columns in lines:
            print(f"{name}:{number}: {columns} columns")
    print(f"{files} files, {problems} lines longer than {COLUMNS_MAX} columns")
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main())
