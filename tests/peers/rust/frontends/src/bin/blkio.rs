// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! blkio SOCKET QUEUES DEPTH SEED MEBIBYTES [polled]: the blkio crate, with virtio-driver below it.
use blkio::{Blkio, Blkioq, MemoryRegion, ReqFlags};
use frontends::{drive, Lane, Op, Run, BLOCK, MIB};
use std::mem::MaybeUninit;
use std::time::Duration;

struct Queue {
    queue: Blkioq,
    buffers: *mut u8,
}

impl Lane for Queue {
    fn buffer(&mut self, slot: usize) -> &mut [u8] {
        // SAFETY: the region holds `depth` blocks for each queue, and no request of this slot is under way.
        unsafe { std::slice::from_raw_parts_mut(self.buffers.add(slot * BLOCK), BLOCK) }
    }

    fn offer(&mut self, slot: usize, at: u64, op: Op) {
        let buffer = self.buffer(slot).as_mut_ptr();
        let none = ReqFlags::empty();
        match op {
            Op::Read => self.queue.read(at, buffer, BLOCK, slot, none),
            Op::Write => self.queue.write(at, buffer, BLOCK, slot, none),
            Op::WriteZeroes => self.queue.write_zeroes(at, MIB, slot, none),
            Op::Discard => self.queue.discard(at, MIB, slot, none),
            Op::Flush => self.queue.flush(slot, none),
        }
    }

    fn answers(&mut self) -> Vec<usize> {
        let mut done = [const { MaybeUninit::uninit() }; 64];
        let mut patience = Duration::from_secs(20);
        let n = self
            .queue
            .do_io(&mut done, 1, Some(&mut patience), None)
            .expect("do_io");
        done[..n]
            .iter()
            .map(|c| {
                // SAFETY: do_io filled the first n.
                let c = unsafe { c.assume_init_ref() };
                assert_eq!(c.ret, 0, "request {}", c.user_data);
                c.user_data
            })
            .collect()
    }
}

/// The buffers of all queues lie in one region that the device maps.
fn share(device: &mut Blkio, blocks: usize) -> MemoryRegion {
    let region = device.alloc_mem_region(blocks * BLOCK).expect("memory");
    device.map_mem_region(&region).expect("map");
    region
}

fn main() {
    let run = Run::from_arguments();
    let polled = std::env::args().nth(6).is_some();
    let mut device = Blkio::new("virtio-blk-vhost-user").expect("driver");
    device.set_str("path", &run.socket).expect("path");
    device.connect().expect("connect");
    assert!(device.get_u64("capacity").expect("capacity") >= run.size);
    let (kind, other) = if polled {
        ("num-poll-queues", "num-queues")
    } else {
        ("num-queues", "num-poll-queues")
    };
    device.set_i32(other, 0).expect("no queues");
    device.set_i32(kind, run.queues as i32).expect("queues");
    let started = device.start().expect("start");
    let region = share(&mut device, run.queues * run.depth);
    let mut queues: Vec<Queue> = started
        .queues
        .into_iter()
        .chain(started.poll_queues)
        .enumerate()
        .map(|(i, queue)| Queue {
            queue,
            buffers: (region.addr + i * run.depth * BLOCK) as *mut u8,
        })
        .collect();
    drive(&mut queues, &run);
    drop(queues);
    device.unmap_mem_region(&region);
}
