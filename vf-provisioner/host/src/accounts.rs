//! Whose a user id is, according to the host's accounts.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};

/// Whose the id is, as the rest of a sentence; `None` if no switch would share it. A switch runs
/// as a user and a group of one number. Users and groups are asked of NSS, so those of LDAP or
/// systemd count; subordinate ids are those of `/etc/subuid` and `/etc/subgid`.
///
/// # Errors
/// If NSS or a file cannot be read: then nobody knows whether the id is free.
pub fn account_of(id: u32) -> Result<Option<String>, String> {
    let user = User::from_uid(Uid::from_raw(id));
    if let Some(user) = user.map_err(|errno| format!("cannot look up user {id}: {errno}"))? {
        return Ok(Some(format!("the user {:?}", user.name)));
    }
    let group = Group::from_gid(Gid::from_raw(id));
    if let Some(group) = group.map_err(|errno| format!("cannot look up group {id}: {errno}"))? {
        return Ok(Some(format!("the group {:?}", group.name)));
    }
    for path in ["/etc/subuid", "/etc/subgid"] {
        let text = match fs::read_to_string(Path::new(path)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("cannot read {path}: {error}")),
        };
        if let Some(owner) = subordinate_owner(&text, id) {
            return Ok(Some(format!("a subordinate id of {owner:?} in {path}")));
        }
    }
    Ok(None)
}

/// The owner of the range that contains `id`, in the format of subuid(5): `owner:first:count`.
/// Other lines are skipped, as the tools that read these files do.
fn subordinate_owner(text: &str, id: u32) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut fields = line.trim().splitn(3, ':');
        let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        let first: u64 = first.parse().ok()?;
        let end = first.saturating_add(count.parse().ok()?);
        (first..end).contains(&id.into()).then_some(owner)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges_are_found_at_their_edges() {
        let text = "# comment\nalice:100000:65536\n\nbroken:1\nbob:70000:10\nall:x:y\n1000:70100:1";
        for (id, owner) in [
            (69_999, None),
            (70_000, Some("bob")),
            (70_009, Some("bob")),
            (70_010, None),
            (70_100, Some("1000")),
            (99_999, None),
            (100_000, Some("alice")),
            (165_535, Some("alice")),
            (165_536, None),
        ] {
            assert_eq!(subordinate_owner(text, id), owner, "{id}");
        }
        assert_eq!(
            subordinate_owner("all:0:18446744073709551615", u32::MAX),
            Some("all")
        );
    }

    #[test]
    fn root_is_an_account() {
        assert_eq!(account_of(0), Ok(Some("the user \"root\"".to_owned())));
    }
}
