/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file state.h
 * The internal state of a back-end for a migration or a snapshot: what it keeps besides rings, configuration space and
 * guest memory (a file system's open files, bytes that a console has read and not delivered). It needs protocol feature
 * DEVICE_STATE, which the device accepts wherever a peer offers it.
 *
 * The source stops the device, then saves; the destination sets the device up as the source was and loads before it
 * starts it. The bytes mean something to back-ends of the same kind only. Two ways: save_state and load_state move them
 * from and to a buffer; for states of any size, or a migration stream of your own, set_device_state_fd hands the peer
 * one end of a pipe, you read or write the other one in your own loop until its end, and check_device_state tells
 * whether the transfer is good. A load that failed leaves the peer's state unknown: reset it, or load again.
 */
#ifndef LIBVHOST_STATE_H
#define LIBVHOST_STATE_H

#include <vhost/dev.h>

#ifdef __cplusplus
extern "C" {
#endif

enum libvhost_state_direction {
	LIBVHOST_STATE_SAVE = 0, /**< from the back-end */
	LIBVHOST_STATE_LOAD = 1	 /**< to the back-end */
};

/** @return 1: the peer can save and load its state; 0: it cannot, or the device has several parts, whose peers have a
 * state each (use the requests at message level); -EINVAL. Thread-safe. Since 0.1. */
LIBVHOST_API int libvhost_dev_supports_device_state(struct libvhost_dev *dev);

/**
 * Begins a transfer on a stopped device: hands the peer @p fd, the end of a pipe that it writes (SAVE) or reads (LOAD)
 * until the other end is closed. @p fd stays yours: close it, or the end is never seen. A transfer under way is
 * replaced.
 * @param reply_fd  out: -1, or a descriptor that the peer wants to use instead, yours to close; @p fd is not used then
 * @return 0; -EINVAL; -ENOTSUP (DEVICE_STATE not negotiated, several parts); -EBUSY (running); -EIO (refused); errors
 * of exec. Since 0.1.
 */
LIBVHOST_API int libvhost_dev_set_device_state_fd(struct libvhost_dev *dev, uint32_t direction, int fd, int *reply_fd,
						  uint32_t timeout_ms);

/** Asks whether the transfer was good; after the pipe's end was read (SAVE), or was closed (LOAD).
 * @return 0; -EIO (it was not); -ENOTSUP; -EBUSY (running); errors of exec. Since 0.1. */
LIBVHOST_API int libvhost_dev_check_device_state(struct libvhost_dev *dev, uint32_t timeout_ms);

/**
 * Saves the state of a stopped device: a whole transfer within one deadline.
 * @param buf  with ASYNC it and @p len must stay valid until LIBVHOST_EVENT_DONE
 * @param len  in: room; out: bytes of the state, untouched on failure
 * @return 0; -EINPROGRESS (ASYNC); -ENOSPC (the state is larger than the room); -ETIMEDOUT; -ECANCELED; -EPROTO (the
 * peer wants another descriptor that is no pipe or socket); those of set_device_state_fd. Since 0.1.
 */
LIBVHOST_API int libvhost_dev_save_state(struct libvhost_dev *dev, void *buf, size_t *len,
					 const struct libvhost_call_opts *opts);

/**
 * Loads what save_state wrote into a device that is set up and does not run.
 * @param buf  with ASYNC it must stay valid until LIBVHOST_EVENT_DONE
 * @return as save_state, without -ENOSPC; -EIO: the peer does not take it. Since 0.1.
 */
LIBVHOST_API int libvhost_dev_load_state(struct libvhost_dev *dev, const void *buf, size_t len,
					 const struct libvhost_call_opts *opts);

#ifdef __cplusplus
}
#endif
#endif
