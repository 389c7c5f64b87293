// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A block device on rust-vmm's crates that swallows everything: it reads a request's header and writes its status. One
//! front-end after the other, one queue, waiting in epoll, which is the only way these crates have.
//!
//! Usage: null SOCKET SECTORS

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringMutex, VringState, VringT};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{DescriptorChain, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{new_event_consumer_and_notifier, EventConsumer, EventFlag, EventNotifier};

type Memory = GuestMemoryMmap<()>;
type AtomicMemory = GuestMemoryAtomic<Memory>;
type Vring = VringMutex<AtomicMemory>;

struct Null {
    sectors: u64,
    event_idx: AtomicBool,
    memory: AtomicMemory,
}

/// The bytes written to the guest.
fn execute<M>(memory: &Memory, chain: DescriptorChain<M>) -> Option<u32>
where
    M: std::ops::Deref<Target = Memory> + Clone,
{
    let mut pieces = chain;
    let head = pieces.next()?;
    let (mut last, mut writable) = (head, 0);
    for piece in pieces {
        writable += if piece.is_write_only() { piece.len() } else { 0 };
        last = piece;
    }
    if head.is_write_only() || head.len() != 16 || !last.is_write_only() || last.len() == 0 {
        return None;
    }
    let kind = u32::from_le(memory.read_obj(head.addr()).ok()?);
    let (status, written) = match kind {
        VIRTIO_BLK_T_IN => (VIRTIO_BLK_S_OK, writable),
        VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_FLUSH => (VIRTIO_BLK_S_OK, 1),
        _ => (VIRTIO_BLK_S_UNSUPP, 1),
    };
    let at: GuestAddress = last.addr().checked_add(u64::from(last.len() - 1))?;
    memory.write_obj(status as u8, at).ok()?;
    Some(written)
}

impl Null {
    fn serve(&self, ring: &mut VringState<AtomicMemory>) {
        let memory = self.memory.memory();
        let mut worked = false;
        while let Some(chain) = ring.get_queue_mut().pop_descriptor_chain(memory.clone()) {
            let head = chain.head_index();
            let written = execute(&memory, chain).unwrap_or(VIRTIO_BLK_S_IOERR);
            let _ = ring.add_used(head, written);
            worked = true;
        }
        if worked && ring.needs_notification().unwrap_or(true) {
            let _ = ring.signal_used_queue();
        }
    }
}

impl VhostUserBackend for Null {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        1
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }

    fn set_event_idx(&self, enabled: bool) {
        self.event_idx.store(enabled, Ordering::Relaxed);
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let mut config = vec![0; 60];
        config[0..8].copy_from_slice(&self.sectors.to_le_bytes());
        let begin = offset as usize;
        config.get(begin..begin + size as usize).unwrap_or(&[]).to_vec()
    }

    fn update_memory(&self, _memory: AtomicMemory) -> io::Result<()> {
        Ok(()) // the handler changed the memory that we share with it
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn handle_event(&self, event: u16, _set: EventSet, vrings: &[Vring], _thread: usize) -> io::Result<()> {
        let vring = vrings.get(event as usize).ok_or(io::ErrorKind::NotFound)?;
        let mut ring = vring.get_mut();
        if !self.event_idx.load(Ordering::Relaxed) {
            self.serve(&mut ring);
            return Ok(());
        }
        loop {
            let _ = ring.disable_notification();
            self.serve(&mut ring);
            if !ring.enable_notification().unwrap_or(false) {
                return Ok(());
            }
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, socket, sectors] = args.as_slice() else {
        eprintln!("usage: null SOCKET SECTORS");
        std::process::exit(2);
    };
    let sectors = sectors.parse().expect("sectors");
    loop {
        let memory = GuestMemoryAtomic::new(Memory::new());
        let null = Arc::new(Null {
            sectors,
            event_idx: AtomicBool::new(false),
            memory: memory.clone(),
        });
        let mut daemon = VhostUserDaemon::new("null".to_owned(), null, memory).expect("daemon");
        if let Err(e) = daemon.serve(socket) {
            eprintln!("front-end ended: {e}");
        }
    }
}
