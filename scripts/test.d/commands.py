"""What the repository's programs take, from their own --help, and what is wrong with a command
line."""

import functools
import os
import pathlib
import re
import shlex
import subprocess

BINARIES = ("vswitch", "vf-provisioner", "tenant-config", "bench")
# Scripts that hand their options on to a program.
BEHIND = {"scripts/bench": "bench", "scripts/onboard-tenant": "vf-provisioner"}

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


class Help:
    """What one --help says."""

    def __init__(self, text):
        self.options = set(OPTION.findall(text))
        self.with_value = set(re.findall(r"(--[a-z][a-z0-9-]*)[ =]<?[A-Z{]", text))
        commands = re.search(r"^Commands:\n((?:  .*\n|\n(?=  ))*)", text, re.MULTILINE)
        self.commands = set(re.findall(r"^  ([a-z][\w-]*)", commands[1], re.MULTILINE)
                            ) if commands else set()
        arguments = re.search(r"^Arguments:\n((?: .*\n|\n)*?)(?=^\w|\Z)", text, re.MULTILINE)
        self.choices = set(re.findall(r"^ +- ([\w-]+):", arguments[1], re.MULTILINE)
                           ) if arguments else set()


class Programs:
    """The scripts and the debug binaries."""

    def __init__(self, root):
        self._root = root
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or root / "target")
        self._binaries = target / "debug"

    @functools.cache
    def _help(self, program, *commands):
        """What it says; None if there is no such command."""
        own = self._root / program if "/" in program else self._binaries / program
        shown = subprocess.run([own, *commands, "--help"], text=True, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        return Help(shown.stdout) if shown.returncode == 0 else None

    @functools.cached_property
    def _suites(self):
        listed = subprocess.run([self._root / "scripts/test", "--list"], text=True, check=True,
                                stdout=subprocess.PIPE).stdout
        return {line.split()[0] for line in listed.splitlines()}

    @functools.cached_property
    def _scripts(self):
        return [f"scripts/{path.name}" for path in sorted((self._root / "scripts").iterdir())
                if path.is_file()]

    @functools.cached_property
    def _commands(self):
        """{a command of any of the binaries: its options}."""
        options = {}
        for program in BINARIES:
            for command in self._help(program).commands - {"help"}:
                options.setdefault(command, set()).update(
                    self._help(program).options | self._help(program, command).options)
        return options

    @functools.cached_property
    def _all_options(self):
        # The IKE daemon is not built for this: its source has its help.
        source = self._root / "vswitch/ike/main.c"
        daemon = Help(source.read_text() if source.exists() else "")
        return set().union({"--help", "--version"}, daemon.options, *self._commands.values(),
                           *(self._help(each).options for each in (*BINARIES, *self._scripts)))

    def problems(self, code):
        """What is wrong with the commands in a piece of code."""
        if re.search(r"[\u2500-\u257f►◄▲▼]", code):
            return  # a drawing
        for command in re.split(r"&&|;|\||(?<!\S)#.*", code):
            words = words_of(command)
            if not words:
                continue
            if words[0] in self._scripts:
                yield from self._script(words[0], words[1:])
            elif words[0].startswith("scripts/") and not (self._root / words[0]).exists():
                yield f"names {words[0]}, which does not exist"
            elif pathlib.PurePath(words[0]).name in BINARIES and not words[0].endswith("/"):
                yield from self._binary(pathlib.PurePath(words[0]).name, words[1:])
            elif words[0].startswith("--"):
                yield from unknown(words, self._all_options)
            elif words[0] in self._commands:
                yield from unknown(words, self._commands[words[0]])

    def _script(self, script, words):
        if "--" in words:
            words = words[:words.index("--")]
        if script in BEHIND:
            own = self._help(script).options
            yield from self._binary(BEHIND[script], words, own, free=script != "scripts/bench")
            return
        yield from unknown(words, self._help(script).options | {"--help"})
        if script == "scripts/test":
            for word in words:
                if re.fullmatch(r"[a-z]+", word) and word not in self._suites:
                    yield f"names a suite '{word}', which does not exist"

    def _binary(self, program, words, options=frozenset(), free=False):
        """`free`: the words are no subcommands."""
        here, path, options = self._help(program), (program,), set(options) | {"--version"}
        taken, values = False, set()
        for word, before in zip(words, [None, *words]):
            options |= here.options
            values |= here.with_value
            if word.startswith("-") or word == "help" or before in values or placeholder(word):
                continue
            if here.commands and not free and re.fullmatch(r"[a-z][a-z-]*", word):
                # Some are in no list, but have a --help.
                below = self._help(*path, word)
                if below is None:
                    yield f"names a command '{word}' that {' '.join(path)} does not have"
                    return
                here, path = below, (*path, word)
                continue
            if here.choices and not taken and word not in here.choices:
                yield f"names '{word}', which {' '.join(path)} does not take"
            taken = True
        yield from unknown(words, options | here.options | {"--help"})


def unknown(words, options):
    for word in words:
        for option in OPTION.findall(word):
            if option not in options:
                yield f"has an option {option} that does not exist"


def placeholder(word):
    """A word that stands for others: capitals, an ellipsis, a choice in brackets."""
    return re.search(r"[A-Z…<>{}\[\]*$/.]", word) is not None


def words_of(command):
    """The words of a command line, without prompt, `sudo` and environment; brackets mark
    options."""
    command = re.sub(r"^\s*(\$ |# )", "", command)
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    while words and (words[0] == "sudo" or re.fullmatch(r"[A-Z_]+=.*", words[0])):
        words = words[1:]
    return [word.strip("[]") for word in words]
