// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A vhost-user block device on rust-vmm's crates, unmodified: what cloud-hypervisor's ecosystem answers to a front-end.
//! Built by old/ and new/ with releases two years apart. One front-end after the other, one thread per queue, over a file.
//!
//! Usage: blk SOCKET FILE QUEUES

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

#[cfg(feature = "current")]
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserShMemConfig, VhostUserSharedMsg,
};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::Backend;
use vhost_user_backend::{bitmap::BitmapMmapRegion, VhostUserBackend, VhostUserDaemon, VringRwLock, VringT};
use virtio_bindings::virtio_blk::*;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::QueueOwnedT;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
#[cfg(feature = "current")]
use vmm_sys_util::event::{new_event_consumer_and_notifier, EventConsumer, EventFlag, EventNotifier};
#[cfg(not(feature = "current"))]
use vmm_sys_util::eventfd::{EventFd, EFD_NONBLOCK};

mod channel;
use channel::Channel;
#[cfg(feature = "current")]
mod state;

type Memory = GuestMemoryMmap<BitmapMmapRegion>;
type AtomicMemory = GuestMemoryAtomic<Memory>;
type Vring = VringRwLock<AtomicMemory>;

const SECTOR: u64 = 512;
const CONFIG_BYTES: usize = 60;
const PIECE_MAX: usize = 1 << 20;

struct Disk {
    file: File,
    sectors: u64,
    queues: usize,
    event_idx: AtomicBool,
    memory: AtomicMemory,
    channel: Channel,
    #[cfg(feature = "current")]
    state: state::State,
    #[cfg(feature = "current")]
    transfers: state::Transfers,
}

/// One buffer of a request.
struct Piece {
    at: GuestAddress,
    len: usize,
    writable: bool,
}

impl Disk {
    fn config(&self) -> Vec<u8> {
        let mut c = vec![0; CONFIG_BYTES];
        c[0..8].copy_from_slice(&self.sectors.to_le_bytes());
        c[12..16].copy_from_slice(&126u32.to_le_bytes()); // seg_max
        c[20..24].copy_from_slice(&(SECTOR as u32).to_le_bytes()); // blk_size
        c[33] = self.channel.agreed() as u8; // unused by block devices
        c[34..36].copy_from_slice(&(self.queues as u16).to_le_bytes()); // num_queues
        c
    }

    /// Reads into or writes from the data pieces; the bytes written to the guest.
    fn transfer(&self, memory: &Memory, kind: u32, sector: u64, data: &[Piece]) -> io::Result<usize> {
        let mut offset = sector * SECTOR;
        let mut written = 0;
        for piece in data {
            let mut bytes = vec![0; piece.len.min(PIECE_MAX)];
            match (kind, piece.writable) {
                (VIRTIO_BLK_T_IN, true) => {
                    self.file.read_exact_at(&mut bytes, offset)?;
                    memory.write_slice(&bytes, piece.at).map_err(io::Error::other)?;
                    written += piece.len;
                }
                (VIRTIO_BLK_T_OUT, false) => {
                    memory.read_slice(&mut bytes, piece.at).map_err(io::Error::other)?;
                    self.file.write_all_at(&bytes, offset)?;
                }
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            }
            offset += piece.len as u64;
        }
        Ok(written)
    }

    /// Header, data, status; the bytes written to the guest.
    fn execute(&self, memory: &Memory, pieces: &[Piece]) -> Option<u32> {
        let (head, rest) = pieces.split_first()?;
        let (status, data) = rest.split_last()?;
        if head.writable || head.len != 16 || !status.writable {
            return None;
        }
        let kind = u32::from_le(memory.read_obj(head.at).ok()?);
        let sector = u64::from_le(memory.read_obj(GuestAddress(head.at.0 + 8)).ok()?);
        let (code, written) = match kind {
            VIRTIO_BLK_T_IN | VIRTIO_BLK_T_OUT => match self.transfer(memory, kind, sector, data) {
                Ok(n) => (VIRTIO_BLK_S_OK, n),
                Err(_) => (VIRTIO_BLK_S_IOERR, 0),
            },
            VIRTIO_BLK_T_FLUSH => (VIRTIO_BLK_S_OK, 0),
            _ => (VIRTIO_BLK_S_UNSUPP, 0),
        };
        memory.write_obj(code as u8, status.at).ok()?;
        Some(written as u32 + 1)
    }

