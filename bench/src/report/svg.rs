//! Groups of bars as SVG. A chart library would add ten crates, but no grouped bars: these would
//! be drawn from rectangles there too.

use std::fmt::Write;

use super::{Bar, Chart, figure};

/// Colours that most people can tell apart (Okabe and Ito).
const COLOURS: [&str; 8] = [
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#7a7a7a", "#f0e442",
];
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
/// The width that a page shows without scaling. Groups that do not fit go into further rows with
/// the same scale.
const WIDEST: f64 = 1040.0;
/// The height of the title; the legend's lines are below it.
const TOP: f64 = 34.0;
/// The height above the highest bar, for its value.
const HEAD: f64 = 14.0;
const PLOT: f64 = 240.0;
const BOTTOM: f64 = 36.0;
/// The height of a row of groups.
const ROW: f64 = HEAD + PLOT + BOTTOM;
const LINE: f64 = 16.0;
/// The width of a bar, and of the gap between two groups.
const BAR: f64 = 44.0;
const GAP: f64 = 28.0;
/// The approximate width of a letter in the labels, and in the title.
const LETTER: f64 = 6.6;
const TITLE_LETTER: f64 = 8.2;

/// The chart as one SVG element.
pub fn svg(chart: &Chart) -> String {
    let title = format!("{} ({})", chart.title, chart.unit);
    let layout = Layout::of(chart, &title);
    let scale = Scale::of(chart);
    let legend = legend(chart, layout.width());
    let top = TOP + legend.lines * LINE;
    let (width, height) = (layout.width(), top + layout.rows as f64 * ROW);

    let mut out = String::new();
    line(
        &mut out,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             width=\"{width:.0}\" height=\"{height:.0}\" font-family=\"sans-serif\" \
             font-size=\"12\" role=\"img\">"
        ),
    );
    line(
        &mut out,
        format_args!("<title>{}</title>", escaped(&chart.title)),
    );
    line(
        &mut out,
        format_args!("<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"),
    );
    line(
        &mut out,
        format_args!(
            "<text x=\"{LEFT}\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{}</text>",
            escaped(&title)
        ),
    );
    out.push_str(&legend.text);
    for row in 0..layout.rows {
        let first = row * layout.in_row;
        let groups = &chart.groups[first..(first + layout.in_row).min(chart.groups.len())];
        let bottom = top + (row + 1) as f64 * ROW - BOTTOM;
        draw_scale(&mut out, &scale, bottom, groups.len(), layout.group);
        for (index, (label, bars)) in groups.iter().enumerate() {
            let middle = LEFT + (index as f64 + 0.5) * layout.group;
            draw_group(&mut out, label, bars, middle, bottom, &scale);
        }
    }
    out.push_str("</svg>\n");
    out
}

/// The groups' places.
struct Layout {
    rows: usize,
    /// Groups in a row.
    in_row: usize,
    /// The width of a group.
    group: f64,
}

impl Layout {
    fn of(chart: &Chart, title: &str) -> Self {
        let series = chart.series.len().max(1) as f64;
        let longest = chart.groups.iter().map(|(label, _)| label.chars().count());
        let label = longest.max().unwrap_or(0) as f64 * LETTER;
        let group = (series * BAR).max(label) + GAP;
        let fit = ((WIDEST - LEFT - RIGHT) / group).max(1.0) as usize;
        let rows = chart.groups.len().div_ceil(fit).max(1);
        let in_row = chart.groups.len().div_ceil(rows).max(1);
        let plot = (in_row as f64 * group)
            .max(title.chars().count() as f64 * TITLE_LETTER)
            .max(360.0);
        Self {
            rows,
            in_row,
            group: plot / in_row as f64,
        }
    }

    fn width(&self) -> f64 {
        LEFT + self.in_row as f64 * self.group + RIGHT
    }
}

/// The vertical axis, from 0.
struct Scale {
    /// The distance of two lines.
    step: f64,
    /// The number of lines above 0.
    ticks: f64,
}

impl Scale {
    fn of(chart: &Chart) -> Self {
        let bars = chart.groups.iter().flat_map(|(_, bars)| bars).flatten();
        let most = bars.map(|bar| bar.value.max(bar.high)).fold(0.0, f64::max);
        let step = step(most);
        Self {
            step,
            ticks: (most.max(step) / step).ceil(),
        }
    }

