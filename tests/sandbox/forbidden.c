/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* By name what no worker may do, of any role: with arguments that the kernel answers otherwise when nobody filters. */
#include "check.h"
#include "inside.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vhost/libvhost.h>
#include "worker/worker.h"

#define BAD	((uint64_t)-1)
#define AT_HERE ((uint64_t)AT_FDCWD)
#define TEXT(s) ((uint64_t)(uintptr_t)(s))

struct forbidden {
	const char *name;
	long nr;
	uint64_t arg[6];
};

#define CALL(call, ...)                                                                                                \
	{                                                                                                              \
		.name = #call, .nr = SYS_##call, .arg = { __VA_ARGS__ }                                                \
	}

static const struct forbidden opening[] = {
	CALL(openat, AT_HERE, TEXT("/dev/null"), O_RDWR),
	CALL(openat2, AT_HERE, TEXT("/dev/null"), BAD, 24),
	CALL(open_by_handle_at, BAD, BAD, 0),
	CALL(name_to_handle_at, BAD, BAD, BAD, BAD, 0),
#ifdef SYS_open
	CALL(open, TEXT("/dev/null"), O_RDWR),
	CALL(creat, TEXT("/dev/null"), 0600),
#endif
	CALL(pipe2, BAD, 0),
	CALL(mknodat, BAD, BAD, 0, 0),
	CALL(unlinkat, BAD, TEXT("none"), 0),
	CALL(renameat2, BAD, TEXT("none"), BAD, TEXT("none"), 0),
	CALL(linkat, BAD, TEXT("none"), BAD, TEXT("none"), 0),
	CALL(inotify_init1, BAD),
};

static const struct forbidden connecting[] = {
	CALL(socket, AF_UNIX, SOCK_STREAM, 0),
	CALL(socketpair, AF_UNIX, SOCK_STREAM, 0, BAD),
	CALL(connect, BAD, BAD, 0),
	CALL(bind, BAD, BAD, 0),
	CALL(listen, BAD, 0),
	CALL(accept, BAD, 0, 0),
	CALL(sendto, BAD, 0, 0, 0, 0, 0),
	CALL(sendmsg, BAD, BAD, 0),
	CALL(setsockopt, BAD, 0, 0, 0, 0),
};

static const struct forbidden tracing[] = {
	CALL(ptrace, BAD, 0, 0, 0),
	CALL(process_vm_readv, BAD, BAD, 1, BAD, 1, 0),
	CALL(process_vm_writev, BAD, BAD, 1, BAD, 1, 0),
	CALL(process_madvise, BAD, BAD, 1, 0, 0),
	CALL(pidfd_open, BAD, 0),
	CALL(pidfd_getfd, BAD, 0, 0),
	CALL(pidfd_send_signal, BAD, 0, 0, 0),
	CALL(kcmp, BAD, BAD, 0, 0, 0),
	CALL(kill, BAD >> 33, 0),
	CALL(tkill, BAD, 0),
	CALL(tgkill, BAD, BAD, SIGKILL),
	CALL(rt_tgsigqueueinfo, BAD, BAD, 0, BAD),
};

static const struct forbidden executable[] = {
	CALL(mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, BAD, 0),
	CALL(mmap, 0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, BAD, 0),
	CALL(mprotect, 0, 0, PROT_EXEC),
	CALL(mprotect, 0, 0, PROT_READ | PROT_WRITE | PROT_EXEC),
	CALL(pkey_mprotect, 0, 0, PROT_EXEC, BAD),
	CALL(remap_file_pages, 1, 0, 0, 0, 0),
	CALL(shmat, BAD, 0, 0),
	CALL(personality, BAD >> 32),
};

static const struct forbidden starting[] = {
	CALL(execve, BAD, BAD, BAD),
	CALL(execveat, BAD, BAD, BAD, BAD, BAD),
	CALL(clone, CLONE_THREAD, 0, 0, 0, 0),
	CALL(clone3, BAD, 0),
#ifdef SYS_fork
	CALL(fork, 0),
	CALL(vfork, 0),
#endif
};

