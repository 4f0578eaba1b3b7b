//! One client's session: its file is opened or made, its transfer driven over a socket of its own, and again for each
//! request that the client sends meanwhile from the same port.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::files::{File, Files, OpenError};
use crate::limits;
use crate::packet::{self, ErrorCode, Request};
use crate::socket::{self, Buffers};
use crate::transfer::{Failure, Outcome, Summary, Transfer};

/// A read request whose name was normalised.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub name: String,
    pub request: Request<'static>,
}

/// What a session works with.
pub(crate) struct Session {
    pub peer: SocketAddr,
    pub socket: UdpSocket,
    pub files: Arc<dyn Files>,
    pub buffers: Arc<Buffers>,
    pub cancel: CancellationToken,
}

/// How it went on after one request.
enum Next {
    Done,
    /// The client asks for something else, or anew.
    Asked(Asked),
}

impl Session {
    /// Serves one client until its transfer, and each that it asked for meanwhile, has ended.
    pub async fn run(self, first: Asked, mut requests: mpsc::Receiver<Asked>) {
        let mut next = Some(first);
        while let Some(asked) = next.take() {
            next = match self.serve(&asked, &mut requests).await {
                Next::Asked(again) => Some(again),
                Next::Done => {
                    requests.close();
                    requests.try_recv().ok()
                }
            };
        }
    }

    async fn serve(&self, asked: &Asked, requests: &mut mpsc::Receiver<Asked>) -> Next {
        let file = {
            let mut opening =
                pin!(tokio::time::timeout(limits::OPEN_MAX, self.files.open(self.peer, &asked.name)));
            loop {
                tokio::select! {
                    () = self.cancel.cancelled() => return self.refuse(ErrorCode::UNDEFINED, "server stops"),
                    opened = &mut opening => {
                        let late = || OpenError::Io(io::ErrorKind::TimedOut.into());
                        break opened.unwrap_or_else(|_| Err(late()));
                    }
                    // Once more the same: the client is impatient, and is answered as soon as the file is there.
                    Some(again) = requests.recv() => if again != *asked { return Next::Asked(again) },
                }
            }
        };
        match file {
            Ok(file) => self.transfer(asked, file, requests).await,
            Err(error) => self.not_served(&asked.name, &error),
        }
    }

