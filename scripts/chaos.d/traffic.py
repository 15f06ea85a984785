"""The steady traffic of all tenants, and what it lost."""

import json
import os
import pathlib
import subprocess
import sys

from accounting import Account
from hosts import ScriptError

SENDER = pathlib.Path(__file__).with_name("sender.py")
PER_SECOND = 50


def flows_of(tenant, internet):
    """Within the tenant and to the Internet, both directions, IPv4 and IPv6."""
    one, two = tenant.guests[:2]
    for a, b, ipv6 in ((one, two, False), (two, one, True), (one, internet, False),
                       (internet, one, False), (two, internet, True), (internet, two, True)):
        ends = [[host.netns, host.ipv6 if ipv6 else host.ipv4] for host in (a, b)]
        yield {"name": f"{tenant.name}: {a.name} → {b.name}, {'IPv6' if ipv6 else 'IPv4'}",
               "tenant": tenant.name,
               "outside": internet in (a, b), "ends": ends, "per_second": PER_SECOND}


class Traffic:
    """The flows of all tenants; they run until `stop`."""

    def __init__(self, tenants, internet):
        flows = [flow for tenant in tenants for flow in flows_of(tenant, internet)]
        self._flows = flows
        self._process = subprocess.Popen(
            [sys.executable, SENDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            # Ctrl-C ends the run, and the run ends its traffic.
            start_new_session=True, env=os.environ)
        self._ask(json.dumps(flows))

    def _ask(self, line):
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise ScriptError("the traffic ended by itself; its message is above")
        return json.loads(answer)

    def of_tenant(self, tenant):
        """The names of a tenant's flows."""
        return {flow["name"] for flow in self._flows if flow["tenant"] == tenant.name}

    def to_internet(self):
        """The names of all flows to and from the Internet."""
        return {flow["name"] for flow in self._flows if flow["outside"]}

    def whole_s(self, names):
        """For how long no frame of these flows is missing; None if the newest ones are."""
        ages = [age for name, age in self._ask("whole").items() if name in names]
        return None if None in ages else min(ages)

    def cut(self):
        """{flow: account} of every frame since the last cut."""
        return {name: Account(**account) for name, account in self._ask("cut").items()}

    def stop(self):
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
