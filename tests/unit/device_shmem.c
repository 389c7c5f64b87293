/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Shared-memory windows: what a back-end may put into our address space, and when it is gone again. */
#include "wirerig.h"

#include <setjmp.h>
#include <signal.h>
#include "device/share.h"

#define WINDOW (16 * PAGE)

static uint64_t window_rig(struct wirerig *w, uint32_t mem_flags)
{
	uint64_t address = 0;

	wirerig_init(w);
	if (mem_flags) {
		guest_free(&w->r.g);
		w->r.g = guest_new(mem_flags);
		CHECK_EQ(libvhost_mem_begin(w->r.g.mem), 0);
		CHECK_EQ(libvhost_mem_alloc(w->r.g.mem, 0, DEVRIG_RAM), 0);
		CHECK_EQ(libvhost_mem_commit(w->r.g.mem, 0, NULL), 0);
		w->r.opts.mem = w->r.g.mem;
	}
	w->r.opts.flags = LIBVHOST_DEV_USE_SHMEM;
	w->p.features |= 1ull << 26; /* it could log what it writes */
	wirerig_start(w);
	CHECK_EQ(libvhost_dev_shmem_window(w->r.dev, 7, &address, WINDOW), 0);
	return address;
}

static struct libvhost_req_mmap area(uint64_t shm_offset, uint64_t len, uint64_t fd_offset)
{
	return (struct libvhost_req_mmap){.shmid = 7, .shm_offset = shm_offset, .len = len, .fd_offset = fd_offset};
}

static int map(struct wirerig *w, struct libvhost_req_mmap m, int fd)
{
	return wirerig_ask_mmap(w, ASK_SHMEM_MAP, &m, fd);
}

static int unmap(struct wirerig *w, uint64_t shm_offset, uint64_t len)
{
	const struct libvhost_req_mmap m = area(shm_offset, len, 0);

	return wirerig_ask_mmap(w, ASK_SHMEM_UNMAP, &m, -1);
}

static sigjmp_buf fault;

static void on_fault(int sig)
{
	siglongjmp(fault, sig);
}

/* Whether touching a byte would kill. */
static bool faults(uint64_t address)
{
	const struct sigaction sa = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
	struct sigaction segv, bus;
	volatile bool faulted = true;

	sigaction(SIGSEGV, &sa, &segv);
	sigaction(SIGBUS, &sa, &bus);
	if (!sigsetjmp(fault, 1)) {
		(void)peek(address);
		faulted = false;
	}
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGBUS, &bus, NULL);
	return faulted;
}

TEST(shmem, files_are_mapped_and_unmapped)
{
	struct libvhost_req_mmap m = area(4 * PAGE, 2 * PAGE, PAGE);
	struct libvhost_event e;
	struct wirerig w;
	char why[128];
	uint64_t at;
	int fd;

	at = window_rig(&w, 0);
	fd = device_file(4);
	CHECK_EQ(libvhost_dev_migration_blocker(w.r.dev, why, sizeof(why)), 0);
	CHECK(w.p.acked_protocol & PUPPET_PF(SHMEM_MAP));
	CHECK(at && faults(at) && faults(at + WINDOW - 1));
	CHECK_EQ(map(&w, m, fd), 0);
	CHECK_EQ(devrig_events(&w.r, LIBVHOST_EVENT_SHMEM, &e), 1);
	CHECK(e.value[0] == 7 && e.value[1] == 4 * PAGE && e.value[2] == 2 * PAGE && e.value[3] == 1);
	CHECK_EQ(peek(at + 4 * PAGE), 2);
	CHECK_EQ(peek(at + 5 * PAGE), 3);
	CHECK(faults(at + 3 * PAGE) && faults(at + 6 * PAGE));
	m = area(0, PAGE, 0);
	m.flags = 1;
	CHECK_EQ(map(&w, m, fd), 0);
	poke(at, 0x55);
	CHECK_EQ(unmap(&w, 0, PAGE), 0);
	CHECK(faults(at));
	CHECK_EQ(devrig_events(&w.r, LIBVHOST_EVENT_SHMEM, &e), 2);
	CHECK(e.value[1] == 0 && e.value[3] == 0);
	CHECK_EQ(pread(fd, &m, 1, 0), 1);
	CHECK_EQ(m.shmid, 0x55);
	CHECK_EQ(lv_shmem_maps(w.r.dev), 1);
	CHECK_EQ(libvhost_dev_migration_blocker(w.r.dev, why, sizeof(why)), 1);
	CHECK_HAS(why, "shared-memory windows");
	CHECK_EQ(libvhost_mem_log_start(w.r.g.mem, 0, NULL), -ENOTSUP);
	CHECK_EQ(unmap(&w, 4 * PAGE, 2 * PAGE), 0);
	CHECK_EQ(libvhost_mem_log_start(w.r.g.mem, PATIENCE_MS, NULL), 0);
	close(fd);
	wirerig_close(&w);
}

