// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! rust-vmm's front-end saves and loads the state of a device of ours. LIBVHOST_CONSOLE_SOCKET names a console's socket.
use std::io::{pipe, Read, Write};
use std::os::fd::OwnedFd;

use vhost::vhost_user::message::*;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::VhostBackend;

const STOPPED: VhostTransferStatePhase = VhostTransferStatePhase::STOPPED;

fn load(f: &Frontend, bytes: &[u8]) -> bool {
    let (reader, mut writer) = pipe().unwrap();
    let other = f
        .set_device_state_fd(VhostTransferStateDirection::LOAD, STOPPED, OwnedFd::from(reader))
        .unwrap();
    assert!(other.is_none());
    writer.write_all(bytes).unwrap();
    drop(writer);
    f.check_device_state().is_ok()
}

fn save(f: &Frontend) -> Vec<u8> {
    let (mut reader, writer) = pipe().unwrap();
    let other = f
        .set_device_state_fd(VhostTransferStateDirection::SAVE, STOPPED, OwnedFd::from(writer))
        .unwrap();
    assert!(other.is_none());
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    f.check_device_state().unwrap();
    bytes
}

#[test]
fn rust_vmms_front_end_moves_the_state_of_our_console() {
    let socket = std::env::var("LIBVHOST_CONSOLE_SOCKET").expect("LIBVHOST_CONSOLE_SOCKET");
    let mut f = Frontend::connect(socket, 2).unwrap();
    f.set_owner().unwrap();
    f.set_features(f.get_features().unwrap()).unwrap();
    let offered = f.get_protocol_features().unwrap();
    assert!(offered.contains(VhostUserProtocolFeatures::DEVICE_STATE));
    f.set_protocol_features(offered).unwrap();

    assert!(f.check_device_state().is_err()); // nothing was begun
    assert_eq!(save(&f), b"");
    assert!(load(&f, b"typed on another host"));
    assert_eq!(save(&f), b"typed on another host");
    assert!(!load(&f, &[0; 4097])); // more than a console keeps
    assert_eq!(save(&f), b"typed on another host");
    assert!(load(&f, b""));
}
