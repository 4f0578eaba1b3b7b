//! DPUs that introduce themselves: by a token, by acceptance, or as who they were before.

use std::net::IpAddr;

use boot_server_core::cloud_config::is_hostname;
use boot_server_core::dpu::Dpu;
use boot_server_core::node::{Node, Severity};
use protocol::dial::{Facts, Hello, Welcome};
use protocol::dpu::VERSION;
use protocol::{DpuId, NodeId, Sha256};
use uuid::Uuid;

use super::{DPUS_MAX, DpuError, line};
use crate::engine::{Actor, Engine, EngineError, lock, now};
use crate::secret;

/// DPUs that introduced themselves and that nobody has accepted.
const WAITING_MAX: usize = 256;
/// MAC addresses, functions and programs that one may tell of: two ports with 127 virtual functions each.
const FACTS_MAX: usize = 256;
/// Characters of a text that it tells of itself.
const TEXT_MAX: usize = 200;

impl Engine {
    /// A DPU introduces itself.
    ///
    /// # Errors
    /// [`DpuError`], or what the store says.
    pub async fn dpu_hello(&self, hello: Hello, peer: IpAddr) -> Result<Welcome, EngineError> {
        if hello.version != VERSION {
            return Err(DpuError::Version { theirs: hello.version }.into());
        }
        if hello.secret.0.parse::<Sha256>().is_err() {
            return Err(DpuError::Secret.into());
        }
        let (secret, facts) = (secret::hash(&hello.secret.0), bounded(hello.facts));
        let _turn = self.0.dpus.turn.lock().await;
        let known = self.dpu_with_secret(secret).map(|known| known.dpu);
        let token = hello.token.as_ref().map(|token| secret::hash(&token.0));
        let registered = token.and_then(|token| self.dpu_with_token(token));
        let dpu = match (known, registered, token) {
            (Some(dpu), _, _) => self.heard_dpu(dpu, facts, peer).await?,
            (None, Some(dpu), _) => self.redeem_dpu(dpu, secret, facts, peer).await?,
            (None, None, Some(_)) => return Err(DpuError::Token.into()),
            (None, None, None) => self.strange_dpu(secret, facts, peer).await?,
        };
        if !dpu.accepted {
            let why = format!("somebody has to accept it: `billet dpu accept {}`", dpu.name);
            return Ok(Welcome::Waiting { why });
        }
        self.compose(dpu.id).await?;
        Ok(Welcome::Accepted { dpu: dpu.id, name: dpu.name })
    }

    async fn heard_dpu(&self, before: Dpu, facts: Facts, peer: IpAddr) -> Result<Dpu, EngineError> {
        let mut next = Dpu { facts, address: Some(peer), ..before.clone() };
        next.node = next.node.or_else(|| self.host_of(&next));
        if next != before {
            next = self.put_dpu(next, None).await?;
        }
        self.saw_dpu(next.id);
        Ok(next)
    }

    async fn redeem_dpu(
        &self,
        before: Dpu,
        secret: Sha256,
        facts: Facts,
        peer: IpAddr,
    ) -> Result<Dpu, EngineError> {
        let mut next =
            Dpu { secret: Some(secret), token: None, accepted: true, facts, address: Some(peer), ..before };
        next.node = next.node.or_else(|| self.host_of(&next));
        next = self.with_default_plan(next).await?;
        let event = line(&Actor::Server, &next, "dpu.arrived", Severity::Info, "came in with its token");
        let next = self.put_dpu(next, Some(event)).await?;
        self.saw_dpu(next.id);
        Ok(next)
    }

    async fn strange_dpu(&self, secret: Sha256, facts: Facts, peer: IpAddr) -> Result<Dpu, EngineError> {
        self.room_for_dpu()?;
        let waiting = lock(&self.0.dpus.all).values().filter(|known| !known.dpu.accepted).count();
        if waiting >= WAITING_MAX {
            return Err(DpuError::Many("as many DPUs as may wait to be accepted do").into());
        }
        let mut dpu = Dpu::new(DpuId(Uuid::now_v7()), self.free_dpu_name(&facts), String::new(), now());
        (dpu.secret, dpu.facts, dpu.address) = (Some(secret), facts, Some(peer));
        dpu.node = self.host_of(&dpu);
        let event = line(
            &Actor::Server,
            &dpu,
            "dpu.discovered",
            Severity::Warning,
            &format!("introduced itself from {peer}: accept it, or remove it"),
        );
        let known = self.add_dpu(dpu, event).await?;
        self.saw_dpu(known.dpu.id);
        Ok(known.dpu)
    }

    fn free_dpu_name(&self, facts: &Facts) -> String {
        let own = facts.hostname.split('.').next().unwrap_or_default().to_lowercase();
        let base = if is_hostname(&own) && own.len() <= 50 { own } else { "dpu".to_owned() };
        let taken = |name: &str| lock(&self.0.dpus.all).values().any(|known| known.dpu.name == name);
        if !taken(&base) {
            return base;
        }
        (2..=DPUS_MAX).map(|n| format!("{base}-{n}")).find(|name| !taken(name)).unwrap_or(base)
    }

    /// Gives DPUs without a host the machine that has one of their functions as its NIC: a machine that boots from the network through its
    /// DPU is found after that.
    ///
    /// # Errors
    /// What the store says.
    pub(in crate::engine) async fn pair_dpus(&self) -> Result<(), EngineError> {
        let _turn = self.0.dpus.turn.lock().await;
        for known in self.dpus() {
            let before = known.dpu;
            if before.node.is_some() {
                continue;
            }
            let Some(node) = self.host_of(&before) else { continue };
            let next = Dpu { node: Some(node), ..before };
            let event = line(
                &Actor::Server,
                &next,
                "dpu.paired",
                Severity::Info,
                "its host is the machine with its function",
            );
            self.put_dpu(next, Some(event)).await?;
        }
        Ok(())
    }

    /// The machine that has one of the DPU's functions as its NIC, unless another DPU has it, or somebody took it from this one.
    fn host_of(&self, dpu: &Dpu) -> Option<NodeId> {
        if dpu.unpaired {
            return None;
        }
        let macs: Vec<_> = dpu.facts.functions.iter().map(|function| function.mac).collect();
        let node =
            self.0.nodes.find(|node: &Node| macs.iter().any(|mac| node.identity.macs.contains(mac)))?;
        let all = lock(&self.0.dpus.all);
        let taken = all.values().any(|other| other.dpu.id != dpu.id && other.dpu.node == Some(node.id));
        (!taken).then_some(node.id)
    }

    fn dpu_with_token(&self, token: Sha256) -> Option<Dpu> {
        let all = lock(&self.0.dpus.all);
        let found =
            all.values().find(|known| known.dpu.token.is_some_and(|have| secret::same(&have, &token)));
        found.map(|known| known.dpu.clone())
    }
}

/// What a DPU says of itself, cut to what is kept.
fn bounded(mut facts: Facts) -> Facts {
    let cut = |text: String| text.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect::<String>();
    facts.macs.truncate(FACTS_MAX);
    facts.functions.truncate(FACTS_MAX);
    facts.programs.truncate(FACTS_MAX);
    for program in &mut facts.programs {
        program.name = cut(std::mem::take(&mut program.name));
        program.version = cut(std::mem::take(&mut program.version));
    }
    for function in &mut facts.functions {
        function.interface = cut(std::mem::take(&mut function.interface));
    }
    Facts {
        hostname: cut(facts.hostname),
        serial: facts.serial.map(cut),
        model: facts.model.map(cut),
        kernel: cut(facts.kernel),
        ..facts
    }
}