    async fn transfer(&self, asked: &Asked, file: File, requests: &mut mpsc::Receiver<Asked>) -> Next {
        let block_max = socket::block_max(&self.socket);
        let mut transfer = Transfer::over(Instant::now(), &asked.request, file, block_max);
        let mut sender = Sender { session: self, bursts: true };
        let mut buf = [0; limits::REPLY_MAX];
        // The timer is set again only when it fires early, or would fire late: setting it for every block costs more
        // than the block.
        let mut armed = transfer.poll_timeout().unwrap_or_else(Instant::now);
        let mut timer = pin!(tokio::time::sleep_until(armed.into()));
        let mut cancelled = pin!(self.cancel.cancelled());
        loop {
            let sent = sender.send(&mut transfer);
            if !sent.any {
                // What came moved nothing: there may be more behind it, of which the event loop tells nothing.
                self.drain(&mut transfer, &mut buf);
            }
            if let Some(summary) = transfer.summary(Instant::now()) {
                log(self.peer, &asked.name, &summary);
                self.files.finished(self.peer, &asked.name, &summary);
                return Next::Done;
            }
            if let Some(wanted) =
                transfer.poll_timeout().filter(|wanted| *wanted < armed || timer.is_elapsed())
            {
                armed = wanted;
                timer.as_mut().reset(wanted.into());
            }
            tokio::select! {
                biased;
                received = socket::receive_one(&self.socket, &mut buf) => match received {
                    Ok(len) => {
                        transfer.handle_packet(Instant::now(), &buf[..len]);
                        if transfer.window() > 1 {
                            // Acknowledgements may come in a row here.
                            self.drain(&mut transfer, &mut buf);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => transfer.handle_unreachable(),
                    Err(error) => {
                        debug!(peer = %self.peer, %error, "TFTP receive failed");
                        tokio::time::sleep(limits::ERROR_PAUSE).await;
                    }
                },
                // Its errors show at the next attempt to send.
                _ = self.socket.writable(), if sent.full => {}
                () = &mut timer => {
                    self.drain(&mut transfer, &mut buf);
                    transfer.handle_timeout(Instant::now());
                }
                Some(again) = requests.recv() => {
                    let doubled = transfer.is_answered() && transfer.age(Instant::now()) < limits::DOUBLED_MAX;
                    if !(doubled && again == *asked) {
                        debug!(peer = %self.peer, name = again.name, "TFTP transfer restarted by its client");
                        return Next::Asked(again);
                    }
                }
                () = &mut cancelled => transfer.stop(),
            }
        }
    }

    /// Takes what has come already, at most [`limits::DRAIN_MAX`] packets; errors show at the next wait.
    fn drain(&self, transfer: &mut Transfer, buf: &mut [u8]) {
        for _ in 0..limits::DRAIN_MAX {
            let Ok(len) = socket::receive_now(&self.socket, buf) else { return };
            transfer.handle_packet(Instant::now(), &buf[..len]);
        }
    }

    fn not_served(&self, name: &str, error: &OpenError) -> Next {
        info!(peer = %self.peer, name, %error, "TFTP request refused");
        let code = match error {
            OpenError::NotFound => ErrorCode::NOT_FOUND,
            OpenError::Denied => ErrorCode::ACCESS,
            OpenError::Io(source) => {
                warn!(name, error = %source, "TFTP file could not be opened");
                ErrorCode::UNDEFINED
            }
        };
        self.refuse(code, &error.to_string())
    }

    /// Sends an ERROR, once; a lost one is asked for again.
    fn refuse(&self, code: ErrorCode, words: &str) -> Next {
        let mut out = Vec::new();
        packet::emit_error(&mut out, code, words);
        if let Err(error) = socket::send_one(&self.socket, &out) {
            debug!(peer = %self.peer, %error, "TFTP error could not be sent");
        }
        Next::Done
    }
}

/// Hands packets to the kernel, many at once while it takes them so.
struct Sender<'a> {
    session: &'a Session,
    bursts: bool,
}

/// What became of an attempt to send.
struct Sent {
    /// Something was sent.
    any: bool,
    /// The socket was full before the end.
    full: bool,
}

impl Sender<'_> {
    /// Sends what may be sent now.
    fn send(&mut self, transfer: &mut Transfer) -> Sent {
        let session = self.session;
        session.buffers.with(|out| {
            let mut any = false;
            loop {
                let offered = if self.bursts { transfer.poll_burst(out) } else { transfer.poll_packet(out) };
                let Some(burst) = offered else { return Sent { any, full: false } };
                any = true;
                match socket::send(&session.socket, &burst, out) {
                    Ok(()) => transfer.burst_sent(burst),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Sent { any, full: true };
                    }
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        transfer.handle_unreachable();
                    }
                    Err(error) if burst.len > burst.segment && socket::refuses_bursts(&error) => {
                        debug!(peer = %session.peer, %error, "TFTP goes on packet by packet");
                        self.bursts = false;
                    }
                    Err(error) => {
                        // As good as lost on the way: the timer sends it again.
                        debug!(peer = %session.peer, %error, "TFTP send failed");
                        transfer.burst_sent(burst);
                    }
                }
            }
        })
    }
}

