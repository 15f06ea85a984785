//! Configuration files as the commands take them.

use std::path::Path;

use tenant_config::{SwitchConfig, Tenant};

use super::CliError;

/// The switch of a tenant's file, without devices; or, from a file that ends in `.json`, one that the
/// provisioner has written.
pub(super) fn load_offline(path: &Path) -> Result<SwitchConfig, CliError> {
    if path
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        return load_switch(path);
    }
    Tenant::load(path)
        .map(|tenant| tenant.offline_config())
        .map_err(|errors| CliError::Config(errors.to_string()))
}

/// The configuration of one switch, as the provisioner writes it.
fn load_switch(path: &Path) -> Result<SwitchConfig, CliError> {
    let invalid = |error: String| CliError::Config(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path)
        .map_err(|error| invalid(format!("cannot be read: {error}")))?;
    serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))
}
