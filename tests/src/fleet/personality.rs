//! The firmware that machines have: what each kind says, how patient it is, and where it breaks the rules. The patience
//! is that of the real ones: PXE 2.1 section 2.2.1 and EDK2's `PxeBcDxe` (4 tries: 4, 8, 16, 32 s), iPXE's `dhcp.h`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::rng::Rng;

/// A kind of firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Personality {
    /// BIOS PXE ROM.
    LegacyRom,
    /// x64 UEFI, PXE.
    OvmfPxe,
    /// x64 UEFI, HTTP boot.
    OvmfHttp,
    /// arm64 UEFI, PXE.
    ArmPxe,
    /// arm64 UEFI, HTTP boot.
    ArmHttp,
    /// iPXE in the card's ROM.
    IpxeRom,
    /// Reads option 67 as a C string, beyond the option's end where no zero ends it.
    BadName,
    /// Never acknowledges the last block.
    BadLastAck,
    /// Ignores discovery control in option 43: asks a boot server on port 4011 first.
    BadNo43,
    /// A ROM of before RFC 4578: sends no option 93.
    BadNoArch,
    /// Wants every reply by broadcast.
    BadBroadcast,
    /// Asks five times a second.
    BadFast,
}

/// How a kind of firmware behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Firmware {
    /// Option 60.
    pub vendor_class: &'static str,
    /// Option 93.
    pub architecture: Option<u16>,
    /// Sets the broadcast flag.
    pub broadcast: bool,
    /// Asks a boot server on port 4011 whatever option 43 says.
    pub asks_4011: bool,
    /// Reads option 67 to the first zero, wherever that is.
    pub reads_past_name: bool,
    /// Waits between the tries of one DHCP exchange.
    pub patience: Patience,
    /// How it fetches by TFTP.
    pub tftp: TftpHabit,
}

/// Waits for answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    /// The first wait; each next one is twice as long.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// Tries, after which the firmware gives up; `None`: never.
    pub tries: Option<u32>,
}

/// How a client fetches by TFTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TftpHabit {
    /// Asks for the size first and breaks off with an ERROR.
    pub probes: bool,
    /// Block size it asks for; `None`: no options at all, blocks of 512.
    pub blksize: Option<u16>,
    /// Window it asks for (RFC 7440).
    pub windowsize: Option<u16>,
    /// Acknowledges the last block.
    pub acks_last: bool,
}

/// How often each kind occurs; the numbers are relative to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix(Vec<(Personality, u32)>);

/// How BIOS and EDK2 wait.
pub const FIRMWARE: Patience =
    Patience { first: Duration::from_secs(4), longest: Duration::from_secs(32), tries: Some(4) };
/// How iPXE waits (`DHCP_DISC_START_TIMEOUT_SEC`, `DHCP_DISC_END_TIMEOUT_SEC`); its start script asks for ever.
pub const IPXE: Patience =
    Patience { first: Duration::from_secs(1), longest: Duration::from_secs(10), tries: None };
/// How the agent waits.
pub const AGENT: Patience =
    Patience { first: Duration::from_secs(1), longest: Duration::from_secs(16), tries: None };
const HASTE: Patience =
    Patience { first: Duration::from_millis(200), longest: Duration::from_millis(200), tries: Some(300) };

const ROM: TftpHabit = TftpHabit { probes: true, blksize: Some(1456), windowsize: None, acks_last: true };
const EDK2: TftpHabit = TftpHabit { probes: true, blksize: Some(1468), windowsize: Some(4), acks_last: true };

