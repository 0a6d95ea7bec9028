//! Plots as SVG: bars with the range of all runs.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const LABELS: f64 = 200.0;
const VALUES: f64 = 180.0;
const BAR: f64 = 18.0;
const GAP: f64 = 30.0;
const COLOURS: [(&str, &str); 4] = [
    ("operator", "#0b6e4f"),
    ("kube-rs", "#b5651d"),
    ("controller-runtime", "#2f6f9f"),
    ("kopf", "#7a5195"),
];

/// Bars that belong together.
pub struct Group {
    pub name: String,
    pub bars: Vec<Bar>,
}

pub struct Bar {
    pub label: String,
    /// The value for people.
    pub shown: String,
    /// Least, median and most; none where nothing could be measured.
    pub range: Option<[f64; 3]>,
}

/// Horizontal bars, each group on a scale of its own, from 0.
pub fn bars(title: &str, groups: &[Group]) -> String {
    let rows: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = 40.0 + GAP * count(groups.len()) + BAR * count(rows) + 10.0;
    let title = escape(title);
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12" role="img">
<title>{title}</title>
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="10" y="24" font-size="15" font-weight="bold">{title}</text>
"##
    );
    let mut y = 40.0;
    for group in groups {
        let name = escape(&group.name);
        let _ = writeln!(
            svg,
            r#"<text x="10" y="{:.0}" font-weight="bold">{name}</text>"#,
            y + 18.0
        );
        y += GAP;
        let most = group.bars.iter().filter_map(|bar| Some(bar.range?[2]));
        let most = most.fold(0.0, f64::max);
        for bar in &group.bars {
            svg.push_str(&draw(bar, y, most));
            y += BAR;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(bar: &Bar, y: f64, most: f64) -> String {
    let room = WIDTH - LABELS - VALUES;
    let scale = |value: f64| if most > 0.0 { value / most * room } else { 0.0 };
    let (label, shown) = (escape(&bar.label), escape(&bar.shown));
    let text = y + 13.0;
    let mut svg = format!(r#"<text x="20" y="{text:.0}">{label}</text>"#);
    let mut end = LABELS;
    if let Some([least, median, most]) = bar.range.map(|range| range.map(scale)) {
        let colour = COLOURS.iter().find(|(name, _)| bar.label.starts_with(name));
        let colour = colour.map_or("#666666", |(_, colour)| colour);
        let _ = write!(
            svg,
            r#"<rect x="{LABELS}" y="{:.0}" width="{median:.1}" height="{:.0}" fill="{colour}"/>"#,
            y + 2.0,
            BAR - 4.0
        );
        if most - least > 1.0 {
            let _ = write!(
                svg,
                r##"<path d="M{:.1} {middle:.0}H{:.1}" stroke="#222222"/>"##,
                LABELS + least,
                LABELS + most,
                middle = y + BAR / 2.0
            );
        }
        end += most;
    }
    let _ = writeln!(
        svg,
        r#"<text x="{:.0}" y="{text:.0}">{shown}</text>"#,
        end + 6.0
    );
    svg
}

/// Few enough.
#[allow(clippy::cast_precision_loss)]
fn count(count: usize) -> f64 {
    count as f64
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(label: &str, range: Option<[f64; 3]>) -> Bar {
        Bar {
            label: label.to_owned(),
            shown: "shown".to_owned(),
            range,
        }
    }

    #[test]
    fn bars_are_as_long_as_their_values_and_the_range_is_drawn() {
        let bars = vec![
            bar("operator", Some([1.0, 1.0, 1.0])),
            bar("kube-rs", Some([2.0, 3.0, 4.0])),
            bar("a < b", None),
        ];
        let group = Group {
            name: "group".to_owned(),
            bars,
        };
        let svg = super::bars("title", &[group]);
        let room = WIDTH - LABELS - VALUES;
        for width in [room / 4.0, room * 3.0 / 4.0] {
            assert!(svg.contains(&format!(r#"width="{width:.1}""#)), "{svg}");
        }
        let range = format!("M{:.1} ", LABELS + room / 2.0);
        assert_eq!(svg.matches("<path").count(), 1);
        assert!(svg.contains(&range) && svg.contains("a &lt; b"), "{svg}");
    }
}
