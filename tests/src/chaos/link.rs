//! A link to the server that can be cut, or lose answers: connections are accepted outside of the namespace and made again inside.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::rack::Handle;

/// Between two looks at the weather.
const LOOK: Duration = Duration::from_millis(20);

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// They are carried.
    Fair,
    /// They break, and none is made.
    Cut,
    /// What is asked arrives; the answers do not, and then the connection breaks.
    Mute,
}

/// A link; it ends when dropped.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    weather: Arc<AtomicU8>,
    stop: Arc<AtomicBool>,
}

impl Link {
    /// Carries connections to `target` as seen inside the namespace.
    ///
    /// # Errors
    /// Where no port of the loopback can be bound.
    pub fn start(namespace: Handle, target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening for a link")?;
        let address = listener.local_addr()?;
        let (weather, stop) = (Arc::new(AtomicU8::new(0)), Arc::new(AtomicBool::new(false)));
        let (state, stopped) = (weather.clone(), stop.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), Ok(namespace)) = (client, namespace.try_clone()) else { continue };
                let state = state.clone();
                // Broken connections are what this is for.
                std::thread::spawn(move || drop(carry(client, &namespace, target, &state)));
            }
        });
        Ok(Self { address, weather, stop })
    }

    /// Its address as a URL without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on.
    pub fn set(&self, weather: Weather) {
        self.weather.store(weather as u8, Ordering::SeqCst);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // One last connection gets the thread out of accept().
        drop(TcpStream::connect(self.address));
    }
}

fn carry(client: TcpStream, namespace: &Handle, target: SocketAddr, weather: &Arc<AtomicU8>) -> Result<()> {
    if weather.load(Ordering::SeqCst) == Weather::Cut as u8 {
        return Ok(());
    }
    namespace.enter()?;
    let server = TcpStream::connect(target)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
    }
    let (from, to, state) = (server.try_clone()?, client.try_clone()?, weather.clone());
    let back = std::thread::spawn(move || pump(from, to, &state, true));
    pump(client, server, weather, false);
    drop(back.join());
    Ok(())
}

/// Carries one direction until it ends or the weather breaks it.
fn pump(mut from: TcpStream, mut to: TcpStream, weather: &AtomicU8, answers: bool) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let got = from.read(&mut buffer);
        let now = weather.load(Ordering::SeqCst);
        let broken =
            now == Weather::Cut as u8 || (now == Weather::Mute as u8 && answers && matches!(got, Ok(1..)));
        if broken {
            for stream in [&from, &to] {
                drop(stream.shutdown(Shutdown::Both));
            }
            return;
        }
        match got {
            Ok(0) => {
                drop(to.shutdown(Shutdown::Write));
                return;
            }
            Ok(n) if to.write_all(&buffer[..n]).is_ok() => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            _ => {
                for stream in [&from, &to] {
                    drop(stream.shutdown(Shutdown::Both));
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::rack::{Namespace, within};

    /// One request over a new connection; what came back.
    fn ask(link: &Link) -> Option<u8> {
        let mut stream = TcpStream::connect(link.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"x").ok()?;
        let mut answer = [0];
        stream.read_exact(&mut answer).ok().map(|()| answer[0])
    }

    #[test]
    fn a_muted_link_brings_the_request_and_loses_the_answer() {
        let namespace = Namespace::new().unwrap();
        let handle = namespace.clone_handle().unwrap();
        let listener = within(&handle, || Ok(TcpListener::bind("127.0.0.1:0")?)).unwrap();
        let target = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut request = [0];
                if stream.read_exact(&mut request).is_ok() {
                    count.fetch_add(1, Ordering::SeqCst);
                    drop(stream.write_all(b"y"));
                }
            }
        });
        let link = Link::start(handle, target).unwrap();
        assert_eq!(ask(&link), Some(b'y'));
        link.set(Weather::Cut);
        assert_eq!((ask(&link), asked.load(Ordering::SeqCst)), (None, 1), "cut");
        link.set(Weather::Mute);
        assert_eq!((ask(&link), asked.load(Ordering::SeqCst)), (None, 2), "mute");
        link.set(Weather::Fair);
        assert_eq!(ask(&link), Some(b'y'));
    }
}
