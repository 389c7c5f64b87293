// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! vhost SOCKET QUEUES DEPTH SEED MEBIBYTES: rust-vmm's front-end, as a VMM calls it, with split rings of our own, since
//! the driver is the guest's business.
use frontends::{drive, Lane, Op, Run, BLOCK, MIB};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicU16, Ordering::*};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures as Protocol};
use vhost::vhost_user::{Error::InvalidParam, Frontend, VhostUserFrontend};
use vhost::{Error::VhostUserProtocol, VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EventFd, EFD_NONBLOCK};

/// Descriptors: a request takes three of them.
const NUM: usize = 256;
/// A queue's areas, each in a page of its own, then its buffers.
const DESC: usize = 0;
const AVAIL: usize = 0x1000;
const USED: usize = 0x2000;
const HEADERS: usize = 0x3000;
const BUFFERS: usize = 0x4000;
/// Of each header's place: the request, then the range to discard, then the status.
const HEADER: usize = 64;
const GUEST: u64 = 0x1000_0000;

const F_FLUSH: u64 = 1 << 9;
const F_MQ: u64 = 1 << 12;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;
const F_PROTOCOL: u64 = 1 << 30;
const F_VERSION_1: u64 = 1 << 32;

/// The guest's memory, mapped here.
struct Memory {
    file: File,
    at: *mut u8,
    size: usize,
}

impl Memory {
    fn new(size: usize) -> Memory {
        // SAFETY: a new file, mapped for as long as the process lives.
        unsafe {
            let file = File::from_raw_fd(libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC));
            file.set_len(size as u64).expect("memory");
            let (prot, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.as_raw_fd());
            let at = libc::mmap(std::ptr::null_mut(), size, prot, libc::MAP_SHARED, fd, 0);
            assert_ne!(at, libc::MAP_FAILED);
            Memory {
                file,
                at: at.cast(),
                size,
            }
        }
    }

    fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: GUEST,
            memory_size: self.size as u64,
            userspace_addr: self.at as u64,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }
}

struct Queue {
    at: *mut u8,
    guest: u64,
    offered: u16,
    taken: u16,
    kick: EventFd,
    call: EventFd,
}

impl Queue {
    fn new(memory: &Memory, offset: usize) -> Queue {
        Queue {
            // SAFETY: inside of the memory.
            at: unsafe { memory.at.add(offset) },
            guest: GUEST + offset as u64,
            offered: 0,
            taken: 0,
            kick: EventFd::new(EFD_NONBLOCK).expect("eventfd"),
            call: EventFd::new(EFD_NONBLOCK).expect("eventfd"),
        }
    }

    fn put<T>(&self, offset: usize, value: T) {
        // SAFETY: inside of the queue's part, of a descriptor or header that the device does not have.
        unsafe { self.at.add(offset).cast::<T>().write_volatile(value) }
    }

    fn get<T>(&self, offset: usize) -> T {
        // SAFETY: likewise, what the device has given back.
        unsafe { self.at.add(offset).cast::<T>().read_volatile() }
    }

    fn index(&self, area: usize) -> &AtomicU16 {
        // SAFETY: aligned, lives as long as the process; the device's accesses are atomic, too.
        unsafe { AtomicU16::from_ptr(self.at.add(area + 2).cast()) }
    }

    /// (offset in the queue's part, length, whether the device writes)
    fn chain(&self, head: usize, parts: &[(usize, usize, bool)]) {
        for (i, &(offset, len, write)) in parts.iter().enumerate() {
            let next = i + 1 < parts.len();
            let flags = u64::from(next) | u64::from(write) << 1;
            let link = if next { head + i + 1 } else { 0 } as u64;
            self.put(DESC + (head + i) * 16, self.guest + offset as u64);
            self.put(DESC + (head + i) * 16 + 8, len as u64 | flags << 32 | link << 48);
        }
    }

    fn wait(&self) {
        let mut fd = libc::pollfd {
            fd: self.call.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry.
        assert_eq!(unsafe { libc::poll(&mut fd, 1, 20000) }, 1, "no answer within 20 s");
        self.call.read().expect("call");
    }
}

impl Lane for Queue {
    fn buffer(&mut self, slot: usize) -> &mut [u8] {
        // SAFETY: the queue's part holds a block for each slot, and no request of this slot is under way.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(BUFFERS + slot * BLOCK), BLOCK) }
    }

