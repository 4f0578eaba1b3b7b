//! A TCP port of the rack, made reachable at the host's loopback: connections are accepted outside the namespace and
//! made again inside it.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use super::namespace::Handle;

/// A running forwarder; it stops when dropped (connections that it carries end by themselves).
#[derive(Debug)]
pub struct Forward {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Forward {
    /// Carries connections to `target` as seen inside the namespace.
    ///
    /// # Errors
    /// Where no port of the host can be bound.
    pub fn start(namespace: Handle, target: SocketAddr) -> Result<Self> {
        Self::start_at(namespace, target, (Ipv4Addr::LOCALHOST, 0).into())
    }

    /// As [`Forward::start`], listening at `listen`.
    ///
    /// # Errors
    /// Where `listen` cannot be bound.
    pub fn start_at(namespace: Handle, target: SocketAddr, listen: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(listen).with_context(|| format!("listening at {listen}"))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), Ok(namespace)) = (client, namespace.try_clone()) else { continue };
                std::thread::spawn(move || {
                    if let Err(e) = carry(client, &namespace, target) {
                        // A server that is down is what some tests are about.
                        eprintln!("forward to {target}: {e:#}");
                    }
                });
            }
        });
        Ok(Self { address, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as a URL without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // One last connection gets the thread out of accept().
        let _ = TcpStream::connect(self.address);
    }
}

/// Carries one connection. The thread stays in the namespace, so it must be one of its own.
fn carry(client: TcpStream, namespace: &Handle, target: SocketAddr) -> Result<()> {
    namespace.enter()?;
    let server = TcpStream::connect(target).context("connecting inside the rack")?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let back = std::thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Write);
    });
    let (mut from_client, mut to_server) = (client, server);
    // An end that is closed early is no error of ours.
    let _ = io::copy(&mut from_client, &mut to_server);
    let _ = to_server.shutdown(Shutdown::Write);
    let _ = back.join();
    Ok(())
}