TEST(shmem, only_whole_mappings_are_unmapped)
{
	struct wirerig w;
	uint64_t at = window_rig(&w, 0);
	int fd = device_file(4);

	CHECK_EQ(map(&w, area(2 * PAGE, 2 * PAGE, 0), fd), 0);
	CHECK_EQ(map(&w, area(4 * PAGE, 2 * PAGE, 0), fd), 0);
	CHECK_EQ(unmap(&w, 2 * PAGE, PAGE), -EINVAL);
	CHECK_EQ(unmap(&w, 3 * PAGE, PAGE), -EINVAL);
	CHECK_EQ(unmap(&w, 2 * PAGE, 4 * PAGE), -EINVAL);
	CHECK_EQ(unmap(&w, 0, PAGE), -EINVAL);
	CHECK_EQ(unmap(&w, 14 * PAGE, PAGE), -EINVAL);
	CHECK(peek(at + 3 * PAGE) == 2 && peek(at + 5 * PAGE) == 2);
	CHECK_EQ(unmap(&w, 2 * PAGE, 2 * PAGE), 0);
	CHECK(faults(at + 3 * PAGE) && !faults(at + 4 * PAGE));
	close(fd);
	wirerig_close(&w);
}

TEST(shmem, r170_bad_mappings_leave_the_window_alone)
{
	struct libvhost_req_mmap m;
	struct wirerig w;
	uint64_t at = window_rig(&w, 0);
	int fd = device_file(4), readonly, writeonly, pipes[2];
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	readonly = open(path, O_RDONLY | O_CLOEXEC);
	writeonly = open(path, O_WRONLY | O_CLOEXEC);
	CHECK(readonly >= 0 && writeonly >= 0 && !pipe(pipes));
	CHECK_EQ(map(&w, area(4 * PAGE, 2 * PAGE, 0), fd), 0);
	m = area(0, PAGE, 0);
	m.shmid = 8;
	CHECK_EQ(map(&w, m, fd), -ENOTSUP); /* no such window */
	CHECK_EQ(map(&w, area(UINT64_MAX - PAGE + 1, 2 * PAGE, 0), fd), -EINVAL);
	CHECK_EQ(map(&w, area(0, UINT64_MAX - PAGE + 1, 0), fd), -EINVAL);
	CHECK_EQ(map(&w, area(0, 2 * PAGE, UINT64_MAX - PAGE + 1), fd), -EINVAL);
	CHECK_EQ(map(&w, area(WINDOW, PAGE, 0), fd), -EINVAL);
	CHECK_EQ(map(&w, area(WINDOW - PAGE, 2 * PAGE, 0), fd), -EINVAL);
	CHECK_EQ(map(&w, area(0, 0, 0), fd), -EINVAL);
	CHECK_EQ(map(&w, area(8, PAGE, 0), fd), -EINVAL);
	CHECK_EQ(map(&w, area(0, 100, 0), fd), -EINVAL);
	CHECK_EQ(map(&w, area(0, PAGE, 512), fd), -EINVAL);
	CHECK_EQ(map(&w, area(3 * PAGE, 2 * PAGE, 0), fd), -EEXIST);
	CHECK_EQ(map(&w, area(5 * PAGE, PAGE, 0), fd), -EEXIST);
	CHECK_EQ(map(&w, area(0, 4 * PAGE, PAGE), fd), -EINVAL); /* one page too long for the file */
	m = area(0, PAGE, 0);
	m.flags = 1;
	CHECK_EQ(map(&w, m, readonly), -EACCES);
	CHECK_EQ(map(&w, m, writeonly), -EACCES);
	m.flags = 2;
	CHECK_EQ(map(&w, m, fd), -EINVAL);
	CHECK_EQ(map(&w, area(0, PAGE, 0), writeonly), -EACCES);
	CHECK_EQ(map(&w, area(0, PAGE, 0), pipes[0]), -EINVAL);
	CHECK_EQ(map(&w, area(0, PAGE, 0), -1), -EINVAL); /* no file at all */
	CHECK(faults(at) && faults(at + 3 * PAGE) && faults(at + 6 * PAGE) && peek(at + 4 * PAGE) == 1);
	CHECK_EQ(lv_shmem_maps(w.r.dev), 1);
	CHECK_EQ(map(&w, area(0, PAGE, 0), readonly), 0);
	CHECK_EQ(peek(at), 1);
	close(fd);
	close(readonly);
	close(writeonly);
	close(pipes[0]);
	close(pipes[1]);
	wirerig_close(&w);
}

