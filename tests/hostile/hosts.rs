//! Hosts that a hostile tenant runs where a cloud should be.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A host on loopback. It runs until the runtime of its test ends.
pub struct Host {
    pub port: u16,
    connections: Arc<AtomicUsize>,
}

impl Host {
    /// Accepts connections and never sends a byte.
    pub async fn silent() -> Self {
        Self::stalling(Vec::new()).await
    }

    /// Answers each request with these bytes, and keeps the connection open.
    pub async fn stalling(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let connections = Arc::<AtomicUsize>::default();
        let (count, answer) = (connections.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(stall(connection, answer.clone()));
            }
        });
        Self { port, connections }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Waits until so many connections have come in.
    pub async fn reached(&self, connections: usize) {
        crate::harness::eventually("connections to a hostile host", || {
            (self.connections.load(Ordering::Relaxed) >= connections).then_some(())
        })
        .await;
    }
}

/// Errors end a connection, as the operator may do at any time.
async fn stall(mut connection: TcpStream, answer: Arc<Vec<u8>>) -> std::io::Result<()> {
    let mut request = [0; 4096];
    loop {
        if connection.read(&mut request).await? == 0 {
            return Ok(());
        }
        connection.write_all(&answer).await?;
    }
}

/// Waits for something that a defence may prevent, but not for long.
pub async fn briefly(event: impl Future) {
    // What follows holds in either case.
    let _ = tokio::time::timeout(Duration::from_secs(2), event).await;
}
