// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! rust-vmm's front-end traits over libvhost's C ABI: one method is one request.
pub mod ffi;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::io::{AsRawFd, RawFd};

use ffi::{Region, Req};
use vhost::vhost_user::message::*;
use vhost::vhost_user::{Error as UserError, VhostUserFrontend};
use vhost::{Error, Result, VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

/// What a method returns where the back-end tells its own addresses (postcopy only).
type Bases<T> = Result<Option<T>>;

pub struct LibVhost {
    ctx: *mut ffi::Ctx,
    transport: *mut ffi::Transport,
}

// One program runs at a time and the library excludes a second thread itself (-EBUSY).
unsafe impl Send for LibVhost {}

impl LibVhost {
    pub fn connect(path: &str) -> Result<Self> {
        let uri = CString::new(format!("user:{path}")).unwrap();
        let mut s = LibVhost {
            ctx: std::ptr::null_mut(),
            transport: std::ptr::null_mut(),
        };
        unsafe {
            check(ffi::libvhost_ctx_new(std::ptr::null(), &mut s.ctx))?;
            check(ffi::libvhost_transport_open(
                s.ctx,
                uri.as_ptr(),
                std::ptr::null(),
                &mut s.transport,
            ))?;
        }
        Ok(s)
    }

    /// Runs one request; results are in it afterwards.
    fn exec(&self, req: &mut Req) -> Result<u64> {
        check(unsafe { ffi::libvhost_transport_exec(self.transport, req, 1, 0, std::ptr::null_mut()) })?;
        Ok(req.result[0])
    }

    fn simple(&self, name: &str, index: usize, value: u64) -> Result<u64> {
        let mut req = request(name);
        req.index = index as u32;
        req.arg[0] = value;
        self.exec(&mut req)
    }

    fn with_fd(&self, name: &str, index: usize, fd: RawFd) -> Result<()> {
        let mut req = request(name);
        req.index = index as u32;
        req.fd = fd;
        req.flags = ffi::REQ_HAS_FD;
        self.exec(&mut req).map(drop)
    }
}

impl Drop for LibVhost {
    fn drop(&mut self) {
        unsafe {
            ffi::libvhost_transport_free(self.transport);
            ffi::libvhost_ctx_free(self.ctx);
        }
    }
}

pub fn request(name: &str) -> Req {
    let c = CString::new(name).unwrap();
    Req {
        op: unsafe { ffi::libvhost_op_by_name(c.as_ptr()) },
        ..Default::default()
    }
}

fn check(rc: i32) -> Result<()> {
    match -rc {
        0 => Ok(()),
        libc::ECONNRESET | libc::EPIPE | libc::ENOTCONN => Err(Error::VhostUserProtocol(UserError::Disconnected)),
        libc::EIO => Err(Error::VhostUserProtocol(UserError::BackendInternalError)),
        libc::EINVAL => Err(Error::VhostUserProtocol(UserError::InvalidParam)),
        libc::EPROTO => Err(Error::VhostUserProtocol(UserError::InvalidMessage)),
        e => Err(Error::IOError(io::Error::from_raw_os_error(e))),
    }
}

fn region_args(r: &VhostUserMemoryRegionInfo) -> [u64; 6] {
    [r.guest_phys_addr, r.memory_size, r.userspace_addr, r.mmap_offset, 0, 0]
}

impl VhostBackend for LibVhost {
    fn get_features(&self) -> Result<u64> {
        self.simple("GET_FEATURES", 0, 0)
    }
    fn set_features(&self, features: u64) -> Result<()> {
        self.simple("SET_FEATURES", 0, features).map(drop)
    }
    fn set_owner(&self) -> Result<()> {
        self.simple("SET_OWNER", 0, 0).map(drop)
    }
    fn reset_owner(&self) -> Result<()> {
        self.simple("RESET_OWNER", 0, 0).map(drop)
    }
    fn set_mem_table(&self, regions: &[VhostUserMemoryRegionInfo]) -> Bases<Vec<u64>> {
        let table: Vec<Region> = regions
            .iter()
            .map(|r| Region {
                gpa: r.guest_phys_addr,
                size: r.memory_size,
                user_addr: r.userspace_addr,
                mmap_offset: r.mmap_offset,
                fd: r.mmap_handle,
                flags: ffi::REGION_HAS_FD,
                ..Default::default()
            })
            .collect();
        let mut req = request("SET_MEM_TABLE");
        req.arg[0] = table.len() as u64 | (std::mem::size_of::<Region>() as u64) << 32;
        req.data_in = table.as_ptr() as u64;
        req.data_in_len = std::mem::size_of_val(&table[..]) as u32;
        self.exec(&mut req).map(|_| None)
    }
    fn set_log_base(&self, base: u64, region: Option<VhostUserDirtyLogRegion>) -> Result<()> {
        let mut req = request("SET_LOG_BASE");
        req.arg[0] = base;
        if let Some(r) = region {
            req.arg[1] = r.mmap_size;
            req.arg[2] = r.mmap_offset;
            req.fd = r.mmap_handle;
            req.flags = ffi::REQ_HAS_FD;
        }
        self.exec(&mut req).map(drop)
    }
    fn set_log_fd(&self, fd: RawFd) -> Result<()> {
        self.with_fd("SET_LOG_FD", 0, fd)
    }
    fn set_vring_num(&self, queue_index: usize, num: u16) -> Result<()> {
        self.simple("SET_VRING_NUM", queue_index, num.into()).map(drop)
    }
    fn set_vring_addr(&self, queue_index: usize, c: &VringConfigData) -> Result<()> {
        let mut req = request("SET_VRING_ADDR");
        req.index = queue_index as u32;
        req.arg = [
            c.flags.into(),
            c.desc_table_addr,
            c.used_ring_addr,
            c.avail_ring_addr,
            c.log_addr.unwrap_or(0),
            0,
        ];
        self.exec(&mut req).map(drop)
    }
    fn set_vring_base(&self, queue_index: usize, base: u16) -> Result<()> {
        self.simple("SET_VRING_BASE", queue_index, base.into()).map(drop)
    }
    fn get_vring_base(&self, queue_index: usize) -> Result<u32> {
        self.simple("GET_VRING_BASE", queue_index, 0).map(|v| v as u32)
    }
    fn set_vring_call(&self, queue_index: usize, fd: &EventFd) -> Result<()> {
        self.with_fd("SET_VRING_CALL", queue_index, fd.as_raw_fd())
    }
    fn set_vring_kick(&self, queue_index: usize, fd: &EventFd) -> Result<()> {
        self.with_fd("SET_VRING_KICK", queue_index, fd.as_raw_fd())
    }
    fn set_vring_err(&self, queue_index: usize, fd: &EventFd) -> Result<()> {
        self.with_fd("SET_VRING_ERR", queue_index, fd.as_raw_fd())
    }
}

impl VhostUserFrontend for LibVhost {
    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        self.simple("GET_PROTOCOL_FEATURES", 0, 0)
            .map(VhostUserProtocolFeatures::from_bits_truncate)
    }
    fn set_protocol_features(&mut self, features: VhostUserProtocolFeatures) -> Result<()> {
        self.simple("SET_PROTOCOL_FEATURES", 0, features.bits()).map(drop)
    }
    fn get_queue_num(&mut self) -> Result<u64> {
        self.simple("GET_QUEUE_NUM", 0, 0)
    }
    fn reset_device(&mut self) -> Result<()> {
        self.simple("RESET_DEVICE", 0, 0).map(drop)
    }
    fn set_vring_enable(&mut self, queue_index: usize, enable: bool) -> Result<()> {
        self.simple("SET_VRING_ENABLE", queue_index, enable.into()).map(drop)
    }
    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        flags: VhostUserConfigFlags,
        _buf: &[u8],
    ) -> Result<(VhostUserConfig, VhostUserConfigPayload)> {
        let mut payload = vec![0u8; size as usize];
        let mut req = request("GET_CONFIG");
        req.arg[0] = u64::from(offset) | u64::from(size) << 32;
        req.data_out = payload.as_mut_ptr() as u64;
        req.data_out_cap = size;
        self.exec(&mut req)?;
        payload.truncate(req.data_out_len as usize);
        Ok((VhostUserConfig::new(offset, size, flags), payload))
    }
    fn set_config(&mut self, offset: u32, flags: VhostUserConfigFlags, buf: &[u8]) -> Result<()> {
        let mut req = request("SET_CONFIG");
        // the specification numbers the kinds of write 0 (guest) and 1 (migration); the crate has flags 1 and 2
        let kind = u64::from(flags.contains(VhostUserConfigFlags::LIVE_MIGRATION));
        req.arg[0] = u64::from(offset) | (buf.len() as u64) << 32;
        req.arg[1] = kind;
        req.data_in = buf.as_ptr() as u64;
        req.data_in_len = buf.len() as u32;
        self.exec(&mut req).map(drop)
    }
    fn set_backend_request_fd(&mut self, fd: &dyn AsRawFd) -> Result<()> {
        self.with_fd("SET_BACKEND_REQ_FD", 0, fd.as_raw_fd())
    }
    fn get_shared_object(&mut self, uuid: &VhostUserSharedMsg) -> Result<File> {
        let mut req = request("GET_SHARED_OBJECT");
        let (lo, hi) = uuid.uuid.as_bytes().split_at(8);
        req.arg[0] = u64::from_ne_bytes(lo.try_into().unwrap());
        req.arg[1] = u64::from_ne_bytes(hi.try_into().unwrap());
        self.exec(&mut req)?;
        take_file(&req).ok_or(Error::VhostUserProtocol(UserError::IncorrectFds))
    }
    fn get_inflight_fd(&mut self, i: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let mut req = request("GET_INFLIGHT_FD");
        req.arg = inflight_args(i);
        self.exec(&mut req)?;
        let file = take_file(&req).ok_or(Error::VhostUserProtocol(UserError::IncorrectFds))?;
        Ok((
            VhostUserInflight::new(req.result[0], req.result[1], i.num_queues, i.queue_size),
            file,
        ))
    }
    fn set_inflight_fd(&mut self, inflight: &VhostUserInflight, fd: RawFd) -> Result<()> {
        let mut req = request("SET_INFLIGHT_FD");
        req.arg = inflight_args(inflight);
        req.fd = fd;
        req.flags = ffi::REQ_HAS_FD;
        self.exec(&mut req).map(drop)
    }
    fn get_max_mem_slots(&mut self) -> Result<u64> {
        self.simple("GET_MAX_MEM_SLOTS", 0, 0)
    }
    fn add_mem_region(&mut self, region: &VhostUserMemoryRegionInfo) -> Bases<u64> {
        let mut req = request("ADD_MEM_REG");
        req.arg = region_args(region);
        req.fd = region.mmap_handle;
        req.flags = ffi::REQ_HAS_FD;
        self.exec(&mut req).map(|_| None)
    }
    fn remove_mem_region(&mut self, region: &VhostUserMemoryRegionInfo) -> Result<()> {
        let mut req = request("REM_MEM_REG");
        req.arg = region_args(region);
        self.exec(&mut req).map(drop)
    }
    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        let mut config = VhostUserShMemConfig::default();
        let mut req = request("GET_SHMEM_CONFIG");
        req.data_out = &mut config as *mut _ as u64;
        req.data_out_cap = std::mem::size_of_val(&config) as u32;
        self.exec(&mut req)?;
        Ok(config)
    }
    fn set_device_state_fd(
        &self,
        direction: VhostTransferStateDirection,
        phase: VhostTransferStatePhase,
        fd: OwnedFd,
    ) -> Result<Option<File>> {
        let mut req = request("SET_DEVICE_STATE_FD");
        req.arg[0] = direction as u64 | (phase as u64) << 32;
        req.fd = fd.as_raw_fd();
        req.flags = ffi::REQ_HAS_FD;
        self.exec(&mut req)?;
        Ok(take_file(&req))
    }
    fn check_device_state(&self) -> Result<()> {
        self.simple("CHECK_DEVICE_STATE", 0, 0).map(drop)
    }
}

