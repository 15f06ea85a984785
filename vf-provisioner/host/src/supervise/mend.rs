//! Whether the drift of a tenant is mended, and the pauses between repairs of one tenant.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tenant_config::Name;

/// What the supervisor does about settings that differ from what was set. A lost object is made
/// again in either case, and a lost lock always closes its port and comes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mend {
    /// They are set again.
    #[default]
    On,
    /// They are reported.
    Report,
}

impl FromStr for Mend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" => Ok(Self::On),
            "report" => Ok(Self::Report),
            other => Err(format!("{other:?} is not on or report")),
        }
    }
}

/// One value of `--mend`: of all tenants, or as `TENANT=VALUE` of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MendRule {
    /// Whose; all that have no rule of their own if none is named.
    pub tenant: Option<Name>,
    /// What is done.
    pub mend: Mend,
}

impl FromStr for MendRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tenant, mend) = match text.split_once('=') {
            None => (None, text),
            Some((tenant, mend)) => {
                let tenant = tenant.parse::<Name>();
                (Some(tenant.map_err(|error| error.to_string())?), mend)
            }
        };
        let mend = mend.parse()?;
        Ok(Self { tenant, mend })
    }
}

/// What is done for each tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    all: Mend,
    tenants: BTreeMap<Name, Mend>,
}

impl FromIterator<MendRule> for Policy {
    /// The last rule of a tenant counts.
    fn from_iter<T: IntoIterator<Item = MendRule>>(rules: T) -> Self {
        let mut policy = Self::default();
        for rule in rules {
            match rule.tenant {
                None => policy.all = rule.mend,
                Some(tenant) => drop(policy.tenants.insert(tenant, rule.mend)),
            }
        }
        policy
    }
}

impl Policy {
    /// What is done for this tenant.
    pub fn of(&self, tenant: &Name) -> Mend {
        self.tenants.get(tenant).copied().unwrap_or(self.all)
    }
}

/// How pauses grow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) first: Duration,
    pub(super) max: Duration,
    /// Pauses begin again after what lasted this long, and ten times the last pause.
    pub(super) calm: Duration,
}

const CALM_WAITS: u32 = 10;

/// The growing pauses of one tenant.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pauses {
    last: Duration,
    ended: Option<Instant>,
}

impl Pauses {
    /// The pause after a failure: twice the one before, with jitter.
    pub(super) fn after_failure(&mut self, pace: Pace) -> Duration {
        self.last = (self.last * 2).clamp(pace.first, pace.max);
        jitter(self.last)
    }

    /// Something was repaired.
    pub(super) fn repaired(&mut self, now: Instant) {
        self.ended = Some(now);
    }

    /// The pause before a further repair: none unless the last one did not last.
    pub(super) fn before_next(&mut self, pace: Pace, now: Instant) -> Duration {
        let lasts = (self.last * CALM_WAITS).max(pace.calm);
        match self.ended {
            Some(ended) if now.saturating_duration_since(ended) < lasts => self.after_failure(pace),
            _ => {
                self.last = Duration::ZERO;
                Duration::ZERO
            }
        }
    }
}

/// Three quarters to five quarters of a pause: tenants that failed together are not tried together
/// for ever.
pub(super) fn jitter(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    pause * (768 + (random % 513) as u32) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn rule_of_a_tenant_comes_before_that_of_all() {
        let rules = ["red=report", "report", "blue=on", "red=on"];
        let policy: Policy = rules
            .iter()
            .map(|rule| rule.parse::<MendRule>().expect("a rule"))
            .collect();
        let of = ["red", "blue", "green"].map(|tenant| policy.of(&name(tenant)));
        assert_eq!(of, [Mend::On, Mend::On, Mend::Report]);
        assert_eq!(Policy::default().of(&name("red")), Mend::On);
        for (text, error) in [
            ("never", "\"never\" is not on or report"),
            ("red=", "\"\" is not on or report"),
        ] {
            assert_eq!(text.parse::<MendRule>(), Err(error.to_owned()));
        }
        assert!("=on".parse::<MendRule>().is_err());
    }

    const PACE: Pace = Pace {
        first: Duration::from_secs(1),
        max: Duration::from_secs(6),
        calm: Duration::from_secs(5),
    };

    #[test]
    fn pauses_double_up_to_their_bound_with_jitter() {
        let mut pauses = Pauses::default();
        for expected in [1000, 2000, 4000, 6000, 6000] {
            let pause = pauses.after_failure(PACE).as_millis();
            assert!(
                (expected * 3 / 4..=expected * 5 / 4).contains(&pause),
                "{pause} for {expected}"
            );
        }
    }

    #[test]
    fn repair_that_does_not_last_is_repeated_more_slowly() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut pauses = Pauses::default();
        assert_eq!(pauses.before_next(PACE, at(0)), Duration::ZERO);
        pauses.repaired(at(1));
        let first = pauses.before_next(PACE, at(3));
        pauses.repaired(at(5));
        // Ten times the last pause, which was a second.
        let second = pauses.before_next(PACE, at(14));
        assert!(first >= PACE.first * 3 / 4 && second >= PACE.first * 3 / 2);
        pauses.repaired(at(20));
        assert_eq!(pauses.before_next(PACE, at(41)), Duration::ZERO);
        pauses.repaired(at(50));
        assert_eq!(pauses.before_next(PACE, at(56)), Duration::ZERO);
    }
}
