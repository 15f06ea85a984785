//! The configuration file: options that need not be given with every command.
//!
//! A key is the long name of a global option. Each key is checked as if it were on the command
//! line, and then put there, unless the operator gave that option: so both mean the same, and a new
//! option needs nothing here. `[tenant.NAME]` has options of one tenant's switch.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde_json::json;
use tenant_config::Name;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use vf_host::launcher::registry as launchers;

use super::options::Global;
use super::output::{print, print_json};
use super::{Cli, CliError, command};

/// The file that is read if it exists and no other is named.
pub(super) const DEFAULT_FILE: &str = "/etc/vf-provisioner/config.toml";
/// What a file cannot say.
const ONLY_ON_THE_COMMAND_LINE: [&str; 3] = ["config", "json", "kill-at"];
/// What a tenant's section can say besides the options of launchers.
const OF_TENANTS: [&str; 3] = ["launcher", "placement", "cpus"];
/// The table of tenants' sections.
const TENANT: &str = "tenant";

/// Show the options that hold, and where each comes from
#[derive(Debug, Args)]
pub(super) struct Config {}

impl Config {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        if global.json {
            print_json(&json!(global.origins));
            return Ok(ExitCode::SUCCESS);
        }
        for (key, Origin { value, from }) in &global.origins {
            print(&format!("{key} = {value}  # {from}\n"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// An option's value, and where it comes from.
#[derive(Debug, Clone, serde::Serialize)]
pub(super) struct Origin {
    value: String,
    pub(super) from: String,
}

/// The file's settings.
#[derive(Debug, Default)]
struct Settings {
    site: BTreeMap<String, Setting>,
    tenants: BTreeMap<Name, BTreeMap<String, Setting>>,
}

/// One key.
#[derive(Debug, Clone)]
struct Setting {
    /// Where it is, as `FILE:LINE:COLUMN`.
    place: String,
    /// The key as messages name it.
    key: String,
    /// The value as it is written.
    shown: String,
    arguments: Vec<OsString>,
}

/// Parses the command line and the configuration file.
///
/// # Errors
/// If the file, or what it says, is wrong. A wrong command line ends the process.
pub(super) fn parse(arguments: Vec<OsString>) -> Result<Cli, CliError> {
    let given = command().get_matches_from(&arguments);
    // A step of another command has no options of its own.
    if matches!(given.subcommand_name(), Some("ask" | "confine")) {
        return Cli::from_arg_matches(&given).map_err(|error| CliError::Usage(reason(&error)));
    }
    let settings = match file_of(&given)? {
        Some(file) => Settings::read(&file)?,
        None => Settings::default(),
    };
    let mut cli = cli_of(&settings, None, &given, &arguments)?;
    for name in settings.tenants.keys() {
        let of_tenant = cli_of(&settings, Some(name), &given, &arguments)?;
        cli.global.of_tenants.insert(name.clone(), of_tenant.global);
    }
    cli.global.origins = origins(&settings, &given);
    Ok(cli)
}

/// The file to read.
fn file_of(given: &ArgMatches) -> Result<Option<PathBuf>, CliError> {
    match given.get_one::<PathBuf>("config") {
        Some(file) => Ok(Some(file.clone())),
        None => {
            let file = Path::new(DEFAULT_FILE);
            let there = file
                .try_exists()
                .map_err(|error| unreadable(file, &error))?;
            Ok(there.then(|| file.to_owned()))
        }
    }
}

fn unreadable(file: &Path, error: &dyn std::fmt::Display) -> CliError {
    CliError::Usage(format!("{}: cannot read it: {error}", file.display()))
}

/// The command line with what the file adds to it, for all tenants or for one.
fn cli_of(
    settings: &Settings,
    tenant: Option<&Name>,
    given: &ArgMatches,
    arguments: &[OsString],
) -> Result<Cli, CliError> {
    let mut effective = settings.site.clone();
    let own = tenant.and_then(|name| settings.tenants.get(name));
    effective.extend(
        own.into_iter()
            .flatten()
            .map(|(key, it)| (key.clone(), it.clone())),
    );
    let (program, rest) = arguments
        .split_first()
        .map_or((None, &[][..]), |(first, rest)| (Some(first.clone()), rest));
    let added = effective
        .iter()
        .filter(|(key, _)| !is_given(given, key))
        .flat_map(|(_, setting)| setting.arguments.clone());
    let all = program.into_iter().chain(added).chain(rest.iter().cloned());
    // Each key was accepted alone: what is left is a conflict of two.
    let matches = command().try_get_matches_from(all);
    let matches = matches.map_err(|error| CliError::Usage(reason(&error)))?;
    Cli::from_arg_matches(&matches).map_err(|error| CliError::Usage(reason(&error)))
}

fn is_given(given: &ArgMatches, key: &str) -> bool {
    let source = option(key).map(|arg| given.value_source(arg.get_id().as_str()));
    source.flatten() == Some(ValueSource::CommandLine)
}

/// The definition of the command line.
fn definition() -> &'static Command {
    static DEFINITION: OnceLock<Command> = OnceLock::new();
    DEFINITION.get_or_init(command)
}

/// The global option of this long name.
fn option(key: &str) -> Option<&'static Arg> {
    let mut all = definition().get_arguments();
    let found = all.find(|arg| arg.get_long() == Some(key))?;
    (found.is_global_set() && !ONLY_ON_THE_COMMAND_LINE.contains(&key)).then_some(found)
}

/// Whether a tenant's section may have this key.
fn is_of_tenants(key: &str) -> bool {
    let launchers = launchers::Options::augment_args(Command::new(""));
    let mut names = launchers.get_arguments().filter_map(Arg::get_long);
    OF_TENANTS.contains(&key) || names.any(|name| name == key)
}

/// The first sentence of a message of the command line, and the values that are possible.
fn reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let kept = lines
        .enumerate()
        .filter(|(index, line)| *index == 0 || line.starts_with("[possible values"))
        .map(|(_, line)| line.trim_start_matches("error: "));
    kept.collect::<Vec<_>>().join(" ")
}

impl Settings {
    fn read(file: &Path) -> Result<Self, CliError> {
        let text = std::fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
        Self::parse(file, &text).map_err(|errors| CliError::Usage(errors.join("\n")))
    }

