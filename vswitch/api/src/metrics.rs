//! Prometheus text, format 0.0.4: how a metric is declared, and the one writer of all programs.
//!
//! A metric is declared as a [`Metric`] constant beside what it counts. A [`Writer`] then takes
//! families one after the other. It escapes what the format reserves, so no value can break a line.

use std::fmt::{self, Display, Write};

use crate::plain::Plain;

/// The content type of a [`Writer`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The longest label value in characters; the rest is cut off. The switch's names are shorter.
/// Label values may come from another process, which must not make the text arbitrarily long. A
/// value is cut before it is escaped, so never between a backslash and what it escapes.
const LABEL_MAX: usize = 256;

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Only goes up, from zero at the program's start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, a sum and a count.
    Histogram,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a metric's values are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A plain number.
    Number,
    /// 1 or 0.
    Bool,
    /// Ethernet frames.
    Frames,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Cycles of the time stamp counter.
    Cycles,
}

impl Unit {
    /// The unit in the reference.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Number => "",
            Self::Bool => "0 or 1",
            Self::Frames => "frames",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
            Self::Cycles => "cycles",
        }
    }
}

/// The declaration of a metric. Its number of labels is part of its type, so a sample always has a
/// value for each label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric<const LABELS: usize> {
    name: &'static str,
    kind: Kind,
    unit: Unit,
    help: &'static str,
    labels: [&'static str; LABELS],
}

impl<const LABELS: usize> Metric<LABELS> {
    /// A counter, in a constant: there the compiler refuses a bad name.
    ///
    /// # Panics
    /// If the metric's or a label's name has other characters than `a-z`, `0-9` and `_`, or starts
    /// with a digit.
    pub const fn counter(
        name: &'static str,
        unit: Unit,
        labels: [&'static str; LABELS],
        help: &'static str,
    ) -> Self {
        Self::new(Kind::Counter, name, unit, labels, help)
    }

    /// A gauge, in a constant.
    ///
    /// # Panics
    /// As [`Self::counter`].
    pub const fn gauge(
        name: &'static str,
        unit: Unit,
        labels: [&'static str; LABELS],
        help: &'static str,
    ) -> Self {
        Self::new(Kind::Gauge, name, unit, labels, help)
    }

    /// A histogram, in a constant.
    ///
    /// # Panics
    /// As [`Self::counter`].
    pub const fn histogram(
        name: &'static str,
        unit: Unit,
        labels: [&'static str; LABELS],
        help: &'static str,
    ) -> Self {
        Self::new(Kind::Histogram, name, unit, labels, help)
    }

    const fn new(
        kind: Kind,
        name: &'static str,
        unit: Unit,
        labels: [&'static str; LABELS],
        help: &'static str,
    ) -> Self {
        assert!(is_name(name), "not a name of a metric");
        let mut at = 0;
        while at < LABELS {
            assert!(is_name(labels[at]), "not a name of a label");
            at += 1;
        }
        Self {
            name,
            kind,
            unit,
            help,
            labels,
        }
    }

    /// The metric's row of a Markdown table: name, type, unit, labels, help.
    pub fn markdown_row(&self) -> String {
        let labels = self.labels.map(|label| format!("`{label}`")).join(", ");
        let (name, kind, unit) = (self.name, self.kind.as_str(), self.unit.as_str());
        let help = self.help.replace('|', "\\|");
        format!("| `{name}` | {kind} | {unit} | {labels} | {help} |\n")
    }
}

/// Stricter than the format, which allows capitals and colons too.
const fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !matches!(bytes[at], b'a'..=b'z' | b'0'..=b'9' | b'_') {
            return false;
        }
        at += 1;
    }
    !bytes.is_empty() && !bytes[0].is_ascii_digit()
}

/// A metric and how to read its value from a `T`.
pub type Reading<T, const LABELS: usize> = (Metric<LABELS>, fn(&T) -> u64);

/// A slice of [`Reading`](crate::metrics::Reading)s with the same labels, to stand beside the
/// counters that they read:
///
/// ```
/// use vswitch_api::declare_metrics;
/// use vswitch_api::metrics::{Reading, Writer};
///
/// struct Lamp {
///     lit: u64,
/// }
///
/// impl Lamp {
///     const METRICS: &[Reading<Self, 1>] = declare_metrics! {
///         ["room"];
///         counter "lamp_lit_total" Number "Times the lamp was lit." => |lamp| lamp.lit;
///     };
/// }
///
/// let mut out = Writer::default();
/// out.readings(Lamp::METRICS, [(["hall"], &Lamp { lit: 3 })]);
/// assert!(out.finish().ends_with("lamp_lit_total{room=\"hall\"} 3\n"));
/// ```
#[macro_export]
macro_rules! declare_metrics {
    ($labels:expr; $($kind:ident $name:literal $unit:ident $help:literal => $read:expr;)*) => {
        &[$((
            $crate::metrics::Metric::$kind($name, $crate::metrics::Unit::$unit, $labels, $help),
            $read,
        ),)*]
    };
}

/// The value of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// An exact number.
    Integer(u64),
    /// Any other.
    Float(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Integer(value.into())
    }
}

impl Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Integer(value) => value.fmt(out),
            Self::Float(f64::INFINITY) => out.write_str("+Inf"),
            Self::Float(f64::NEG_INFINITY) => out.write_str("-Inf"),
            Self::Float(value) => value.fmt(out),
        }
    }
}

