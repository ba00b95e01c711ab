//! A proxy in front of the engine that loses answers: what was asked has happened, and who asked does not know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Loses some answers. Dropping it closes everything.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) url: String,
    /// Answers lost so far.
    pub(crate) lost: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Passes connections on to `to` (`http://host:port`), losing `percent` of the answers.
    pub(crate) async fn start(to: &str, seed: u64, percent: u32) -> Self {
        let to = to
            .strip_prefix("http://")
            .expect("an http address")
            .trim_end_matches('/')
            .to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listening");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let lost = Arc::new(AtomicU64::new(0));
        let (mut tasks, counted) = (JoinSet::new(), Arc::clone(&lost));
        tasks.spawn(async move {
            let mut passing = JoinSet::new();
            let mut connections = 0;
            while let Ok((client, _)) = listener.accept().await {
                connections += 1;
                let random = SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003) + connections);
                passing.spawn(pass(client, to.clone(), random, percent, Arc::clone(&counted)));
            }
        });
        Self {
            url,
            lost,
            _tasks: tasks,
        }
    }
}

/// Copies both ways until either side ends, or an answer is to be lost.
async fn pass(client: TcpStream, to: String, mut random: SmallRng, percent: u32, lost: Arc<AtomicU64>) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = async {
        tokio::io::copy(&mut from_client, &mut to_server).await.ok();
    };
    let answering = async {
        let mut bytes = vec![0; 65_536];
        while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
            if random.random_range(0..100) < percent {
                lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            if to_client.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = asking => {} () = answering => {} }
}