fn inflight_args(i: &VhostUserInflight) -> [u64; 6] {
    [
        i.mmap_size,
        i.mmap_offset,
        u64::from(i.num_queues) | u64::from(i.queue_size) << 16,
        0,
        0,
        0,
    ]
}

fn take_file(req: &Req) -> Option<File> {
    (req.out_flags & ffi::REQ_OUT_FD != 0).then(|| unsafe { File::from_raw_fd(req.out_fd) })
}

/// Guest memory for starts: one memfd at guest-physical 1 MiB, mapped here, rings for `queues` queues of `num` entries.
pub struct Guest {
    pub file: File,
    pub hva: u64,
    pub size: u64,
    pub queues: usize,
    pub num: u16,
    pub kick: Vec<EventFd>,
    pub call: Vec<EventFd>,
    pub err: Vec<EventFd>,
}

pub const GPA: u64 = 1 << 20;
const RING_BYTES: u64 = 16 << 10;

impl Guest {
    pub fn new(queues: usize, num: u16) -> io::Result<Self> {
        let size = RING_BYTES * queues as u64;
        let (file, hva);
        unsafe {
            let fd = libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 || libc::ftruncate(fd, size as i64) < 0 {
                return Err(io::Error::last_os_error());
            }
            file = File::from_raw_fd(fd);
            let p = libc::mmap(
                std::ptr::null_mut(),
                size as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd,
                0,
            );
            hva = p as u64;
        }
        let fds = || {
            (0..queues)
                .map(|_| EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC))
                .collect::<io::Result<Vec<_>>>()
        };
        Ok(Guest {
            file,
            hva,
            size,
            queues,
            num,
            kick: fds()?,
            call: fds()?,
            err: fds()?,
        })
    }

    /// Offsets of descriptor table, available ring and used ring of queue q.
    pub fn ring(&self, q: usize) -> (u64, u64, u64) {
        let desc = RING_BYTES * q as u64;
        let avail = desc + 16 * u64::from(self.num);
        (desc, avail, (avail + 6 + 2 * u64::from(self.num) + 63) & !63)
    }

    pub fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: GPA,
            memory_size: self.size,
            userspace_addr: self.hva,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }
}

