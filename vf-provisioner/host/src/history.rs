//! Who changed tenants, what, when, and with which result: what `journal` shows.
//!
//! A file of JSON lines in the state directory, and the one before it. A change has two lines, one
//! when it begins and one with its result, so one that was killed shows, too. The file outlives the
//! last tenant. No line has a value of a tenant's file, of the environment, or of a switch's log;
//! each has a bound, and so has the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Uid, User, getppid, getuid};
use serde::{Deserialize, Serialize};
use tenant_config::Name;

/// The file's name, and that of the one before.
pub(crate) const FILE: &str = "history";
pub(crate) const BEFORE: &str = "history.1";
/// How long the file grows.
const FILE_MAX: u64 = 1 << 20;
/// The longest line that is read or written, and the longest text in one.
const LINE_MAX: usize = 16 << 10;
const TEXT_MAX: usize = 1 << 10;
/// How many tenants a line names.
const NAMES_MAX: usize = 64;

/// Who made a change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The user of the process.
    pub uid: u32,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Who had logged in, as the kernel keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Who called sudo, as sudo says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo: Option<String>,
    /// The process.
    pub pid: u32,
    /// Its words.
    pub command: String,
    /// The name of the process that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Done, with that many steps, or failed.
    pub steps: usize,
    /// How long it took.
    pub seconds: f64,
    /// Why it failed: the first line, without what follows of a log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// When it began, in seconds since the epoch.
    pub time: f64,
    /// Who made it.
    pub who: Who,
    /// `apply`, `release`, `repair`, …
    pub what: String,
    /// The tenants that it was about.
    pub tenants: BTreeSet<Name>,
    /// How many more there were.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: usize,
    /// `None` if it was killed, or is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A line of the file. A result names the change by its number.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Begun {
        begun: String,
        #[serde(flatten)]
        change: Change,
    },
    Ended {
        ended: String,
        #[serde(flatten)]
        outcome: Outcome,
    },
}

/// A change that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    number: String,
    began: Instant,
}

/// Notes that a change of these tenants begins. That this cannot be written stops no change.
pub(crate) fn begin<'a>(
    dir: &Path,
    what: &str,
    tenants: impl IntoIterator<Item = &'a Name>,
) -> Begun {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut all: BTreeSet<Name> = tenants.into_iter().cloned().collect();
    let more = all.len().saturating_sub(NAMES_MAX);
    if let Some(cut) = all.iter().nth(NAMES_MAX).cloned() {
        drop(all.split_off(&cut));
    }
    let time = now();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let number = format!("{:.3}-{}-{next}", time, std::process::id());
    let change = Change {
        time,
        who: Who::ours(),
        what: what.to_owned(),
        tenants: all,
        more,
        outcome: None,
    };
    let begun = number.clone();
    append(dir, &Line::Begun { begun, change });
    let began = Instant::now();
    Begun { number, began }
}

impl Begun {
    /// Notes the result of a change: its steps, or why it failed.
    pub(crate) fn end(self, dir: &Path, result: Result<usize, &dyn std::fmt::Display>) {
        let outcome = Outcome {
            steps: *result.as_ref().unwrap_or(&0),
            seconds: (self.began.elapsed().as_secs_f64() * 1e3).round() / 1e3,
            error: result.err().map(|error| {
                // The end of a log follows in further lines.
                cut(error.to_string().lines().next().unwrap_or_default())
            }),
        };
        let ended = self.number;
        append(dir, &Line::Ended { ended, outcome });
    }
}

fn append(dir: &Path, line: &Line) {
    let written = serde_json::to_vec(line)
        .map_err(std::io::Error::from)
        .and_then(|mut line| {
            line.push(b'\n');
            write(dir, &line)
        });
    if let Err(error) = written {
        tracing::warn!(file = %dir.join(FILE).display(), %error, "a change is not in the journal");
    }
}

/// Nobody waits for a lock: it may be held by a process that was stopped.
fn write(dir: &Path, line: &[u8]) -> std::io::Result<()> {
    let path = dir.join(FILE);
    let open = || {
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o600).open(&path)
    };
    let mut file = open()?;
    let length = file.metadata()?.len() + line.len() as u64;
    if length > FILE_MAX && rotate(dir, &file)? {
        file = open()?;
    } else if length > 2 * FILE_MAX {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    // One write, so that a crash leaves at most the last line incomplete.
    file.write_all(line)
}