/// The text being written. Each family is written once, its samples together.
#[derive(Debug, Default)]
pub struct Writer(String);

impl Writer {
    /// Begins the family of `metric`. All samples of the family follow through what is returned.
    pub fn family<const LABELS: usize>(&mut self, metric: &Metric<LABELS>) -> Family<'_, LABELS> {
        let Metric {
            name, kind, help, ..
        } = *metric;
        let (kind, help) = (kind.as_str(), EscapedHelp(help));
        // Writing to a string always succeeds, here and below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family {
            text: &mut self.0,
            metric: *metric,
        }
    }

    /// A family of one sample.
    pub fn single<const LABELS: usize>(
        &mut self,
        metric: &Metric<LABELS>,
        labels: [&str; LABELS],
        value: impl Into<Value>,
    ) {
        self.family(metric).sample(labels, value);
    }

    /// A family for each of `metrics`, each with a sample for each of the objects `of` which they
    /// are read. An object comes with the values of its labels.
    pub fn readings<'a, T: 'a, const LABELS: usize>(
        &mut self,
        metrics: &[Reading<T, LABELS>],
        of: impl IntoIterator<Item = ([&'a str; LABELS], &'a T)> + Clone,
    ) {
        for (metric, read) in metrics {
            let mut family = self.family(metric);
            for (labels, object) in of.clone() {
                family.sample(labels, read(object));
            }
        }
    }

    /// All that was written.
    pub fn finish(self) -> String {
        self.0
    }
}

/// The samples of one metric.
#[derive(Debug)]
pub struct Family<'writer, const LABELS: usize> {
    text: &'writer mut String,
    metric: Metric<LABELS>,
}

impl<const LABELS: usize> Family<'_, LABELS> {
    /// Adds a sample. `labels` are the values of the metric's labels, in their order.
    pub fn sample(&mut self, labels: [&str; LABELS], value: impl Into<Value>) {
        self.line("", labels, None, value.into());
    }

    /// Adds the samples of a histogram: `buckets` are upper bounds and counts, each bucket's alone,
    /// the last one without a bound; `sum` is the sum of all observations.
    pub fn buckets(
        &mut self,
        labels: [&str; LABELS],
        buckets: impl IntoIterator<Item = (Option<f64>, u64)>,
        sum: f64,
    ) {
        let mut count = 0;
        for (bound, alone) in buckets {
            count += alone;
            let bound = Value::Float(bound.unwrap_or(f64::INFINITY)).to_string();
            self.line("_bucket", labels, Some(&bound), count.into());
        }
        self.line("_sum", labels, None, sum.into());
        self.line("_count", labels, None, count.into());
    }

    fn line(&mut self, suffix: &str, labels: [&str; LABELS], le: Option<&str>, value: Value) {
        let name = self.metric.name;
        let named = self.metric.labels.into_iter().zip(labels);
        let _ = write!(self.text, "{name}{suffix}");
        let mut separator = '{';
        for (label, text) in named.chain(le.map(|bound| ("le", bound))) {
            let _ = write!(self.text, "{separator}{label}=\"{}\"", EscapedLabel(text));
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// A label's value: what a terminal would not show is made plain, then backslash and quote are
/// escaped, all after the value was cut off.
struct EscapedLabel<'a>(&'a str);

impl Display for EscapedLabel<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.char_indices().nth(LABEL_MAX);
        let value = &self.0[..end.map_or(self.0.len(), |(end, _)| end)];
        for character in Plain(value).to_string().chars() {
            match character {
                '"' => out.write_str("\\\"")?,
                other => escape(out, other)?,
            }
        }
        Ok(())
    }
}

/// A help text: backslash and newline are escaped.
struct EscapedHelp<'a>(&'a str);

impl Display for EscapedHelp<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|character| escape(out, character))
    }
}

