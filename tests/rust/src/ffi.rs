// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The few C declarations that the proof needs; sizes are asserted against the C side by the library's own layout test.
use std::os::raw::{c_char, c_int, c_void};

pub const REQ_HAS_FD: u32 = 1;
pub const REQ_OUT_FD: u32 = 1;
pub const REGION_HAS_FD: u32 = 1;

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Req {
    pub op: u32,
    pub flags: u32,
    pub index: u32,
    pub fd: i32,
    pub arg: [u64; 6],
    pub data_in: u64,
    pub data_out: u64,
    pub data_in_len: u32,
    pub data_out_cap: u32,
    pub data_out_len: u32,
    pub err: i32,
    pub state: u32,
    pub out_fd: i32,
    pub out_flags: u32,
    pub reserved: u32,
    pub result: [u64; 2],
}
const _: () = assert!(std::mem::size_of::<Req>() == 128);

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Region {
    pub gpa: u64,
    pub size: u64,
    pub user_addr: u64,
    pub mmap_offset: u64,
    pub fd: i32,
    pub flags: u32,
    pub xen_flags: u32,
    pub xen_domid: u32,
}

#[repr(C)]
pub struct DevOpts {
    pub size: u32,
    pub flags: u32,
    pub virtio_id: u32,
    pub num_queues: u32,
    pub timeout_ms: u32,
    pub config_size: u32,
    pub uri: *const c_char,
    pub transport: *mut c_void,
    pub mem: *mut c_void,
    pub ops: *const c_void,
    pub protocol_features: u64,
    pub ack_policy: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Queue {
    pub size: u32,
    pub flags: u32,
    pub num: u32,
    pub base: u32,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    pub kick_fd: i32,
    pub call_fd: i32,
    pub err_fd: i32,
    pub enabled: u32,
    pub running: u32,
    pub masked: u32,
}
pub const QUEUE_HAS_ALL: u32 = 7;

#[repr(C)]
pub struct BackendOps {
    pub size: u32,
    pub reserved: u32,
    pub serve: *const c_void,
    pub get_config: *const c_void,
    pub set_config: *const c_void,
    pub on_request: extern "C" fn(*mut c_void, *mut Req) -> c_int,
    pub save_state: *const c_void,
    pub load_state: *const c_void,
    pub queue_started: *const c_void,
    pub queue_stopped: *const c_void,
    pub reset: *const c_void,
}

#[repr(C)]
pub struct BackendOpts {
    pub size: u32,
    pub flags: u32,
    pub virtio_id: u32,
    pub num_queues: u32,
    pub max_regions: u32,
    pub timeout_ms: u32,
    pub features: u64,
    pub ops: *const BackendOps,
    pub arg: *mut c_void,
    pub config: *const c_void,
    pub config_len: u32,
    pub num_workers: u32,
    pub worker: *const c_void,
    pub state_max: u32,
    pub reserved: u32,
}

pub enum Ctx {}
pub enum Backend {}
pub enum Transport {}

extern "C" {
    pub fn libvhost_op_by_name(name: *const c_char) -> u32;
    pub fn libvhost_ctx_new(opts: *const c_void, ret: *mut *mut Ctx) -> c_int;
    pub fn libvhost_ctx_free(ctx: *mut Ctx);
    pub fn libvhost_transport_open(
        ctx: *mut Ctx,
        uri: *const c_char,
        opts: *const c_void,
        ret: *mut *mut Transport,
    ) -> c_int;
    pub fn libvhost_transport_free(t: *mut Transport);
    pub fn libvhost_transport_exec(
        t: *mut Transport,
        reqs: *mut Req,
        count: u32,
        timeout_ms: u32,
        done: *mut u32,
    ) -> c_int;
    pub fn libvhost_backend_new(ctx: *mut Ctx, opts: *const BackendOpts, ret: *mut *mut Backend) -> c_int;
    pub fn libvhost_backend_free(backend: *mut Backend);
    pub fn libvhost_backend_listen(backend: *mut Backend, path: *const c_char) -> c_int;
    pub fn libvhost_backend_dispatch(backend: *mut Backend, timeout_ms: u32) -> c_int;
    pub fn libvhost_backend_request(backend: *mut Backend, req: *mut Req, timeout_ms: u32) -> c_int;
    pub fn libvhost_mem_new(ctx: *mut Ctx, opts: *const c_void, ret: *mut *mut c_void) -> c_int;
    pub fn libvhost_mem_free(mem: *mut c_void);
    pub fn libvhost_mem_begin(mem: *mut c_void) -> c_int;
    pub fn libvhost_mem_add(mem: *mut c_void, region: *const Region) -> c_int;
    pub fn libvhost_mem_commit(mem: *mut c_void, timeout_ms: u32, lost: *mut u32) -> c_int;
    pub fn libvhost_dev_init(ctx: *mut Ctx, opts: *const DevOpts, ret: *mut *mut c_void) -> c_int;
    pub fn libvhost_dev_cleanup(dev: *mut c_void);
    pub fn libvhost_dev_set_queue(dev: *mut c_void, index: u32, queue: *const Queue) -> c_int;
    pub fn libvhost_ack_features_ex(dev: *mut c_void, features: *const u64, words: u32) -> c_int;
    pub fn libvhost_dev_start(dev: *mut c_void, opts: *const c_void) -> c_int;
}
