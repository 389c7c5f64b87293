// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A back-end on libvhost asks rust-vmm's front-end for everything that the latter knows: configuration change, shared
//! objects, windows. Answers are compared on both sides.
use std::collections::HashSet;
use std::ffi::{c_void, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::ptr::null;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use libvhost_proof::{ffi, ffi::Req, request, F30, VERSION_1};
use vhost::vhost_user::message::*;
use vhost::vhost_user::{
    Frontend, FrontendReqHandler, HandlerResult, VhostUserFrontend, VhostUserFrontendReqHandlerMut,
};
use vhost::VhostBackend;
use vm_memory::ByteValued;

const PAGE: u64 = 4096;
const WINDOW: u64 = 16 * PAGE;
const WAIT_MS: u32 = 5000;

fn object(name: u8) -> VhostUserSharedMsg {
    *VhostUserSharedMsg::from_slice(&[name; 16]).unwrap()
}

/// What the device offers and answers; it gives object 1 away.
fn answer(file: &File, req: &mut Req) -> i32 {
    let is = |name: &str| req.op == request(name).op;
    if is("GET_FEATURES") {
        req.result[0] = VERSION_1 | F30;
    } else if is("GET_PROTOCOL_FEATURES") {
        let offered = VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::BACKEND_SEND_FD
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::SHARED_OBJECT
            | VhostUserProtocolFeatures::SHMEM;
        req.result[0] = offered.bits();
    } else if is("GET_SHARED_OBJECT") {
        if req.arg[0] as u8 != 1 {
            return -libc::ENOENT;
        }
        req.out_fd = file.try_clone().unwrap().into_raw_fd();
        req.out_flags = ffi::REQ_OUT_FD;
    } else if is("GET_SHMEM_CONFIG") {
        let mut words = [0u64; 257];
        words[0] = 1;
        words[1] = WINDOW;
        let bytes = std::mem::size_of_val(&words);
        assert!(req.data_out_cap as usize >= bytes);
        unsafe { std::ptr::copy_nonoverlapping(words.as_ptr().cast::<u8>(), req.data_out as *mut u8, bytes) };
        req.data_out_len = bytes as u32;
        req.result[0] = 1;
    }
    0
}

extern "C" fn on_request(file: *mut c_void, req: *mut Req) -> i32 {
    unsafe { answer(&*file.cast::<File>(), &mut *req) }
}

/// The device, in a thread of its own: it asks what it is given to ask.
struct Device {
    questions: Option<Sender<(Req, u32)>>,
    answers: Receiver<i32>,
    thread: Option<JoinHandle<()>>,
}

fn serve(path: CString, file: File, ready: Sender<()>, questions: Receiver<(Req, u32)>, answers: Sender<i32>) {
    let ops = ffi::BackendOps {
        size: std::mem::size_of::<ffi::BackendOps>() as u32,
        reserved: 0,
        serve: null(),
        get_config: null(),
        set_config: null(),
        on_request,
        save_state: null(),
        load_state: null(),
        queue_started: null(),
        queue_stopped: null(),
        reset: null(),
    };
    let opts = ffi::BackendOpts {
        size: std::mem::size_of::<ffi::BackendOpts>() as u32,
        flags: 0,
        virtio_id: 0,
        num_queues: 1,
        max_regions: 0,
        timeout_ms: 0,
        features: 0,
        ops: &ops,
        arg: (&raw const file).cast_mut().cast(),
        config: null(),
        config_len: 0,
        num_workers: 0,
        worker: null(),
        state_max: 0,
        reserved: 0,
    };
    let (mut ctx, mut backend) = (std::ptr::null_mut(), std::ptr::null_mut());
    unsafe {
        assert_eq!(ffi::libvhost_ctx_new(null(), &mut ctx), 0);
        assert_eq!(ffi::libvhost_backend_new(ctx, &opts, &mut backend), 0);
        assert_eq!(ffi::libvhost_backend_listen(backend, path.as_ptr()), 0);
        ready.send(()).unwrap();
        loop {
            match questions.try_recv() {
                Ok((mut req, timeout)) => answers
                    .send(ffi::libvhost_backend_request(backend, &mut req, timeout))
                    .unwrap(),
                Err(std::sync::mpsc::TryRecvError::Disconnected) => break,
                Err(_) => assert_eq!(ffi::libvhost_backend_dispatch(backend, 5), 0),
            }
        }
        ffi::libvhost_backend_free(backend);
        ffi::libvhost_ctx_free(ctx);
    }
}

impl Device {
    fn new(path: &str, file: &File) -> Self {
        let (questions, asked) = channel();
        let (told, answers) = channel();
        let (ready, is_ready) = channel();
        let (path, file) = (CString::new(path).unwrap(), file.try_clone().unwrap());
        let thread = thread::spawn(move || serve(path, file, ready, asked, told));
        is_ready.recv().unwrap();
        Device {
            questions: Some(questions),
            answers,
            thread: Some(thread),
        }
    }

    fn ask(&self, req: Req, timeout_ms: u32) {
        self.questions.as_ref().unwrap().send((req, timeout_ms)).unwrap();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.questions = None;
        let _ = self.thread.take().unwrap().join();
    }
}

/// What a host does with the questions.
#[derive(Default)]
struct Host {
    config_changes: u32,
    objects: HashSet<[u8; 16]>,
    maps: HashSet<(u64, u64)>,
    first_byte: u8,
}

fn refuse<T>(errno: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(errno))
}

impl VhostUserFrontendReqHandlerMut for Host {
    fn handle_config_change(&mut self) -> HandlerResult<u64> {
        self.config_changes += 1;
        Ok(0)
    }