    /// All settings, or all errors.
    fn parse(file: &Path, text: &str) -> Result<Self, Vec<String>> {
        let at = |offset: usize| {
            let before = text.get(..offset).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            format!("{}:{line}:{column}", file.display())
        };
        let root = DeTable::parse(text).map_err(|error| {
            let place = error
                .span()
                .map_or(file.display().to_string(), |span| at(span.start));
            vec![format!("{place}: not TOML: {}", error.message())]
        })?;
        let mut errors = Vec::new();
        let mut settings = Self::default();
        for (key, value) in root.get_ref() {
            if key.get_ref() != TENANT {
                let known = |key: &str| option(key).is_some();
                read(&mut settings.site, "", key, value, &at, &known, &mut errors);
                continue;
            }
            let DeValue::Table(tenants) = value.get_ref() else {
                errors.push(format!("{}: {TENANT}: not a table", at(value.span().start)));
                continue;
            };
            for (name, table) in tenants {
                let place = at(name.span().start);
                let (name, table) = match (name.get_ref().parse::<Name>(), table.get_ref()) {
                    (Ok(name), DeValue::Table(table)) => (name, table),
                    (Err(error), _) => {
                        errors.push(format!("{place}: {TENANT}.{}: {error}", name.get_ref()));
                        continue;
                    }
                    (Ok(name), _) => {
                        errors.push(format!("{place}: {TENANT}.{name}: not a table"));
                        continue;
                    }
                };
                let prefix = format!("{TENANT}.{name}.");
                let own = settings.tenants.entry(name).or_default();
                for (key, value) in table {
                    read(own, &prefix, key, value, &at, &is_of_tenants, &mut errors);
                }
            }
        }
        if errors.is_empty() {
            Ok(settings)
        } else {
            Err(errors)
        }
    }
}

/// Reads one key into `settings`, or says what is wrong with it.
fn read(
    settings: &mut BTreeMap<String, Setting>,
    prefix: &str,
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    at: &dyn Fn(usize) -> String,
    known: &dyn Fn(&str) -> bool,
    errors: &mut Vec<String>,
) {
    let name = key.get_ref().as_ref();
    let full = format!("{prefix}{name}");
    let Some(arg) = option(name).filter(|_| known(name)) else {
        let why = match option(name) {
            Some(_) => "holds for all tenants, and cannot be set for one",
            None => "no such key; `vf-provisioner --help` has the options that may be keys",
        };
        errors.push(format!("{}: {full}: {why}", at(key.span().start)));
        return;
    };
    let place = at(value.span().start);
    match arguments(arg, value.get_ref()) {
        Ok((shown, arguments)) => {
            let mut alone: Vec<OsString> = vec!["vf-provisioner".into()];
            alone.extend(arguments.iter().cloned());
            alone.push("check".into());
            match command().try_get_matches_from(alone) {
                Ok(_) => drop(settings.insert(
                    name.to_owned(),
                    Setting {
                        place,
                        key: full,
                        shown,
                        arguments,
                    },
                )),
                Err(error) => errors.push(format!("{place}: {full}: {}", reason(&error))),
            }
        }
        Err(why) => errors.push(format!("{place}: {full}: {why}")),
    }
}

/// The value as text, and as arguments of the command line.
fn arguments(arg: &Arg, value: &DeValue<'_>) -> Result<(String, Vec<OsString>), String> {
    let long = arg.get_long().unwrap_or_default();
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        let DeValue::Boolean(on) = value else {
            return Err(format!(
                "{} is not true or false",
                plain(value).unwrap_or_default()
            ));
        };
        let argument = on.then(|| OsString::from(format!("--{long}")));
        return Ok((on.to_string(), argument.into_iter().collect()));
    }
    let values = match value {
        DeValue::Array(list) => {
            let values: Option<Vec<String>> = list.iter().map(|it| plain(it.get_ref())).collect();
            values.ok_or("its elements are not strings or numbers")?
        }
        other => vec![plain(other).ok_or("it is not a string, a number or a list")?],
    };
    if values.is_empty() {
        return Ok(("[]".to_owned(), Vec::new()));
    }
    let shown = values.join(",");
    if values.len() > 1 && arg.get_value_delimiter().is_none() {
        return Err(format!("{shown}: it has one value"));
    }
    let argument = OsString::from(format!("--{long}={shown}"));
    Ok((shown, vec![argument]))
}

