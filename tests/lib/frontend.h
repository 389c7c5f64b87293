/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A front-end that says whatever it is told to, on a raw socket, to a back-end in the same thread. */
#ifndef LV_TESTS_FRONTEND_H
#define LV_TESTS_FRONTEND_H

#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "ringhelp.h"

#ifdef LV_SANITIZED
#define FAKE_SANDBOX LIBVHOST_SANDBOX_OFF
#else
#define FAKE_SANDBOX LIBVHOST_SANDBOX_REQUIRED
#endif

#define F30	   (1ull << 30)
#define F_VERSION  (1ull << 32)
#define UADDR	   0x7f0000000000ull /* of the front-end's first region */
#define RAM_BYTES  0x100000ull
#define PF(name)   (1ull << LIBVHOST_PROTOCOL_F_##name)
#define NEED_REPLY 0x8u

struct wire_hdr {
	uint32_t request, flags, size;
};

struct fake {
	struct libvhost_ctx *ctx;
	struct libvhost_backend *b;
	int sock;     /* our end */
	int ram;      /* memfd of RAM_BYTES at gpa 0 */
	uint8_t *mem; /* our mapping of it */
	int kick, call, err;
	bool stopped; /* libvhost_backend_stop() was called */
	bool control; /* made with LIBVHOST_BACKEND_CONTROL_WORKER: answers come without dispatch */
	struct lv_ledger before;
};

/* A turn of a device: up to 16 requests, each completed with as many bytes as use() has written. */
int fake_each(struct libvhost_vq *vq, uint64_t (*use)(const struct libvhost_chain *c));
/* Completes everything; writes nothing. */
int fake_serve(void *arg, uint32_t queue, struct libvhost_vq *vq);
/* Reads the first byte of what is readable and writes 0xab to all that is writable, as devices do. */
int fake_touch(void *arg, uint32_t queue, struct libvhost_vq *vq);

struct fake fake_new(const struct libvhost_backend_opts *change);
struct fake fake_new_ctx(const struct libvhost_backend_opts *change, const struct libvhost_ctx_opts *ctx);
/* A new connection of the same front-end; the old one is closed. */
void fake_connect(struct fake *p);
/* The same without a socket: p->sock is closed. */
struct libvhost_transport *fake_inproc(struct fake *p);
/* A back-end with these options for whose callback busy() is true. A failed CHECK in there would leave through the
 * library. */
void fake_check_inside(const struct libvhost_backend_opts *change, bool (*busy)(struct libvhost_backend *b));
void fake_free(struct fake *p);

/* Lets the back-end work until nothing is left to do. */
void settle(struct fake *p);
void send_raw(struct fake *p, const void *bytes, size_t len, const int *fds, uint32_t nfds);
void send_msg(struct fake *p, uint32_t request, uint32_t flags, const void *payload, uint32_t size, const int *fds,
	      uint32_t nfds);
/* One message of the back-end: payload size, -1 = nothing came, -2 = it closed the connection. */
int recv_msg(struct fake *p, struct wire_hdr *hdr, void *payload, uint32_t cap);

/* Sends with NEED_REPLY and returns the acknowledgement as a negative errno; 1 = connection closed, 2 = silence. */
int ask(struct fake *p, uint32_t request, const void *payload, uint32_t size, const int *fds, uint32_t nfds);
int ask_u64(struct fake *p, uint32_t request, uint64_t value);
int ask_state(struct fake *p, uint32_t request, uint32_t index, uint32_t num);
int ask_fd(struct fake *p, uint32_t request, uint32_t index, int fd); /* -1 = no descriptor bit */
int ask_addr(struct fake *p, uint32_t index, uint64_t desc, uint64_t avail, uint64_t used);
/* Requests with an answer of their own. */
uint64_t get_u64(struct fake *p, uint32_t request);
uint32_t get_base(struct fake *p, uint32_t index);
bool closed(struct fake *p);

/* GET_FEATURES … SET_FEATURES with everything, one region, no ring. */
void handshake(struct fake *p);
int ask_table(struct fake *p, const struct libvhost_region *regions, uint32_t count, uint32_t nfds);
/* The usual ring of 8 entries at the start of RAM; data from 0x10000 on. */
int ring_up(struct fake *p, uint32_t index);
/* Offers one request of 64 readable bytes on it and kicks. */
void ring_offer(struct fake *p);
/* Waits until used.idx is n. */
bool ring_used(struct fake *p, uint16_t n);
/* For a second it does not get past n. */
bool ring_rests(struct fake *p, uint16_t n);
/* Waits for it, by dispatching; those before it are dropped. */
struct libvhost_event take_event(struct fake *p, uint32_t type);

#endif
