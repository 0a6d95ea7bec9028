//! Attacks on the port of the probes, for which no right is needed.

use crate::trial::Trial;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// Keeps so many connections open, each of which sends these bytes and no more. Those that end are opened again.
async fn keep_open(trial: &mut Trial, connections: usize, bytes: Vec<u8>) {
    let url = trial.operator.url().await;
    let address: Arc<str> = url.trim_start_matches("http://").into();
    let bytes = Arc::new(bytes);
    trial.keep(connections, move |_| {
        let (address, bytes) = (address.clone(), bytes.clone());
        async move {
            if let Ok(mut connection) = TcpStream::connect(&*address).await {
                // Ends when the operator wants no more of it.
                let send = timeout(Duration::from_secs(5), connection.write_all(&bytes));
                if matches!(send.await, Err(_) | Ok(Ok(()))) {
                    let _ = connection.read(&mut [0; 512]).await;
                }
            }
            // No storm of connections: it is the memory that is attacked.
            sleep(Duration::from_secs(3)).await;
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn four_hundred_requests_with_380_kb_of_unfinished_headers_cost_no_memory() {
    let mut trial = Trial::begin("unfinished").await;
    let quiet = trial.window("quiet").await;
    let line = format!("X-Long: {}\r\n", "x".repeat(8000));
    let head = format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{}", line.repeat(47));
    keep_open(&mut trial, 400, head.into_bytes()).await;

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn six_thousand_seven_hundred_idle_connections_cost_no_memory() {
    let mut trial = Trial::begin("idle").await;
    let quiet = trial.window("quiet").await;
    keep_open(&mut trial, 6700.min(open_files() / 2), Vec::new()).await;

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}

/// How many files this process may have open at once.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("the limits");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    soft.and_then(|soft| soft.parse().ok()).unwrap_or(1024)
}