TEST(shmem, r171_the_number_of_mappings_is_bounded)
{
	struct libvhost_event e;
	struct lv_ledger full;
	struct wirerig w;
	uint64_t at = 0;
	int fd;

	window_rig(&w, 0);
	fd = device_file(1);
	CHECK_EQ(libvhost_dev_shmem_window(w.r.dev, 9, &at, 4096 * PAGE), 0);
	for (uint64_t n = 0; n < 1024; n++) {
		struct libvhost_req_mmap m = area((4095 - 2 * n) * PAGE, PAGE, 0);

		m.shmid = 9;
		CHECK_EQ(map(&w, m, fd), 0);
		devrig_events(&w.r, LIBVHOST_EVENT_SHMEM, &e);
	}
	full = lv_ledger_take();
	for (uint64_t n = 0; n < 5000; n++)
		CHECK_EQ(map(&w, area(0, PAGE, 0), fd), -ENOSPC);
	CHECK_EQ(lv_ledger_take().maps, full.maps);
	CHECK_EQ(lv_shmem_maps(w.r.dev), 1024);
	CHECK_EQ(libvhost_dev_reset(w.r.dev, NULL), 0);
	CHECK_EQ(lv_shmem_maps(w.r.dev), 0);
	CHECK(lv_ledger_take().maps + 1024 < full.maps);
	CHECK_EQ(map(&w, area(0, PAGE, 0), fd), 0);
	close(fd);
	wirerig_close(&w);
}

/* A file that its owner cuts off faults for whoever touches the window then; a host that asked for seals never gets
 * such a file. */
TEST(shmem, r171_files_that_can_shrink_need_consent)
{
	struct wirerig w;
	uint64_t at = window_rig(&w, 0);
	int cut = device_file(1), sealed;

	CHECK_EQ(map(&w, area(0, PAGE, 0), cut), 0);
	CHECK_EQ(ftruncate(cut, 0), 0);
	CHECK(faults(at));
	CHECK_EQ(unmap(&w, 0, PAGE), 0); /* the library does not care what is in it */
	close(cut);
	wirerig_close(&w);
	at = window_rig(&w, LIBVHOST_MEM_REQUIRE_SEALS);
	cut = device_file(1);
	CHECK_EQ(map(&w, area(0, PAGE, 0), cut), -EPERM);
	sealed = memfd(PAGE, F_SEAL_SHRINK);
	CHECK_EQ(map(&w, area(0, PAGE, 0), sealed), 0);
	CHECK(!faults(at));
	close(cut);
	close(sealed);
	wirerig_close(&w);
}

TEST(shmem, disconnect_and_reset_empty_the_window)
{
	struct wirerig w;
	uint64_t at = window_rig(&w, 0), again = 0;
	int fd = device_file(1);

	CHECK_EQ(map(&w, area(0, PAGE, 0), fd), 0);
	puppet_kill(&w.p);
	CHECK(devrig_await(&w.r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, NULL));
	CHECK(faults(at));
	CHECK_EQ(libvhost_dev_reconnect(w.r.dev, NULL), 0);
	CHECK_EQ(map(&w, area(0, PAGE, 0), fd), 0); /* the window itself stays */
	CHECK_EQ(peek(at), 1);
	CHECK_EQ(libvhost_dev_stop(w.r.dev, NULL), 0);
	CHECK_EQ(peek(at), 1); /* a pause keeps it */
	CHECK_EQ(libvhost_dev_reset(w.r.dev, NULL), 0);
	CHECK(faults(at));
	CHECK_EQ(libvhost_dev_shmem_window(w.r.dev, 7, &again, WINDOW), 0);
	CHECK_EQ(again, at);
	close(fd);
	wirerig_close(&w);
}