    fn offer(&mut self, slot: usize, at: u64, op: Op) {
        let (header, block) = (HEADERS + slot * HEADER, BUFFERS + slot * BLOCK);
        let (range, status) = (header + 16, header + 32);
        let (kind, parts) = match op {
            Op::Read => (0u64, vec![(header, 16, false), (block, BLOCK, true), (status, 1, true)]),
            Op::Write => (1, vec![(header, 16, false), (block, BLOCK, false), (status, 1, true)]),
            Op::Flush => (4, vec![(header, 16, false), (status, 1, true)]),
            Op::Discard => (11, vec![(header, 16, false), (range, 16, false), (status, 1, true)]),
            Op::WriteZeroes => (13, vec![(header, 16, false), (range, 16, false), (status, 1, true)]),
        };
        self.put(header, kind);
        self.put(header + 8, if op == Op::Read || op == Op::Write { at / 512 } else { 0 });
        self.put(range, at / 512);
        self.put(range + 8, MIB / 512);
        self.put(status, 0xFFu8);
        self.chain(slot * 3, &parts);
        self.put(AVAIL + 4 + usize::from(self.offered) % NUM * 2, slot as u16 * 3);
        self.offered = self.offered.wrapping_add(1);
        self.index(AVAIL).store(self.offered, SeqCst);
        self.kick.write(1).expect("kick");
    }

    fn answers(&mut self) -> Vec<usize> {
        let mut slots = Vec::new();
        while self.index(USED).load(Acquire) == self.taken {
            self.wait();
        }
        while self.index(USED).load(Acquire) != self.taken {
            let head: u32 = self.get(USED + 4 + usize::from(self.taken) % NUM * 8);
            let slot = head as usize / 3;
            assert_eq!(self.get::<u8>(HEADERS + slot * HEADER + 32), 0, "status of slot {slot}");
            self.taken = self.taken.wrapping_add(1);
            slots.push(slot);
        }
        slots
    }
}

/// Features, memory, rings: what a VMM's device does when its driver says DRIVER_OK.
fn start(f: &mut Frontend, memory: &Memory, queues: &[Queue]) -> vhost::Result<()> {
    f.set_owner()?;
    let features = F_VERSION_1 | F_FLUSH | F_MQ | F_DISCARD | F_WRITE_ZEROES | F_PROTOCOL;
    assert_eq!(f.get_features()? & features, features);
    let protocol = Protocol::MQ | Protocol::REPLY_ACK | Protocol::CONFIG | Protocol::CONFIGURE_MEM_SLOTS;
    assert!(f.get_protocol_features()?.contains(protocol));
    f.set_protocol_features(protocol)?;
    f.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    let most = f.get_queue_num()?;
    assert!(most >= queues.len() as u64);
    f.set_features(features)?;
    // it counts queues, whatever the device, and asks for no more of them than it was told
    assert!(matches!(
        f.set_vring_enable(most as usize, true),
        Err(VhostUserProtocol(InvalidParam))
    ));
    f.add_mem_region(&memory.region())?;
    for (i, q) in queues.iter().enumerate() {
        let user = |area: usize| q.at as u64 + area as u64;
        f.set_vring_num(i, NUM as u16)?;
        f.set_vring_base(i, 0)?;
        f.set_vring_addr(
            i,
            &VringConfigData {
                queue_max_size: NUM as u16,
                queue_size: NUM as u16,
                flags: 0,
                desc_table_addr: user(DESC),
                used_ring_addr: user(USED),
                avail_ring_addr: user(AVAIL),
                log_addr: None,
            },
        )?;
        f.set_vring_call(i, &q.call)?;
        f.set_vring_kick(i, &q.kick)?;
        f.set_vring_enable(i, true)?;
    }
    Ok(())
}

fn stop(f: &mut Frontend, memory: &Memory, queues: &[Queue]) -> vhost::Result<()> {
    for (i, q) in queues.iter().enumerate() {
        f.set_vring_enable(i, false)?;
        assert_eq!(f.get_vring_base(i)?, u32::from(q.offered), "where queue {i} stopped");
    }
    f.remove_mem_region(&memory.region())
}

fn main() {
    let run = Run::from_arguments();
    assert!(run.depth * 3 <= NUM && run.depth * HEADER <= BUFFERS - HEADERS);
    let part = BUFFERS + run.depth * BLOCK;
    let memory = Memory::new(run.queues * part);
    let mut queues: Vec<Queue> = (0..run.queues).map(|i| Queue::new(&memory, i * part)).collect();
    let mut f = Frontend::connect(&run.socket, run.queues as u64).expect("connect");
    start(&mut f, &memory, &queues).expect("start");
    let (_, capacity) = f
        .get_config(0, 8, VhostUserConfigFlags::empty(), &[0; 8])
        .expect("capacity");
    assert!(u64::from_le_bytes(capacity[..8].try_into().expect("8 bytes")) * 512 >= run.size);
    drive(&mut queues, &run);
    stop(&mut f, &memory, &queues).expect("stop");
}