/// Makes the file the one before, unless another process does. Returns whether that was done.
fn rotate(dir: &Path, file: &File) -> std::io::Result<bool> {
    let path = dir.join(FILE);
    let lock = Flock::lock(file.try_clone()?, FlockArg::LockExclusiveNonblock);
    let Ok(lock) = lock else {
        return Ok(false);
    };
    let held = lock.metadata()?;
    let is_still = std::fs::metadata(&path).is_ok_and(|there| there.ino() == held.ino());
    if is_still {
        std::fs::rename(&path, dir.join(BEFORE))?;
    }
    Ok(true)
}

/// Which changes are shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Only of this tenant.
    pub tenant: Option<Name>,
    /// Only those that began at that time, in seconds since the epoch, or later.
    pub since: Option<f64>,
}

/// The changes, the oldest first. Lines that are damaged are left out.
///
/// # Errors
/// If a file is there and cannot be read.
pub fn read(dir: &Path, filter: &Filter) -> std::io::Result<Vec<Change>> {
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let mut changes: Vec<Change> = Vec::new();
    for name in [BEFORE, FILE] {
        let text = match std::fs::read(dir.join(name)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in text.split(|byte| *byte == b'\n') {
            if line.len() > LINE_MAX {
                continue;
            }
            match serde_json::from_slice(line) {
                Ok(Line::Begun { begun, change }) => {
                    numbers.insert(begun, changes.len());
                    changes.push(change);
                }
                Ok(Line::Ended { ended, outcome }) => {
                    let change = numbers.remove(&ended).and_then(|at| changes.get_mut(at));
                    if let Some(change) = change {
                        change.outcome = Some(outcome);
                    }
                }
                Err(_) => {}
            }
        }
    }
    changes.retain(|change| {
        filter.since.is_none_or(|since| change.time >= since)
            && filter
                .tenant
                .as_ref()
                .is_none_or(|tenant| change.tenants.contains(tenant))
    });
    Ok(changes)
}

impl Who {
    /// This process.
    fn ours() -> Self {
        let uid = getuid();
        let login = std::fs::read_to_string("/proc/self/loginuid").unwrap_or_default();
        // -1 is nobody: a service was not started by a login.
        let login = login.trim().parse::<u32>().ok();
        let login = login.filter(|uid| *uid != u32::MAX);
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", getppid()));
        let words: Vec<String> = std::env::args().collect();
        Self {
            uid: uid.as_raw(),
            user: name(uid),
            login: login.map(|uid| name(Uid::from_raw(uid)).unwrap_or_else(|| uid.to_string())),
            sudo: std::env::var("SUDO_USER").ok().map(|user| cut(&user)),
            pid: std::process::id(),
            command: command(&words),
            parent: comm.ok().map(|comm| cut(comm.trim_end())),
        }
    }
}

fn name(uid: Uid) -> Option<String> {
    Some(User::from_uid(uid).ok()??.name)
}

/// The words of a command. The value of an option whose name speaks of a secret is left out.
fn command(words: &[String]) -> String {
    let is_secret = |option: &str| {
        let option = option.to_lowercase();
        let words = ["secret", "password", "passphrase", "token", "key"];
        option.starts_with('-') && words.iter().any(|word| option.contains(word))
    };
    let mut shown = Vec::new();
    let mut hide = false;
    for word in words {
        let (option, value) = word
            .split_once('=')
            .map_or((word.as_str(), None), |(it, value)| (it, Some(value)));
        shown.push(match (std::mem::take(&mut hide), value) {
            (true, _) => "***".to_owned(),
            (false, Some(_)) if is_secret(option) => format!("{option}=***"),
            (false, None) if is_secret(option) => {
                hide = true;
                word.clone()
            }
            _ => word.clone(),
        });
    }
    cut(&shown.join(" "))
}

/// The beginning of a text.
fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_MAX);
    text.get(..end).unwrap_or_default().to_owned()
}