fn log(peer: SocketAddr, name: &str, summary: &Summary) {
    let (bytes, retransmitted, ms) = (summary.bytes, summary.retransmitted, summary.elapsed.as_millis());
    match &summary.outcome {
        Outcome::Complete => info!(%peer, name, bytes, retransmitted, ms, "TFTP file sent"),
        // How firmware asks for the size of a file.
        Outcome::Failed(Failure::Client { .. }) if bytes == 0 => debug!(%peer, name, "TFTP size asked"),
        Outcome::Failed(failure) => {
            warn!(%peer, name, bytes, retransmitted, ms, %failure, "TFTP transfer failed")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;

    use nix::sys::socket::getsockopt;
    use nix::{getsockopt_impl, sockopt_impl};

    use super::*;
    use crate::files::Opening;
    use crate::packet::{Mode, RequestOptions};

    sockopt_impl!(
        /// The kernel's memory for a socket (`SK_MEMINFO_…` of linux/sock_diag.h): 0 receive queue, 1 its limit, 2 send
        /// queue, 3 its limit.
        MemoryInfo,
        GetOnly,
        libc::SOL_SOCKET,
        SO_MEMINFO,
        [u32; 9]
    );

    /// asm-generic/socket.h; not in libc.
    const SO_MEMINFO: libc::c_int = 55;

    struct Large;

    impl Files for Large {
        fn open<'a>(&'a self, _: SocketAddr, _: &'a str) -> Opening<'a> {
            Box::pin(std::future::ready(Ok(File::Memory(vec![7; 4 << 20].into()))))
        }
    }

    /// Kernel memory of a session beside its queues: socket, inode, file and directory entry, as slabs have them.
    const SOCKET: usize = 4 << 10;
    /// One packet that the kernel takes although the receive queue is full.
    const ONE_MORE: usize = 2304;

    /// A link on which nobody answers ARP: the kernel keeps what is sent, and charges it to the socket.
    fn dead_link() -> bool {
        if !nix::unistd::geteuid().is_root()
            || nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err()
        {
            eprintln!("skipped: needs root to make network namespaces");
            return false;
        }
        let set_up = "ip link add v0 type veth peer name v1 && ip addr add 10.9.0.1/24 dev v0 && \
                      ip link set v0 up && ip link set v1 up";
        assert!(Command::new("sh").args(["-c", set_up]).status().unwrap().success());
        true
    }

    #[tokio::test]
    async fn memory_of_a_session_whose_client_takes_nothing_is_bounded() {
        if !dead_link() {
            return;
        }
        let peer: SocketAddr = "10.9.0.2:2070".parse().unwrap();
        for bursts in [true, false] {
            let socket = socket::session(peer, "10.9.0.1".parse().unwrap(), None).unwrap();
            let (buffers, cancel) = (Arc::default(), CancellationToken::new());
            let session = Session { peer, socket, files: Arc::new(Large), buffers, cancel };
            let options =
                RequestOptions { blksize: Some(1468), windowsize: Some(64), ..RequestOptions::default() };
            let request = Request { name: "f".into(), mode: Mode::Octet, options };
            let asked = Asked { name: "f".into(), request };
            let file = session.files.open(peer, "f").await.unwrap();
            let mut transfer = Transfer::new(Instant::now(), &asked.request, file);
            let mut sender = Sender { session: &session, bursts };
            sender.send(&mut transfer);
            transfer.handle_packet(Instant::now(), b"\0\x04\0\0");
            let full = sender.send(&mut transfer).full;
            assert!(full, "the whole window went into the send queue");
            let [_, receive_max, sent, ..] = getsockopt(&session.socket.as_fd(), MemoryInfo).unwrap();
            let kernel = sent as usize + receive_max as usize + ONE_MORE + SOCKET;
            let (_tx, requests) = tokio::sync::mpsc::channel(1);
            let window = usize::from(limits::WINDOW_MAX) * size_of::<crate::netascii::Cursor>() * 2;
            let own = size_of_val(&session.run(asked, requests)) + window + 2 * limits::NAME_MAX;
            eprintln!("bursts {bursts}: send queue {sent}, receive queue at most {receive_max}, own {own}");
            assert!(kernel + own <= limits::SESSION_MEMORY_MAX, "{kernel} + {own}");
        }
    }
}
