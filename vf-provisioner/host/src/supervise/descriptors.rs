//! The descriptors that the supervisor may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::error::SuperviseError;

/// Of the supervisor itself: events, logs, the state, programs that it runs.
const OWN: u64 = 64;
/// Of each tenant: its switch, the channel to it, and a question, a restart, a repair or a
/// verification at the same time.
const OF_TENANT: u64 = 16;

/// How many are needed at most.
fn needed(tenants: usize) -> u64 {
    OWN + OF_TENANT * tenants as u64
}

/// Raises the limit to the hard limit.
///
/// # Errors
/// If it is too low for so many tenants.
pub(super) fn raise(tenants: usize) -> Result<(), SuperviseError> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    enough(tenants)
}

/// Whether the limit is high enough for so many tenants.
///
/// # Errors
/// If it is not.
pub(super) fn enough(tenants: usize) -> Result<(), SuperviseError> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let needed = needed(tenants);
    if needed <= limit {
        return Ok(());
    }
    Err(SuperviseError::Descriptors {
        tenants,
        needed,
        limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_raised_and_must_be_enough() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        raise(1).expect("the hard limit is enough for one tenant");
        assert_eq!(
            getrlimit(Resource::RLIMIT_NOFILE).expect("a limit"),
            (hard, hard)
        );
        let most = (hard - OWN) / OF_TENANT;
        enough(most as usize).expect("enough");
        let error = enough(most as usize + 1).expect_err("too low");
        assert!(error.to_string().contains("LimitNOFILE"), "{error}");
    }
}
