// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device asks its front-end over the back-end channel. A byte that the driver writes to the configuration space
//! is the command, the next byte says afterwards whether the front-end agreed. The question is asked before the write is
//! answered.
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;

use vhost::vhost_user::message::VhostUserProtocolFeatures;
#[cfg(not(feature = "current"))]
use vhost::vhost_user::message::{VhostUserFSBackendMsg, VhostUserFSBackendMsgFlags};
#[cfg(feature = "current")]
use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags, VhostUserShMemConfig, VhostUserSharedMsg};
use vhost::vhost_user::{Backend, VhostUserFrontendReqHandler};
#[cfg(feature = "current")]
use vm_memory::ByteValued;

const PAGE: u64 = 4096;
#[cfg(feature = "current")]
const WINDOW: u64 = 16 * PAGE;

#[derive(Default)]
pub struct Channel {
    front_end: Mutex<Option<Backend>>,
    agreed: AtomicBool,
}

impl Channel {
    pub fn open(&self, front_end: Backend) {
        *self.front_end.lock().unwrap() = Some(front_end);
    }

    pub fn ask(&self, command: u8, file: &File) {
        let agreed = match self.front_end.lock().unwrap().as_ref() {
            Some(front_end) => question(front_end, command, file).is_ok(),
            None => false,
        };
        self.agreed.store(agreed, Ordering::Relaxed);
    }

    pub fn agreed(&self) -> bool {
        self.agreed.load(Ordering::Relaxed)
    }
}

#[cfg(feature = "current")]
pub fn features() -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures::BACKEND_REQ
        | VhostUserProtocolFeatures::BACKEND_SEND_FD
        | VhostUserProtocolFeatures::SHARED_OBJECT
        | VhostUserProtocolFeatures::SHMEM
}

/// The object 1 is the disk. What has another name is registered all the same, and not given away.
#[cfg(feature = "current")]
fn object(name: u8) -> VhostUserSharedMsg {
    *VhostUserSharedMsg::from_slice(&[name; 16]).unwrap()
}

#[cfg(feature = "current")]
pub fn shared(object_asked: VhostUserSharedMsg, disk: &File) -> io::Result<File> {
    if object_asked.uuid == object(1).uuid {
        disk.try_clone()
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

#[cfg(feature = "current")]
pub fn windows() -> VhostUserShMemConfig {
    VhostUserShMemConfig::new(1, &[WINDOW])
}

/// Page `page` of the disk into the same page of the window.
#[cfg(feature = "current")]
fn part(page: u64, flags: VhostUserMMapFlags) -> VhostUserMMap {
    VhostUserMMap {
        fd_offset: page * PAGE,
        shm_offset: page * PAGE,
        len: PAGE,
        flags: flags.bits(),
        ..Default::default()
    }
}

#[cfg(feature = "current")]
fn question(front_end: &Backend, command: u8, disk: &File) -> io::Result<u64> {
    match command {
        b'a' => front_end.shared_object_add(&object(1)),
        b'A' => front_end.shared_object_add(&object(2)),
        b'd' => front_end.shared_object_remove(&object(1)),
        b'l' => front_end.shared_object_lookup(&object(1), disk),
        b'm' => front_end.shmem_map(&part(1, VhostUserMMapFlags::empty()), disk),
        b'w' => front_end.shmem_map(&part(2, VhostUserMMapFlags::WRITABLE), disk),
        b'o' => front_end.shmem_map(&part(WINDOW / PAGE, VhostUserMMapFlags::empty()), disk),
        b'u' => front_end.shmem_unmap(&part(1, VhostUserMMapFlags::empty())),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(not(feature = "current"))]
pub fn features() -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures::BACKEND_REQ | VhostUserProtocolFeatures::BACKEND_SEND_FD
}

/// Windows before they came into the specification, under the number that shared objects have today.
#[cfg(not(feature = "current"))]
fn question(front_end: &Backend, command: u8, disk: &File) -> io::Result<u64> {
    let mut request = VhostUserFSBackendMsg::default();
    request.fd_offset[0] = PAGE;
    request.cache_offset[0] = PAGE;
    request.len[0] = PAGE;
    request.flags[0] = VhostUserFSBackendMsgFlags::MAP_R;
    match command {
        b'm' => front_end.fs_backend_map(&request, disk),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}