    /// The vertical position of a value.
    fn y(&self, bottom: f64, value: f64) -> f64 {
        bottom - PLOT * (value / (self.ticks * self.step)).clamp(0.0, 1.0)
    }
}

/// Draws the scale's lines and labels behind `groups` groups.
fn draw_scale(out: &mut String, scale: &Scale, bottom: f64, groups: usize, group: f64) {
    let right = LEFT + groups.max(1) as f64 * group;
    for tick in 0..=scale.ticks as u32 {
        let value = f64::from(tick) * scale.step;
        let at = scale.y(bottom, value);
        line(
            out,
            format_args!(
                "<path d=\"M{LEFT} {at:.1}H{right:.1}\" stroke=\"#dddddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                tick_label(value, scale.step)
            ),
        );
    }
}

/// Draws a group's label and bars around `middle`.
fn draw_group(
    out: &mut String,
    label: &str,
    bars: &[Option<Bar>],
    middle: f64,
    bottom: f64,
    scale: &Scale,
) {
    line(
        out,
        format_args!(
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            escaped(label)
        ),
    );
    let y = |value: f64| scale.y(bottom, value);
    for (place, bar) in bars.iter().enumerate() {
        if let Some(bar) = bar {
            let left = middle + (place as f64 - bars.len() as f64 / 2.0) * BAR;
            draw_bar(out, bar, left, &y, COLOURS[place % COLOURS.len()]);
        }
    }
}

/// Draws a bar, its value above it, and a whisker from its minimum to its maximum.
fn draw_bar(out: &mut String, bar: &Bar, left: f64, y: &impl Fn(f64) -> f64, colour: &str) {
    let (top, bottom, middle) = (y(bar.value), y(0.0), left + BAR / 2.0);
    line(
        out,
        format_args!(
            "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
             fill=\"{colour}\"><title>{} ({}–{})</title></rect>",
            left + 2.0,
            BAR - 4.0,
            bottom - top,
            figure(bar.value),
            figure(bar.low),
            figure(bar.high)
        ),
    );
    let (low, high) = (y(bar.low), y(bar.high));
    if low - high >= 1.0 {
        line(
            out,
            format_args!(
                "<path d=\"M{middle:.1} {low:.1}V{high:.1}M{:.1} {low:.1}h8M{:.1} {high:.1}h8\" \
                 stroke=\"#222222\" fill=\"none\"/>",
                middle - 4.0,
                middle - 4.0
            ),
        );
    }
    line(
        out,
        format_args!(
            // The white edge separates the figures from the lines of the scale.
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11\" \
             stroke=\"#ffffff\" stroke-width=\"3\" paint-order=\"stroke\">{}</text>",
            high.min(top) - 4.0,
            figure(bar.value)
        ),
    );
}

struct Legend {
    text: String,
    lines: f64,
}

/// The names of the series and the meaning of the whiskers, in as many lines as needed.
fn legend(chart: &Chart, width: f64) -> Legend {
    let (mut text, mut x, mut lines) = (String::new(), LEFT, 1.0);
    for (place, name) in chart.series.iter().enumerate() {
        let takes = 24.0 + name.chars().count() as f64 * LETTER + 10.0;
        if x > LEFT && x + takes > width - RIGHT {
            (x, lines) = (LEFT, lines + 1.0);
        }
        let y = TOP + (lines - 1.0) * LINE;
        line(
            &mut text,
            format_args!(
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"12\" height=\"12\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                COLOURS[place % COLOURS.len()],
                x + 18.0,
                y + 10.0,
                escaped(name)
            ),
        );
        x += takes;
    }
    let mut bars = chart.groups.iter().flat_map(|(_, bars)| bars).flatten();
    if bars.any(|bar| bar.low < bar.high) {
        const WHISKERS: &str = "lines: minimum to maximum";
        if x > LEFT && x + WHISKERS.len() as f64 * LETTER > width - RIGHT {
            (x, lines) = (LEFT, lines + 1.0);
        }
        let y = TOP + (lines - 1.0) * LINE + 10.0;
        line(
            &mut text,
            format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"#555555\">{WHISKERS}</text>"),
        );
    }
    Legend { text, lines }
}

