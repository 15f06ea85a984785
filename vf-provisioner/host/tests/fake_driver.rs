//! Settings of functions by drivers that are only a table, and refuse what real ones refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nix::errno::Errno;
use tenant_config::{MacAddr, NicAttribute, VlanId};
use vf_host::error::HostError;
use vf_host::nic::sriov::function::{VfSettings, is_parked};
use vf_host::nic::sriov::inventory::Inventory;
use vf_host::nic::sriov::setting::{BUSY_FOR, Card, Setting, bring};

/// What a driver does besides setting what it is asked for.
#[derive(Default)]
struct FakeCard {
    vf: VfSettings,
    /// How often it is still in reset.
    busy: u32,
    /// The number that it refuses with while in reset.
    busy_with: Option<Errno>,
    refuses: BTreeMap<&'static str, Errno>,
    asked: Vec<String>,
    paused: Duration,
}

fn refused(errno: Errno) -> Result<(), HostError> {
    Err(HostError::Io {
        what: "cannot set a VF of pf0".to_owned(),
        source: errno.into(),
    })
}

impl Card for FakeCard {
    fn label(&self) -> String {
        "pf0".to_owned()
    }

    fn settings(&self, index: u32) -> Result<Option<VfSettings>, HostError> {
        Ok((index == 3).then(|| self.vf.clone()))
    }

    fn set(&mut self, _: u32, setting: &Setting) -> Result<(), HostError> {
        self.asked.push(setting.to_string());
        if self.busy > 0 {
            self.busy -= 1;
            return refused(self.busy_with.unwrap_or(Errno::EBUSY));
        }
        if let Some(errno) = self.refuses.get(&*setting.to_string()) {
            return refused(*errno);
        }
        let vf = &mut self.vf;
        match setting.clone() {
            Setting::Mac(mac) => vf.mac = mac,
            Setting::Vlan(vlan, qos) => (vf.vlan, vf.qos) = (vlan, qos),
            Setting::VlanProtocol(.., protocol) => vf.vlan_protocol = protocol,
            Setting::SpoofCheck(on) => vf.spoof_check = on,
            Setting::Trust(on) => vf.trust = on,
            Setting::LinkState(state) => vf.link_state = state,
            Setting::MaxRate(most) => vf.max_rate_mbit = most,
            Setting::Rates(least, _) => vf.min_rate_mbit = least,
        }
        Ok(())
    }

    fn pause(&mut self, length: Duration) {
        self.paused += length;
    }
}

fn mac() -> Option<MacAddr> {
    "52:54:00:00:01:01".parse().ok()
}

fn tenants() -> VfSettings {
    VfSettings {
        mac: mac(),
        vlan: VlanId::new(3000).ok(),
        ..VfSettings::default()
    }
}

fn set(card: &mut FakeCard, want: &VfSettings, accept: &[NicAttribute]) -> Result<(), String> {
    let accept: BTreeSet<NicAttribute> = accept.iter().copied().collect();
    bring(card, 3, want, &accept).map_err(|error| error.to_string())
}

#[test]
fn busy_driver_is_asked_again() {
    for busy_with in [Errno::EBUSY, Errno::EAGAIN] {
        let mut card = FakeCard {
            busy: 4,
            busy_with: Some(busy_with),
            ..FakeCard::default()
        };
        set(&mut card, &tenants(), &[]).expect("it is busy for a moment only");
        assert_eq!(card.vf, tenants());
        let mac = "the MAC 52:54:00:00:01:01";
        assert_eq!(card.asked, [mac, mac, mac, mac, mac, "the VLAN 3000"]);
        assert_eq!(card.paused, Duration::from_millis(20 + 40 + 80 + 160));
    }
}

#[test]
fn driver_that_stays_busy_is_named_with_function_and_setting() {
    let mut card = FakeCard {
        busy: u32::MAX,
        ..FakeCard::default()
    };
    // Not even an accepted setting hides that the function hangs.
    let want = VfSettings {
        trust: true,
        ..VfSettings::default()
    };
    let error = set(&mut card, &want, &[]).expect_err("it is busy for ever");
    assert_eq!(
        error,
        "pf0 VF 3: the NIC's driver is busy and does not take trust: cannot set a VF of pf0: \
         Device or resource busy (os error 16), for 10 s: the function may hang in a reset"
    );
    let most = BUSY_FOR + Duration::from_millis(500);
    assert!(
        card.paused >= BUSY_FOR && card.paused < most,
        "{:?}",
        card.paused
    );
}

#[test]
fn refusal_is_named_with_function_and_setting() {
    let of = |what: &'static str| FakeCard {
        refuses: BTreeMap::from([(what, Errno::EINVAL)]),
        ..FakeCard::default()
    };
    let cause = "cannot set a VF of pf0: Invalid argument (os error 22)";
    let mut card = of("the VLAN 3000");
    assert_eq!(
        set(&mut card, &tenants(), &[NicAttribute::LinkState]),
        Err(format!(
            "pf0 VF 3: the NIC's driver refuses the VLAN 3000: {cause}"
        ))
    );
    assert_eq!(card.paused, Duration::ZERO);
    let enabled = VfSettings {
        link_state: "enable".to_owned(),
        ..VfSettings::default()
    };
    let mut card = of("link state enable");
    assert_eq!(
        set(&mut card, &enabled, &[]),
        Err(format!(
            "pf0 VF 3: the NIC's driver refuses link state enable: {cause}; if the tenant does \
             not need it, accept that in its file: [nic] accept = [\"link-state\"]"
        ))
    );
    assert_eq!(set(&mut card, &enabled, &[NicAttribute::LinkState]), Ok(()));
}

#[test]
fn function_that_keeps_a_mac_is_released_with_a_random_one() {
    for errno in [Errno::EINVAL, Errno::EADDRNOTAVAIL] {
        let mut card = FakeCard {
            vf: tenants(),
            refuses: BTreeMap::from([("the MAC zero", errno)]),
            ..FakeCard::default()
        };
        set(&mut card, &VfSettings::default(), &[]).expect("it is released");
        let random = card.vf.mac.expect("it cannot be zero");
        assert!(is_parked(random), "{random}");
        assert_eq!(
            random.octets()[0] & 3,
            2,
            "unicast and locally administered"
        );
        let parked = VfSettings {
            mac: Some(random),
            ..VfSettings::default()
        };
        assert_eq!(card.vf, parked);
        // It is free, and its next release changes nothing that anybody sees.
        let mut inventory = Inventory::simulated(1, 7).with_vfs();
        let vf = &mut inventory.pfs[0].vfs[3];
        vf.set = parked;
        assert_eq!(vf.taken(), None);
        vf.set.mac = mac();
        let taken = "it has settings of another program";
        assert_eq!(vf.taken().as_deref(), Some(taken));
    }
}

#[test]
fn busy_driver_is_not_taken_for_one_that_refuses_mac_zero() {
    let mut card = FakeCard {
        vf: tenants(),
        busy: 3,
        ..FakeCard::default()
    };
    set(&mut card, &VfSettings::default(), &[]).expect("it is released");
    assert_eq!(card.vf, VfSettings::default());
}

#[test]
fn function_that_the_driver_does_not_show_is_an_error() {
    let result = bring(&mut FakeCard::default(), 4, &tenants(), &BTreeSet::new());
    assert_eq!(
        result.expect_err("there is no VF 4").to_string(),
        "cannot set pf0 VF 4: the driver does not show it"
    );
}