/// The time, in seconds since the epoch.
pub fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

const DAY_S: i64 = 86_400;

/// A time as `2026-11-29T17:30:05Z`.
pub fn shown(time: f64) -> String {
    let seconds = time as i64;
    let (day, second) = (seconds.div_euclid(DAY_S), seconds.rem_euclid(DAY_S));
    // Days since 0000-03-01, in eras of 400 years.
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let (day, month) = (
        of_year - (153 * shifted_month + 2) / 5 + 1,
        (shifted_month + 2) % 12 + 1,
    );
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z",
        second % 60
    )
}

/// The time that an option means: `90s`, `15m`, `2h` or `7d` before `now`, or a date
/// `2026-11-29`, also with a time, `2026-11-29T17:30` or `2026-11-29T17:30:05Z`, in UTC.
///
/// # Errors
/// A sentence.
pub fn time_of(text: &str, now: f64) -> Result<f64, String> {
    let wrong = || {
        format!(
            "{text:?} is no time: give 90s, 15m, 2h or 7d ago, or a UTC time as 2026-11-29 or \
             2026-11-29T17:30"
        )
    };
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .unwrap_or((text, ""));
    let unit_s = match unit {
        "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        "d" => Some(DAY_S as f64),
        _ => None,
    };
    if let (Some(unit_s), Ok(number)) = (unit_s, number.parse::<u32>()) {
        return Ok(now - f64::from(number) * unit_s);
    }
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00"));
    let numbers = |text: &str, by: char| {
        let parts = text.split(by).map(|part| part.parse::<u32>().ok());
        parts.collect::<Option<Vec<u32>>>().ok_or_else(wrong)
    };
    let (date, time) = (numbers(date, '-')?, numbers(time, ':')?);
    let [year, month @ 1..=12, day @ 1..=31] = date[..] else {
        return Err(wrong());
    };
    let (hour, minute, second) = match time[..] {
        [hour @ 0..=23, minute @ 0..=59] => (hour, minute, 0),
        [hour @ 0..=23, minute @ 0..=59, second @ 0..=60] => (hour, minute, second),
        _ => return Err(wrong()),
    };
    if !(1970..=9999).contains(&year) {
        return Err(wrong());
    }
    let (year, month, day) = (i64::from(year), i64::from(month), i64::from(day));
    let shifted_year = year - i64::from(month <= 2);
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    let days = era * 146_097 + of_era - 719_468;
    let of_day = i64::from(hour * 3600 + minute * 60 + second);
    Ok((days * DAY_S + of_day) as f64)
}

