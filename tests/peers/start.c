/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Starts and stops all queues of a real back-end at message level. Usage: start URI QUEUES
 * Prints one line per step. "start" and "end" on stderr mark the measured part for strace (socket_calls.sh).
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#define RAM_BYTES (64u << 20)
#define COOKIE	  0x100000000ull
#define SHARED	  3u /* requests for the whole device */
#define PER_QUEUE 5u
#define FEATURES  (1ull << 30 | 1ull << 32)

static struct libvhost_transport *t;

static void run(const char *what, struct libvhost_req *reqs, uint32_t n)
{
	struct libvhost_error e = {.size = sizeof(e)};
	uint32_t done = 0;
	int rc = libvhost_transport_exec(t, reqs, n, 5000, &done);

	printf("%s %d %u of %u\n", what, rc, done, n);
	if (!rc)
		return;
	libvhost_transport_error(t, &e);
	printf("# %s\n", e.text);
	exit(1);
}

static void negotiate(void)
{
	struct libvhost_req offer[] = {{.op = LIBVHOST_OP_SET_OWNER},
				       {.op = LIBVHOST_OP_GET_FEATURES},
				       {.op = LIBVHOST_OP_GET_PROTOCOL_FEATURES}};
	struct libvhost_req accept = {.op = LIBVHOST_OP_SET_PROTOCOL_FEATURES};

	run("offer", offer, 3);
	accept.arg.u64 = offer[2].result[0];
	run("accept", &accept, 1);
}

/* Each ring has an eventfd of its own: libvhost-user panics over a kick that another ring has drained. */
static uint32_t queue_setup(struct libvhost_req *r, uint32_t q)
{
	const int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	const uint64_t base = COOKIE + q * 0x10000ull;

	r[0] = (struct libvhost_req){.op = LIBVHOST_OP_SET_VRING_NUM, .index = q, .arg.num = 128};
	r[1] = (struct libvhost_req){.op = LIBVHOST_OP_SET_VRING_BASE, .index = q};
	r[2] = (struct libvhost_req){.op = LIBVHOST_OP_SET_VRING_ADDR, .index = q};
	r[2].arg.addr = (struct libvhost_vring_addr){.desc = base, .avail = base + 0x2000, .used = base + 0x4000};
	r[3] = (struct libvhost_req){
		.op = LIBVHOST_OP_SET_VRING_CALL, .index = q, .fd = event, .flags = LIBVHOST_REQ_HAS_FD};
	r[4] = r[3];
	r[4].op = LIBVHOST_OP_SET_VRING_ERR;
	return PER_QUEUE;
}

static void start(uint32_t queues, int ram)
{
	struct libvhost_region region = {
		.size = RAM_BYTES, .user_addr = COOKIE, .fd = ram, .flags = LIBVHOST_REGION_HAS_FD};
	struct libvhost_req *r = calloc(SHARED + (PER_QUEUE + 2) * queues, sizeof(*r));
	uint32_t n = 0;

	if (!r)
		exit(1);
	r[n++] = (struct libvhost_req){.op = LIBVHOST_OP_SET_FEATURES, .arg.features = {FEATURES}};
	r[n] = (struct libvhost_req){.op = LIBVHOST_OP_SET_MEM_TABLE, .arg.table = {1, sizeof(region)}};
	r[n].data_in = (uintptr_t)&region;
	r[n++].data_in_len = sizeof(region);
	r[n++] = (struct libvhost_req){.op = LIBVHOST_OP_SET_BACKEND_REQ_FD};
	for (uint32_t q = 0; q < queues; q++)
		n += queue_setup(r + n, q);
	for (uint32_t q = 0; q < queues; q++) {
		r[n] = r[SHARED + PER_QUEUE * q + 3];
		r[n++].op = LIBVHOST_OP_SET_VRING_KICK;
	}
	for (uint32_t q = 0; q < queues; q++)
		r[n++] = (struct libvhost_req){.op = LIBVHOST_OP_SET_VRING_ENABLE, .index = q, .arg.num = 1};
	fflush(stdout);
	(void)!write(STDERR_FILENO, "start\n", 6);
	run("start", r, n);
	(void)!write(STDERR_FILENO, "end\n", 4);
	free(r);
}

static void stop(uint32_t queues)
{
	struct libvhost_req *r = calloc(queues, sizeof(*r));

	if (!r)
		exit(1);
	for (uint32_t q = 0; q < queues; q++)
		r[q] = (struct libvhost_req){.op = LIBVHOST_OP_GET_VRING_BASE, .index = q};
	run("stop", r, queues);
	free(r);
}

int main(int argc, char **argv)
{
	uint32_t queues = argc == 3 ? (uint32_t)strtoul(argv[2], NULL, 0) : 0;
	struct libvhost_transport_opts o = {
		.size = sizeof(o), .flags = LIBVHOST_TRANSPORT_OPT_WAIT, .timeout_ms = 10000};
	int ram = memfd_create("ram", MFD_CLOEXEC);
	struct libvhost_ctx *ctx = NULL;

	if (!queues || queues > LIBVHOST_MAX_QUEUES || ftruncate(ram, RAM_BYTES) || libvhost_ctx_new(NULL, &ctx))
		return 2;
	if (libvhost_transport_open(ctx, argv[1], &o, &t))
		return 2;
	negotiate();
	start(queues, ram);
	stop(queues);
	libvhost_transport_free(t);
	libvhost_ctx_free(ctx);
	return 0;
}