pub const VERSION_1: u64 = 1 << 32;
pub const F30: u64 = 1 << 30;

/// Connect-to-running through the traits alone, in the order that a VMM uses: any implementation will do.
pub fn start<F: VhostUserFrontend>(f: &mut F, guest: &Guest, ack_each: impl Fn(&mut F)) -> Result<()> {
    let offered = f.get_features()?;
    let protocol = f.get_protocol_features()?;
    let wanted = VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
    f.set_protocol_features(protocol & wanted)?;
    ack_each(f);
    f.get_queue_num()?;
    f.set_owner()?;
    f.set_features(offered & (VERSION_1 | F30))?;
    f.add_mem_region(&guest.region())?;
    for q in 0..guest.queues {
        let (desc, avail, used) = guest.ring(q);
        f.set_vring_num(q, guest.num)?;
        f.set_vring_base(q, 0)?;
        f.set_vring_addr(
            q,
            &VringConfigData {
                queue_max_size: guest.num,
                queue_size: guest.num,
                flags: 0,
                desc_table_addr: guest.hva + desc,
                used_ring_addr: guest.hva + used,
                avail_ring_addr: guest.hva + avail,
                log_addr: None,
            },
        )?;
        f.set_vring_call(q, &guest.call[q])?;
        f.set_vring_err(q, &guest.err[q])?;
    }
    for q in 0..guest.queues {
        f.set_vring_kick(q, &guest.kick[q])?;
    }
    for q in 0..guest.queues {
        f.set_vring_enable(q, true)?;
    }
    Ok(())
}
