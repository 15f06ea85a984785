//! What the worker does with orders, and with time.

use std::net::IpAddr;

use super::link::{Channel, Datagram, Direction, Notice, Order, Retired};
use super::sa::Common;
use super::table::SaTable;
use crate::ids::VtepId;
use crate::state::State;
use crate::tables::{Tables, Tunnel};

/// Obeys the orders that wait; whether more do. `send` receives each IKE datagram that is to be
/// sent to a peer's endpoint.
pub(crate) fn obey(
    tables: &Tables,
    state: &mut State,
    now_ns: u64,
    send: &mut dyn FnMut(&Tunnel, &State, VtepId, &Datagram),
) -> bool {
    let Some(channel) = state.ipsec.channel.take() else {
        return false;
    };
    // At most as many as there may be: others come later.
    for _ in 0..Channel::ORDERS {
        let Some(order) = channel.take_order() else {
            break;
        };
        match order {
            Order::Send(datagram) => {
                let to = datagram.to.ip();
                if let Some((tunnel, vtep)) = protected(tables, to) {
                    send(tunnel, state, vtep, &datagram);
                }
                channel.retire(Retired::Datagram(datagram));
            }
            order => match &mut state.ipsec.sas {
                Some(sas) => change(tables, sas, &channel, order, now_ns),
                None => refuse(&channel, order),
            },
        }
    }
    set_extras(tables, state);
    let more = channel.has_orders();
    state.ipsec.channel = Some(channel);
    more
}

/// The place of an endpoint, if IPsec is required there.
fn protected(tables: &Tables, peer: IpAddr) -> Option<(&Tunnel, VtepId)> {
    let tunnel = tables.tunnel.as_ref()?;
    let vtep = tunnel.endpoint_at(peer)?;
    tunnel.vtep(vtep).protected.then_some((tunnel, vtep))
}

/// Changes the SAs.
fn change(tables: &Tables, sas: &mut SaTable, channel: &Channel, order: Order, now_ns: u64) {
    let place = |common: &Common| {
        let request = &common.request;
        let (tunnel, vtep) = protected(tables, request.peer)?;
        (tunnel.carrier.own() == request.own).then_some(vtep)
    };
    match order {
        Order::InstallIn(mut sa) => {
            let installed = match place(&sa.common) {
                Some(vtep) => {
                    sa.common.begin(vtep, now_ns);
                    sas.install_inbound(sa)
                }
                None => Err(sa),
            };
            match installed {
                Ok(None) => {}
                Ok(Some(replaced)) => channel.retire(Retired::In(replaced)),
                Err(sa) => refuse(channel, Order::InstallIn(sa)),
            }
        }
        Order::InstallOut(mut sa) => {
            let installed = match place(&sa.common) {
                Some(vtep) => {
                    sa.common.begin(vtep, now_ns);
                    sas.install_outbound(sa)
                }
                None => Err(sa),
            };
            match installed {
                Ok(None) => {}
                Ok(Some(replaced)) => channel.retire(Retired::Out(replaced)),
                Err(sa) => refuse(channel, Order::InstallOut(sa)),
            }
        }
        Order::Use { peer, spi } => {
            if let Some((_, vtep)) = protected(tables, peer) {
                sas.choose(vtep, spi);
            }
        }
        Order::Encapsulate {
            direction,
            peer,
            spi,
            ports,
        } => {
            if let Some((_, vtep)) = protected(tables, peer)
                && let Some(common) = sas.common(direction, vtep, spi)
            {
                common.request.encapsulation = ports;
            }
        }
        Order::Remove {
            direction,
            peer,
            spi,
        } => {
            if let Some((_, vtep)) = protected(tables, peer)
                && let Some(removed) = sas.remove(direction, vtep, spi)
            {
                channel.retire(removed);
            }
        }
        Order::Wipe => {
            sas.kill_all();
            sas.poll(channel, now_ns);
        }
        Order::Send(datagram) => channel.retire(Retired::Datagram(datagram)),
    }
}

/// Hands back what an order brought, and says that an SA is not there.
fn refuse(channel: &Channel, order: Order) {
    let (direction, peer, spi) = match order {
        Order::InstallIn(sa) => {
            let ended = (Direction::In, sa.common.request.peer, sa.esp.spi());
            channel.retire(Retired::In(sa));
            ended
        }
        Order::InstallOut(sa) => {
            let ended = (Direction::Out, sa.common.request.peer, sa.esp.spi());
            channel.retire(Retired::Out(sa));
            ended
        }
        Order::Send(datagram) => return channel.retire(Retired::Datagram(datagram)),
        _ => return,
    };
    channel.notify(Notice::Hard {
        direction,
        peer,
        spi,
    });
}

/// Tells each path what the SA in use adds.
fn set_extras(tables: &Tables, state: &mut State) {
    let (Some(tunnel), Some(sas)) = (&tables.tunnel, &state.ipsec.sas) else {
        return;
    };
    for (path, id) in state.paths.iter_mut().zip(0..) {
        if let Some(sa) = sas.peek(VtepId(id)) {
            path.set_extra(tunnel, sa.request().extra());
        }
    }
}
