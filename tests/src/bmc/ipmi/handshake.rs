//! The controller's end of the handshake (sections 13.17 to 13.24).

use std::net::SocketAddr;
use std::time::Instant;

use bmc::ipmi::packet::{self, Payload};
use bmc::ipmi::rakp::{OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp34, status};
use bmc::ipmi::suite::{Handshake, Keys, Suite};

use super::controller::{Controller, SESSIONS_MAX, Session};

impl Controller {
    pub(super) fn handle_handshake(&mut self, now: Instant, from: SocketAddr, payload: Payload, body: &[u8]) {
        let answer = match payload {
            Payload::OpenRequest => self.open(now, from, body).map(|a| (Payload::OpenResponse, a.emit())),
            Payload::Rakp1 => self.rakp1(body).map(|a| (Payload::Rakp2, a.emit())),
            Payload::Rakp3 => self.rakp3(body).map(|a| (Payload::Rakp4, a.emit())),
            _ => None,
        };
        if let Some((payload, body)) = answer {
            self.send(from, packet::plain(payload, &body));
        }
    }

    fn open(&mut self, now: Instant, from: SocketAddr, body: &[u8]) -> Option<OpenResponse> {
        let request = OpenRequest::parse(body).ok()?;
        self.asked_for.push(request.algorithms);
        let refuse =
            |code| Some(OpenResponse { tag: request.tag, console: request.console, outcome: Err(code) });
        let suite = Suite::from_algorithms(request.algorithms).filter(|s| self.plan.suites.contains(s));
        let Some(suite) = suite else { return refuse(status::NO_SUITE) };
        // A handshake that came to nothing makes room.
        let unfinished = self.sessions.iter().find(|(_, s)| s.keys.is_none()).map(|(id, _)| *id);
        if self.sessions.len() >= SESSIONS_MAX {
            let Some(id) = unfinished else { return refuse(status::RESOURCES) };
            self.sessions.remove(&id);
        }
        self.next_session += 1;
        let bmc = self.next_session;
        let handshake = Handshake {
            suite,
            console: request.console,
            bmc,
            console_random: [0; 16],
            // A stand-in for tests need not be unpredictable, only different each time.
            bmc_random: u128::from(bmc).to_be_bytes(),
            guid: self.guid(),
            role: 0,
            user: Vec::new(),
        };
        self.sessions.insert(bmc, Session::new(handshake, from, now));
        Some(OpenResponse {
            tag: request.tag,
            console: request.console,
            outcome: Ok((bmc, suite.algorithms())),
        })
    }

    fn rakp1(&mut self, body: &[u8]) -> Option<Rakp2> {
        let first = Rakp1::parse(body).ok()?;
        let known = first.user == self.plan.user.as_bytes();
        let session = self.sessions.get_mut(&first.bmc).filter(|s| s.keys.is_none())?;
        let handshake = &mut session.handshake;
        let console = handshake.console;
        if !known {
            self.sessions.remove(&first.bmc);
            return Some(Rakp2 { tag: first.tag, console, outcome: Err(status::UNAUTHORIZED_NAME) });
        }
        (handshake.console_random, handshake.role, handshake.user) = (first.random, first.role, first.user);
        let code = handshake.rakp2(self.plan.password.as_bytes()).cut(handshake.suite.code_len()).to_vec();
        Some(Rakp2 { tag: first.tag, console, outcome: Ok((handshake.bmc_random, handshake.guid, code)) })
    }

    fn rakp3(&mut self, body: &[u8]) -> Option<Rakp34> {
        let third = Rakp34::parse(body).ok()?;
        let session = self.sessions.get_mut(&third.session)?;
        let handshake = &session.handshake;
        let (tag, console) = (third.tag, handshake.console);
        let right = third.outcome.is_ok_and(|code| {
            handshake.rakp3(self.plan.password.as_bytes()).matches(&code, handshake.suite.code_len())
        });
        if !right {
            self.sessions.remove(&third.session);
            return Some(Rakp34 { tag, session: console, outcome: Err(status::CHECK) });
        }
        let key = handshake.session_key(self.plan.kg.as_deref().unwrap_or(self.plan.password.as_bytes()));
        let check = handshake.rakp4(&key).cut(handshake.suite.check_len()).to_vec();
        session.keys = Some(Keys::new(handshake.suite, &key));
        Some(Rakp34 { tag, session: console, outcome: Ok(check) })
    }
}
