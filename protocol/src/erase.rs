//! Erasing disks between tenants: what is asked of the agent, and what it says of each disk.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{DiskId, Timestamp};
use crate::inventory::Transport;

/// An erase in place of a light clean.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EraseOrder {
    /// The whole machine: a fixed disk that the job does not name is a fault, and what the tenant left in firmware and TPM goes too.
    pub whole: bool,
    /// Disks that this job erased before the machine started again. They are not done twice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<DiskId>,
}

/// By what a disk is erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EraseMethod {
    /// NVMe Sanitize, block erase (NVM Express Base 2.0, 5.24).
    NvmeSanitizeBlock,
    /// NVMe Sanitize, crypto erase.
    NvmeSanitizeCrypto,
    /// NVMe Sanitize, overwrite.
    NvmeSanitizeOverwrite,
    /// NVMe Format with a new key (SES 2; NVM Express Base 2.0, 5.14).
    NvmeFormatCrypto,
    /// NVMe Format with user data erase (SES 1).
    NvmeFormatErase,
    /// SANITIZE DEVICE, BLOCK ERASE EXT (ACS-4, 7.36).
    AtaSanitizeBlock,
    /// SANITIZE DEVICE, CRYPTO SCRAMBLE EXT.
    AtaSanitizeCrypto,
    /// SANITIZE DEVICE, OVERWRITE EXT.
    AtaSanitizeOverwrite,
    /// SECURITY ERASE UNIT, enhanced (ACS-4, 7.42).
    AtaSecurityEnhanced,
    /// SECURITY ERASE UNIT.
    AtaSecurityErase,
    /// SANITIZE, BLOCK ERASE (SBC-4, 5.32).
    ScsiSanitizeBlock,
    /// SANITIZE, CRYPTOGRAPHIC ERASE.
    ScsiSanitizeCrypto,
    /// SANITIZE, OVERWRITE.
    ScsiSanitizeOverwrite,
    /// All blocks given back, where the drive guarantees that they then read as zeros.
    Discard,
    /// One pass over every addressable block.
    Overwrite,
    /// A kind that this build does not know.
    #[serde(other)]
    Other,
}

impl EraseMethod {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NvmeSanitizeBlock => "nvme-sanitize-block",
            Self::NvmeSanitizeCrypto => "nvme-sanitize-crypto",
            Self::NvmeSanitizeOverwrite => "nvme-sanitize-overwrite",
            Self::NvmeFormatCrypto => "nvme-format-crypto",
            Self::NvmeFormatErase => "nvme-format-erase",
            Self::AtaSanitizeBlock => "ata-sanitize-block",
            Self::AtaSanitizeCrypto => "ata-sanitize-crypto",
            Self::AtaSanitizeOverwrite => "ata-sanitize-overwrite",
            Self::AtaSecurityEnhanced => "ata-security-enhanced",
            Self::AtaSecurityErase => "ata-security-erase",
            Self::ScsiSanitizeBlock => "scsi-sanitize-block",
            Self::ScsiSanitizeCrypto => "scsi-sanitize-crypto",
            Self::ScsiSanitizeOverwrite => "scsi-sanitize-overwrite",
            Self::Discard => "discard",
            Self::Overwrite => "overwrite",
            Self::Other => "other",
        }
    }

    /// The most that this may be called. Purge is for sanitize commands alone: they reach spare and retired blocks, and the drive
    /// itself says how they ended. A disk without a drive behind it is never more than cleared.
    pub fn highest_grade(self) -> Grade {
        match self {
            Self::NvmeSanitizeBlock
            | Self::NvmeSanitizeCrypto
            | Self::NvmeSanitizeOverwrite
            | Self::AtaSanitizeBlock
            | Self::AtaSanitizeCrypto
            | Self::AtaSanitizeOverwrite
            | Self::ScsiSanitizeBlock
            | Self::ScsiSanitizeCrypto
            | Self::ScsiSanitizeOverwrite => Grade::Purge,
            Self::NvmeFormatCrypto
            | Self::NvmeFormatErase
            | Self::AtaSecurityEnhanced
            | Self::AtaSecurityErase
            | Self::Discard
            | Self::Overwrite
            | Self::Other => Grade::Clear,
        }
    }
}

impl fmt::Display for EraseMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an erase withstands: a sanitization method of NIST SP 800-88 Rev. 2 (Clear, Purge; Destroy is not ours).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Nothing is claimed.
    None,
    /// Simple, non-invasive recovery through the drive's own interface.
    Clear,
    /// Recovery with the means of a laboratory.
    Purge,
}

impl Grade {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Clear => "clear",
            Self::Purge => "purge",
        }
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How it ended for one disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum EraseResult {
    /// Erased and read back.
    Erased,
    /// Not erased, or what was read back says so.
    Failed {
        /// Why, in words.
        why: String,
    },
    /// Not touched, by rule.
    Skipped {
        /// The rule, in words.
        why: String,
    },
}

/// A stronger method that was not the one, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NotUsed {
    /// The method.
    pub method: EraseMethod,
    /// Why not, in words.
    pub why: String,
}

