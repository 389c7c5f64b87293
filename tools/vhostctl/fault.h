/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Fault injection: a transport around another one that lets the n-th request of all programs fail. */
#ifndef VHOSTCTL_FAULT_H
#define VHOSTCTL_FAULT_H

#include <argp.h>
#include <stdbool.h>
#include <vhost/libvhost.h>

enum fault_how {
	FAULT_REFUSE, /* the peer refuses it */
	FAULT_DROP,   /* its answer never comes */
	FAULT_KILL,   /* the connection breaks in its place */
	FAULT_ERRNO   /* its program cannot even be sent, with .err */
};

struct fault {
	uint64_t nth; /* 1 = the first request; 0 = none fails */
	bool all;     /* "all": one life for each n */
	enum fault_how how;
	int err;
	/* what happened */
	uint64_t seen; /* requests so far */
	bool hit;
	char request[96]; /* the one that was hit */
};

/* "12", "12:drop", "all:kill", "3:ENOMEM" (refuse is the default). Ends the program when wrong. */
void fault_parse(struct argp_state *state, const char *text, struct fault *fault);

/* 0 or negative errno; the text is in ctx. fault and uri must outlive it. */
int fault_transport_new(struct libvhost_ctx *ctx, const char *uri, uint32_t timeout_ms, struct fault *fault,
			struct libvhost_transport **ret);

#endif
