/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file event.h
 * What an object tells its owner between calls. Events wait in a bounded queue per object until they are taken;
 * what repeats coalesces: a changed configuration space and each queue's call, error and doorbell are one event
 * until it is taken. While the queue is full the library reads no further back-end requests, unless an operation runs:
 * then events of windows are dropped and counted.
 */
#ifndef LIBVHOST_EVENT_H
#define LIBVHOST_EVENT_H

#include <vhost/common.h>

#ifdef __cplusplus
extern "C" {
#endif

enum libvhost_event_type {
	LIBVHOST_EVENT_NONE = 0,
	LIBVHOST_EVENT_DONE = 1,	  /**< an asynchronous operation ended; err = its result, value[0] = enum
					      libvhost_dev_operation */
	LIBVHOST_EVENT_CONFIG_CHANGE = 2, /**< configuration space changed; read it again */
	LIBVHOST_EVENT_DISCONNECTED = 3,  /**< the peer is gone; err says why */
	/** Replayed to a new peer: value[0] = enum libvhost_guarantee, value[1] = microseconds from the old peer's end,
	 * value[2] = from the moment the new one could be reached, both until the rings ran; value[3] = attempts. */
	LIBVHOST_EVENT_RECONNECTED = 4,
	LIBVHOST_EVENT_NEEDS_RESET = 5, /**< the device is broken until the guest resets it; sent once */
	LIBVHOST_EVENT_LOST = 6,	/**< the peer's state is unknown: only stop, reset, reconnect, cleanup work */
	LIBVHOST_EVENT_QUEUE_ERROR = 7, /**< one queue broke; queue says which */
	LIBVHOST_EVENT_QUEUE_CALL = 8,	/**< in-band notification: buffers were used */
	LIBVHOST_EVENT_CONNECTED = 9,	/**< back-end: a front-end connected */
	LIBVHOST_EVENT_STARTED = 10,	/**< back-end: a queue runs */
	LIBVHOST_EVENT_STOPPED = 11,	/**< back-end: a queue stopped */
	LIBVHOST_EVENT_HOST_NOTIFIER =
		12, /**< the doorbell of a queue came (value[0] 1) or went (0); <vhost/share.h> */
	LIBVHOST_EVENT_SHMEM =
		13 /**< a window changed: value[0] = shmid, [1] = offset, [2] = bytes, [3] = 1 map, 0 unmap */
};

/** What a reconnect can promise about requests that were in flight (LIBVHOST_EVENT_RECONNECTED, value[0]). */
enum libvhost_guarantee {
	/**
	 * No inflight region: the rings continue at the used index. Requests that the dead back-end had taken but not
	 * completed are taken again by the new one as far as the ring order shows them; a back-end that completes out
	 * of order may leave some unanswered. The driver must time out and resubmit those.
	 */
	LIBVHOST_GUARANTEE_NONE = 0,
	LIBVHOST_GUARANTEE_IN_ORDER = 1, /**< VIRTIO_F_IN_ORDER: everything after the used index is executed again */
	LIBVHOST_GUARANTEE_INFLIGHT = 2	 /**< each request completes exactly once in the ring */
};

/** One event. 128 bytes. Since 0.1. */
struct libvhost_event {
	uint32_t type;	   /**< enum libvhost_event_type */
	uint32_t queue;	   /**< queue index or 0xffffffff */
	int32_t err;	   /**< 0 or negative errno */
	uint32_t dropped;  /**< events lost before this one because the queue was full */
	uint64_t value[4]; /**< see the type */
	char text[80];	   /**< one line, NUL-terminated */
};

#ifdef __cplusplus
}
#endif
#endif
