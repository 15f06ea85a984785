"""Runs the fuzz targets one after the other under libFuzzer, and says what each came to."""

import argparse
import contextlib
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time

from covering import most_covering
from targets import ROOT, targets

# Of one input, in bytes: a jumbo frame, and a tenant file of a usual size.
LONGEST = 9200
# libFuzzer's exit status after SIGINT.
INTERRUPTED = 72


def arguments(known):
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description=__doc__,
        epilog="An input that makes a target fail is kept in its `crashes` directory, and fails "
               "the ordinary test from then on. With --keep, inputs that reach new code are added "
               "to the corpus, which is then reduced to what is needed.")
    parser.add_argument("target", nargs="*", metavar="TARGET",
                        help=f"which of them, by default all: {', '.join(known)}")
    parser.add_argument("--list", action="store_true", help="name the targets and their crates")
    parser.add_argument("--seconds", type=int, default=60, help="per target (default 60)")
    parser.add_argument("--processor-seconds", type=int, metavar="N",
                        help="processor time per target, instead of a time: for a shared machine")
    parser.add_argument("--runs", type=int, help="executions per target, instead of a time")
    parser.add_argument("--seeds", type=pathlib.Path, metavar="DIR",
                        help="further inputs to start from, besides the corpus")
    parser.add_argument("--keep", action="store_true", help="add to the corpus what is new")
    parser.add_argument("--json", action="store_true", help="the results as JSON")
    options = parser.parse_args()
    if unknown := set(options.target) - set(known):
        parser.error(f"no target {', '.join(sorted(unknown))}: scripts/fuzz --list")
    return options


# libFuzzer's instrumentation, as bolero expects it. All of it is stable Rust.
COVERAGE = [
    "--cfg", "fuzzing_libfuzzer", "-Cpasses=sancov-module",
    *(f"-Cllvm-args=-sanitizer-coverage-{what}"
      for what in ("level=4", "inline-8bit-counters", "pc-table", "trace-compares",
                   "stack-depth")),
]


def build(target):
    """Builds the test binary of a target with coverage; its path."""
    host = re.search(r"host: (.*)", subprocess.run(["rustc", "-vV"], check=True, text=True,
                                                   stdout=subprocess.PIPE).stdout)[1]
    # With a target, cargo leaves build scripts alone.
    command = ["cargo", "test", "--quiet", "--locked", "--no-run", "--profile", "fuzz",
               "--target", host, "--target-dir", "target/fuzz", "--package", target.package,
               *target.binary, "--message-format", "json"]
    built = subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE,
                           env={**os.environ, "RUSTFLAGS": " ".join(COVERAGE),
                                "RUSTC_WRAPPER": str(ROOT / "scripts/fuzz.d/rustc")})
    messages = map(json.loads, built.stdout.splitlines())
    return next(message["executable"] for message in messages
                if message.get("executable") and message["profile"]["test"])