fn plain(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(|it| it.to_string()),
        _ => None,
    }
}

/// Every option that has a value, and where it comes from.
fn origins(settings: &Settings, given: &ArgMatches) -> BTreeMap<String, Origin> {
    let mut origins = BTreeMap::new();
    for arg in definition()
        .get_arguments()
        .filter(|arg| !arg.is_hide_set())
    {
        let (Some(key), id) = (arg.get_long(), arg.get_id().as_str()) else {
            continue;
        };
        if option(key).is_none() {
            continue;
        }
        let raw = given.get_raw(id).map(|values| {
            let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
            values.join(",")
        });
        let origin = match (settings.site.get(key), given.value_source(id)) {
            (_, Some(ValueSource::CommandLine)) => Some((raw.unwrap_or_default(), "command line")),
            (Some(setting), _) => Some((setting.shown.clone(), setting.place.as_str())),
            (None, Some(_)) => raw.map(|raw| (raw, "default")),
            (None, None) => None,
        };
        let origin = origin.map(|(value, from)| Origin {
            value,
            from: from.to_owned(),
        });
        origins.extend(origin.map(|origin| (key.to_owned(), origin)));
    }
    let own = settings.tenants.values().flat_map(BTreeMap::values);
    for setting in own {
        let origin = Origin {
            value: setting.shown.clone(),
            from: setting.place.clone(),
        };
        origins.insert(setting.key.clone(), origin);
    }
    origins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Settings, Vec<String>> {
        Settings::parse(Path::new("config.toml"), text)
    }

    fn options(text: &str, arguments: &[&str]) -> Cli {
        let settings = parsed(text).expect("it is valid");
        let all = [&["vf-provisioner"], arguments, &["check"]].concat();
        let all: Vec<OsString> = all.into_iter().map(OsString::from).collect();
        let given = command().get_matches_from(&all);
        let mut cli = cli_of(&settings, None, &given, &all).expect("it is valid");
        for name in settings.tenants.keys() {
            let own = cli_of(&settings, Some(name), &given, &all).expect("it is valid");
            cli.global.of_tenants.insert(name.clone(), own.global);
        }
        cli.global.origins = origins(&settings, &given);
        cli
    }

    #[test]
    fn file_replaces_defaults_and_command_line_replaces_file() {
        let text = "state-dir = \"/run/b\"\nuid-base = 0x10\ncpus = [2, 3]\ncpu-limit = 50\n\
                    hugepages = true\n[tenant.red]\ncpu-limit = 70\nmemory-limit = 256\n";
        let global = options(text, &["--uid-base", "70000"]).global;
        assert_eq!(global.state_dir, Path::new("/run/b"));
        assert_eq!((global.uid_base, &global.cpus), (70000, &vec![2, 3]));
        let process = &global.launchers.process;
        assert_eq!((process.cpu_limit, process.memory_limit), (50, 128));
        assert!(process.hugepages);
        let red = &global.of_tenants[&"red".parse::<Name>().expect("a name")];
        let process = &red.launchers.process;
        assert_eq!((process.cpu_limit, process.memory_limit), (70, 256));
        assert!(process.hugepages);
        let shown = |key: &str| {
            let Origin { value, from } = &global.origins[key];
            (value.as_str(), from.as_str()).to_owned()
        };
        assert_eq!(shown("uid-base"), ("70000", "command line"));
        assert_eq!(shown("cpus"), ("2,3", "config.toml:3:8"));
        assert_eq!(shown("memory-limit"), ("128", "default"));
        assert_eq!(
            shown("tenant.red.memory-limit"),
            ("256", "config.toml:8:16")
        );
        // The command line is for all tenants.
        let global = options(text, &["--cpu-limit", "20"]).global;
        let red = &global.of_tenants[&"red".parse::<Name>().expect("a name")];
        assert_eq!(red.launchers.process.cpu_limit, 20);
    }

    #[test]
    fn errors_name_file_key_and_value() {
        let text = "launcher = \"docker\"\nlauncer = \"vm\"\ncpu-limit = 700\nhugepages = 1\n\
                    json = true\n[tenant.red]\nuid-base = 5\nmemory-limit = 1\n[tenant.\"a b\"]\n";
        let errors = parsed(text).expect_err("nothing of it is valid");
        let no_key = "no such key; `vf-provisioner --help` has the options that may be keys";
        let starts = [
            "config.toml:1:12: launcher: invalid value 'docker' for '--launcher <LAUNCHER>' \
             [possible values: process, vm, libvirt]"
                .to_owned(),
            "config.toml:3:13: cpu-limit: invalid value '700'".to_owned(),
            "config.toml:4:13: hugepages: 1 is not true or false".to_owned(),
            format!("config.toml:5:1: json: {no_key}"),
            format!("config.toml:2:1: launcer: {no_key}"),
            "config.toml:7:1: tenant.red.uid-base: holds for all tenants, and cannot be set for one"
                .to_owned(),
            "config.toml:8:16: tenant.red.memory-limit: invalid value '1'".to_owned(),
            "config.toml:9:9: tenant.a b: ".to_owned(),
        ];
        assert_eq!(errors.len(), starts.len(), "{errors:#?}");
        for start in starts {
            let found = errors.iter().any(|error| error.starts_with(&start));
            assert!(found, "{start}: {errors:#?}");
        }
        let broken = parsed("launcher = \n").expect_err("no value");
        assert!(broken[0].starts_with("config.toml:1:"), "{broken:?}");
    }

    /// The reference page has every key, and no other.
    #[test]
    fn reference_has_every_key() {
        let page = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../docs/reference/provisioner-config.md"
        );
        let page = std::fs::read_to_string(page).expect("the page");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
        let named: Vec<(&str, bool)> = rows
            .filter_map(|row| {
                let (key, rest) = row.split_once('`')?;
                Some((key, rest.contains("| yes |")))
            })
            .collect();
        let keys: Vec<(&str, bool)> = definition()
            .get_arguments()
            .filter(|arg| !arg.is_hide_set())
            .filter_map(Arg::get_long)
            .filter(|key| option(key).is_some())
            .map(|key| (key, is_of_tenants(key)))
            .collect();
        let sorted = |list: Vec<(&str, bool)>| -> BTreeMap<String, bool> {
            let list = list.into_iter();
            list.map(|(key, own)| (key.to_owned(), own)).collect()
        };
        assert_eq!(sorted(named), sorted(keys));
    }
}
