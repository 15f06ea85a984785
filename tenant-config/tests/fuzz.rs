//! Coverage-guided fuzzing of the tenant file: `scripts/fuzz`. As an ordinary test, the target
//! replays its corpus in `__fuzz__`.

use tenant_config::Tenant;

/// Any text is a tenant or a list of errors. A tenant is written as a text that reads as the same
/// tenant, and a switch configuration follows from it that is accepted when read back.
#[test]
fn tenant_file_is_read_or_refused() {
    bolero::check!()
        .with_iterations(0)
        .for_each(|input: &[u8]| {
            let text = String::from_utf8_lossy(input);
            let Ok(tenant) = Tenant::parse("fuzz.toml", &text) else {
                return;
            };
            let again = toml::to_string(&tenant).expect("a tenant is TOML");
            assert_eq!(
                Tenant::parse("again.toml", &again),
                Ok(tenant.clone()),
                "{again}"
            );
            let config = tenant.offline_config();
            let json = serde_json::to_string(&config).expect("a configuration is JSON");
            assert_eq!(serde_json::from_str(&json).ok(), Some(config), "{json}");
        });
}
