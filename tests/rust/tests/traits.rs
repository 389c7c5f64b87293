// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The same generic start, once through rust-vmm's own front-end and once through libvhost, at the block back-end that listens on LIBVHOST_BACKEND_SOCKET.
use libvhost_proof::{start, Guest, LibVhost};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::VhostBackend;

fn socket() -> String {
    std::env::var("LIBVHOST_BACKEND_SOCKET").expect("LIBVHOST_BACKEND_SOCKET names the back-end's socket")
}

/// What a VMM reads and writes after the start; the answers must not depend on the implementation.
fn exercise<F: VhostUserFrontend>(f: &mut F) -> (Vec<u8>, u64, Vec<u32>) {
    let (_, config) = f.get_config(0, 60, VhostUserConfigFlags::WRITABLE, &[0; 60]).unwrap();
    let slots = f.get_max_mem_slots().unwrap();
    for q in 0..2 {
        f.set_vring_enable(q, false).unwrap();
    }
    (config, slots, (0..2).map(|q| f.get_vring_base(q).unwrap()).collect())
}

#[test]
fn both_front_ends_agree() {
    let guest = Guest::new(2, 256).unwrap();
    let theirs = {
        let mut f = Frontend::connect(socket(), 2).unwrap();
        start(&mut f, &guest, |f| f.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY)).unwrap();
        exercise(&mut f)
    };
    let mut f = LibVhost::connect(&socket()).unwrap();
    start(&mut f, &guest, |_| ()).unwrap();
    assert_eq!(exercise(&mut f), theirs);
    assert_eq!(theirs.2, vec![0, 0]);
    assert!(theirs.1 >= 8);
}

#[test]
fn refusals_become_errors() {
    let mut f = LibVhost::connect(&socket()).unwrap();
    let offered = f.get_features().unwrap();
    assert_ne!(offered, 0);
    // not negotiated yet: refused here, nothing is sent
    assert!(f.get_max_mem_slots().is_err());
    assert!(LibVhost::connect("/nonexistent/socket").is_err());
}
