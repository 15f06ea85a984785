//! Under which identifiers and addresses the DHCP client behind a port may be known to servers:
//! "DHCP clients" of the specification.
//!
//! A server decides whose lease a message is about by the client's MAC, by its identifier, and by
//! the addresses that the message names. The filter has bound the MAC; the rest is bound here.

use packet::DropReason;
use packet::wire::dhcp::{self, Bootp, ClientMessage, option};
use packet::wire::dhcp6;

use crate::bucket::SECOND_NS;
use crate::ids::PortId;
use crate::state::State;
use crate::tables::{PortRules, Tables};

/// Accepts the message of a port's client, and remembers what it says.
pub(crate) fn from_client(
    tables: &Tables,
    state: &mut State,
    rules: &PortRules,
    message: &ClientMessage<'_>,
    now_ns: u64,
) -> Result<(), DropReason> {
    let addresses = [Some(message.bootp.client_ip), message.requested];
    for address in addresses.into_iter().flatten().filter(|ip| *ip != 0) {
        if state.is_anothers4(tables, rules.id, address, now_ns) {
            return Err(DropReason::DhcpIdentity);
        }
    }
    let identifier = message.identifier.unwrap_or_default();
    let named = dhcp::named_mac(identifier).and_then(|mac| tables.owner_of_mac(mac));
    if named.is_some_and(|owner| owner != rules.id)
        || (named.is_none() && state.is_claimed(tables, rules.id, identifier, now_ns))
    {
        return Err(DropReason::DhcpIdentity);
    }
    let Some(claims) = state.claims(rules.id) else {
        return Ok(());
    };
    let claim = claims.claim(identifier, now_ns);
    let claim = claim.ok_or(DropReason::DhcpIdentity)?;
    match message.kind {
        Some(option::DECLINE) if !claims.decline(now_ns) => return Err(DropReason::DhcpIdentity),
        Some(option::DISCOVER | option::REQUEST) => {
            claims.begin(message.bootp.xid, claim, now_ns);
        }
        _ => {}
    }
    let given_up = message.given_up();
    if let Some(address) = given_up {
        claims.gave_up(claim, address);
        claims.finish();
    }
    if rules.learns {
        let lease = state.lease(tables, rules.id);
        let selected = message.requested.filter(|_| message.server.is_some());
        if let Some(address) = given_up {
            lease.gave_up(address);
        } else if message.kind == Some(option::REQUEST) && selected.is_some() {
            // A server gives up the client's other lease, as RFC 2131 has the client do.
            if lease.address(now_ns) != selected {
                lease.reset();
            }
        }
    }
    Ok(())
}

/// Notes what the tenant's server says to the client behind a port.
pub(crate) fn from_server(
    tables: &Tables,
    state: &mut State,
    rules: &PortRules,
    (reply, payload): (&Bootp, &[u8]),
    now_ns: u64,
) {
    match Bootp::option(payload, option::MESSAGE_TYPE) {
        Some(&[option::ACK]) => {
            let Some(&[a, b, c, d]) = Bootp::option(payload, option::LEASE_TIME) else {
                return;
            };
            let seconds = u32::from_be_bytes([a, b, c, d]);
            let until_ns = now_ns.saturating_add(u64::from(seconds) * SECOND_NS);
            granted(tables, state, rules, reply, (now_ns, until_ns));
        }
        Some(&[option::NAK]) => {
            let Some(claims) = state.claims(rules.id) else {
                return;
            };
            if claims.is_under_way(reply.xid, now_ns) {
                claims.finish();
                state.lease(tables, rules.id).reset();
            }
        }
        _ => {}
    }
}

/// Notes a lease that the server grants to the client behind a port.
fn granted(
    tables: &Tables,
    state: &mut State,
    rules: &PortRules,
    reply: &Bootp,
    (now_ns, until_ns): (u64, u64),
) {
    let address = reply.your_ip;
    let holder = state.lease_owner(tables, address, now_ns);
    let free = tables.is_free4(address) && holder.is_none_or(|port| port == rules.id);
    let Some(claims) = state.claims(rules.id) else {
        return;
    };
    let answers = claims.is_under_way(reply.xid, now_ns);
    claims.granted(reply.xid, Some(address), now_ns, until_ns);
    let learned = answers && free && until_ns > now_ns;
    if answers && (learned || !rules.learns) {
        claims.finish();
    }
    if rules.learns && learned {
        state.grant(tables, rules.id, address, until_ns);
    }
}

/// As [`from_client`], of a DHCPv6 client.
pub(crate) fn from_client6(
    tables: &Tables,
    state: &mut State,
    rules: &PortRules,
    message: &dhcp6::ClientMessage<'_>,
    now_ns: u64,
) -> Result<(), DropReason> {
    if message.names(|address| state.is_anothers6(tables, rules.id, address)) {
        return Err(DropReason::DhcpIdentity);
    }
    let identifier = message.identifier;
    let named = dhcp6::named_mac(identifier).and_then(|mac| tables.owner_of_mac(mac));
    if named.is_some_and(|owner| owner != rules.id)
        || (named.is_none() && state.is_claimed6(tables, rules.id, identifier, now_ns))
    {
        return Err(DropReason::DhcpIdentity);
    }
    // A client that asks for no address needs no identifier.
    let claims = state.claims6(rules.id).filter(|_| !identifier.is_empty());
    let Some(claims) = claims else {
        return Ok(());
    };
    let claim = claims.claim(identifier, now_ns);
    let claim = claim.ok_or(DropReason::DhcpIdentity)?;
    if !message.all_associations(|association| claims.associate(claim, association))
        || (message.kind == dhcp6::kind::DECLINE && !claims.decline(now_ns))
    {
        return Err(DropReason::DhcpIdentity);
    }
    if let dhcp6::kind::SOLICIT | dhcp6::kind::REQUEST | dhcp6::kind::RENEW | dhcp6::kind::REBIND =
        message.kind
    {
        claims.begin(message.transaction, claim, now_ns);
    }
    Ok(())
}

/// As [`from_server`], of a DHCPv6 server, to the client behind the port `id`.
pub(crate) fn from_server6(state: &mut State, id: PortId, payload: &[u8], now_ns: u64) {
    let Some(grant) = dhcp6::Grant::parse(payload) else {
        return;
    };
    let Some(claims) = state.claims6(id) else {
        return;
    };
    let until_ns = now_ns.saturating_add(u64::from(grant.seconds) * SECOND_NS);
    claims.granted(grant.transaction, None, now_ns, until_ns);
}
