"""The order of a chaos run; `scripts/chaos --help` says more."""

import argparse
import dataclasses
import json
import platform
import random
import signal
import sys
import time

from drawing import draw
from events import every_event
from files import NAMES
from hosts import ScriptError
from rounds import Rounds
from sites import ROOT
from stage import Stage, clean

REPORT = ROOT / "target" / "chaos" / "report.json"
EXIT_BROKEN, EXIT_CANNOT_RUN = 1, 2


def say(message):
    print(f"chaos: {message}", file=sys.stderr, flush=True)


def parse():
    parser = argparse.ArgumentParser(
        prog="scripts/chaos",
        description="Onboards three tenants on this machine, sends steady traffic of each, and "
                    "carries out rounds. Each round draws an event and a tenant that it hits. "
                    "Afterwards the hit tenant must be back without an operator, the others have "
                    "lost no frame, and nothing has leaked. Needs root, and no special hardware. "
                    "It leaves nothing behind.",
        epilog="The same seed draws the same rounds. The figures are also written to "
               f"{REPORT.relative_to(ROOT)}. Exit status: 0 if all rounds were good; 1 if a "
               "promise was broken; 2 if the command line is wrong or it could not run.")
    option = parser.add_argument
    option("--rounds", type=positive, default=20, metavar="N", help="how many (default 20)")
    option("--seed", type=int, metavar="S", help="of the draw (default: another one each time)")
    option("--round", type=positive, metavar="K", help="carry out only the K-th round of the seed")
    option("--first", type=positive, default=1, metavar="K", help="begin with the K-th round")
    option("--event", metavar="NAME", help="only this event, with the victims of the draw")
    option("--vm", action="store_true",
           help="run one tenant's switch in a VM, and kill its QEMU as well; without KVM its boot "
                "takes a minute")
    option("--debug", action="store_true", help="debug builds, which build faster")
    option("--keep-going", action="store_true", help="continue after a round that failed")
    option("--list", action="store_true", help="name the events")
    option("--clean", action="store_true", help="only remove what a killed run has left")
    option("--json", action="store_true", help="print the report as JSON instead of a summary")
    return parser.parse_args()


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def perform(stage, options, drawn, outcomes):
    """Builds the stage, carries out the rounds, and takes it down again: an exit status, and what
    was left behind."""
    before, status, left = stage.site.traces(), EXIT_CANNOT_RUN, {}
    try:
        stage.up(say)
        rounds = Rounds(stage, every_event(options.vm))
        for each in drawn:
            outcome = rounds.carry_out(each)
            outcomes.append(outcome)
            say(outcome.line())
            for failure in outcome.failures:
                say(f"      BROKEN: {failure}")
            if outcome.failures and not options.keep_going:
                break
        status = 0
    except (ScriptError, OSError) as error:
        say(str(error))
    except KeyboardInterrupt:
        say("interrupted")
        status = 130
    finally:
        if stage.ours:
            # A second Ctrl-C must not stop this half way.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            say("taking everything down")
            stage.down()
            left = stage.site.left_behind(before)
    return status, left


def conclude(options, outcomes, left, started):
    """Prints and writes the report; an exit status."""
    failures = [f"round {outcome.round}, {outcome.event}, {outcome.victim}: {failure}"
                for outcome in outcomes for failure in outcome.failures]
    failures += [f"left behind: {kind}: {', '.join(names)}" for kind, names in left.items()]
    report = {
        "seed": options.seed,
        "vm": options.vm,
        "rounds": [dataclasses.asdict(outcome) for outcome in outcomes],
        "failures": failures,
        "seconds": round(time.monotonic() - started),
        "machine": {"kernel": platform.release(), "machine": platform.machine()},
    }
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(text)
    if options.json:
        print(text, end="")
    bad = [outcome for outcome in outcomes if outcome.failures]
    back = [outcome.back_s for outcome in outcomes if outcome.back_s is not None]
    say(f"{len(outcomes)} rounds, {len(bad)} with a broken promise; "
        f"back after {max(back, default=0):.1f} s at most; the others lost "
        f"{sum(outcome.others_lost for outcome in outcomes)} of "
        f"{sum(outcome.others_sent for outcome in outcomes)} frames; "
        f"{report['seconds']} s; {REPORT.relative_to(ROOT)}")
    for outcome in bad:
        say(f"to repeat: scripts/chaos --seed {options.seed} --round {outcome.round}"
            + (" --vm" if options.vm else ""))
    return EXIT_BROKEN if failures else 0


def main():
    options = parse()
    events = every_event(options.vm)
    if options.list:
        print("\n".join(event.name for event in events))
        return 0
    if options.clean:
        site = Stage("debug" if options.debug else "release", vm=False).site
        try:
            site.take("chaos")
        except ScriptError as error:
            say(f"nothing is removed: {error}")
            return EXIT_CANNOT_RUN
        clean(site)
        return 0
    if options.event and options.event not in [event.name for event in events]:
        say(f"there is no event '{options.event}'; --list names them")
        return EXIT_CANNOT_RUN
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    say(f"seed {options.seed}")
    # Events for VMs hit the tenant that has one.
    kinds = [(event.name, NAMES[-1:] if event.vm else ()) for event in events]
    numbers = [options.round] if options.round else range(
        options.first, options.first + options.rounds)
    drawn = [draw(options.seed, number, kinds, NAMES) for number in numbers]
    if options.event:
        drawn = [dataclasses.replace(each, event=options.event) for each in drawn]

    # A killed run cleans up as an interrupted one does, also where the caller ignores Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started, outcomes = time.monotonic(), []
    stage = Stage("debug" if options.debug else "release", options.vm)
    status, left = perform(stage, options, drawn, outcomes)
    return status or conclude(options, outcomes, left, started)


if __name__ == "__main__":
    sys.exit(main())
