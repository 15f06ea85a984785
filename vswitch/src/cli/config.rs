//! The configuration files that commands read.

use std::path::Path;

use tenant_config::{SwitchConfig, Tenant};

use super::CliError;

/// A switch without devices, from a tenant's file; or, from a file that ends in `.json`, one that
/// the provisioner has written.
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
pub(super) fn load_switch(path: &Path) -> Result<SwitchConfig, CliError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| CliError::Config(format!("{file}: cannot be read: {error}")))?;
    SwitchConfig::from_json(&file, &text).map_err(|errors| CliError::Config(errors.to_string()))
}
