//! What the API server has done, by its own metrics.

use anyhow::Context;
use kube::Client;
use std::ops::Sub;

/// Since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Server {
    pub cpu_seconds: f64,
    /// Writes of statuses of our objects that succeeded.
    pub status_writes: f64,
    /// Other changes of our objects by PATCH and PUT that succeeded.
    pub other_writes: f64,
    /// Requests that it was too busy for, whatever they were about.
    pub refused: f64,
}

impl Sub for Server {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - other.cpu_seconds,
            status_writes: self.status_writes - other.status_writes,
            other_writes: self.other_writes - other.other_writes,
            refused: self.refused - other.refused,
        }
    }
}

pub async fn read(client: &Client) -> anyhow::Result<Server> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let text = client.request_text(request).await;
    Ok(parse(&text.context("the metrics of the API server")?))
}

fn parse(text: &str) -> Server {
    let mut server = Server::default();
    for line in text.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let value = value.parse().unwrap_or(0.0);
        let is = |label: &str| series.contains(label);
        if series == "process_cpu_seconds_total" {
            server.cpu_seconds = value;
        } else if !series.starts_with("apiserver_request_total{") {
        } else if is("code=\"429\"") {
            server.refused += value;
        } else if is("resource=\"imageexportjobs\"")
            && is("code=\"200\"")
            && ["PATCH", "PUT", "APPLY"]
                .iter()
                .any(|verb| is(&format!("verb=\"{verb}\"")))
        {
            if is("subresource=\"status\"") {
                server.status_writes += value;
            } else {
                server.other_writes += value;
            }
        }
    }
    server
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_of_an_api_server_are_read() {
        let text = r#"
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",resource="imageexportjobs",subresource="status",verb="PATCH"} 10
apiserver_request_total{code="200",resource="imageexportjobs",subresource="status",verb="PUT"} 2
apiserver_request_total{code="409",resource="imageexportjobs",subresource="status",verb="PUT"} 5
apiserver_request_total{code="200",resource="imageexportjobs",subresource="",verb="PATCH"} 3
apiserver_request_total{code="200",resource="imageexportjobs",subresource="",verb="LIST"} 7
apiserver_request_total{code="429",resource="imageexportjobs",subresource="",verb="WATCH"} 4
process_cpu_seconds_total 12.5
"#;
        let server = Server {
            cpu_seconds: 12.5,
            status_writes: 12.0,
            other_writes: 3.0,
            refused: 4.0,
        };
        assert_eq!(parse(text), server);
        assert!((server - server).status_writes.abs() < f64::EPSILON);
    }
}