    /// Serves what the queue holds; whether there was anything.
    /// The lock is kept until the burst is done: a front-end that stops the ring gets its base behind the last write.
    fn serve(&self, vring: &Vring) -> bool {
        let memory = self.memory.memory();
        let mut ring = vring.get_mut();
        let chains: Vec<_> = match ring.get_queue_mut().iter(memory.clone()) {
            Ok(chains) => chains.collect(),
            Err(_) => return false,
        };
        for chain in &chains {
            let pieces: Vec<_> = chain
                .clone()
                .map(|d| Piece {
                    at: d.addr(),
                    len: d.len() as usize,
                    writable: d.is_write_only(),
                })
                .collect();
            let written = self.execute(&memory, &pieces).unwrap_or(0);
            let _ = ring.add_used(chain.head_index(), written);
        }
        if !chains.is_empty() && ring.needs_notification().unwrap_or(true) {
            let _ = ring.signal_used_queue();
        }
        !chains.is_empty()
    }
}

impl VhostUserBackend for Disk {
    type Bitmap = BitmapMmapRegion;
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        self.queues
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_FLUSH
            | 1 << VIRTIO_BLK_F_MQ
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
            | VhostUserVirtioFeatures::LOG_ALL.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        let since_2025 = if cfg!(feature = "current") {
            VhostUserProtocolFeatures::RESET_DEVICE
        } else {
            VhostUserProtocolFeatures::empty()
        };
        #[cfg(feature = "current")]
        let since_2025 = since_2025 | state::features();
        since_2025
            | channel::features()
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::LOG_SHMFD
    }

    fn set_event_idx(&self, enabled: bool) {
        self.event_idx.store(enabled, Ordering::Relaxed);
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let begin = offset as usize;
        self.config().get(begin..begin + size as usize).unwrap_or(&[]).to_vec()
    }

    fn set_config(&self, _offset: u32, bytes: &[u8]) -> io::Result<()> {
        self.channel.ask(bytes[0], &self.file);
        Ok(())
    }

    fn set_backend_req_fd(&self, front_end: Backend) {
        self.channel.open(front_end);
    }

    #[cfg(feature = "current")]
    fn get_shared_object(&self, object: VhostUserSharedMsg) -> io::Result<File> {
        channel::shared(object, &self.file)
    }

    #[cfg(feature = "current")]
    fn set_device_state_fd(
        &self,
        direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        pipe: File,
    ) -> io::Result<Option<File>> {
        self.transfers.set(self.state.begin(direction, pipe));
        Ok(None)
    }

    #[cfg(feature = "current")]
    fn check_device_state(&self) -> io::Result<()> {
        self.transfers.check()
    }

    #[cfg(feature = "current")]
    fn get_shmem_config(&self) -> io::Result<VhostUserShMemConfig> {
        Ok(channel::windows())
    }

    fn update_memory(&self, _memory: AtomicMemory) -> io::Result<()> {
        Ok(()) // the handler changed the memory that we share with it
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.queues).map(|q| 1 << q).collect()
    }

    #[cfg(feature = "current")]
    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    #[cfg(not(feature = "current"))]
    fn exit_event(&self, _thread: usize) -> Option<EventFd> {
        EventFd::new(EFD_NONBLOCK).ok()
    }

    fn handle_event(&self, event: u16, _set: EventSet, vrings: &[Vring], _thread: usize) -> io::Result<()> {
        let vring = vrings.get(event as usize).ok_or(io::ErrorKind::NotFound)?;
        if !self.event_idx.load(Ordering::Relaxed) {
            self.serve(vring);
            return Ok(());
        }
        loop {
            let _ = vring.disable_notification();
            while self.serve(vring) {}
            if !vring.enable_notification().unwrap_or(false) {
                return Ok(());
            }
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, socket, path, queues] = args.as_slice() else {
        eprintln!("usage: blk SOCKET FILE QUEUES");
        std::process::exit(2);
    };
    #[cfg(feature = "current")]
    let state = state::State::default();
    loop {
        let file = File::options().read(true).write(true).open(path).expect("file");
        let sectors = file.metadata().expect("file size").len() / SECTOR;
        let memory = GuestMemoryAtomic::new(Memory::new());
        let disk = Arc::new(Disk {
            file,
            sectors,
            queues: queues.parse().expect("queues"),
            event_idx: AtomicBool::new(false),
            memory: memory.clone(),
            channel: Channel::default(),
            #[cfg(feature = "current")]
            state: state.clone(),
            #[cfg(feature = "current")]
            transfers: state::Transfers::default(),
        });
        let mut daemon = VhostUserDaemon::new("blk".to_owned(), disk, memory).expect("daemon");
        if let Err(e) = daemon.serve(socket) {
            eprintln!("front-end ended: {e}");
        }
    }
}
