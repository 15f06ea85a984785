"""The checks of what the documentation names, on pages and programs made for them."""

import pathlib
import subprocess
import tempfile
import unittest

import docs
from commands import Help, Programs

PROGRAM = """#!/bin/sh
case "$*" in
--help) printf 'Commands:\\n  run   Run it\\n  help  Help\\n\\nOptions:\\n  --dir <DIR>  It\\n' ;;
'run --help') printf 'Arguments:\\n  <WHAT>\\n    - one: First\\n\\nOptions:\\n  --fast  Soon\\n' ;;
'hidden --help') printf 'Options:\\n  --deep  So\\n' ;;
*) exit 2 ;;
esac
"""
TUNNEL = "pub struct Way;\nimpl Way {\n    pub fn send() {}\n}\n"
TEST = "#!/bin/sh\ncase $1 in --list) echo 'unit  all of it' ;; *) echo '[--quick]' ;; esac\n"


class Repository(unittest.TestCase):
    """A small repository with one program of each kind."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name)
        self.write("scripts/test", TEST)
        self.write("scripts/onboard-tenant", "#!/bin/sh\necho --json\n")
        self.write("vswitch/src/tunnel.rs", TUNNEL)
        self.write("vswitch/Cargo.toml", '[package]\nname = "the-switch"\n')
        self.write("vswitch/src/lib.rs", "pub mod worker;\n")
        self.write("vswitch/src/worker/mod.rs", "enum Turn {\n    Poll,\n}\nfn run() {}\n")
        for binary in ("vswitch", "vf-provisioner", "tenant-config", "bench"):
            self.write(f"target/debug/{binary}", PROGRAM)
        self.write(".gitignore", "/target\n")
        subprocess.run(["git", "init", "--quiet", self.root], check=True)
        subprocess.run(["git", "-C", self.root, "add", "."], check=True)
        self.programs = Programs(self.root)

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)


class CommandTest(Repository):
    def assert_problem(self, command, *words):
        problems = list(self.programs.problems(command))
        self.assertEqual(len(problems), 1, problems)
        for word in words:
            self.assertIn(word, problems[0])

    def assert_right(self, *commands):
        for command in commands:
            self.assertEqual(list(self.programs.problems(command)), [], command)

    def test_known_commands_and_options_pass(self):
        self.assert_right(
            "vswitch run one --fast", "sudo vswitch --dir here run one", "bench hidden --deep",
            "target/release/vswitch run one # --what", "vswitch COMMAND --help", "--fast",
            "scripts/test --quick unit", "vswitch run [--fast]", "ls --color", "vswitch ──► bench",
            "scripts/onboard-tenant --json --dir here red")

    def test_unknown_command_is_a_problem(self):
        self.assert_problem("vswitch walk", "'walk'")

    def test_unknown_option_is_a_problem(self):
        self.assert_problem("vswitch run one --slow", "--slow")
        self.assert_problem("scripts/test --slow unit", "--slow")
        self.assert_problem("run --slow", "--slow")
        self.assert_problem("--slow", "--slow")

    def test_option_of_another_command_is_a_problem(self):
        self.assert_problem("vswitch hidden --fast", "--fast")

    def test_unknown_choice_is_a_problem(self):
        self.assert_problem("vswitch run two", "'two'")

    def test_unknown_suite_is_a_problem(self):
        self.assert_problem("scripts/test none", "'none'")

    def test_unknown_script_is_a_problem(self):
        self.assert_problem("make && scripts/nothing --quick", "scripts/nothing")

    def test_options_of_help_have_values_or_not(self):
        text = "  --dir <DIR>  where\n  --env NAME  what\n  --fast\n"
        self.assertEqual(Help(text).with_value, {"--dir", "--env"})


class PageTest(Repository):
    def problems(self, text):
        self.write("docs/page.md", text)
        page = docs.Document("docs/page.md", text)
        checker = docs.Checker(docs.Sources(self.root), self.programs, [page])
        return [(number, name) for _, number, name, _ in checker.check()]

    def test_existing_names_pass(self):
        self.assertEqual(self.problems(
            "`tunnel::Way`, `Way::send`, `worker::run`, `Turn::Poll`, `std::mem::swap`,\n"
            "`fe80::a`, `the_switch::worker`, "
            "`vswitch/src/tunnel.rs`, `tunnel.rs`, `worker/mod.rs`, `vswitch/src/`, `NAME/x.rs`,\n"
            "`vswitch/*/tunnel.rs`, and\n```\nscripts/test \\\n  unit\n```\n"), [])

    def test_missing_function_is_a_problem(self):
        self.assertEqual(self.problems("One\n\ntwo `Way::receive`"), [(3, "Way::receive")])

    def test_method_is_no_function_of_its_module(self):
        self.assertEqual(self.problems("`tunnel::send`"), [(1, "tunnel::send")])

    def test_missing_path_is_a_problem(self):
        self.assertEqual(self.problems("`vswitch/src/none`"), [(1, "vswitch/src/none")])
        self.assertEqual(self.problems("```\ncat vswitch/no.toml\n```"), [(2, "vswitch/no.toml")])
        self.assertEqual(self.problems("in `none.rs`"), [(1, "none.rs")])

    def test_wrapped_code_is_one_command(self):
        self.assertEqual(self.problems("Say `scripts/test\n--slow unit`."),
                         [(1, "scripts/test --slow unit")])

    def test_continued_line_is_one_command(self):
        self.assertEqual(self.problems("```\nvswitch run \\\n    two\n```"),
                         [(2, "vswitch run two")])


class ExceptionTest(unittest.TestCase):
    PROBLEM = ("docs/page.md", 3, "x.rs", "is no path of this repository")

    def test_exception_hides_its_problem(self):
        self.assertEqual(list(docs.without([self.PROBLEM], {("docs/page.md", "x.rs")})), [])

    def test_exception_without_a_problem_is_one(self):
        sentence, = docs.without([], {("docs/page.md", "x.rs")})
        self.assertIn("needs no exception", sentence)

    def test_problem_names_page_and_line(self):
        sentence, = docs.without([self.PROBLEM], set())
        self.assertEqual(sentence, "docs/page.md:3: `x.rs` is no path of this repository")


if __name__ == "__main__":
    unittest.main()
