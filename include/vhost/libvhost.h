/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/** @file libvhost.h  All of libvhost. */
#ifndef LIBVHOST_LIBVHOST_H
#define LIBVHOST_LIBVHOST_H

#include <vhost/backend.h>
#include <vhost/common.h>
#include <vhost/ctx.h>
#include <vhost/dev.h>
#include <vhost/error.h>
#include <vhost/event.h>
#include <vhost/freeze.h>
#include <vhost/inflight.h>
#include <vhost/io.h>
#include <vhost/mem.h>
#include <vhost/ops.h>
#include <vhost/req.h>
#include <vhost/share.h>
#include <vhost/state.h>
#include <vhost/transport.h>
#include <vhost/vq.h>
#include <vhost/worker.h>

#endif
