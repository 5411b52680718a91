//! A TCP proxy that breaks the connection between a host and its server in the ways that networks do.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::thread::{self, JoinHandle};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Which way bytes go.
#[derive(Clone, Copy, Debug)]
pub enum Direction {
    ToServer,
    FromServer,
}

/// A proxy on a free port of 127.0.0.1. It has a thread of its own, so a test that blocks does not stop it.
///
/// Each method applies to every byte and connection that arrives after the call returned; those on their way at that moment may
/// still pass.
pub struct Proxy {
    addr: SocketAddr,
    state: watch::Sender<State>,
    thread: Option<JoinHandle<()>>,
}

/// What the connections go by.
#[derive(Clone, Copy, Default)]
struct State {
    /// By [`Direction`].
    paused: [bool; 2],
    refusing: bool,
    /// How often every connection was cut. A connection lives while this is what it was at its start.
    cuts: u64,
    ended: bool,
}

impl Proxy {
    /// Carries each connection to `target`. Connections may come as soon as this returns.
    pub fn start(target: SocketAddr) -> Self {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        listener.set_nonblocking(true).expect("a listener can be set up");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let (state, view) = watch::channel(State::default());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .expect("a runtime can be built")
                .block_on(serve(listener, target, view));
        });
        Self {
            addr,
            state,
            thread: Some(thread),
        }
    }

    /// Where clients connect, `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.addr)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Holds the bytes that go this way. Connections stay open, and new ones are taken: paused both ways, the other
    /// side is half-open to each.
    pub fn pause(&self, direction: Direction) {
        self.state.send_modify(|state| state.paused[direction as usize] = true);
    }

    /// Lets the bytes go again, those held first.
    pub fn resume(&self, direction: Direction) {
        self.state.send_modify(|state| state.paused[direction as usize] = false);
    }

    /// Closes every connection; bytes held are lost. New connections are carried.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Closes each new connection at once, until [`Proxy::accept`].
    pub fn refuse(&self) {
        self.state.send_modify(|state| state.refusing = true);
    }

    pub fn accept(&self) {
        self.state.send_modify(|state| state.refusing = false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.send_modify(|state| state.ended = true);
        // The thread ends without waiting for anyone; its panic, if any, has been printed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(listener: StdListener, target: SocketAddr, state: watch::Receiver<State>) {
    let listener = TcpListener::from_std(listener).expect("the listener is non-blocking");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = until(&state, |now| now.ended) => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let now = *state.borrow();
                // A client that has disconnected before it was accepted needs nothing.
                if let (Ok((client, _)), false) = (accepted, now.refusing) {
                    connections.spawn(carry(client, target, state.clone(), now.cuts));
                }
            }
        }
    }
}

/// Carries one connection until both ways have ended or it is cut. `cuts` is the count at its start.
async fn carry(client: TcpStream, target: SocketAddr, state: watch::Receiver<State>, cuts: u64) {
    // To a client a server that is away looks like a connection closed at once.
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    // Without this a small message would wait for the acknowledgement of the one before it.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
    let forth = pump(client_in, server_out, Direction::ToServer, state.clone(), cuts);
    let back = pump(server_in, client_out, Direction::FromServer, state.clone(), cuts);
    tokio::select! {
        _ = until(&state, |now| now.cuts != cuts) => {}
        // An error of one way, such as a reset, ends the other way too.
        _ = async { tokio::try_join!(forth, back) } => {}
    }
}

/// Moves bytes one way until their end, which it passes on.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    state: watch::Receiver<State>,
    cuts: u64,
) -> io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await?;
        if until(&state, |now| now.cuts != cuts || !now.paused[direction as usize])
            .await
            .cuts
            != cuts
        {
            return Ok(());
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..read]).await?;
    }
}

/// Waits until the state is one that `wanted` accepts, and returns it.
async fn until(state: &watch::Receiver<State>, wanted: impl FnMut(&State) -> bool) -> State {
    *state
        .clone()
        .wait_for(wanted)
        .await
        .expect("the proxy ends its thread before it is gone")
}
