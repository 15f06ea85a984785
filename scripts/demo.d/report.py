"""The closing tables, and the same as JSON."""

import dataclasses
import json
import platform


def rows(headings, lines):
    """A table with numbers aligned to the right."""
    lines = [[str(cell) for cell in line] for line in lines]
    widths = [max(len(row[column]) for row in [headings, *lines])
              for column in range(len(headings))]
    numeric = [all(line[column].isdigit() for line in lines) for column in range(len(headings))]

    def text(row):
        cells = (cell.rjust(width) if right else cell.ljust(width) for cell, width,
                 right in zip(row, widths, numeric))
        return "  ".join(cells).rstrip()

    return "\n".join([text(headings), text(["─" * width for width in widths]), *map(text, lines)])


def attack_table(attacks):
    by_nic = any(attack.kept_by_nic for attack in attacks)
    return rows(
        ["attack", "tool", "sent", "delivered", "reason", "counted", *(["NIC"] if by_nic else [])],
        [[a.name, a.tool, a.sent, a.delivered, a.reason, a.counted,
          *([a.kept_by_nic] if by_nic else [])] for a in attacks])


def isolation_table(heading, tries):
    return rows([heading, "sent", "delivered"], [[t.name, t.sent, t.delivered] for t in tries])


def good_table(good):
    return rows(["good traffic", "sent", "delivered", "rate"],
                [[g.name, g.sent, g.delivered, g.rate] for g in good])


def speed_lines(speeds):
    return "\n".join(f"{s.name}: {s.bits_per_second / 1e6:.0f} Mbit/s" for s in speeds)


class Report:
    """Everything that was counted."""

    def __init__(self):
        self.good, self.speed, self.isolation, self.attacks, self.restart = [], [], [], [], None
        # The counts between two hosts, if there were two.
        self.between = None
        # What guests with DHCP and keepalived came to.
        self.ordinary = None
        # What was counted of a tunnel under IPsec, if there was one.
        self.encrypted = None
        self.leftovers = None

    def _between_hosts(self):
        return [part for part in (self.between, self.encrypted) if part]

    def all_attacks(self):
        return [*self.attacks, *(one for part in self._between_hosts() for one in part.attacks)]

    def all_good(self):
        return [*self.good, *(one for part in self._between_hosts() for one in part.good)]

    def failures(self):
        """Each failure, as a sentence."""
        for good in self.all_good():
            if good.sent == 0:
                yield f"{good.name}: nothing was sent"
            elif good.lost:
                yield f"{good.name}: {good.lost} of {good.sent} frames were lost"
        for attempt in self.isolation:
            if attempt.failure:
                yield f"red to blue, {attempt.name}: {attempt.failure}"
        for attempt in self.between.isolation if self.between else []:
            if attempt.failure:
                yield f"{attempt.name}: {attempt.failure}"
        for attack in self.all_attacks():
            if attack.failure:
                yield f"{attack.name}: {attack.failure}"
        if self.restart:
            yield from self.restart.failures
        for part in (self.ordinary, self.encrypted):
            if part:
                yield from part.failures
        for kind, left in (self.leftovers or {}).items():
            yield f"left behind: {kind}: {', '.join(left)}"

    def text(self):
        parts = [attack_table(self.attacks), isolation_table("red to blue", self.isolation),
                 good_table(self.good), speed_lines(self.speed)]
        if self.between:
            parts += ["Between hosts", attack_table(self.between.attacks),
                      isolation_table("one tenant to the other", self.between.isolation),
                      good_table(self.between.good), speed_lines(self.between.speed),
                      f"red's tunnels: {self.between.tunnels.strip()}"]
        if self.restart:
            r = self.restart
            back = "more than 15" if r.outage_s is None else r.outage_s
            parts.append(
                f"red's switch killed (SIGKILL): a new one after {r.restarted_s:.3f} s, all of "
                f"red's traffic back after {back} s;\n"
                f"meanwhile {r.delivered_while_down} of red's frames got through, and blue lost "
                f"{r.other_tenant_lost} of {r.other_tenant_sent} frames.")
        if self.ordinary:
            parts.append(self.ordinary.summary())
        if self.encrypted:
            parts += [attack_table(self.encrypted.attacks), good_table(self.encrypted.good),
                      speed_lines(self.encrypted.speed), self.encrypted.summary()]
        return "\n\n".join(parts)

    def json(self):
        return json.dumps({
            "good": [dataclasses.asdict(good) for good in self.good],
            "attacks": [dataclasses.asdict(attack) for attack in self.attacks],
            "restart": dataclasses.asdict(self.restart) if self.restart else None,
            "isolation": [dataclasses.asdict(attempt) for attempt in self.isolation],
            "speed": [dataclasses.asdict(speed) for speed in self.speed],
            "between": self.between.as_dict() if self.between else None,
            "ordinary": self.ordinary.as_dict() if self.ordinary else None,
            "encrypted": self.encrypted.as_dict() if self.encrypted else None,
            "failures": list(self.failures()),
            "machine": {"kernel": platform.release(), "machine": platform.machine()},
        }, indent=2, ensure_ascii=False) + "\n"
