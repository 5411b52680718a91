//! Ids in the order of their entries, found by their hash: some 50 bytes each, and no step that takes long, however many there
//! are. Pure.

use std::collections::VecDeque;

use hashbrown::HashTable;

use super::entry::{Hash, Id};

/// Ids that lie together: 160 KB. A piece goes when all of it is forgotten.
const PIECE: usize = 4096;
/// Tables that the ids are spread over: one that grows moves what it holds, and of ten million each holds 160,000.
const TABLES: usize = 64;

/// An event that was the first of its id.
#[derive(Debug, Clone, PartialEq)]
pub struct First {
    pub hash: Hash,
    pub sequence: u64,
    pub entry: u64,
    /// The time in milliseconds, and the kind in the last 16 bits.
    time_and_kind: u64,
}

/// Bits of [`First::kind`].
const KIND_BITS: u32 = 16;

impl First {
    pub fn new(id: &Id, sequence: u64, entry: u64, kind: usize) -> First {
        // A mesh has fewer kinds than this; one beyond the limit is not found again.
        let kind = u16::try_from(kind).unwrap_or(u16::MAX);
        let time_ms = id.time_ms.min(u64::MAX >> KIND_BITS);
        First {
            hash: id.hash,
            sequence,
            entry,
            time_and_kind: time_ms << KIND_BITS | u64::from(kind),
        }
    }

    pub fn time_ms(&self) -> u64 {
        self.time_and_kind >> KIND_BITS
    }

    pub fn kind(&self) -> usize {
        usize::from(self.time_and_kind as u16)
    }
}

/// The oldest goes first.
#[derive(Debug, Default, Clone)]
pub struct Memory {
    /// Each but the last is full.
    pieces: VecDeque<Vec<First>>,
    /// How many of the first piece are forgotten.
    gone: usize,
    /// The number of the first one in the first piece. Numbers wrap around; memory ends long before two of them are the same.
    begin: u32,
    /// Numbers, by hash. None as long as nothing was remembered.
    tables: Vec<HashTable<u32>>,
}

impl Memory {
    pub fn push(&mut self, first: First) {
        let hash = first.hash;
        match self.pieces.back_mut() {
            Some(piece) if piece.len() < PIECE => piece.push(first),
            Some(_) => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(first);
                self.pieces.push_back(piece);
            }
            // Many handlers know only a few.
            None => self.pieces.push_back(vec![first]),
        }
        if self.tables.is_empty() {
            self.tables.resize_with(TABLES, HashTable::new);
        }
        let number = self.begin.wrapping_add((self.gone + self.len() - 1) as u32);
        let (pieces, begin) = (&self.pieces, self.begin);
        let again = |number: &u32| at(pieces, begin, *number).map_or(0, |first| spread(first.hash));
        self.tables[table(hash)].insert_unique(spread(hash), number, again);
    }

    /// Forgets the oldest.
    pub fn pop(&mut self) {
        let Some(hash) = self.first().map(|first| first.hash) else {
            return;
        };
        let number = self.begin.wrapping_add(self.gone as u32);
        if let Ok(found) = self.tables[table(hash)].find_entry(spread(hash), |known| *known == number) {
            found.remove();
        }
        self.gone += 1;
        if self.pieces.front().is_some_and(|piece| self.gone == piece.len()) {
            self.pieces.pop_front();
            self.begin = self.begin.wrapping_add(self.gone as u32);
            self.gone = 0;
        }
    }

    /// The oldest.
    pub fn first(&self) -> Option<&First> {
        self.pieces.front()?.get(self.gone)
    }

    pub fn len(&self) -> usize {
        let last = self.pieces.back().map_or(0, Vec::len);
        self.pieces.len().saturating_sub(1) * PIECE + last - self.gone
    }

    /// Those with this hash, in no order.
    pub fn all(&self, hash: Hash) -> impl Iterator<Item = &First> {
        let numbers = self.tables.get(table(hash)).into_iter();
        let found = numbers.flat_map(move |table| table.iter_hash(spread(hash)));
        let found = found.filter_map(|number| at(&self.pieces, self.begin, *number));
        found.filter(move |first| first.hash == hash)
    }

    fn iter(&self) -> impl Iterator<Item = &First> {
        self.pieces.iter().flatten().skip(self.gone)
    }

    /// What it takes, in bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let pieces: usize = self.pieces.iter().map(Vec::capacity).sum();
        let places: usize = self.tables.iter().map(HashTable::allocation_size).sum();
        pieces * size_of::<First>() + places
    }
}

/// By their contents; how these are stored does not count.
impl PartialEq for Memory {
    fn eq(&self, other: &Memory) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

fn at(pieces: &VecDeque<Vec<First>>, begin: u32, number: u32) -> Option<&First> {
    let place = number.wrapping_sub(begin) as usize;
    pieces.get(place / PIECE)?.get(place % PIECE)
}

/// It is spread already: half of it finds its place.
fn spread(hash: Hash) -> u64 {
    hash.0[0]
}

fn table(hash: Hash) -> usize {
    hash.0[1] as usize % TABLES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first(hash: u64, entry: u64) -> First {
        First::new(&Id::of_test(hash, 7), entry, entry, 3)
    }

    proptest! {
        /// Against a list, over several pieces and over the end of the numbers.
        #[test]
        fn it_knows_what_a_list_would(
            steps in proptest::collection::vec((0usize..3 * PIECE, 0usize..3 * PIECE, 1u64..9_000), 1..6),
            begin in any::<bool>(),
        ) {
            let mut memory = Memory { begin: if begin { 0 } else { u32::MAX - 5_000 }, ..Memory::default() };
            let mut list: VecDeque<First> = VecDeque::new();
            let mut entry = 0;
            for (pushes, pops, hashes) in steps {
                for _ in 0..pushes {
                    entry += 1;
                    memory.push(first(entry % hashes, entry));
                    list.push_back(first(entry % hashes, entry));
                }
                for _ in 0..pops {
                    memory.pop();
                    list.pop_front();
                }
                prop_assert_eq!((memory.first(), memory.len()), (list.front(), list.len()));
                prop_assert!(memory.iter().eq(list.iter()));
                for hash in [0, 1, 4_000, 8_999] {
                    let mut found: Vec<&First> = memory.all(Hash([hash, 0])).collect();
                    found.sort_by_key(|first| first.entry);
                    let wanted: Vec<&First> = list.iter().filter(|first| first.hash.0[0] == hash).collect();
                    prop_assert_eq!(found, wanted);
                }
            }
        }
    }

    #[test]
    fn what_an_id_is_kept_with_comes_back() {
        let id = Id::of_test(1, 1_700_000_000_123);
        let first = First::new(&id, u64::MAX, 9, 65_534);
        assert_eq!(
            (first.time_ms(), first.kind(), first.sequence),
            (id.time_ms, 65_534, u64::MAX)
        );
        assert_eq!(size_of::<First>(), 40);
    }
}