impl Personality {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::LegacyRom,
        Self::OvmfPxe,
        Self::OvmfHttp,
        Self::ArmPxe,
        Self::ArmHttp,
        Self::IpxeRom,
        Self::BadName,
        Self::BadLastAck,
        Self::BadNo43,
        Self::BadNoArch,
        Self::BadBroadcast,
        Self::BadFast,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::LegacyRom => "legacy-rom",
            Self::OvmfPxe => "ovmf-pxe",
            Self::OvmfHttp => "ovmf-http",
            Self::ArmPxe => "arm64-pxe",
            Self::ArmHttp => "arm64-http",
            Self::IpxeRom => "ipxe-rom",
            Self::BadName => "bad-name",
            Self::BadLastAck => "bad-last-ack",
            Self::BadNo43 => "bad-no-43",
            Self::BadNoArch => "bad-no-arch",
            Self::BadBroadcast => "bad-broadcast",
            Self::BadFast => "bad-fast",
        }
    }

    /// True for machines with UEFI; iPXE tells it to the server.
    pub fn is_efi(self) -> bool {
        matches!(self, Self::OvmfPxe | Self::OvmfHttp | Self::ArmPxe | Self::ArmHttp)
    }

    /// True for arm64.
    pub fn is_arm(self) -> bool {
        matches!(self, Self::ArmPxe | Self::ArmHttp)
    }

    /// How it behaves.
    pub fn firmware(self) -> Firmware {
        let rom = Firmware {
            vendor_class: "PXEClient:Arch:00000:UNDI:002001",
            architecture: Some(0),
            broadcast: false,
            asks_4011: false,
            reads_past_name: false,
            patience: FIRMWARE,
            tftp: ROM,
        };
        let efi = |vendor_class, architecture| Firmware {
            vendor_class,
            architecture: Some(architecture),
            tftp: EDK2,
            ..rom.clone()
        };
        match self {
            Self::LegacyRom | Self::IpxeRom => rom,
            Self::OvmfPxe => efi("PXEClient:Arch:00007:UNDI:003000", 7),
            Self::OvmfHttp => efi("HTTPClient:Arch:00016:UNDI:003000", 16),
            Self::ArmPxe => efi("PXEClient:Arch:00011:UNDI:003000", 11),
            Self::ArmHttp => efi("HTTPClient:Arch:00019:UNDI:003000", 19),
            Self::BadName => Firmware { reads_past_name: true, ..rom },
            Self::BadLastAck => Firmware { tftp: TftpHabit { acks_last: false, ..ROM }, ..rom },
            Self::BadNo43 => Firmware { asks_4011: true, ..rom },
            Self::BadNoArch => Firmware {
                vendor_class: "PXEClient",
                architecture: None,
                tftp: TftpHabit { probes: false, blksize: None, ..ROM },
                ..rom
            },
            Self::BadBroadcast => Firmware { broadcast: true, ..rom },
            Self::BadFast => Firmware { patience: HASTE, ..rom },
        }
    }
}

impl fmt::Display for Personality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Personality {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|p| p.name() == s).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("no firmware `{s}`; there are {known}")
        })
    }
}

impl Mix {
    /// A mix.
    pub fn new(parts: Vec<(Personality, u32)>) -> Self {
        Self(parts)
    }

    /// Every machine the same.
    pub fn only(personality: Personality) -> Self {
        Self(vec![(personality, 1)])
    }

    /// A hall: mostly x64 UEFI, some BIOS, some arm64, and of every misfit a few.
    pub fn hall() -> Self {
        let share = |p: Personality| match p {
            Personality::OvmfPxe => 40,
            Personality::OvmfHttp | Personality::LegacyRom => 20,
            Personality::IpxeRom => 6,
            Personality::ArmPxe | Personality::ArmHttp => 3,
            _ => 2,
        };
        Self(Personality::ALL.into_iter().map(|p| (p, share(p))).collect())
    }

    /// One of the mix.
    pub fn pick(&self, rng: &mut Rng) -> Personality {
        let mut n = rng.below(self.0.iter().map(|(_, share)| u64::from(*share)).sum());
        for (personality, share) in &self.0 {
            if n < u64::from(*share) {
                return *personality;
            }
            n -= u64::from(*share);
        }
        Personality::LegacyRom
    }
}

/// As `ovmf-pxe:3,legacy-rom:1`, or without numbers.
impl FromStr for Mix {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let part = |text: &str| {
            let (name, share) = text.split_once(':').unwrap_or((text, "1"));
            let share = share.parse().map_err(|_| format!("`{share}` is not a number"))?;
            Ok((name.parse()?, share))
        };
        s.split(',').map(part).collect::<Result<_, _>>().map(Self)
    }
}

impl Patience {
    /// How long to wait after try number `n`, counting from 0; `None` where there was the last one.
    pub fn wait(&self, n: u32) -> Option<Duration> {
        if self.tries.is_some_and(|tries| n >= tries) {
            return None;
        }
        Some(self.first.saturating_mul(1 << n.min(16)).min(self.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for p in Personality::ALL {
            assert_eq!(p.name().parse(), Ok(p));
        }
        assert!("toaster".parse::<Personality>().unwrap_err().contains("legacy-rom"));
        assert_eq!(
            "ovmf-pxe:3,legacy-rom".parse(),
            Ok(Mix::new(vec![(Personality::OvmfPxe, 3), (Personality::LegacyRom, 1)]))
        );
    }

    #[test]
    fn a_hall_has_everything() {
        let mut rng = Rng::new(1);
        let mix = Mix::hall();
        let picked: Vec<_> = (0..2000).map(|_| mix.pick(&mut rng)).collect();
        for p in Personality::ALL {
            assert!(picked.contains(&p), "{p}");
        }
    }

    #[test]
    fn patience_doubles_and_ends() {
        let waits: Vec<_> = (0..5).map(|n| FIRMWARE.wait(n).map(|w| w.as_secs())).collect();
        assert_eq!(waits, [Some(4), Some(8), Some(16), Some(32), None]);
        assert_eq!(IPXE.wait(1000), Some(Duration::from_secs(10)));
    }
}
