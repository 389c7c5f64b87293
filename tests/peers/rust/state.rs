// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device's own state: bytes that mean nothing to anybody, as many as a front-end loaded. They move in a thread.
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use vhost::vhost_user::message::{VhostTransferStateDirection, VhostUserProtocolFeatures};

const AT_FIRST: usize = 100_000; // more than a pipe holds

pub fn features() -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures::DEVICE_STATE
}

/// One per process: it outlives its front-ends.
#[derive(Clone)]
pub struct State(Arc<Mutex<Vec<u8>>>);

impl Default for State {
    fn default() -> Self {
        State(Arc::new(Mutex::new(vec![0; AT_FIRST])))
    }
}

type Transfer = JoinHandle<io::Result<()>>;

impl State {
    pub fn begin(&self, direction: VhostTransferStateDirection, mut pipe: File) -> Transfer {
        let state = self.0.clone();
        thread::spawn(move || {
            if direction == VhostTransferStateDirection::SAVE {
                return pipe.write_all(&state.lock().unwrap());
            }
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes)?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            *state.lock().unwrap() = bytes;
            Ok(())
        })
    }
}

#[derive(Default)]
pub struct Transfers(Mutex<Option<Transfer>>);

impl Transfers {
    pub fn set(&self, transfer: Transfer) {
        *self.0.lock().unwrap() = Some(transfer);
    }

    pub fn check(&self) -> io::Result<()> {
        let transfer = self.0.lock().unwrap().take();
        let Some(transfer) = transfer else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        transfer
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the transfer panicked")))
    }
}
