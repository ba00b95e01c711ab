//! A proxy between two processes: it passes on, holds back, cuts, or loses answers whose question was carried out.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// Passes everything on.
    Well,
    /// Connections stay open, and nothing comes through.
    Stalled,
    /// Connections end, and new ones are ended at once.
    Cut,
    /// Of so many in a hundred pieces of answers the connection ends instead: what was asked has happened, and who asked does not know.
    Losing(u32),
}

/// Passes connections on. Dropping it closes everything.
///
/// It has a thread and a runtime of its own: some outlive the test that starts them.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    network: watch::Sender<Network>,
    target: Arc<OnceLock<SocketAddr>>,
    lost: Arc<AtomicU64>,
}

impl Proxy {
    /// Listens. Where connections go is told later: whoever is behind may have to know our address first.
    pub(crate) fn bind(seed: u64) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listening");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let address = listener.local_addr().expect("its address");
        let (network, looked_at) = watch::channel(Network::Well);
        let (target, lost): (Arc<OnceLock<SocketAddr>>, Arc<AtomicU64>) = Default::default();
        let (to, counted) = (Arc::clone(&target), Arc::clone(&lost));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                // The proxy is gone when nobody can change its network any more.
                let mut gone = looked_at.clone();
                tokio::select! {
                    () = accept(listener, seed, looked_at, &to, &counted) => {}
                    _ = gone.wait_for(|_| false) => {}
                }
            });
        });
        Self {
            address,
            network,
            target,
            lost,
        }
    }

    /// Tells where connections go.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.target.set(target).expect("a target that is told once");
    }

    /// Changes the network from now on, connections that are open included.
    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// Answers lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    seed: u64,
    network: watch::Receiver<Network>,
    to: &OnceLock<SocketAddr>,
    lost: &Arc<AtomicU64>,
) {
    let mut passing = JoinSet::new();
    let mut connections = 0;
    while let Ok((client, _)) = listener.accept().await {
        while passing.try_join_next().is_some() {}
        connections += 1;
        let pass = Pass {
            network: network.clone(),
            random: SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003) + connections),
            lost: Arc::clone(lost),
        };
        if let Some(to) = to.get().copied() {
            passing.spawn(pass.run(client, to));
        }
    }
}

struct Pass {
    network: watch::Receiver<Network>,
    random: SmallRng,
    lost: Arc<AtomicU64>,
}

impl Pass {
    /// Copies both ways until either side ends or the network does.
    async fn run(self, client: TcpStream, to: SocketAddr) {
        let mut cut = self.network.clone();
        let both = async {
            let Ok(server) = TcpStream::connect(to).await else { return };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let questions = Self {
                network: self.network.clone(),
                random: SmallRng::seed_from_u64(0),
                lost: Arc::default(),
            };
            tokio::select! {
                () = questions.copy(from_client, to_server, false) => {}
                () = self.copy(from_server, to_client, true) => {}
            }
        };
        tokio::select! {
            () = both => {}
            _ = cut.wait_for(|network| *network == Network::Cut) => {}
        }
    }

    async fn copy(mut self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, answers: bool) {
        let mut bytes = vec![0; 65_536];
        while let Ok(read @ 1..) = from.read(&mut bytes).await {
            let Ok(network) = self
                .network
                .wait_for(|network| *network != Network::Stalled)
                .await
                .map(|network| *network)
            else {
                return;
            };
            if let (true, Network::Losing(percent)) = (answers, network)
                && self.random.random_range(0..100) < percent
            {
                self.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            if to.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    }
}
