//! How well servers were there, and how long they took to come: availability from the times a server was in service and in
//! fault, percentiles of provisioning times.
//!
//! ```text
//!  claimed   first active                    reinstalled by its owner       given back
//!     │ provisioning │ in service  ▒▒ fault ▒▒ in service │ not counted │ in service │
//! ```
//!
//! What its owner asked for is not counted against it: a server that is being reinstalled or given back is not in service.

use protocol::{ProjectId, ServerId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::server::Phase;
use crate::usage::Period;

/// A moment at which a server changed, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// When.
    pub at: Timestamp,
    /// Its phase from then on.
    pub phase: Phase,
    /// Its machine is in fault from then on.
    pub fault: bool,
}

/// A server's marks, by time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Which.
    pub server: ServerId,
    /// Its name.
    pub name: String,
    /// Whose.
    pub project: ProjectId,
    /// Name of the project.
    pub project_name: String,
    /// By time.
    pub marks: Vec<Mark>,
}

/// How long it was in service, and how long of that it was in fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Availability {
    /// Seconds in service, faults included.
    pub service_seconds: u64,
    /// Seconds of that in fault.
    pub fault_seconds: u64,
    /// Hundred-thousandths of the time in service in which it was not in fault, rounded down: 99_950 is 99.95 %. None where it
    /// was not in service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_100_000: Option<u32>,
}

/// Availability of one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerSla {
    /// Which.
    pub server: ServerId,
    /// Its name.
    pub name: String,
    /// Name of its project.
    pub project: String,
    /// How well it was there.
    pub availability: Availability,
    /// Seconds from the request to its first boot, where that lies in the period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioned_in: Option<u64>,
}

/// Of one project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProjectSla {
    /// Its name.
    pub project: String,
    /// Servers with a part in the period.
    pub servers: u64,
    /// How well they were there together.
    pub availability: Availability,
    /// How long they took to come.
    pub provisioning: Percentiles,
}

/// Percentiles in seconds, by nearest rank; none of nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// Half took no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<u64>,
    /// Nine of ten took no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90: Option<u64>,
    /// Ninety-nine of a hundred took no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<u64>,
}

/// A report over a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = SlaReport))]
pub struct Report {
    /// The period, cut to what has passed.
    pub period: Period,
    /// Of all projects together.
    pub availability: Availability,
    /// How long servers took to come.
    pub provisioning: Percentiles,
    /// By name of the project.
    pub projects: Vec<ProjectSla>,
    /// By project and name.
    pub servers: Vec<ServerSla>,
}

/// How well servers were there in `period`.
pub fn report(histories: &[History], period: Period, now: Timestamp) -> Report {
    let period = Period { from: period.from, to: period.to.min(now).max(period.from) };
    let mut servers: Vec<(ProjectId, ServerSla)> = histories
        .iter()
        .filter(|history| history.touches(period))
        .map(|history| (history.project, history.sla(period)))
        .collect();
    servers.sort_by(|(_, a), (_, b)| (&a.project, &a.name, a.server).cmp(&(&b.project, &b.name, b.server)));
    let mut projects: Vec<ProjectSla> = Vec::new();
    for group in servers.chunk_by(|(a, _), (b, _)| a == b) {
        let all = || group.iter().map(|(_, sla)| sla);
        projects.push(ProjectSla {
            project: group[0].1.project.clone(),
            servers: u64::try_from(group.len()).unwrap_or(u64::MAX),
            availability: together(all()),
            provisioning: percentiles(all().filter_map(|sla| sla.provisioned_in).collect()),
        });
    }
    let servers: Vec<ServerSla> = servers.into_iter().map(|(_, sla)| sla).collect();
    Report {
        period,
        availability: together(servers.iter()),
        provisioning: percentiles(servers.iter().filter_map(|sla| sla.provisioned_in).collect()),
        projects,
        servers,
    }
}

/// Percentiles by nearest rank: the smallest value that so many are not above.
pub fn percentiles(mut seconds: Vec<u64>) -> Percentiles {
    seconds.sort_unstable();
    let rank = |percent: usize| {
        let rank = (seconds.len() * percent).div_ceil(100);
        rank.checked_sub(1).and_then(|at| seconds.get(at)).copied()
    };
    let count = u64::try_from(seconds.len()).unwrap_or(u64::MAX);
    Percentiles { count, p50: rank(50), p90: rank(90), p99: rank(99) }
}

impl History {
    fn touches(&self, period: Period) -> bool {
        let begun = self.marks.first().is_some_and(|mark| mark.at < period.to);
        let over =
            self.marks.last().is_some_and(|mark| mark.phase == Phase::Deleted && mark.at <= period.from);
        begun && !over
    }

