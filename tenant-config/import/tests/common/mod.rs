//! Helpers for the tests of all formats.

use tenant_config::Tenant;
use tenant_import::Import;

/// The tenant of a file whose ports are the drafts.
pub(crate) fn assert_fits_a_tenant(import: &Import) -> Tenant {
    let head = "name = \"red\"\nvni = 5001\n[gateway]\nipv4 = \"10.0.0.1/24\"\n\
                ipv6 = \"fd00:0:0:1::1/64\"\n";
    let text = format!("{head}{import}");
    Tenant::parse("red.toml", &text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}
