//! The rtnetlink client, and requests for any interface.
//!
//! A netlink socket belongs to the namespace of the thread that opens it, so each piece of work
//! runs on a thread of its own that enters the namespace first and ends with it.

use std::time::Duration;

use futures_util::TryStreamExt;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use rtnetlink::{Handle, LinkUnspec};
use tenant_config::MacAddr;

use super::netns::{exists, inside};
use crate::error::HostError;

/// How long the kernel may take for the answers to all requests of one piece of work: it answers
/// while it reads a request, so one that is late was lost.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn with_netlink<T: Send>(
    namespace: Option<&str>,
    work: impl AsyncFnOnce(Handle) -> Result<T, HostError> + Send,
) -> Result<T, HostError> {
    inside(namespace, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(HostError::io("cannot start the netlink client"))?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()
                .map_err(HostError::io("cannot open a netlink socket"))?;
            tokio::spawn(connection);
            in_time(PATIENCE, work(handle)).await
        })
    })
}

async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, HostError>>,
) -> Result<T, HostError> {
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", limit.as_secs());
        Err(HostError::Io {
            what: "cannot ask the kernel by netlink".to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::TimedOut, message),
        })
    })
}

pub(crate) fn refused(what: String) -> impl FnOnce(rtnetlink::Error) -> HostError {
    |source| HostError::Netlink { what, source }
}

/// `None` for the error "no such link".
pub(crate) fn unless_missing<T>(
    result: Result<T, rtnetlink::Error>,
) -> Result<Option<T>, rtnetlink::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(rtnetlink::Error::NetlinkError(message))
            if message.raw_code() == -(nix::Error::ENODEV as i32) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

pub(crate) async fn find(
    handle: &Handle,
    interface: &str,
) -> Result<Option<LinkMessage>, HostError> {
    let request = handle.link().get().match_name(interface.to_owned());
    let link = unless_missing(request.execute().try_next().await)
        .map_err(refused(format!("cannot read interface {interface}")))?;
    Ok(link.flatten())
}

pub(crate) async fn index_of(handle: &Handle, interface: &str) -> Result<u32, HostError> {
    match find(handle, interface).await? {
        Some(link) => Ok(link.header.index),
        None => Err(HostError::Io {
            what: format!("cannot find interface {interface}"),
            source: nix::Error::ENODEV.into(),
        }),
    }
}

/// Whether an interface is up; `None` if it does not exist.
pub(crate) fn is_up(interface: &str) -> Result<Option<bool>, HostError> {
    with_netlink(None, async |handle| {
        let link = find(&handle, interface).await?;
        Ok(link.map(|link| link.header.flags.contains(LinkFlags::Up)))
    })
}

/// Sets an interface up or down.
pub(crate) fn set_up(interface: &str, up: bool) -> Result<(), HostError> {
    with_netlink(None, async |handle| {
        let link = LinkUnspec::new_with_index(index_of(&handle, interface).await?);
        let link = if up { link.up() } else { link.down() };
        let request = handle.link().change(link.build());
        request
            .execute()
            .await
            .map_err(refused(format!("cannot set interface {interface}")))
    })
}

/// Deletes an interface, and with it the other end of its pair, if it exists.
pub(crate) fn delete_link(namespace: Option<&str>, interface: &str) -> Result<(), HostError> {
    if namespace.is_some_and(|name| !exists(name)) {
        return Ok(());
    }
    with_netlink(namespace, async |handle| {
        let Some(link) = find(&handle, interface).await? else {
            return Ok(());
        };
        unless_missing(handle.link().del(link.header.index).execute().await)
            .map_err(refused(format!("cannot delete interface {interface}")))?;
        Ok(())
    })
}

pub(crate) fn mac_of(octets: &[u8]) -> Option<MacAddr> {
    MacAddr::new(octets.try_into().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_that_never_comes_is_an_error() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let never = std::future::pending::<Result<(), HostError>>();
        let error = runtime.block_on(in_time(Duration::from_millis(1), never));
        assert_eq!(
            error.expect_err("nobody answers").to_string(),
            "cannot ask the kernel by netlink: no answer within 0 s"
        );
        let done = runtime.block_on(in_time(PATIENCE, async { Ok(7) }));
        assert_eq!(done.expect("at once"), 7);
    }
}
