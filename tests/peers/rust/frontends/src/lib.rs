// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a front-end does with a block device: writes the pattern of tests/peers/check_image.py over all queues, flushes,
//! reads back and compares; zeroes and discards the last MiB and writes it again.
use std::time::Instant;

pub const BLOCK: usize = 16 << 10;
pub const MIB: u64 = 1 << 20;
const GAMMA: u64 = 0x9E3779B97F4A7C15;

/// The arguments that all programs have: SOCKET QUEUES DEPTH SEED MEBIBYTES.
pub struct Run {
    pub socket: String,
    pub queues: usize,
    pub depth: usize,
    pub seed: u64,
    pub size: u64,
}

impl Run {
    pub fn from_arguments() -> Run {
        let words: Vec<String> = std::env::args().collect();
        let number = |n: usize| words[n].parse::<u64>().expect("a number");
        Run {
            socket: words[1].clone(),
            queues: number(2) as usize,
            depth: number(3) as usize,
            seed: number(4),
            size: number(5) * MIB,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
pub enum Op {
    /// of the slot's buffer
    Read,
    Write,
    /// of a MiB
    WriteZeroes,
    Discard,
    /// of everything
    Flush,
}

/// One queue, with a buffer of BLOCK bytes for each request that can be under way.
pub trait Lane {
    fn buffer(&mut self, slot: usize) -> &mut [u8];
    fn offer(&mut self, slot: usize, at: u64, op: Op);
    /// Waits for answers, which say success: their slots.
    fn answers(&mut self) -> Vec<usize>;
}

#[derive(Clone, Copy)]
enum What {
    WritePattern,
    ReadPattern,
    ReadZeroes,
}

struct Sweep {
    seed: u64,
    depth: usize,
}

fn word(seed: u64, n: u64) -> u64 {
    let z = seed.wrapping_add((n + 1).wrapping_mul(GAMMA));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58476D1CE4E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D049BB133111EB);
    z ^ (z >> 31)
}

impl Sweep {
    fn pattern(&self, at: u64) -> impl Iterator<Item = [u8; 8]> {
        let seed = self.seed;
        (at / 8..(at + BLOCK as u64) / 8).map(move |n| word(seed, n).to_le_bytes())
    }

    fn offer(&self, lane: &mut impl Lane, slot: usize, at: u64, what: What) {
        let buffer = lane.buffer(slot);
        if let What::WritePattern = what {
            buffer
                .chunks_mut(8)
                .zip(self.pattern(at))
                .for_each(|(to, from)| to.copy_from_slice(&from));
            lane.offer(slot, at, Op::Write);
        } else {
            buffer.fill(0xEE);
            lane.offer(slot, at, Op::Read);
        }
    }

    fn compare(&self, lane: &mut impl Lane, slot: usize, at: u64, what: What) {
        let buffer = lane.buffer(slot);
        let same = match what {
            What::WritePattern => true,
            What::ReadPattern => buffer.chunks(8).zip(self.pattern(at)).all(|(have, want)| have == want),
            What::ReadZeroes => buffer.iter().all(|&byte| byte == 0),
        };
        assert!(same, "block at {at} differs");
    }

    /// Every block of this lane, as many of them under way as may be.
    fn lane(&self, lane: &mut impl Lane, mut blocks: impl Iterator<Item = u64>, what: What) {
        let mut free: Vec<usize> = (0..self.depth).collect();
        let mut under_way = vec![0; self.depth];
        loop {
            while let Some(block) = if free.is_empty() { None } else { blocks.next() } {
                let slot = free.pop().expect("a free slot");
                under_way[slot] = block * BLOCK as u64;
                self.offer(lane, slot, under_way[slot], what);
            }
            if free.len() == self.depth {
                return;
            }
            for slot in lane.answers() {
                self.compare(lane, slot, under_way[slot], what);
                free.push(slot);
            }
        }
    }

    fn all(&self, lanes: &mut [impl Lane], from: u64, to: u64, what: What) -> f64 {
        let begin = Instant::now();
        let step = lanes.len();
        for (i, lane) in lanes.iter_mut().enumerate() {
            self.lane(
                lane,
                (from / BLOCK as u64..to / BLOCK as u64).skip(i).step_by(step),
                what,
            );
        }
        begin.elapsed().as_secs_f64()
    }
}

fn one(lane: &mut impl Lane, at: u64, op: Op) {
    lane.offer(0, at, op);
    assert_eq!(lane.answers(), [0]);
}

pub fn drive(lanes: &mut [impl Lane], run: &Run) {
    let (size, last) = (run.size, run.size - MIB);
    let sweep = Sweep {
        seed: run.seed,
        depth: run.depth,
    };
    let written = sweep.all(lanes, 0, size, What::WritePattern);
    one(&mut lanes[0], 0, Op::Flush);
    let read = sweep.all(lanes, 0, size, What::ReadPattern);
    one(&mut lanes[0], last, Op::WriteZeroes);
    sweep.all(lanes, last, size, What::ReadZeroes);
    one(&mut lanes[0], last, Op::Discard);
    sweep.all(lanes, last, size, What::WritePattern);
    sweep.all(lanes, last, size, What::ReadPattern);
    one(&mut lanes[0], 0, Op::Flush);
    println!(
        "{} blocks of {BLOCK} bytes over {} queues, {} at a time: written in {written:.2} s, read in {read:.2} s",
        size / BLOCK as u64,
        lanes.len(),
        run.depth
    );
}
