/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#define _POSIX_C_SOURCE 200809L /* O_CLOEXEC, where the compiler is asked for plain C */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#define PIECES	  16u
#define BYTES_MAX 65536u /* of one request: a guest may ask for 4 GiB, and the worker has others to serve */

/* On the worker. Its filter knows neither open() nor socket(), and the code is written for that: what it uses is opened
 * before, and it allocates nothing. */
static int serve(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	const int *source = (const int *)arg;
	struct libvhost_iov iov[PIECES];
	struct libvhost_chain c;
	uint64_t done = 0;
	int rc;

	(void)queue;
	memset(&c, 0, sizeof(c));
	c.size = sizeof(c);
	c.iov = iov;
	c.iov_cap = PIECES;
	rc = libvhost_vq_pop(vq, &c);
	if (rc <= 0)
		return rc; /* nothing waits, or the guest broke its queue: the library reports that and stops it */
	for (uint32_t i = c.n_read; i < c.n_read + c.n_write && done < BYTES_MAX; i++) {
		const uint64_t room = BYTES_MAX - done, len = iov[i].len < room ? iov[i].len : room;
		const ssize_t n = read(*source, iov[i].base, len);

		if (n <= 0)
			break;
		done += (uint64_t)n;
	}
	rc = libvhost_vq_push(vq, c.head, done); /* the length tells the driver how many bytes are new */
	return rc < 0 ? rc : LIBVHOST_TURN_MORE; /* there may be more: after the other queues had their turn */
}

int main(int argc, char **argv)
{
	struct libvhost_ctx *ctx = NULL;
	struct libvhost_backend *backend = NULL;
	struct libvhost_backend_ops ops;
	struct libvhost_backend_opts opts;
	struct libvhost_worker_status worker;
	struct libvhost_event event;
	int source = open("/dev/urandom", O_RDONLY | O_CLOEXEC), over = 0;

	memset(&ops, 0, sizeof(ops));
	ops.size = sizeof(ops);
	ops.serve = serve;
	memset(&opts, 0, sizeof(opts));
	opts.size = sizeof(opts);
	opts.virtio_id = 4; /* entropy source */
	opts.num_queues = 1;
	/* Indirect descriptors and the event index, which the library does by itself: a driver of QEMU's device for
	 * this takes them whether they are offered or not. */
	opts.features = 1ull << 28 | 1ull << 29;
	opts.ops = &ops;
	opts.arg = &source;
	if (argc != 2 || source < 0 || libvhost_ctx_new(NULL, &ctx))
		return 2;
	if (libvhost_backend_new(ctx, &opts, &backend) || libvhost_backend_listen(backend, argv[1])) {
		struct libvhost_error err;

		memset(&err, 0, sizeof(err));
		err.size = sizeof(err);
		if (backend)
			libvhost_backend_error(backend, &err);
		else
			libvhost_ctx_error(ctx, &err);
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	memset(&worker, 0, sizeof(worker));
	worker.size = sizeof(worker);
	if (!libvhost_backend_worker_status(backend, 0, &worker)) /* as the kernel sees it */
		printf("worker %u: Seccomp %u, NoNewPrivs %u\n", worker.tid, worker.seccomp, worker.no_new_privs);
	fflush(stdout);
	while (!over && !libvhost_backend_dispatch(backend, 1000)) /* messages of the front-end, on this thread */
		while (libvhost_backend_next_event(backend, &event) == 1) {
			printf("%s\n", event.text);
			over |= event.type == LIBVHOST_EVENT_DISCONNECTED;
		}
	libvhost_backend_free(backend);
	libvhost_ctx_free(ctx);
	close(source);
	return over ? 0 : 1;
}