TEST(shmem, a_window_in_the_hosts_own_address_space)
{
	void *space = mmap(NULL, WINDOW, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t at = (uint64_t)(uintptr_t)space, wrong = at + 1, none = 0;
	struct libvhost_req_mmap m = area(PAGE, PAGE, 0);
	struct wirerig w;
	int fd;

	CHECK(space != MAP_FAILED);
	window_rig(&w, 0);
	fd = device_file(1);
	m.shmid = 200;
	CHECK_EQ(libvhost_dev_shmem_window(w.r.dev, 200, &wrong, WINDOW), -EINVAL);
	CHECK_EQ(libvhost_dev_shmem_window(w.r.dev, 200, &none, 0), -EINVAL);
	CHECK_EQ(libvhost_dev_shmem_window(w.r.dev, 200, &none, 100), -EINVAL);
	CHECK_EQ(libvhost_dev_shmem_window(w.r.dev, 256, &none, PAGE), -EINVAL);
	CHECK_EQ(libvhost_dev_shmem_window(w.r.dev, 201, &none, 1ull << 60), -ENOMEM);
	CHECK_EQ(none, 0);
	CHECK_EQ(libvhost_dev_shmem_window(w.r.dev, 200, &at, WINDOW), 0);
	CHECK_EQ(libvhost_dev_shmem_window(w.r.dev, 200, &at, 2 * WINDOW), -EEXIST);
	wrong = at + PAGE;
	CHECK_EQ(libvhost_dev_shmem_window(w.r.dev, 200, &wrong, WINDOW), -EEXIST);
	CHECK_EQ(map(&w, m, fd), 0);
	CHECK_EQ(peek(at + PAGE), 1);
	close(fd);
	wirerig_close(&w);
	CHECK(faults(at + PAGE)); /* still reserved, nothing in it */
	CHECK_EQ(munmap(space, WINDOW), 0);
}

static int host_maps(void *arg, struct libvhost_req *req)
{
	*(unsigned *)arg += req->op == LIBVHOST_OP_BACKEND_SHMEM_MAP && req->flags & LIBVHOST_REQ_HAS_FD;
	return 0;
}

TEST(shmem, without_a_window_the_host_is_asked)
{
	unsigned asked = 0;
	struct wirerig w;
	uint64_t at = 0;
	int fd;

	wirerig_init(&w);
	fd = device_file(1);
	w.r.opts.flags = LIBVHOST_DEV_USE_SHMEM;
	w.ops.on_request = host_maps;
	w.ops.arg = &asked;
	wirerig_start(&w);
	CHECK_EQ(map(&w, area(0, PAGE, 0), fd), 0);
	CHECK_EQ(asked, 1);
	CHECK_EQ(devrig_events(&w.r, LIBVHOST_EVENT_SHMEM, NULL), 0);
	CHECK_EQ(libvhost_dev_shmem_window(w.r.dev, 7, &at, WINDOW), 0);
	CHECK_EQ(map(&w, area(0, PAGE, 0), fd), 0);
	CHECK_EQ(asked, 1);
	CHECK_EQ(peek(at), 1);
	close(fd);
	wirerig_close(&w);
}

TEST(shmem, is_not_negotiated_without_the_flag)
{
	struct wirerig w;
	uint64_t at = 0;

	wirerig_init(&w);
	wirerig_start(&w);
	CHECK(!(w.p.acked_protocol & PUPPET_PF(SHMEM_MAP)));
	CHECK_EQ(libvhost_dev_shmem_window(w.r.dev, 7, &at, WINDOW), -EINVAL);
	CHECK_HAS(devrig_error(&w.r).text, "LIBVHOST_DEV_USE_SHMEM");
	wirerig_close(&w);
}

/* Events of windows are the only ones of a peer that could fill the queue: nothing is read while they do. */
TEST(shmem, a_peer_that_maps_all_the_time_waits_for_the_host)
{
	struct wirerig w;
	uint32_t taken = 0;
	int fd;

	window_rig(&w, 0);
	fd = device_file(1);
	for (unsigned i = 0; i < 24; i++) {
		CHECK_EQ(map(&w, area(0, PAGE, 0), fd), 0);
		CHECK_EQ(unmap(&w, 0, PAGE), 0);
	}
	puppet_send(w.p.channel, ASK_CONFIG_CHANGE, WIRE_ASK, 0, NULL, 0, NULL, 0);
	CHECK_EQ(libvhost_dev_dispatch(w.r.dev, 0), 0);
	CHECK_EQ(wirerig_answer(w.p.channel, 20, NULL), 1);
	taken = devrig_events(&w.r, LIBVHOST_EVENT_SHMEM, NULL);
	CHECK_EQ(taken, 48);
	CHECK_EQ(libvhost_dev_dispatch(w.r.dev, 100), 0);
	CHECK_EQ(wirerig_answer(w.p.channel, 1000, NULL), 0);
	CHECK_EQ(devrig_events(&w.r, LIBVHOST_EVENT_CONFIG_CHANGE, NULL), 1);
	close(fd);
	wirerig_close(&w);
}