def run(binary, target, arguments, processor_s=None):
    """Runs libFuzzer on a target, for so much processor time at most; its exit status and what it
    printed."""
    crashes = target.directory / "crashes"
    crashes.mkdir(parents=True, exist_ok=True)
    options = [f"-artifact_prefix={crashes}/", f"-max_len={LONGEST}", "-timeout=10", *arguments]
    env = {**os.environ, "BOLERO_LIBTEST_HARNESS": "1", "BOLERO_TEST_NAME": target.test,
           "BOLERO_LIBFUZZER_ARGS": " ".join(map(str, options))}
    ran = subprocess.Popen([binary, target.test, "--exact", "--nocapture", "--quiet",
                            "--test-threads", "1"],
                           cwd=target.crate, env=env, text=True, errors="replace",
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if processor_s:
        threading.Thread(target=end_after, args=(ran, processor_s), daemon=True).start()
    text, _ = ran.communicate()
    if not any(crashes.iterdir()):
        crashes.rmdir()
    at_its_end = processor_s and ran.returncode == INTERRUPTED
    return 0 if at_its_end else ran.returncode, text


def end_after(process, processor_s):
    """Interrupts libFuzzer, which then reports and ends, once it has had that processor time."""
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if processor_time(process.pid) >= processor_s:
                process.send_signal(signal.SIGINT)
                return
        time.sleep(1)


def processor_time(pid):
    """What a process has had so far, in seconds."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # In user and in kernel mode: proc(5), fields 14 and 15.
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def processor_time_of_children():
    """What all ended children have had so far, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def fuzz(target, options):
    """Runs one target; what it came to."""
    target.corpus.mkdir(parents=True, exist_ok=True)
    before = len(list(target.corpus.iterdir()))
    with tempfile.TemporaryDirectory(prefix="fuzz-") as work:
        found = pathlib.Path(work) / "found"
        found.mkdir()
        for source in filter(None, [target.corpus, options.seeds]):
            for file in source.iterdir():
                (found / file.name).write_bytes(file.read_bytes())
        bounds = [f"-runs={options.runs}"] if options.runs else []
        if not (options.runs or options.processor_seconds):
            bounds = [f"-max_total_time={options.seconds}"]
        binary, began = build(target), time.monotonic()
        processor_s = processor_time_of_children()
        status, text = run(binary, target, [*bounds, "-print_final_stats=1", found],
                           options.processor_seconds)
        processor_s = processor_time_of_children() - processor_s
        took_s = time.monotonic() - began
        log = ROOT / "target/fuzz" / f"{target.name}.log"
        log.write_text(text)
        executions = re.search(r"stat::number_of_executed_units:\s*(\d+)", text)
        covered = re.findall(r"cov: (\d+)", text)
        if options.keep and status == 0:
            reduce(binary, target, found)
    return {
        "target": target.name,
        "executions": int(executions[1]) if executions else 0,
        "covered_edges": int(covered[-1]) if covered else 0,
        "seconds": round(took_s, 1),
        "processor_seconds": round(processor_s, 1),
        "corpus_before": before,
        "corpus": len(list(target.corpus.iterdir())),
        "failed": status != 0 or not executions,
        "log": str(log.relative_to(ROOT)),
    }


def reduce(binary, target, found):
    """Replaces the corpus by those of the inputs found that together reach most code."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as work:
        control = pathlib.Path(work) / "control"
        status, text = run(binary, target, ["-merge=1", f"-merge_control_file={control}",
                                            "-use_counters=0", work, found])
        if status != 0:
            raise SystemExit(f"fuzz: {target.name}: its inputs cannot be compared\n{text}")
        kept = [pathlib.Path(file) for file in most_covering(control.read_text())]
        texts = {file.name: file.read_bytes() for file in kept}
    for file in target.corpus.iterdir():
        file.unlink()
    for name, text in texts.items():
        (target.corpus / name).write_bytes(text)


def main():
    known = targets()
    options = arguments(known)
    if options.list:
        for target in known.values():
            print(f"{target.name:36} {target.package:16} {target.source.relative_to(ROOT)}")
        return 0
    os.environ.setdefault("CARGO_TERM_PROGRESS_WHEN", "never")
    results = []
    for name in options.target or known:
        print(f"fuzz: {name} (the first build takes minutes)", file=sys.stderr, flush=True)
        results.append(fuzz(known[name], options))
    if options.json:
        print(json.dumps(results))
    else:
        print(f"{'target':36} {'executions':>12} {'edges':>7} {'corpus':>11} {'seconds':>8}"
              f" {'processor':>9}  result")
        for result in results:
            corpus = f"{result['corpus_before']} → {result['corpus']}"
            verdict = f"FAILED: {result['log']}" if result["failed"] else "nothing found"
            print(f"{result['target']:36} {result['executions']:12,} {result['covered_edges']:7,}"
                  f" {corpus:>11} {result['seconds']:8.0f} {result['processor_seconds']:9.0f}"
                  f"  {verdict}")
    return int(any(result["failed"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
