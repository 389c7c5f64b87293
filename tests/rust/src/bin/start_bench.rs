// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Connect-to-running of a device with N queues at a real back-end: rust-vmm's front-end acknowledging each message (as cloud-hypervisor uses it)
//! against libvhost's managed device. Rounds are interleaved; the figure is the median of the rounds' ratios.
//!
//! start_bench SOCKET [QUEUES [ROUNDS]]
use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::time::Instant;

use libvhost_proof::{ffi, start, Guest, F30, GPA, VERSION_1};
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::Frontend;

fn theirs(socket: &str, guest: &Guest) -> f64 {
    let t = Instant::now();
    let mut f = Frontend::connect(socket, guest.queues as u64).unwrap();
    start(&mut f, guest, |f| f.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY)).unwrap();
    t.elapsed().as_secs_f64()
}

fn ok(what: &str, rc: i32) {
    assert!(rc >= 0, "{what}: {}", std::io::Error::from_raw_os_error(-rc));
}

fn ours(socket: &CString, guest: &Guest) -> f64 {
    let mut ctx = std::ptr::null_mut();
    let mut mem = std::ptr::null_mut();
    let mut dev = std::ptr::null_mut();
    unsafe {
        // guest memory exists before a device starts, on both sides
        ok("ctx", ffi::libvhost_ctx_new(std::ptr::null(), &mut ctx));
        ok("mem", ffi::libvhost_mem_new(ctx, std::ptr::null(), &mut mem));
        ok("begin", ffi::libvhost_mem_begin(mem));
        let region = ffi::Region {
            gpa: GPA,
            size: guest.size,
            user_addr: guest.hva,
            fd: guest.file.as_raw_fd(),
            flags: ffi::REGION_HAS_FD,
            ..Default::default()
        };
        ok("add", ffi::libvhost_mem_add(mem, &region));
        ok("commit", ffi::libvhost_mem_commit(mem, 0, std::ptr::null_mut()));
        let t = Instant::now();
        let opts = ffi::DevOpts {
            size: std::mem::size_of::<ffi::DevOpts>() as u32,
            flags: 0,
            virtio_id: 2,
            num_queues: guest.queues as u32,
            timeout_ms: 0,
            config_size: 0,
            uri: socket.as_ptr(),
            transport: std::ptr::null_mut(),
            mem,
            ops: std::ptr::null(),
            protocol_features: 0,
            ack_policy: 0,
            reserved: 0,
        };
        ok("init", ffi::libvhost_dev_init(ctx, &opts, &mut dev));
        ok("features", ffi::libvhost_ack_features_ex(dev, &(VERSION_1 | F30), 1));
        for q in 0..guest.queues {
            let (desc, avail, used) = guest.ring(q);
            let queue = ffi::Queue {
                size: std::mem::size_of::<ffi::Queue>() as u32,
                flags: ffi::QUEUE_HAS_ALL,
                num: guest.num.into(),
                desc: GPA + desc,
                avail: GPA + avail,
                used: GPA + used,
                kick_fd: guest.kick[q].as_raw_fd(),
                call_fd: guest.call[q].as_raw_fd(),
                err_fd: guest.err[q].as_raw_fd(),
                ..Default::default()
            };
            ok("queue", ffi::libvhost_dev_set_queue(dev, q as u32, &queue));
        }
        ok("start", ffi::libvhost_dev_start(dev, std::ptr::null()));
        let elapsed = t.elapsed().as_secs_f64();
        ffi::libvhost_dev_cleanup(dev);
        ffi::libvhost_mem_free(mem);
        ffi::libvhost_ctx_free(ctx);
        elapsed
    }
}

fn median(v: &mut [f64]) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}

fn main() {
    let mut args = std::env::args().skip(1);
    let socket = args.next().expect("usage: start_bench SOCKET [QUEUES [ROUNDS]]");
    let queues = args.next().map_or(64, |n| n.parse().expect("QUEUES"));
    let rounds = args.next().map_or(15, |n| n.parse().expect("ROUNDS"));
    let uri = CString::new(format!("user:{socket}")).unwrap();
    let guest = Guest::new(queues, 256).unwrap();
    let (mut a, mut b, mut ratio) = (vec![], vec![], vec![]);
    theirs(&socket, &guest);
    ours(&uri, &guest);
    for _ in 0..rounds {
        let x = theirs(&socket, &guest);
        std::thread::sleep(std::time::Duration::from_millis(20));
        let y = ours(&uri, &guest);
        std::thread::sleep(std::time::Duration::from_millis(20));
        a.push(x);
        b.push(y);
        ratio.push(y / x);
    }
    println!(
        "start of {queues} queues, {rounds} rounds: rust-vmm acking each {:.0} us, libvhost {:.0} us, median ratio {:.3}",
        median(&mut a) * 1e6,
        median(&mut b) * 1e6,
        median(&mut ratio)
    );
}
