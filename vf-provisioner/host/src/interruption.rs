//! What a plan interrupts: whom, how, and for how long.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use tenant_config::Name;

use crate::batch::Part;
use crate::object::Object;
use crate::plan::{Action, Plan};
use crate::resource::{Key, Resource};
use crate::state::{Record, State};

/// How a tenant is affected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Effect {
    /// It is removed from this host.
    Release,
    /// Its switch ends, and another one starts.
    Restart {
        /// Why, if the plan does not show it.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// Its running switch gets another configuration, and loses no frame.
    Reload,
    /// The guest's interface of this port is made anew, and what the guest set on it is lost.
    PortDown {
        /// The port.
        port: Name,
    },
    /// The way to the underlay is made anew.
    UplinkDown,
}

/// One effect on a tenant that is onboarded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Interruption {
    /// Whom.
    pub tenant: Name,
    /// How.
    #[serde(flatten)]
    pub effect: Effect,
    /// For how long about, in seconds: as long as the last start took. Unknown for a switch that
    /// an earlier version started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

impl fmt::Display for Interruption {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "tenant {}: ", self.tenant)?;
        match &self.effect {
            Effect::Release => out.write_str("release: it is cut off for good"),
            Effect::Reload => out.write_str("reload: no frame is lost"),
            Effect::PortDown { port } => write!(
                out,
                "port {port} is down while its interface is made anew; the guest sets it up again"
            ),
            Effect::UplinkDown => {
                out.write_str("the uplink is down while its interface is made anew")
            }
            Effect::Restart { why } => {
                out.write_str("restart")?;
                if let Some(why) = why {
                    write!(out, " ({why})")?;
                }
                match self.seconds {
                    Some(seconds) => write!(
                        out,
                        ": it is cut off for about {seconds:.1} s, as long as the last start took"
                    ),
                    None => out.write_str(": it is cut off until the switch is ready"),
                }
            }
        }
    }
}

/// What the plan of a part does to tenants that are onboarded. `last_start_s` says how long a
/// tenant's last start took.
pub fn interruptions(
    part: &Part,
    plan: &Plan,
    state: &State,
    last_start_s: &dyn Fn(&Name) -> Option<f64>,
) -> Vec<Interruption> {
    let (Part::Set(names) | Part::Release(names)) = part else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for name in names {
        let Some(record) = state.tenants.get(name) else {
            continue;
        };
        let effects = match part {
            Part::Release(_) => vec![Effect::Release],
            _ => effects(record, plan),
        };
        found.extend(effects.into_iter().map(|effect| Interruption {
            tenant: name.clone(),
            seconds: match effect {
                Effect::Restart { .. } => last_start_s(name),
                _ => None,
            },
            effect,
        }));
    }
    found
}

fn effects(record: &Record, plan: &Plan) -> Vec<Effect> {
    let own: BTreeSet<Key> = record.all_keys().collect();
    let actions = plan
        .actions
        .iter()
        .filter(|action| own.contains(&action.resource().key()));
    let mut effects = Vec::new();
    let mut deleted_switch = false;
    for action in actions {
        match action {
            Action::Delete {
                resource: Resource::Switch(_),
            } => deleted_switch = true,
            Action::Create {
                resource: Resource::Switch(_),
            } if deleted_switch => effects.push(Effect::Restart { why: None }),
            Action::Update { from, to } => {
                if let (Resource::Switch(from), Resource::Switch(to)) = (&**from, to) {
                    effects.push(match from.config.needs_restart(&to.config) {
                        Some(why) => Effect::Restart { why: Some(why) },
                        None => Effect::Reload,
                    });
                }
            }
            Action::Delete { resource } => effects.extend(cut(record, resource)),
            Action::Create { .. } => {}
        }
    }
    effects
}

/// What is cut off while an object is made anew, or for good.
fn cut(record: &Record, resource: &Resource) -> Option<Effect> {
    match resource {
        Resource::Pair(pair) if pair.peer.bridge.is_some() => Some(Effect::UplinkDown),
        Resource::Pair(pair) => {
            let guest = pair.peer.namespace.as_deref()?;
            let mut probes = record.probes.iter();
            let port = probes.find(|probe| probe.namespace == guest)?.port.clone();
            Some(Effect::PortDown { port })
        }
        // Of a port's two functions one message is enough.
        Resource::Vf(vf) => match &vf.owner.port {
            Some(port) if vf.carries_switch() => Some(Effect::PortDown { port: port.clone() }),
            Some(_) => None,
            None => Some(Effect::UplinkDown),
        },
        _ => None,
    }
}
