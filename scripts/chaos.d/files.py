"""The tenants' files: three tenants with nothing in common but the underlay."""

import itertools

NAMES = ("red", "blue", "green")

TEXT = """\
name = "{name}"
vni  = {vni}

[gateway]
ipv4 = "10.77.{n}.1/24"
ipv6 = "fd00:77:{n}::1/64"

[uplink]
address   = "192.0.2.{host}/24"
next_hop  = "192.0.2.1"
address6  = "2001:db8::{host}/64"
next_hop6 = "2001:db8::1"
mtu       = {mtu}
"""

PORT = """
[[port]]
name = "{name}-vm{vm}"
mac  = "52:54:00:77:0{n}:0{vm}"
addresses = ["10.77.{n}.1{vm}", "fd00:77:{n}::1{vm}"]
limits = {{ broadcast_pps = {limit}, arp_nd_pps = 50 }}
"""


class Files:
    """One directory for each launcher, since `apply` has one for all files that it is given."""

    def __init__(self, directory, launchers):
        """`launchers`: {tenant: launcher}."""
        self._directory, self._launchers = directory, launchers
        self._versions = {name: itertools.count() for name in launchers}
        for name in launchers:
            self.directory(name).mkdir(parents=True, exist_ok=True)
            self.write(name)

    def directory(self, tenant):
        return self._directory / self._launchers[tenant]

    def path(self, tenant):
        return self.directory(tenant) / f"{tenant}.toml"

    def directories(self):
        """[(launcher, directory)]"""
        return [(launcher, self._directory / launcher)
                for launcher in sorted(set(self._launchers.values()))]

    def write(self, tenant, mtu=1500, limit=100, ports=2):
        n = list(self._launchers).index(tenant) + 1
        text = TEXT.format(name=tenant, vni=7700 + n, n=n, host=10 + n, mtu=mtu)
        text += "".join(PORT.format(name=tenant, n=n, vm=vm, limit=limit)
                        for vm in range(1, ports + 1))
        # Whole or not at all: an apply may read it now.
        new = self.path(tenant).with_suffix(".new")
        new.write_text(text)
        new.rename(self.path(tenant))

    def change(self, tenant, chance):
        """Another version of the tenant's file: a limit, which is reloaded, or the uplink's MTU or
        one more port, which restart the switch."""
        version = next(self._versions[tenant])
        changes = ({"limit": 101 + version % 99}, {"mtu": 1510 + 10 * (version % 9)}, {"ports": 3})
        self.write(tenant, **changes[int(chance * len(changes))])

    def restore(self, tenant):
        self.write(tenant)
