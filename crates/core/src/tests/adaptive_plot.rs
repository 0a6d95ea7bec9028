//! The plot of docs/polling.md: what polls buy, measured as in [`super::adaptive`].

use super::adaptive::{Measured, measure, mixture};
use crate::PollMode;
use std::{fmt::Write as _, fs, path::Path};

/// The periods in seconds.
const PERIODS: [u64; 5] = [15, 30, 60, 120, 240];
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
/// Room for the axes: left, right, top and bottom.
const MARGINS: [f64; 4] = [64.0, 24.0, 48.0, 48.0];
/// Polls a job, and seconds of delay, at the edges.
const POLLS: [f64; 2] = [15.0, 500.0];
const DELAYS: [f64; 2] = [2.0, 150.0];

/// Where a measurement is drawn; both axes are logarithmic.
fn place(polls: f64, delay: f64) -> (f64, f64) {
    let [left, right, top, bottom] = MARGINS;
    let part = |value: f64, [from, to]: [f64; 2]| (value / from).ln() / (to / from).ln();
    let x = left + part(polls, POLLS) * (WIDTH - left - right);
    let y = HEIGHT - bottom - part(delay, DELAYS) * (HEIGHT - top - bottom);
    (x, y)
}

fn text(svg: &mut String, (x, y): (f64, f64), attributes: &str, text: &str) {
    let _ = writeln!(
        svg,
        r#"<text x="{x:.0}" y="{y:.0}" {attributes}>{text}</text>"#
    );
}

fn axes() -> String {
    let title = "Polls a job, and how long after its end it is known";
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" role="img">
<title>{title}</title>
<rect width="100%" height="100%" fill="#ffffff"/>
"##
    );
    text(
        &mut svg,
        (10.0, 24.0),
        r#"font-size="15" font-weight="bold""#,
        title,
    );
    let line = |svg: &mut String, from: (f64, f64), to: (f64, f64)| {
        let _ = writeln!(
            svg,
            r##"<path d="M{:.0} {:.0}L{:.0} {:.0}" stroke="#dddddd"/>"##,
            from.0, from.1, to.0, to.1
        );
    };
    for polls in [20.0, 50.0, 100.0, 200.0, 500.0] {
        line(&mut svg, place(polls, DELAYS[0]), place(polls, DELAYS[1]));
        let (x, y) = place(polls, DELAYS[0]);
        let label = polls.to_string();
        text(&mut svg, (x, y + 16.0), r#"text-anchor="middle""#, &label);
    }
    for delay in [2.0, 5.0, 10.0, 20.0, 50.0, 100.0] {
        line(&mut svg, place(POLLS[0], delay), place(POLLS[1], delay));
        let (x, y) = place(POLLS[0], delay);
        let label = format!("{delay} s");
        text(&mut svg, (x - 6.0, y + 4.0), r#"text-anchor="end""#, &label);
    }
    let below = (WIDTH / 2.0, HEIGHT - 10.0);
    text(
        &mut svg,
        below,
        r#"text-anchor="middle""#,
        "polls a job, on average",
    );
    text(&mut svg, (10.0, 42.0), "", "delay, on average");
    svg
}

fn curve(svg: &mut String, name: &str, colour: &str, measured: &[Measured]) {
    let places: Vec<_> = measured.iter().map(|m| place(m.polls, m.lag)).collect();
    let path: Vec<String> = places
        .iter()
        .map(|(x, y)| format!("{x:.1} {y:.1}"))
        .collect();
    let path = path.join("L");
    let _ = writeln!(
        svg,
        r#"<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>"#
    );
    for ((x, y), period) in places.iter().zip(PERIODS) {
        let _ = writeln!(
            svg,
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{colour}"/>"#
        );
        text(
            svg,
            (x + 7.0, y - 5.0),
            &format!(r#"fill="{colour}""#),
            &format!("{name}, {period} s"),
        );
    }
}

#[test]
#[ignore = "writes docs/images/polling.svg: run by hand after a change of the cadence; tests::adaptive asserts it"]
fn the_plot_of_polls_and_delays() {
    let lives = mixture(1200);
    let mut svg = axes();
    for (mode, name, colour) in [
        (PollMode::Fixed, "fixed", "#b5651d"),
        (PollMode::Adaptive, "adaptive", "#0b6e4f"),
    ] {
        let measured = PERIODS.map(|period| measure(mode, period, &lives));
        curve(&mut svg, name, colour, &measured);
    }
    svg.push_str("</svg>\n");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/images/polling.svg");
    fs::write(file, svg).expect("the file can be written");
}