/// What was read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Sampled {
    /// What each sample had to be.
    pub expected: Expected,
    /// Blocks at random places.
    pub random: u32,
    /// Blocks at the start, one after the other.
    pub start: u32,
    /// Blocks at the end, one after the other.
    pub end: u32,
    /// Size of a block, in bytes.
    pub block_bytes: u32,
    /// Blocks with known content that were written at random places before, and are gone.
    pub sentinels: u32,
    /// If so many of a million blocks, or more, had been left as they were, this sample would have missed all of them with a
    /// probability of at most 1 in 100.
    pub bound_ppm: u32,
}

/// What a sample is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ErasedContent))]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// Anything but what was there before: the drive does not promise what an erased block reads as.
    #[default]
    Changed,
    /// Zeros.
    Zeros,
    /// The pattern that was written, which differs from block to block.
    Pattern,
}

/// What became of one disk. Texts are as the drive reports them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EraseRecord {
    /// Its name in the job; `None` for one that has none.
    pub disk: Option<DiskId>,
    /// Kernel name of this boot.
    pub name: String,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World wide name.
    pub wwn: Option<String>,
    /// Firmware revision.
    pub firmware: Option<String>,
    /// Size in bytes.
    pub size_bytes: u64,
    /// How it is attached.
    pub transport: Transport,
    /// How it ended.
    #[serde(flatten)]
    pub result: EraseResult,
    /// By what it was erased.
    pub method: Option<EraseMethod>,
    /// What that withstands.
    pub grade: Grade,
    /// Stronger methods that were not used.
    pub not_used: Vec<NotUsed>,
    /// When it began, by the agent's clock.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// What was read back.
    pub sampled: Option<Sampled>,
}

/// What became of the rest of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct MachineRecord {
    /// What became of the TPM, in words; `None` where there is none.
    pub tpm: Option<String>,
    /// Boot entries of the firmware that led to a disk, and were removed.
    pub boot_entries_removed: Vec<String>,
    /// Boot entries that were left.
    pub boot_entries_kept: Vec<String>,
    /// What could not be done, in words.
    pub warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Octets of the first version. If this fails, do not change the test: agents and servers of the field speak this.
    #[test]
    fn records_are_written_as_ever() {
        let record = EraseRecord {
            disk: DiskId::of(None, Some("S1"), None),
            name: "nvme0n1".into(),
            model: Some("M".into()),
            serial: Some("S1".into()),
            wwn: None,
            firmware: None,
            size_bytes: 512,
            transport: Transport::Nvme,
            result: EraseResult::Failed { why: "it lies".into() },
            method: Some(EraseMethod::NvmeFormatErase),
            grade: Grade::Clear,
            not_used: vec![NotUsed { method: EraseMethod::NvmeSanitizeBlock, why: "not there".into() }],
            began: Timestamp(1),
            ended: Timestamp(2),
            sampled: Some(Sampled { random: 1, block_bytes: 4096, ..Sampled::default() }),
        };
        let text = r#"{"disk":"serial:S1","name":"nvme0n1","model":"M","serial":"S1","wwn":null,"firmware":null,"size_bytes":512,"transport":"nvme","result":"failed","why":"it lies","method":"nvme-format-erase","grade":"clear","not_used":[{"method":"nvme-sanitize-block","why":"not there"}],"began":1,"ended":2,"sampled":{"expected":"changed","random":1,"start":0,"end":0,"block_bytes":4096,"sentinels":0,"bound_ppm":0}}"#;
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        assert_eq!(serde_json::from_str::<EraseRecord>(text).unwrap(), record);
        let order = EraseOrder { whole: true, done: vec![] };
        assert_eq!(serde_json::to_string(&order).unwrap(), r#"{"whole":true}"#);
        assert_eq!(serde_json::from_str::<EraseOrder>("{}").unwrap(), EraseOrder::default());
    }

    #[test]
    fn methods_are_written_as_they_print_and_only_sanitize_purges() {
        use EraseMethod as M;
        for method in [
            M::NvmeSanitizeBlock,
            M::NvmeSanitizeCrypto,
            M::NvmeSanitizeOverwrite,
            M::NvmeFormatCrypto,
            M::NvmeFormatErase,
            M::AtaSanitizeBlock,
            M::AtaSanitizeCrypto,
            M::AtaSanitizeOverwrite,
            M::AtaSecurityEnhanced,
            M::AtaSecurityErase,
            M::ScsiSanitizeBlock,
            M::ScsiSanitizeCrypto,
            M::ScsiSanitizeOverwrite,
            M::Discard,
            M::Overwrite,
            M::Other,
        ] {
            assert_eq!(serde_json::to_string(&method).unwrap(), format!("\"{method}\""));
            assert_eq!(
                method.highest_grade() == Grade::Purge,
                method.as_str().contains("sanitize"),
                "{method}"
            );
        }
        assert_eq!(serde_json::from_str::<M>("\"by-magic\"").unwrap(), M::Other);
        assert!(Grade::None < Grade::Clear && Grade::Clear < Grade::Purge);
    }
}
