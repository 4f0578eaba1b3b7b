//! Header of an encrypted volume: LUKS version 1 ("LUKS1 On-Disk Format Specification", 1.2.3), which `qemu-storage-daemon` on a
//! DPU, QEMU here and cryptsetup open. Bytes are encrypted by a master key that only the header has (AES-256, XTS); the header has
//! it encrypted by a passphrase, in the first of its eight slots.
//!
//! ```text
//!  0          4 KiB                      252 KiB         2 MiB
//!  │ names,   │ slot 1: the master key,  │ slots 2 to 8, │ the volume
//!  │ digest   │ in 4000 stripes          │ empty         │
//! ```

use aes::Aes256;
use aes::cipher::{Block, BlockCipherEncrypt, KeyInit};
use hmac::{Hmac, Mac};
use protocol::agent::Password;
use protocol::dpu::LUKS_HEADER;
use sha2::{Digest, Sha256};

/// Octets of the master key: two keys of AES-256, as XTS takes them.
const KEY: usize = 64;
/// Octets of a sector, and of what is encrypted as one.
const SECTOR: usize = 512;
/// Pieces that a key is split into, all of which are needed (section 2.4; the number is cryptsetup's).
const STRIPES: usize = 4000;
/// Sectors of a slot's pieces, rounded up to 4 KiB.
const SLOT: u32 = 504;
/// First sector of the first slot's pieces.
const FIRST: u32 = 8;
/// Slots of a header.
const SLOTS: u32 = 8;
/// Rounds of PBKDF2. A passphrase is 256 bits of chance, which nobody guesses however fast; QEMU takes no fewer.
const ROUNDS: u32 = 1000;
const ACTIVE: u32 = 0x00ac_71f3;
const EMPTY: u32 = 0x0000_dead;

/// What is chance in a header.
pub(crate) struct Chance {
    master: [u8; KEY],
    digest_salt: [u8; 32],
    slot_salt: [u8; 32],
    uuid: uuid::Uuid,
    stripes: Vec<u8>,
}

impl Chance {
    /// From the system.
    ///
    /// # Errors
    /// Where it has none.
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut chance = Self {
            master: [0; KEY],
            digest_salt: [0; 32],
            slot_salt: [0; 32],
            uuid: uuid::Uuid::new_v4(),
            stripes: vec![0; (STRIPES - 1) * KEY],
        };
        for part in [&mut chance.master[..], &mut chance.digest_salt, &mut chance.slot_salt] {
            getrandom::fill(part)?;
        }
        getrandom::fill(&mut chance.stripes)?;
        Ok(chance)
    }
}

/// The header: [`LUKS_HEADER`] bytes, that `passphrase` opens.
pub(crate) fn header(passphrase: &Password, chance: &Chance) -> Vec<u8> {
    let mut header = vec![0; LUKS_HEADER as usize];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    let word = |number: u32| number.to_be_bytes();
    put(0, b"LUKS\xba\xbe\x00\x01");
    put(8, b"aes");
    put(40, b"xts-plain64");
    put(72, b"sha256");
    put(104, &word((LUKS_HEADER as usize / SECTOR) as u32));
    put(108, &word(KEY as u32));
    put(112, &pbkdf2::<20>(&chance.master, &chance.digest_salt));
    put(132, &chance.digest_salt);
    put(164, &word(ROUNDS));
    put(168, chance.uuid.to_string().as_bytes());
    for slot in 0..SLOTS {
        let at = 208 + 48 * slot as usize;
        put(at, &word(if slot == 0 { ACTIVE } else { EMPTY }));
        put(at + 40, &word(FIRST + slot * SLOT));
        put(at + 44, &word(STRIPES as u32));
    }
    put(212, &word(ROUNDS));
    put(216, &chance.slot_salt);
    let mut pieces = split(&chance.master, &chance.stripes);
    let key = pbkdf2::<KEY>(passphrase.0.as_bytes(), &chance.slot_salt);
    encrypt(&key, &mut pieces);
    put(FIRST as usize * SECTOR, &pieces);
    header
}

/// PBKDF2 with HMAC-SHA-256 (RFC 8018 section 5.2), [`ROUNDS`] rounds.
fn pbkdf2<const N: usize>(password: &[u8], salt: &[u8]) -> [u8; N] {
    let mac =
        <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(password).expect("HMAC takes keys of any length");
    let mut key = [0; N];
    for (index, part) in (1_u32..).zip(key.chunks_mut(32)) {
        let first = mac.clone().chain_update(salt).chain_update(index.to_be_bytes());
        let mut round: [u8; 32] = first.finalize().into_bytes().into();
        let mut sum = round;
        for _ in 1..ROUNDS {
            round = mac.clone().chain_update(round).finalize().into_bytes().into();
            sum.iter_mut().zip(round).for_each(|(sum, round)| *sum ^= round);
        }
        part.copy_from_slice(&sum[..part.len()]);
    }
    key
}

