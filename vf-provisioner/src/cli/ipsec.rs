//! `ipsec`: keys and certificates of tunnels, made and shown.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tenant_config::{Authentication, Name};
use vf_host::launcher::ike::{self, Certificate, Expiry, FileError, RevocationList, Secret};
use vf_host::{history, state};

use super::options::Global;
use super::output::{print, print_json};
use super::{CliError, need_root};

/// Make and show keys and certificates of tunnels with IPsec
#[derive(Debug, Args)]
pub(super) struct Ipsec {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Keygen(Keygen),
    Csr(Csr),
    Show(Show),
}

/// Make a key: a pre-shared one, or a private one with a certificate that it signs itself. Files
/// that are there are left alone
#[derive(Debug, Args)]
struct Keygen {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// A pre-shared key of 256 random bits
    Psk {
        /// The new file
        file: PathBuf,
    },
    /// A private key and its own certificate, which the peer pins
    Certificate {
        /// The DNS name that it speaks for: our identity
        #[arg(long, value_name = "NAME")]
        name: String,
        /// How long it is valid
        #[arg(long, value_name = "DAYS", default_value_t = 365)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
        /// The new file of the private key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The new file of the certificate
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
    },
}

/// Make a request for a certificate, for an authority to sign
#[derive(Debug, Args)]
struct Csr {
    /// The DNS name that it speaks for: our identity
    #[arg(long, value_name = "NAME")]
    name: String,
    /// The file of the private key, which is made unless it is there
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The new file of the request
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Show certificates, lists of revoked ones and fingerprints of pre-shared keys: of these files, or
/// of the tenants of this host with what their IKE daemons say
#[derive(Debug, Args)]
struct Show {
    /// Files [default: those of all tenants]
    files: Vec<PathBuf>,
    /// This tenant alone
    #[arg(long, value_name = "TENANT", conflicts_with = "files")]
    tenant: Option<Name>,
}

impl From<FileError> for CliError {
    fn from(error: FileError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Ipsec {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        need_root()?;
        match &self.command {
            Command::Keygen(it) => it.run(global),
            Command::Csr(it) => it.run(global),
            Command::Show(it) => it.run(global),
        }
    }
}

impl Keygen {
    fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        match &self.kind {
            Kind::Psk { file } => {
                let fingerprint = ike::make::psk(file)?;
                let value = json!({"file": file, "fingerprint": fingerprint});
                let line = format!("{}: pre-shared key {fingerprint}\n", file.display());
                show(global, &value, &line);
            }
            Kind::Certificate {
                name,
                days,
                key,
                certificate,
            } => {
                ike::make::self_signed(name, *days, key, certificate)?;
                let certificate = Certificate::read(certificate)?;
                show(global, &json!(certificate), &certificate_line(&certificate));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Csr {
    fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        ike::make::request(&self.name, &self.key, &self.out)?;
        let line = format!(
            "{}: a request for a certificate of {}; have your authority sign it\n",
            self.out.display(),
            self.name
        );
        show(global, &json!({"file": self.out, "name": self.name}), &line);
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        if !self.files.is_empty() {
            let mut shown = Vec::new();
            for file in &self.files {
                shown.push(about(file)?);
            }
            let (values, lines): (Vec<Value>, Vec<String>) = shown.into_iter().unzip();
            show(global, &json!({"files": values}), &lines.concat());
            return Ok(ExitCode::SUCCESS);
        }
        let state = state::read(&global.state_dir)?;
        if let Some(tenant) = &self.tenant
            && !state.tenants.contains_key(tenant)
        {
            let message = format!("tenant {tenant} is not onboarded");
            return Err(CliError::Usage(message));
        }
        let (mut values, mut text, mut good) = (Vec::new(), String::new(), true);
        let asked = |name: &Name| self.tenant.as_ref().is_none_or(|only| only == name);
        for (name, record) in state.tenants.iter().filter(|(name, _)| asked(name)) {
            let Some(ike) = record.running_ike() else {
                continue;
            };
            let said = global.switches().associations(name);
            text += &format!("tenant {name}: endpoint {}\n", ike.config.vtep);
            let (mut peers, mut files) = (Vec::new(), Vec::new());
            for peer in &ike.config.peers {
                let mut of_peer = said.iter().flatten();
                let found = of_peer.find(|it| it.peer == peer.name.as_str());
                let state = match (&said, found) {
                    (Err(why), _) => why.clone(),
                    (Ok(_), Some(it)) => format!(
                        "{}, {} associations, {}",
                        it.state.to_lowercase(),
                        it.children,
                        it.identity
                    ),
                    (Ok(_), None) => "no association".to_owned(),
                };
                good &= found.is_some_and(|it| it.children > 0);
                let how = match &peer.authentication {
                    Authentication::Psk(keys) => {
                        files.extend(keys.iter().cloned());
                        "pre-shared key"
                    }
                    Authentication::Pinned(certificates) => {
                        files.extend(certificates.iter().cloned());
                        "pinned certificate"
                    }
                    Authentication::Authority => "authority",
                };
                text += &format!("  peer {} {}: {how}: {state}\n", peer.name, peer.vtep);
                peers.push(json!({
                    "peer": peer.name, "vtep": peer.vtep, "authentication": how,
                    "association": found,
                }));
            }
            let own = ike.config.own.iter().map(|own| own.certificate.clone());
            files.extend(
                own.chain(ike.config.ca.clone())
                    .chain(ike.config.crl.clone()),
            );
            files.sort();
            files.dedup();
            let mut of_files = Vec::new();
            for file in &files {
                match about(file) {
                    Ok((value, line)) => {
                        of_files.push(value);
                        text += &format!("  {line}");
                    }
                    Err(error) => {
                        good = false;
                        of_files.push(json!({"file": file, "error": error.why}));
                        text += &format!("  {error}\n");
                    }
                }
            }
            values.push(json!({
                "tenant": name, "vtep": ike.config.vtep, "peers": peers, "files": of_files,
                "daemon": said.as_ref().err(), "log": global.switches().ike_log(ike),
            }));
        }
        if text.is_empty() {
            text = "no tenant of this host has IPsec\n".to_owned();
        }
        show(global, &json!({"tenants": values}), &text);
        Ok(ExitCode::from(if good { 0 } else { 3 }))
    }
}

fn show(global: &Global, value: &Value, text: &str) {
    match global.json {
        true => print_json(value),
        false => print(text),
    }
}

fn certificate_line(it: &Certificate) -> String {
    let kind = match it.is_authority {
        true => "authority",
        false => "certificate",
    };
    format!(
        "{}: {kind} of {} ({}), {}, SHA-256 {}\n",
        it.file.display(),
        it.identity(),
        it.subject,
        end("expires", &it.file, it.not_after),
        it.fingerprint
    )
}

/// When it ends, as the rest of a sentence.
fn end(verb: &str, file: &std::path::Path, at: i64) -> String {
    let now = SystemTime::now();
    let expiry = Expiry {
        file: file.to_owned(),
        at,
    };
    let warning = match (expiry.is_over(now), expiry.is_near(now)) {
        (true, _) => " (IT HAS ENDED)",
        (false, true) => " (in less than 30 days)",
        (false, false) => "",
    };
    format!("{verb} {}{warning}", history::shown(at as f64))
}

/// What a file is: a certificate, a list of revoked ones, or else a pre-shared key.
fn about(file: &std::path::Path) -> Result<(Value, String), FileError> {
    if let Ok(certificate) = Certificate::read(file) {
        return Ok((json!(certificate), certificate_line(&certificate)));
    }
    if let Ok(list) = RevocationList::read(file) {
        let next = list.next_update.map(|at| end("next", file, at));
        let line = format!(
            "{}: list of {} revoked certificates of {}, {}\n",
            file.display(),
            list.revoked,
            list.issuer,
            next.unwrap_or_else(|| "without an end".to_owned())
        );
        return Ok((json!(list), line));
    }
    let secret = Secret::read_psk(file)?;
    let fingerprint = secret.fingerprint();
    let line = format!("{}: pre-shared key {fingerprint}\n", file.display());
    Ok((json!({"file": file, "fingerprint": fingerprint}), line))
}