    fn shared_object_add(&mut self, object: &VhostUserSharedMsg) -> HandlerResult<u64> {
        match self.objects.insert(*object.uuid.as_bytes()) {
            true => Ok(0),
            false => refuse(libc::EEXIST),
        }
    }

    fn shared_object_remove(&mut self, object: &VhostUserSharedMsg) -> HandlerResult<u64> {
        match self.objects.remove(object.uuid.as_bytes()) {
            true => Ok(0),
            false => refuse(libc::ENOENT),
        }
    }

    fn shmem_map(&mut self, m: &VhostUserMMap, fd: &dyn AsRawFd) -> HandlerResult<u64> {
        if m.shmid != 0 || m.shm_offset + m.len > WINDOW || !self.maps.insert((m.shm_offset, m.len)) {
            return refuse(libc::EINVAL);
        }
        unsafe {
            let flags = (libc::PROT_READ, libc::MAP_SHARED);
            let at = libc::mmap(
                std::ptr::null_mut(),
                m.len as usize,
                flags.0,
                flags.1,
                fd.as_raw_fd(),
                m.fd_offset as i64,
            );
            assert_ne!(at, libc::MAP_FAILED);
            self.first_byte = *at.cast();
            libc::munmap(at, m.len as usize);
        }
        Ok(0)
    }

    fn shmem_unmap(&mut self, m: &VhostUserMMap) -> HandlerResult<u64> {
        match self.maps.remove(&(m.shm_offset, m.len)) {
            true => Ok(0),
            false => refuse(libc::EINVAL),
        }
    }
}

fn about_object(op: &str, name: u8) -> Req {
    let mut req = request(op);
    req.arg[0] = u64::from_ne_bytes([name; 8]);
    req.arg[1] = req.arg[0];
    req
}

/// One page of the file to the same place of the window; a descriptor of 0 is none.
fn about_page(op: &str, page: u64, file: Option<&File>) -> Req {
    let mut req = request(op);
    // region, file offset, window offset, length, flags
    req.arg = [0, page * PAGE, page * PAGE, PAGE, 0, 0];
    if let Some(file) = file {
        req.fd = file.as_raw_fd();
        req.flags = ffi::REQ_HAS_FD;
    }
    req
}

#[test]
fn rust_vmms_front_end_answers_our_back_end() {
    let path = std::env::temp_dir().join(format!("libvhost-channel-{}", std::process::id()));
    let (socket, image) = (format!("{}.sock", path.display()), path.with_extension("img"));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&image)
        .unwrap();
    std::fs::remove_file(&image).unwrap();
    for page in 0..WINDOW / PAGE {
        file.write_all_at(&[page as u8; PAGE as usize], page * PAGE).unwrap();
    }
    let device = Device::new(&socket, &file);

    let mut f = Frontend::connect(&socket, 1).unwrap();
    std::fs::remove_file(&socket).ok();
    f.set_owner().unwrap();
    f.set_features(f.get_features().unwrap()).unwrap();
    let offered = f.get_protocol_features().unwrap();
    f.set_protocol_features(offered).unwrap();
    let host = Arc::new(Mutex::new(Host::default()));
    let mut server = FrontendReqHandler::new(host.clone()).unwrap();
    server.set_reply_ack_flag(true);
    f.set_backend_request_fd(&server.get_tx_raw_fd()).unwrap();

    assert_eq!(f.get_shmem_config().unwrap().memory_sizes[..2], [WINDOW, 0]);
    let given = f.get_shared_object(&object(1)).unwrap();
    assert_eq!(given.metadata().unwrap().ino(), file.metadata().unwrap().ino());
    assert!(f.get_shared_object(&object(2)).is_err());
    assert_eq!(f.get_shmem_config().unwrap().nregions, 1);

    // what the front-end made of the question, what the device was told
    let mut exchange = |req: Req| {
        device.ask(req, WAIT_MS);
        let taken = server.handle_request().is_ok();
        (taken, device.answers.recv().unwrap())
    };
    let (taken, refused) = ((true, 0), (false, -libc::EIO));
    assert_eq!(exchange(request("BACKEND_CONFIG_CHANGE")), taken);
    assert_eq!(host.lock().unwrap().config_changes, 1);

    assert_eq!(exchange(about_object("BACKEND_SHARED_OBJECT_ADD", 1)), taken);
    assert!(host.lock().unwrap().objects.contains(&[1; 16]));
    assert_eq!(exchange(about_object("BACKEND_SHARED_OBJECT_ADD", 1)), refused);
    assert_eq!(exchange(about_object("BACKEND_SHARED_OBJECT_REMOVE", 2)), refused);
    assert_eq!(exchange(about_object("BACKEND_SHARED_OBJECT_REMOVE", 1)), taken);
    assert!(host.lock().unwrap().objects.is_empty());

    assert_eq!(exchange(about_page("BACKEND_SHMEM_MAP", 3, Some(&file))), taken);
    assert_eq!(host.lock().unwrap().first_byte, 3);
    assert_eq!(exchange(about_page("BACKEND_SHMEM_MAP", 3, Some(&file))), refused);
    assert_eq!(exchange(about_page("BACKEND_SHMEM_MAP", 16, Some(&file))), refused);
    assert_eq!(exchange(about_page("BACKEND_SHMEM_UNMAP", 4, None)), refused);
    assert_eq!(exchange(about_page("BACKEND_SHMEM_UNMAP", 3, None)), taken);
    assert!(host.lock().unwrap().maps.is_empty());

    // it takes a look-up only with a descriptor, which the specification puts into the answer, and does not answer
    device.ask(about_object("BACKEND_SHARED_OBJECT_LOOKUP", 1), 100);
    assert!(server.handle_request().is_err());
    assert_eq!(device.answers.recv().unwrap(), -libc::ETIMEDOUT);
    assert_eq!(f.get_shmem_config().unwrap().nregions, 1);
}
