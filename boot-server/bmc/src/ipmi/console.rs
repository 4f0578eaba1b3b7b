//! The serial console: a session of its own that carries SOL, behind a byte stream.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf};

use super::limits::{KEEP_ALIVE, RETRANSMIT};
use super::link::{Ask, Open, data, malformed, refused};
use super::message::completion;
use super::session::Event;
use super::sol::Sol;
use crate::BmcError;

const GET_DEVICE_ID: u8 = 0x01;
const ACTIVATE_PAYLOAD: u8 = 0x48;
const DEACTIVATE_PAYLOAD: u8 = 0x49;
const WHAT: &str = "the serial console";
/// Payload type and instance of SOL (section 24.1).
const SOL: [u8; 2] = [1, 1];
/// Encrypted and authenticated (table 24-2).
const PROTECTED: u8 = 0xc0;
/// Completion codes of Activate Payload (section 24.1).
const ALREADY_ACTIVE: u8 = 0x80;
const DISABLED: u8 = 0x81;
const LIMIT: u8 = 0x82;
/// Octets between the driver and its user before the machine's output has to wait.
const BUFFER: usize = 64 << 10;

/// Activates SOL; the stream ends when the console does, and dropping it deactivates.
pub(super) async fn open(mut open: Open) -> Result<DuplexStream, BmcError> {
    let [kind, instance] = SOL;
    let ask = Ask::app(WHAT, ACTIVATE_PAYLOAD, &[kind, instance, PROTECTED, 0, 0, 0]);
    let response = open.ask(&ask, RETRANSMIT).await?;
    let taken = match response.completion {
        ALREADY_ACTIVE | LIMIT => Err(BmcError::Busy { what: "somebody else has its serial console".into() }),
        DISABLED => Err(BmcError::Refused {
            what: WHAT.into(),
            why: "serial over LAN is disabled in the controller".into(),
        }),
        code if code != completion::OK => Err(refused(WHAT, code)),
        _ => data(&ask, response),
    };
    let packet_max = match taken.map(|d| d.get(4..8).map(|sizes| u16::from_le_bytes([sizes[0], sizes[1]]))) {
        Ok(Some(max)) => max,
        Ok(None) => {
            open.close().await;
            return Err(malformed(WHAT, "an answer of less than eight octets"));
        }
        Err(e) => {
            open.close().await;
            return Err(e);
        }
    };
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    tokio::spawn(async move {
        let mut pump = Pump { open, sol: Sol::new(packet_max), alive: Instant::now() };
        pump.sol.greet(Instant::now());
        if let Err(e) = pump.run(ours).await {
            tracing::debug!(error = %e, "a serial console ended");
        }
        pump.end().await;
    });
    Ok(theirs)
}

struct Pump {
    open: Open,
    sol: Sol,
    /// When a sign of life was last asked for.
    alive: Instant,
}

impl Pump {
    async fn run(&mut self, stream: DuplexStream) -> Result<(), BmcError> {
        let (mut typed, mut printed) = tokio::io::split(stream);
        let mut buffer = [0; 1024];
        while !self.sol.is_ended() {
            self.send();
            let room = self.sol.room().min(buffer.len());
            let wake = self.wake();
            tokio::select! {
                event = self.open.event(Some(wake)) => {
                    let octets = self.take(event?)?;
                    // Where nobody reads, nothing more is acknowledged: the controller keeps it.
                    if !octets.is_empty() && printed.write_all(&octets).await.is_err() {
                        return Ok(());
                    }
                }
                count = read(&mut typed, &mut buffer[..room]) => {
                    if count == 0 {
                        return Ok(());
                    }
                    self.sol.write(Instant::now(), &buffer[..count]);
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Option<Event>) -> Result<Vec<u8>, BmcError> {
        let now = Instant::now();
        match event {
            Some(Event::Sol(packet)) => return Ok(self.sol.handle_packet(now, &packet)),
            Some(Event::Failed(failure)) => return Err(BmcError::Unreachable { what: failure.to_string() }),
            // The answer to a sign of life.
            Some(Event::Answered(_) | Event::Up(_)) => {}
            None => {
                self.sol.handle_timeout(now);
                if now.duration_since(self.alive) >= KEEP_ALIVE {
                    self.alive = now;
                    let sign = Ask::app("a sign of life", GET_DEVICE_ID, &[]);
                    self.open.session().request(now, sign.request, RETRANSMIT);
                }
            }
        }
        Ok(Vec::new())
    }

    fn send(&mut self) {
        while let Some(packet) = self.sol.poll_transmit() {
            self.open.session().send_sol(&packet);
        }
    }

    fn wake(&self) -> Instant {
        let alive = self.alive + KEEP_ALIVE;
        self.sol.poll_timeout().map_or(alive, |sol| sol.min(alive))
    }

    async fn end(mut self) {
        // The last acknowledgement.
        self.send();
        let [kind, instance] = SOL;
        let ask = Ask::app(WHAT, DEACTIVATE_PAYLOAD, &[kind, instance, 0, 0, 0, 0]);
        if self.open.session().is_ready() {
            // Nobody is left to be told of an error.
            let _ = self.open.ask(&ask, super::limits::RETRANSMIT_OPTIONAL).await;
        }
        self.open.close().await;
    }
}

/// What was typed; nothing yet where there is no room for it.
async fn read(typed: &mut ReadHalf<DuplexStream>, buffer: &mut [u8]) -> usize {
    if buffer.is_empty() {
        std::future::pending::<()>().await;
    }
    typed.read(buffer).await.unwrap_or(0)
}