static const struct forbidden surface[] = {
	CALL(bpf, BAD, BAD, 0),
	CALL(perf_event_open, BAD, 0, 0, 0, BAD),
	CALL(userfaultfd, BAD),
	CALL(io_uring_setup, 0, BAD),
	CALL(io_uring_register, BAD, 0, 0, 0),
	CALL(keyctl, BAD, 0, 0, 0, 0),
	CALL(add_key, BAD, BAD, 0, 0, 0),
	CALL(request_key, BAD, BAD, 0, 0),
	CALL(seccomp, BAD, 0, 0),
	CALL(prctl, BAD, 0, 0, 0, 0),
	CALL(capset, BAD, BAD),
	CALL(ioctl, BAD, 0, 0),
	CALL(mount, BAD, BAD, BAD, 0, 0),
	CALL(umount2, BAD, BAD),
	CALL(move_mount, BAD, BAD, BAD, BAD, BAD),
	CALL(open_tree, BAD, BAD, BAD),
	CALL(fsopen, BAD, BAD),
	CALL(pivot_root, BAD, BAD),
	CALL(chroot, BAD),
	CALL(setns, BAD, 0),
	CALL(unshare, BAD >> 32),
	CALL(init_module, BAD, 0, BAD),
	CALL(finit_module, BAD, BAD, 0),
	CALL(delete_module, BAD, 0),
	CALL(kexec_load, 0, BAD, 0, 0),
	CALL(prlimit64, 0, BAD, BAD, BAD),
	CALL(setrlimit, BAD, BAD),
};

struct trial {
	const struct forbidden *calls;
	size_t num;
	long got[64];
};

static void try_all(void *arg)
{
	struct trial *t = arg;

	for (size_t i = 0; i < t->num; i++) {
		const uint64_t *a = t->calls[i].arg;
		long rc = syscall(t->calls[i].nr, a[0], a[1], a[2], a[3], a[4], a[5]);

		t->got[i] = rc < 0 ? -errno : rc;
	}
}

static void check_family(const struct forbidden *calls, size_t num)
{
	struct trial t = {.calls = calls, .num = num};

	CHECK(num < sizeof(t.got) / sizeof(*t.got));
	for (uint32_t role = 0; role < LV_ROLES; role++) {
		CHECK(run_inside(&(struct inside){.role = role}, try_all, &t));
		for (size_t i = 0; i < num; i++)
			if (t.got[i] != -EPERM)
				lv_test_fail(__FILE__, __LINE__, "role %u: %s gave %ld", role, calls[i].name, t.got[i]);
	}
}

#define CHECK_FAMILY(calls) check_family(calls, sizeof(calls) / sizeof(*(calls)))

TEST(forbidden, r281_opening_and_naming_files)
{
	CHECK_FAMILY(opening);
}

TEST(forbidden, r282_making_connections)
{
	CHECK_FAMILY(connecting);
}

TEST(forbidden, r284_tracing_and_signalling_others)
{
	CHECK_FAMILY(tracing);
}

TEST(forbidden, r285_memory_that_is_code)
{
	CHECK_FAMILY(executable);
}

TEST(forbidden, r287_the_rest_of_the_kernel)
{
	CHECK_FAMILY(surface);
}

TEST(forbidden, r292_programs_processes_and_threads)
{
	CHECK_FAMILY(starting);
}

/* The same of what only a control worker may do. */
static const struct forbidden for_control[] = {
	CALL(accept4, BAD, 0, 0, 0),
	CALL(recvmsg, BAD, BAD, 0),
	CALL(sendmmsg, BAD, BAD, 1, 0),
	CALL(memfd_create, TEXT("x"), 0),
	CALL(mmap, 0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, BAD, 0),
	CALL(munmap, BAD, BAD),
	CALL(mprotect, 0, 0, PROT_READ),
	CALL(close, BAD),
	CALL(brk, 0),
};

