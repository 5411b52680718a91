//! Where the random numbers of guests come from. All numbers of an attempt follow from its seed. The seed is made when the
//! guest first asks for a number, and is kept in the record of an attempt that failed, so that its run can be repeated.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::{SmallRng, StdRng, SysError, SysRng};
use rand::{SeedableRng, TryRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What the random numbers of one attempt follow from; written as 64 hex digits. It tells nothing about other seeds.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Seed([u8; 32]);

impl Seed {
    /// Reads 64 hex digits.
    pub fn parse(text: &str) -> Option<Seed> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut seed = [0; 32];
        for (byte, pair) in seed.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Seed(seed))
    }

    /// ChaCha: its next number cannot be computed from those so far.
    pub fn secure(self) -> StdRng {
        StdRng::from_seed(self.0)
    }

    /// Cheaper, and no help in finding the seed.
    pub fn insecure(self) -> SmallRng {
        let mut hash = Sha256::new();
        hash.update(b"insecure");
        hash.update(self.0);
        SmallRng::from_seed(hash.finalize().into())
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Seed> for String {
    fn from(seed: Seed) -> String {
        seed.to_string()
    }
}

impl TryFrom<String> for Seed {
    type Error = String;

    fn try_from(text: String) -> Result<Seed, String> {
        Seed::parse(&text).ok_or_else(|| format!("`{}` is no seed: a seed has 64 hex digits", text.escape_debug()))
    }
}

/// Makes the seeds of this process.
pub struct Seeds {
    secret: [u8; 32],
    made: AtomicU64,
}

impl Seeds {
    /// With a secret of the operating system, which only this process knows.
    pub fn new() -> Result<Arc<Seeds>, SysError> {
        let mut secret = [0; 32];
        SysRng.try_fill_bytes(&mut secret)?;
        Ok(Arc::new(Seeds {
            secret,
            made: AtomicU64::new(0),
        }))
    }

    /// A seed for one attempt. Each call gives another one: a replay counts its attempts from 1 again, and must not draw
    /// what the letter of its event already tells.
    pub fn make(&self, handler: &str, event: &str, attempt: u32) -> Seed {
        let mut hash = Sha256::new();
        hash.update(self.secret);
        hash.update(self.made.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        hash.update(attempt.to_le_bytes());
        // With its length before each text no input is the beginning of another.
        for text in [handler, event] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        Seed(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    fn with(secret: u8) -> Seeds {
        Seeds {
            secret: [secret; 32],
            made: AtomicU64::new(0),
        }
    }

    #[test]
    fn seeds_differ_by_process_handler_event_and_attempt_and_each_time() {
        let seeds = [
            with(1).make("points", "k.7", 1),
            with(2).make("points", "k.7", 1),
            with(1).make("inventory", "k.7", 1),
            // The same sequence of another stream, or of the same stream made again.
            with(1).make("points", "l.7", 1),
            with(1).make("points", "k.8", 1),
            with(1).make("points", "k.7", 2),
            // What stands in one text cannot stand in the other.
            with(1).make("pointsk", ".7", 1),
        ];
        for (n, seed) in seeds.iter().enumerate() {
            let (secure, insecure) = (seed.secure().next_u64(), seed.insecure().next_u64());
            assert_ne!(secure, insecure);
            for other in &seeds[..n] {
                assert_ne!(secure, other.secure().next_u64());
                assert_ne!(insecure, other.insecure().next_u64());
            }
        }
        let process = with(1);
        assert_ne!(process.make("points", "k.7", 1), process.make("points", "k.7", 1));
        let (one, other) = (Seeds::new().unwrap(), Seeds::new().unwrap());
        assert_ne!(one.secret, other.secret);
    }

    #[test]
    fn a_seed_reads_back_and_gives_the_same_numbers_in_every_build() {
        let text = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
        let seed = Seed::parse(text).unwrap();
        assert_eq!(seed.to_string(), text);
        assert_eq!(
            serde_json::from_str::<Seed>(&format!("\"{text}\"")).unwrap(),
            Seed::try_from(text.to_owned()).unwrap()
        );
        // Dead letters are read by later builds. A change of a generator changes what the seeds in them repeat.
        assert_eq!(seed.secure().next_u64(), 6_829_280_927_315_210_738);
        assert_eq!(seed.insecure().next_u64(), 5_746_717_554_426_909_362);
        for bad in [
            "",
            &text[1..],
            &format!("{text}0"),
            &text.replace('f', "g"),
            &text.replace("00", "ü"),
        ] {
            assert_eq!(Seed::parse(bad), None, "{bad}");
        }
    }
}
