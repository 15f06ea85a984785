//! Holds the generated files `docs/reference/*.schema.json` to the types they describe.

use std::path::Path;

use schemars::{Schema, schema_for};
use tenant_config::{SwitchConfig, Tenant};

#[test]
fn tenant_schema_file_matches_tenant() {
    matches("tenant.schema.json", &schema_for!(Tenant));
}

#[test]
fn switch_schema_file_matches_switch_config() {
    matches("switch.schema.json", &schema_for!(SwitchConfig));
}

fn matches(file: &str, schema: &Schema) {
    let mut text = serde_json::to_string_pretty(schema).expect("a schema is JSON");
    text.push('\n');
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/reference")
        .join(file);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &text).expect("the file can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "{} is out of date: run UPDATE_REFERENCE=1 cargo test -p tenant-config --test reference",
        path.display()
    );
}