/// The output of `journal`: a line for each change.
pub fn lines(changes: &[Change]) -> String {
    let line = |change: &Change| {
        let who = &change.who;
        let user = who.user.clone().unwrap_or_else(|| who.uid.to_string());
        let origin = who.sudo.as_ref().or(who.login.as_ref());
        let origin = origin.filter(|origin| **origin != user);
        let origin = origin.map(|it| format!(" ({it})")).unwrap_or_default();
        let mut tenants: Vec<String> = change.tenants.iter().map(Name::to_string).collect();
        if change.more > 0 {
            tenants.push(format!("and {} more", change.more));
        }
        let result = match &change.outcome {
            None => "no result: killed, or under way".to_owned(),
            Some(Outcome {
                error: Some(why), ..
            }) => format!("failed: {why}"),
            Some(Outcome { steps: 0, .. }) => "nothing to do".to_owned(),
            Some(outcome) => format!("{} steps, {:.1} s", outcome.steps, outcome.seconds),
        };
        format!(
            "{}  {user}{origin}  {} {}  {result}  [{}: {}]\n",
            shown(change.time),
            change.what,
            tenants.join(" "),
            who.pid,
            who.command
        )
    };
    changes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn changes_have_who_what_and_result_and_are_filtered() {
        let dir = tempfile::tempdir().expect("a directory");
        let red = [name("red")];
        begin(dir.path(), "apply", &red).end(dir.path(), Ok(3));
        let both = [name("blue"), name("red")];
        let failed = begin(dir.path(), "apply", &both);
        let killed = [name("blue")];
        begin(dir.path(), "release", &killed);
        let error = "the switch is not ready\nthe end of its log: hunter2";
        failed.end(dir.path(), Err(&error));
        let all = read(dir.path(), &Filter::default()).expect("it is read");
        let seen: Vec<_> = all
            .iter()
            .map(|it| {
                let outcome = it.outcome.as_ref();
                let result = outcome.map(|it| (it.steps, it.error.as_deref()));
                (it.what.as_str(), it.tenants.len(), result)
            })
            .collect();
        let wanted = [
            ("apply", 1, Some((3, None))),
            ("apply", 2, Some((0, Some("the switch is not ready")))),
            ("release", 1, None),
        ];
        assert_eq!(seen, wanted);
        assert!(all.iter().all(|it| it.who == Who::ours()));
        assert_eq!(all[0].who.pid, std::process::id());
        let tenant = Some(name("blue"));
        let filter = Filter {
            tenant,
            since: None,
        };
        assert_eq!(read(dir.path(), &filter).expect("it is read"), all[1..]);
        let since = Some(now() + 1.0);
        let filter = Filter {
            tenant: None,
            since,
        };
        assert_eq!(read(dir.path(), &filter).expect("it is read"), []);
        let text = std::fs::read_to_string(dir.path().join(FILE)).expect("it is there");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn file_is_bounded_and_damaged_lines_are_left_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let names: Vec<Name> = (0..200).map(|it| name(&format!("t{it}"))).collect();
        for _ in 0..2500 {
            begin(dir.path(), "apply", &names);
        }
        let size = |file: &str| std::fs::metadata(dir.path().join(file)).map_or(0, |it| it.len());
        assert!(size(FILE) <= FILE_MAX && size(BEFORE) <= FILE_MAX && size(BEFORE) > FILE_MAX / 2);
        let all = read(dir.path(), &Filter::default()).expect("it is read");
        let last = all.last().expect("a change");
        assert_eq!(
            (last.tenants.len(), last.more),
            (NAMES_MAX, 200 - NAMES_MAX)
        );
        let mut text = std::fs::read(dir.path().join(FILE)).expect("it is there");
        text.truncate(text.len() - 5);
        text.splice(0..0, *b"{\xff}\n");
        std::fs::write(dir.path().join(FILE), text).expect("it is written");
        let damaged = read(dir.path(), &Filter::default()).expect("it is read");
        assert_eq!(damaged, all[..all.len() - 1]);
    }

    #[test]
    fn secrets_on_the_command_line_are_not_kept() {
        let words = [
            "vf-provisioner",
            "--api-token",
            "hunter2",
            "apply",
            "--Password=hunter2",
            "x",
        ];
        let words = words.map(str::to_owned);
        assert_eq!(
            command(&words),
            "vf-provisioner --api-token *** apply --Password=*** x"
        );
        let long = [format!("{}é", "x".repeat(TEXT_MAX - 1))];
        assert_eq!(command(&long).len(), TEXT_MAX - 1);
    }

    #[test]
    fn times_are_read_and_shown() {
        for (text, wanted) in [
            ("1970-01-01", 0.0),
            ("2000-02-29T23:59:59", 951_868_799.0),
            ("2026-11-29T17:30", 1_795_973_400.0),
            ("2026-11-29T17:30:05Z", 1_795_973_405.0),
            ("90s", 1e9 - 90.0),
            ("15m", 1e9 - 900.0),
            ("2h", 1e9 - 7200.0),
            ("7d", 1e9 - 604_800.0),
        ] {
            assert_eq!(time_of(text, 1e9), Ok(wanted), "{text}");
        }
        for text in [
            "",
            "h",
            "yesterday",
            "2026-13-01",
            "2026-11-29T24:00",
            "1-1-1",
            "-5m",
            "é",
        ] {
            assert!(time_of(text, 1e9).is_err(), "{text}");
        }
        for text in [
            "1970-01-01T00:00:00Z",
            "2000-02-29T23:59:59Z",
            "2100-03-01T12:00:01Z",
        ] {
            assert_eq!(shown(time_of(text, 0.0).expect("a time")), text);
        }
    }
}