TEST(forbidden, r281_r282_memory_and_messages_are_control_s)
{
	struct trial t = {.calls = for_control, .num = sizeof(for_control) / sizeof(*for_control)};

	for (uint32_t role = 0; role < LV_ROLES; role++) {
		CHECK(run_inside(&(struct inside){.role = role}, try_all, &t));
		for (size_t i = 0; i < t.num; i++)
			if ((t.got[i] == -EPERM) != (role != LIBVHOST_ROLE_CONTROL))
				lv_test_fail(__FILE__, __LINE__, "role %u: %s gave %ld", role, for_control[i].name,
					     t.got[i]);
	}
}

/* What a worker that somebody took over puts into its own ring. */
struct attack {
	struct libvhost_call call;
	struct libvhost_worker *w;
	uint8_t opcode, flags;
	int32_t result;
	atomic_int done;
};

static void attack(struct libvhost_call *call, struct libvhost_vq *vq)
{
	struct attack *a = call->arg;
	struct lv_uring *ring = &a->w->io.ring;
	const struct libvhost_io flush = {.op = LIBVHOST_IO_FLUSH};
	struct io_uring_sqe *sqe = &ring->sqes[*ring->sq_tail & ring->sq_mask];

	(void)vq;
	lv_uring_prepare(ring, &flush);
	*sqe = (struct io_uring_sqe){
		.opcode = a->opcode,
		.flags = a->flags,
		.fd = a->flags & IOSQE_FIXED_FILE ? 0 : AT_FDCWD,
	};
	if (a->opcode != IORING_OP_FSYNC)
		sqe->addr = TEXT("/dev/null");
	sqe->user_data = (uintptr_t)call;
	lv_uring_enter(ring, 1);
	while (!lv_uring_take(ring, &a->result))
		;
	atomic_store(&a->done, 1);
}

static int32_t attacked(struct libvhost_worker *w, uint8_t opcode, uint8_t flags)
{
	struct attack a = {.call = {.fn = attack}, .w = w, .opcode = opcode, .flags = flags, .result = 1};

	a.call.arg = &a;
	CHECK_EQ(libvhost_worker_call(w, &a.call), 0);
	for (int i = 0; i < PATIENCE_MS && !atomic_load(&a.done); i++)
		usleep(1000);
	CHECK(atomic_load(&a.done));
	return a.result;
}

TEST(forbidden, r281_r282_not_through_the_worker_s_own_ring_either)
{
	static const uint8_t opcodes[] = {IORING_OP_OPENAT,  IORING_OP_OPENAT2, IORING_OP_SOCKET,
					  IORING_OP_CONNECT, IORING_OP_SENDMSG, IORING_OP_RECVMSG,
					  IORING_OP_ACCEPT,  IORING_OP_CLOSE,	IORING_OP_UNLINKAT};
	int32_t file = memfd_create("disk", MFD_CLOEXEC);
	struct libvhost_worker_opts opts = {.size = sizeof(opts),
					    .role = LIBVHOST_ROLE_BLOCK,
					    .flags = LIBVHOST_WORKER_IO_URING,
					    .num_files = 1,
					    .files = &file};
	struct libvhost_worker_status s = {.size = sizeof(s)};
	struct libvhost_worker *w = NULL;
	struct libvhost_ctx *ctx = NULL;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	CHECK_EQ(libvhost_worker_new(ctx, &opts, &w), 0);
	CHECK_EQ(libvhost_worker_status(w, &s), 0);
	if (s.io_uring) {
		CHECK_EQ(attacked(w, IORING_OP_FSYNC, IOSQE_FIXED_FILE), 0); /* what it is for */
		CHECK_EQ(attacked(w, IORING_OP_FSYNC, 0), -EACCES);
		for (size_t i = 0; i < sizeof(opcodes); i++) {
			CHECK_EQ(attacked(w, opcodes[i], 0), -EACCES);
			CHECK_EQ(attacked(w, opcodes[i], IOSQE_FIXED_FILE), -EACCES);
		}
	}
	libvhost_worker_free(w);
	libvhost_ctx_free(ctx);
	close(file);
	if (!s.io_uring)
		SKIP("this kernel gives no io_uring");
}