fn escape(out: &mut fmt::Formatter<'_>, character: char) -> fmt::Result {
    match character {
        '\\' => out.write_str("\\\\"),
        '\n' => out.write_str("\\n"),
        other => out.write_char(other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAMES: Metric<2> = Metric::counter(
        "test_frames_total",
        Unit::Frames,
        ["tenant", "port"],
        "Frames.",
    );

    #[test]
    fn families_and_samples_have_the_format_of_prometheus() {
        const UP: Metric<0> = Metric::gauge("test_up", Unit::Bool, [], "Is \"it\"\nup\\down?");
        const WAKE: Metric<1> = Metric::histogram("test_wake", Unit::Seconds, ["of"], "Wakes.");
        let mut out = Writer::default();
        out.single(&UP, [], true);
        let mut frames = out.family(&FRAMES);
        frames.sample(["red", "vm1"], 7);
        frames.sample(["red", "vm2"], u64::MAX);
        let buckets = [(Some(0.00005), 3), (Some(0.5), 0), (None, 1)];
        out.family(&WAKE).buckets(["x"], buckets, 0.0015);
        assert_eq!(
            out.finish(),
            r#"# HELP test_up Is "it"\nup\\down?
# TYPE test_up gauge
test_up 1
# HELP test_frames_total Frames.
# TYPE test_frames_total counter
test_frames_total{tenant="red",port="vm1"} 7
test_frames_total{tenant="red",port="vm2"} 18446744073709551615
# HELP test_wake Wakes.
# TYPE test_wake histogram
test_wake_bucket{of="x",le="0.00005"} 3
test_wake_bucket{of="x",le="0.5"} 3
test_wake_bucket{of="x",le="+Inf"} 4
test_wake_sum{of="x"} 0.0015
test_wake_count{of="x"} 4
"#
        );
    }

    #[test]
    fn values_are_written_as_prometheus_reads_them() {
        let text = |value: f64| Value::from(value).to_string();
        assert_eq!(text(1.0), "1");
        assert_eq!(text(0.1), "0.1");
        assert_eq!(text(f64::INFINITY), "+Inf");
        assert_eq!(text(f64::NEG_INFINITY), "-Inf");
        assert_eq!(text(f64::NAN), "NaN");
    }

    #[test]
    fn names_outside_the_alphabet_are_refused() {
        for name in ["vswitch_up", "_9"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "9", "a b", "a-b", "a\n", "a\"", "ä", "A"] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    /// The values between the quotes of a sample's labels, read as Prometheus does; `None` if the
    /// line is not one whole sample.
    fn read_labels(line: &str) -> Option<Vec<String>> {
        let mut rest = line.strip_prefix("test_frames_total{")?.chars();
        let mut labels = Vec::new();
        for (name, end) in [("tenant=\"", ','), ("port=\"", '}')] {
            if !name.chars().all(|wanted| rest.next() == Some(wanted)) {
                return None;
            }
            let mut label = String::new();
            loop {
                match rest.next()? {
                    '"' => break,
                    '\\' => label.push(match rest.next()? {
                        'n' => '\n',
                        escaped @ ('\\' | '"') => escaped,
                        _ => return None,
                    }),
                    '\n' => return None,
                    other => label.push(other),
                }
            }
            labels.push(label);
            if rest.next() != Some(end) {
                return None;
            }
        }
        (rest.as_str() == " 7\n").then_some(labels)
    }

    #[test]
    fn label_is_not_cut_between_backslash_and_quote() {
        for before in 250..260 {
            let name = format!("{}\\\"\n\u{1b}", "a".repeat(before));
            let mut out = Writer::default();
            out.family(&FRAMES).sample(["red", &name], 7);
            let text = out.finish();
            let sample = text.lines().last().expect("a sample");
            let labels = read_labels(&format!("{sample}\n")).expect("one whole sample");
            assert!(labels[1].starts_with(&"a".repeat(before.min(LABEL_MAX))));
            assert!(!text.contains('\u{1b}'));
        }
    }

    /// Mostly what needs escaping, and longer than a label may be.
    fn hostile() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            r#"[\\"\nnä]{0,12}"#,
            r#"a{250,256}[\\"\n]{0,10}"#,
        ]
    }

    proptest! {
        #[test]
        fn label_values_are_read_back_unchanged_up_to_their_limit(
            tenant in hostile(),
            port in hostile(),
        ) {
            let mut out = Writer::default();
            out.family(&FRAMES).sample([&tenant, &port], 7);
            let text = out.finish();
            let sample = text.split_inclusive('\n').skip(2).collect::<String>();
            let cut = |text: &str| {
                Plain(text.chars().take(LABEL_MAX).collect::<String>()).to_string()
            };
            prop_assert_eq!(read_labels(&sample), Some(vec![cut(&tenant), cut(&port)]));
        }

        #[test]
        fn help_is_one_line_and_read_back_unchanged(help in hostile()) {
            let text = EscapedHelp(&help).to_string();
            prop_assert!(!text.contains('\n'));
            let mut characters = text.chars();
            let mut read = String::new();
            while let Some(character) = characters.next() {
                read.push(match character {
                    '\\' => match characters.next() {
                        Some('n') => '\n',
                        other => other.expect("an escaped character"),
                    },
                    other => other,
                });
            }
            prop_assert_eq!(read, help);
        }
    }
}