/// The distance of the scale's lines: 1, 2 or 5 times a power of ten, such that there are 4 to 10
/// lines up to a value.
fn step(most: f64) -> f64 {
    if most.is_nan() || most <= 0.0 || most.is_infinite() {
        return 1.0;
    }
    let power = 10f64.powf((most / 10.0).log10().ceil());
    [0.2, 0.5, 1.0]
        .into_iter()
        .map(|part| part * power)
        .find(|step| most / step <= 10.0)
        .unwrap_or(power)
}

fn tick_label(value: f64, step: f64) -> String {
    let digits = (-step.log10().floor()).max(0.0) as usize;
    format!("{value:.digits$}")
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

/// Text escaped for tags and attributes, of HTML too.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The texts between tags. Asserts that every tag is closed.
    pub(crate) fn texts_of(markup: &str, void: &[&str]) -> Vec<String> {
        let (mut open, mut texts) = (Vec::new(), Vec::new());
        let mut rest = markup;
        while let Some(begin) = rest.find('<') {
            let (text, tag) = rest.split_at(begin);
            assert!(!text.contains('>'), "a stray > in {text:?}");
            if !text.trim().is_empty() {
                texts.push(text.trim().to_owned());
            }
            let end = tag.find('>').expect("a tag ends");
            let (tag, after) = (&tag[1..end], &tag[end + 1..]);
            rest = after;
            assert_eq!(tag.matches('"').count() % 2, 0, "quotes in {tag:?}");
            let name = tag.split([' ', '/']).next().unwrap_or_default();
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') && !tag.starts_with('!') && !void.contains(&name) {
                open.push(name);
            }
        }
        assert_eq!(open, Vec::<&str>::new());
        texts
    }

    #[test]
    fn chart_is_well_formed_and_shows_its_values() {
        let chart = &super::super::tests::record().outcome.charts[0];
        let drawn = svg(chart);
        assert_eq!(
            texts_of(&drawn, &[]),
            [
                "p2p &lt;frames&gt; &amp; more",
                "p2p &lt;frames&gt; &amp; more (Mpps)",
                "vswitch",
                "testpmd",
                "lines: minimum to maximum",
                "0.0",
                "0.5",
                "1.0",
                "1.5",
                "2.0",
                "2.5",
                "3.0",
                "3.5",
                "4.0",
                "64 B",
                "3.12 (2.62–3.37)",
                "3.12",
                "3.50 (3.00–3.75)",
                "3.50",
                "1500 B",
                "2.00 (1.50–2.25)",
                "2.00",
            ]
        );
        // A bar of 3.5 on a scale to 4 has seven eighths of the plot's height.
        assert!(
            drawn.contains("height=\"210.0\" fill=\"#e69f00\""),
            "{drawn}"
        );
    }

    #[test]
    fn empty_chart_shows_title_and_scale() {
        let chart = Chart {
            title: "none".to_owned(),
            unit: "s".to_owned(),
            series: Vec::new(),
            groups: Vec::new(),
        };
        assert_eq!(texts_of(&svg(&chart), &[]), ["none", "none (s)", "0", "1"]);
    }

    #[test]
    fn chart_is_at_least_as_wide_as_its_title_and_at_most_as_a_page() {
        let width = |groups: u32, title: &str| -> (f64, f64) {
            let chart = Chart::beside(
                title,
                "s",
                (0..groups).map(|group| (format!("group {group}"), [1.0, f64::NAN])),
            );
            let drawn = svg(&chart);
            assert!(!drawn.contains("NaN"), "{drawn}");
            let size = |name: &str| {
                let (_, rest) = drawn.split_once(&format!(" {name}=\"")).expect("a size");
                rest.split('"').next().and_then(|text| text.parse().ok())
            };
            (
                size("width").expect("a number"),
                size("height").expect("a number"),
            )
        };
        let one_row = TOP + LINE + HEAD + PLOT + BOTTOM;
        assert_eq!(width(3, "t"), (440.0, one_row));
        assert_eq!(width(3, &"t".repeat(60)), (605.0, one_row));
        // Eight fit into a row; twelve become two rows of six.
        let two_rows = one_row + HEAD + PLOT + BOTTOM;
        assert_eq!(width(12, "t"), (776.0, two_rows));
    }

    #[test]
    fn scale_has_round_steps() {
        let steps = [0.0, 0.9, 3.0, 10.0, 11.0, 456.0, 6000.0].map(step);
        assert_eq!(steps, [1.0, 0.1, 0.5, 1.0, 2.0, 50.0, 1000.0]);
    }
}
