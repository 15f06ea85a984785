//! Names processes in messages.

use std::borrow::Cow;
use std::fs;

use vswitch_api::plain;

/// The most of a name that is shown.
const SHOWN: usize = 64;

/// The process with its command and, if it is a virtual machine, the machine's name.
pub(super) fn named(process: i32) -> String {
    match about(process) {
        Some(about) => format!("process {process} ({about})"),
        None => format!("process {process}"),
    }
}

/// A process's command and, if it is a virtual machine, the machine's name; `None` if it has ended.
pub(super) fn about(process: i32) -> Option<String> {
    let line = fs::read(format!("/proc/{process}/cmdline")).ok()?;
    let words: Vec<_> = line
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    let command = words.first().filter(|word| !word.is_empty())?;
    let command = command.rsplit('/').next().unwrap_or(command);
    let mut text = shown(command);
    if let Some(name) = domain(&words) {
        text += &format!(", domain {}", shown(name));
    }
    Some(text)
}

/// The name that QEMU was given: `-name guest=NAME,…` or `-name NAME,…`.
fn domain<'a>(words: &'a [Cow<'_, str>]) -> Option<&'a str> {
    let at = words.iter().position(|word| word == "-name")?;
    let mut parts = words.get(at + 1)?.split(',');
    let first = parts.next()?;
    Some(first.strip_prefix("guest=").unwrap_or(first))
}

/// Any program chooses its own words.
fn shown(word: &str) -> String {
    let plain = |char: char| if char.is_ascii_graphic() { char } else { '?' };
    plain::cut(&word.chars().map(plain).collect::<String>(), SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_is_the_name_that_qemu_was_given() {
        let domain = |line: &str| {
            let words: Vec<_> = line.split(' ').map(Cow::from).collect();
            domain(&words).map(str::to_owned)
        };
        assert_eq!(
            domain("qemu -name guest=web1,debug-threads=on -S").as_deref(),
            Some("web1")
        );
        assert_eq!(domain("qemu -name web2").as_deref(), Some("web2"));
        assert_eq!(domain("qemu -S -name"), None);
        assert_eq!(domain("sleep 600"), None);
    }

    #[test]
    fn process_is_named_with_its_command() {
        let own = std::process::id() as i32;
        let name = named(own);
        assert!(
            name.starts_with(&format!("process {own} (vf_host-")),
            "{name}"
        );
        assert_eq!(shown("\u{1b}[31mred"), "?[31mred");
    }
}
