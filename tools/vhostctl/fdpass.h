/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Blocking messages with descriptors between processes of this program. */
#ifndef VHOSTCTL_FDPASS_H
#define VHOSTCTL_FDPASS_H

#include <stddef.h>
#include <stdint.h>

/* Sends len bytes and any number of descriptors. 0, or -1 with errno. */
int fdpass_send(int sock, const void *data, size_t len, const int *fds, uint32_t nfds);
/* Receives exactly len bytes and nfds descriptors. 0, or -1 with errno (EPIPE: the other side is gone). */
int fdpass_recv(int sock, void *data, size_t len, int *fds, uint32_t nfds);

#endif
