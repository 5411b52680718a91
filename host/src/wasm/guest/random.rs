//! The random numbers of a guest, all of them from the seed of its attempt. They do not come from the library, because creating
//! its generators for each event takes longer than most events use them.

use rand::rngs::{SmallRng, StdRng};
use rand::{Rng, RngExt as _};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use super::Guest;
use crate::random::Seed;

/// Most random bytes that a guest gets at once.
const RANDOM_BYTES_MAX: u64 = 64 * 1024;

/// What one run has drawn from. Nothing is made before the guest asks.
#[derive(Default)]
pub struct Drawn {
    pub seed: Option<Seed>,
    // Boxed: most calls have none.
    secure: Option<Box<StdRng>>,
    insecure: Option<SmallRng>,
}

impl Drawn {
    /// From this seed, if there is one already.
    pub fn from(seed: Option<Seed>) -> Drawn {
        Drawn {
            seed,
            ..Drawn::default()
        }
    }
}

impl Guest {
    fn seed(&mut self) -> Seed {
        let (seeds, facts, call) = (&self.seeds, &self.facts, &mut self.call);
        *call.drawn.seed.get_or_insert_with(|| {
            let event = call.event.as_ref().map(ToString::to_string).unwrap_or_default();
            seeds.make(&facts.handler, &event, call.attempt)
        })
    }

    fn secure(&mut self) -> &mut StdRng {
        let seed = self.seed();
        self.call.drawn.secure.get_or_insert_with(|| Box::new(seed.secure()))
    }

    fn insecure(&mut self) -> &mut SmallRng {
        let seed = self.seed();
        self.call.drawn.insecure.get_or_insert_with(|| seed.insecure())
    }
}

fn bytes(source: &mut impl Rng, length: u64) -> wasmtime::Result<Vec<u8>> {
    if length > RANDOM_BYTES_MAX {
        wasmtime::bail!("{length} random bytes at once are over the limit of {RANDOM_BYTES_MAX}");
    }
    let length = usize::try_from(length)?;
    Ok(source.random_iter().take(length).collect())
}

impl random::Host for Guest {
    fn get_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        bytes(self.secure(), length)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.secure().next_u64())
    }
}

impl insecure::Host for Guest {
    fn get_insecure_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        bytes(self.insecure(), length)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.insecure().next_u64())
    }
}

impl insecure_seed::Host for Guest {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        let source = self.insecure();
        Ok((source.next_u64(), source.next_u64()))
    }
}