    fn sla(&self, period: Period) -> ServerSla {
        let (mut service, mut fault) = (0, 0);
        let mut was_active = false;
        for (index, mark) in self.marks.iter().enumerate() {
            was_active |= mark.phase == Phase::Active;
            let next = self.marks.get(index + 1).map_or(period.to, |next| next.at);
            let (start, end) = (mark.at.max(period.from), next.min(period.to));
            let length = if start < end { end.0 / 1000 - start.0 / 1000 } else { 0 };
            // A server that never came has no service that could be missed; its provisioning failed.
            match mark.phase {
                Phase::Active if mark.fault => (service, fault) = (service + length, fault + length),
                Phase::Active => service += length,
                Phase::Error if was_active => (service, fault) = (service + length, fault + length),
                Phase::Claimed | Phase::Deploying | Phase::Error | Phase::Deleting | Phase::Deleted => {}
            }
        }
        ServerSla {
            server: self.server,
            name: self.name.clone(),
            project: self.project_name.clone(),
            availability: Availability::of(service, fault),
            provisioned_in: self.provisioned_in(period),
        }
    }

    fn provisioned_in(&self, period: Period) -> Option<u64> {
        let asked = self.marks.first().filter(|mark| mark.phase == Phase::Claimed)?.at;
        let came = self.marks.iter().find(|mark| mark.phase == Phase::Active)?.at;
        (period.from <= came && came < period.to).then(|| came.since(asked).as_secs())
    }
}

impl Availability {
    fn of(service_seconds: u64, fault_seconds: u64) -> Self {
        let up = u128::from(service_seconds.saturating_sub(fault_seconds)) * 100_000;
        let share = up.checked_div(u128::from(service_seconds)).and_then(|share| u32::try_from(share).ok());
        Self { service_seconds, fault_seconds, per_100_000: share }
    }
}

fn together<'a>(servers: impl Iterator<Item = &'a ServerSla>) -> Availability {
    let sum = servers.fold((0, 0), |(service, fault), sla| {
        (service + sla.availability.service_seconds, fault + sla.availability.fault_seconds)
    });
    Availability::of(sum.0, sum.1)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn mark(second: u64, phase: Phase) -> Mark {
        Mark { at: Timestamp(second * 1000), phase, fault: false }
    }

    fn history(n: u128, marks: Vec<Mark>) -> History {
        History {
            server: ServerId(Uuid::from_u128(n)),
            name: format!("s{n}"),
            project: ProjectId(Uuid::from_u128(n % 2)),
            project_name: if n.is_multiple_of(2) { "even".into() } else { "odd".into() },
            marks,
        }
    }

    fn all() -> Period {
        Period { from: Timestamp(0), to: Timestamp(1_000_000) }
    }

    #[test]
    fn faults_count_and_what_the_owner_asked_for_does_not() {
        let fault = |second, fault| Mark { fault, ..mark(second, Phase::Active) };
        let one = history(
            1,
            vec![
                mark(10, Phase::Claimed),
                mark(11, Phase::Deploying),
                mark(100, Phase::Active),
                fault(200, true),
                fault(210, false),
                mark(300, Phase::Deploying), // reinstalled
                mark(400, Phase::Active),
                mark(500, Phase::Error),
                mark(590, Phase::Active),
                mark(900, Phase::Deleting),
                mark(950, Phase::Deleted),
            ],
        );
        let never_came =
            history(2, vec![mark(10, Phase::Claimed), mark(20, Phase::Deploying), mark(50, Phase::Error)]);
        let made = report(&[never_came, one.clone()], all(), Timestamp(1_000_000));
        assert_eq!(
            made.servers[1].availability,
            Availability { service_seconds: 700, fault_seconds: 100, per_100_000: Some(85_714) }
        );
        assert_eq!(made.servers[1].provisioned_in, Some(90));
        assert_eq!(made.servers[0].availability.per_100_000, None, "it was never in service");
        assert_eq!(made.projects.iter().map(|p| p.project.as_str()).collect::<Vec<_>>(), ["even", "odd"]);
        assert_eq!(made.availability.service_seconds, 700);
        // A period that ends in the middle of a fault.
        let part = Period { from: Timestamp(150_000), to: Timestamp(205_000) };
        let made = report(std::slice::from_ref(&one), part, Timestamp(1_000_000));
        assert_eq!((made.availability.service_seconds, made.availability.fault_seconds), (55, 5));
        assert_eq!(made.provisioning.count, 0, "it came before the period");
        let later = Period { from: Timestamp(950_000), to: Timestamp(960_000) };
        assert!(report(&[one], later, Timestamp(1_000_000)).servers.is_empty(), "it was given back");
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        assert_eq!(percentiles(vec![]), Percentiles::default());
        let one = Percentiles { count: 1, p50: Some(7), p90: Some(7), p99: Some(7) };
        assert_eq!(percentiles(vec![7]), one);
        let hundred = percentiles((1..=100).rev().collect());
        assert_eq!(hundred, Percentiles { count: 100, p50: Some(50), p90: Some(90), p99: Some(99) });
    }
}
