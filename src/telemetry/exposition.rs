//! The two text formats of metrics: `OpenMetrics` for those who accept it, that of Prometheus for all others.

/// Whether a header `Accept` asks for `OpenMetrics`.
pub(super) fn accepts_open_metrics(accept: &str) -> bool {
    accept
        .split(',')
        .any(|range| range.trim().starts_with("application/openmetrics-text"))
}

pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub(super) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Rewrites `OpenMetrics` in the format of Prometheus: it names counters with their suffix in the lines about
/// them, and knows neither units nor the type `info`.
pub(super) fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // HELP comes before TYPE, which decides the name of both.
    let mut help = None;
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => {}
            (Some("#"), Some("HELP"), _, rest) => help = rest,
            (Some("#"), Some("TYPE"), Some(name), Some(type_)) => {
                let (suffix, type_) = match type_ {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    other => ("", other),
                };
                let help = help.take().unwrap_or_default();
                let name = format!("{name}{suffix}");
                for line in [
                    "# HELP ",
                    &name,
                    " ",
                    help,
                    "\n# TYPE ",
                    &name,
                    " ",
                    type_,
                    "\n",
                ] {
                    text += line;
                }
            }
            _ => {
                text += line;
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_what_the_client_accepts() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, expected) in [
            (prometheus_3, true),
            ("text/plain, application/openmetrics-text", true),
            ("text/plain;version=0.0.4", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(accepts_open_metrics(accept), expected, "{accept}");
        }
    }

    #[test]
    fn open_metrics_is_rewritten_for_prometheus() {
        let open_metrics = "# HELP a_polls Polls.\n# TYPE a_polls counter\na_polls_total{x=\"# y\"} 1\n\
            # HELP a_seconds Time.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\na_seconds_sum 1.5\n\
            # HELP a_build Version.\n# TYPE a_build info\na_build_info{version=\"1\"} 1\n\
            # HELP a_open Open.\n# TYPE a_open gauge\na_open 2\n# EOF\n";
        let expected = "# HELP a_polls_total Polls.\n# TYPE a_polls_total counter\na_polls_total{x=\"# y\"} 1\n\
            # HELP a_seconds Time.\n# TYPE a_seconds histogram\na_seconds_sum 1.5\n\
            # HELP a_build_info Version.\n# TYPE a_build_info gauge\na_build_info{version=\"1\"} 1\n\
            # HELP a_open Open.\n# TYPE a_open gauge\na_open 2\n";
        assert_eq!(to_prometheus(open_metrics), expected);
    }
}