/// The master key in pieces: all but the last are chance (`AFsplit`, section 2.4).
fn split(master: &[u8; KEY], chance: &[u8]) -> Vec<u8> {
    let mut pieces = chance.to_vec();
    let mut sum = [0; KEY];
    for piece in chance.chunks_exact(KEY) {
        sum.iter_mut().zip(piece).for_each(|(sum, piece)| *sum ^= piece);
        sum = diffuse(&sum);
    }
    pieces.extend(sum.iter().zip(master).map(|(sum, master)| sum ^ master));
    pieces
}

/// Each part of a piece becomes the digest of its number and itself.
fn diffuse(piece: &[u8; KEY]) -> [u8; KEY] {
    let mut diffused = [0; KEY];
    for (index, (from, to)) in (0_u32..).zip(piece.chunks(32).zip(diffused.chunks_mut(32))) {
        to.copy_from_slice(&Sha256::new().chain_update(index.to_be_bytes()).chain_update(from).finalize());
    }
    diffused
}

/// XTS-AES-256 (IEEE 1619) of whole sectors, which are numbered from zero.
fn encrypt(key: &[u8; KEY], sectors: &mut [u8]) {
    let aes = |half: &[u8]| Aes256::new_from_slice(half).expect("half of the key is a key of AES-256");
    let (data, tweaks) = (aes(&key[..KEY / 2]), aes(&key[KEY / 2..]));
    for (number, sector) in (0_u128..).zip(sectors.chunks_exact_mut(SECTOR)) {
        let mut tweak = Block::<Aes256>::from(number.to_le_bytes());
        tweaks.encrypt_block(&mut tweak);
        let mut tweak = u128::from_le_bytes(tweak.into());
        for block in sector.chunks_exact_mut(16) {
            let mut text = Block::<Aes256>::from(tweak.to_le_bytes());
            text.iter_mut().zip(block.iter()).for_each(|(text, block)| *text ^= block);
            data.encrypt_block(&mut text);
            block.iter_mut().zip(text).zip(tweak.to_le_bytes()).for_each(|((to, text), t)| *to = text ^ t);
            // Times x, modulo x^128 + x^7 + x^2 + x + 1.
            tweak = (tweak << 1) ^ (0x87 * (tweak >> 127));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn key(text: &str) -> Password {
        Password(text.to_owned())
    }

    #[test]
    fn xts_is_that_of_ieee_1619() {
        // Vector 10: key of 64 octets, sector 0xff.
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        let key = hex("2718281828459045235360287471352662497757247093699959574966967627\
             3141592653589793238462643383279502884197169399375105820974944592");
        let key: [u8; KEY] = key.try_into().unwrap();
        let mut sectors = vec![0; 256 * SECTOR];
        let plain: Vec<u8> = (0..=255).cycle().take(SECTOR).collect();
        sectors[255 * SECTOR..].copy_from_slice(&plain);
        encrypt(&key, &mut sectors);
        assert_eq!(sectors[255 * SECTOR..][..16], hex("1c3b3a102f770386e4836c99e370cf9b")[..]);
    }

    #[test]
    fn pbkdf2_is_that_of_others() {
        // `python3 -c "import hashlib; print(hashlib.pbkdf2_hmac('sha256', b'pass', b'salt', 1000, 64).hex())"`
        let text: String = pbkdf2::<KEY>(b"pass", b"salt").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            text,
            "ce7834ce3ad3ce55207a94de959d37afbd9f8eea479d46cbe7959a53d1ab5ecb\
             3e7d842d37f7cc496e32345b79c5b3e75664f4fd51540039fcb1e3f15c59b4b5"
        );
    }

    /// Where the tools are: QEMU and cryptsetup open a header with its passphrase and with no other.
    #[test]
    fn others_open_it() {
        let dir = std::env::temp_dir().join(format!("billet-luks-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&dir).unwrap();
        let chance = Chance::new().unwrap();
        let mut disk = header(&key("passpasspasspasspass"), &chance);
        disk.resize(disk.len() + (1 << 20), 0);
        let path = dir.join("disk");
        std::fs::write(&path, &disk).unwrap();
        for (word, fits) in [("passpasspasspasspass", true), ("wrongwrongwrongwrong", false)] {
            let secret = dir.join("key");
            std::fs::write(&secret, word).unwrap();
            let options =
                format!("driver=luks,key-secret=k,file.driver=file,file.filename={}", path.display());
            let mut qemu = Command::new("qemu-io");
            qemu.arg("--object").arg(format!("secret,id=k,file={}", secret.display()));
            qemu.args(["-c", "read 0 4096", "--image-opts", &options]);
            let mut cryptsetup = Command::new("cryptsetup");
            cryptsetup.args(["luksOpen", "--test-passphrase", "--key-file"]).arg(&secret).arg(&path);
            for command in [&mut qemu, &mut cryptsetup] {
                match command.stdout(Stdio::null()).stderr(Stdio::null()).status() {
                    Ok(status) => assert_eq!(status.success(), fits, "{command:?}"),
                    Err(error) => println!("{:?} was not asked: {error}", command.get_program()),
                }
            }
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
