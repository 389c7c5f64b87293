/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Any sequence of messages with any descriptors to a back-end with a worker: it answers or hangs up, leaves no
 * descriptor behind, and takes the next front-end. An input is a list of messages: request, flags, size and
 * descriptors in one byte each, then the payload; the guest's memory, rings included, is the input itself.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vhost/libvhost.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMORY = 0x10000, MESSAGES = 64, KINDS = 4 };

static struct libvhost_ctx *ctx;
static struct libvhost_backend *backend;
static uint8_t *guest;
static int kinds[KINDS]; /* memory, eventfd, eventfd, socket */

static int serve(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct libvhost_iov iov[8];
	struct libvhost_chain chain = {.size = sizeof(chain), .iov = iov, .iov_cap = 8};
	int rc = 0;

	(void)arg;
	(void)queue;
	for (int i = 0; i < 8 && (rc = libvhost_vq_pop(vq, &chain)) > 0; i++)
		rc = libvhost_vq_push(vq, chain.head, chain.write_len) ? -EIO : 1;
	return rc;
}

static void prepare(void)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = serve};
	static const uint8_t config[32] = {1};
	const struct libvhost_worker_opts worker = {.size = sizeof(worker), .sandbox = LIBVHOST_SANDBOX_OFF};
	const struct libvhost_backend_opts opts = {.size = sizeof(opts),
						   .num_queues = 3,
						   .max_regions = 8,
						   .features = 3ull << 28,
						   .ops = &ops,
						   .config = config,
						   .config_len = sizeof(config),
						   .worker = &worker};
	int pair[2];

	kinds[0] = memfd_create("guest", MFD_CLOEXEC);
	kinds[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	kinds[2] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (libvhost_ctx_new(NULL, &ctx) || libvhost_backend_new(ctx, &opts, &backend) || ftruncate(kinds[0], MEMORY) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		abort();
	kinds[3] = pair[0];
	guest = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, kinds[0], 0);
	if (guest == MAP_FAILED)
		abort();
}

static unsigned open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (dir && readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void send_message(int sock, uint32_t request, uint32_t flags, const void *payload, uint32_t size, const int *fds,
			 uint32_t nfds)
{
	uint32_t header[3] = {request, flags, size};
	struct iovec iov[2] = {{header, sizeof(header)}, {(void *)(uintptr_t)payload, size}};
	_Alignas(8) char control[CMSG_SPACE(16 * sizeof(int))] = {0};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};

	if (nfds) {
		struct cmsghdr *cmsg;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, nfds * sizeof(int));
	}
	(void)sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)libvhost_backend_dispatch(backend, 0);
}

/* What a front-end says first, so that an input need not find it out. */
static void handshake(int sock)
{
	const uint64_t features = 7ull << 28 | 1ull << 32, protocol = 0x1a239 & ~(1ull << 13);
	const uint64_t table[5] = {1, 0, MEMORY, 0, 0};

	send_message(sock, LIBVHOST_OP_SET_PROTOCOL_FEATURES, 1, &protocol, 8, NULL, 0);
	send_message(sock, LIBVHOST_OP_SET_FEATURES, 1, &features, 8, NULL, 0);
	send_message(sock, LIBVHOST_OP_SET_MEM_TABLE, 1, table, 40, kinds, 1);
}

/* One message of the input; returns its length. */
static size_t take_message(int sock, const uint8_t *data, size_t size)
{
	uint32_t nfds = data[3] & 0x80 ? data[3] >> 2 & 15 : data[3] & 0x40 ? 1 : 0;
	uint32_t length = data[2] < size - 4 ? data[2] : (uint32_t)(size - 4);
	uint32_t flags = data[1] & 0x80 ? data[1] : 1 | (data[1] & 8);
	int fds[16];

	for (uint32_t i = 0; i < nfds; i++)
		fds[i] = kinds[(data[3] + i) % KINDS];
	send_message(sock, data[0] % 48, flags, data + 4, length, fds, nfds);
	return 4 + length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct libvhost_event event;
	unsigned before;
	int pair[2];

	if (!backend)
		prepare();
	memset(guest, 0, MEMORY);
	memcpy(guest, data, size < MEMORY ? size : MEMORY);
	before = open_fds();
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) || libvhost_backend_adopt(backend, pair[1]))
		abort();
	close(pair[1]);
	if (size && data[0] & 1)
		handshake(pair[0]);
	for (size_t at = 1, n = 0; at + 4 < size && n < MESSAGES; n++)
		at += take_message(pair[0], data + at, size - at);
	close(pair[0]);
	while (libvhost_backend_adopt(backend, kinds[0]) == -EBUSY)
		(void)libvhost_backend_dispatch(backend, 10);
	while (libvhost_backend_next_event(backend, &event) == 1)
		;
	if (open_fds() != before)
		__builtin_trap();
	return 0;
}
