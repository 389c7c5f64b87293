/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Between the decoder and its rules; private to blob_*.c. */
#ifndef LV_DEVICE_BLOB_RULES_H
#define LV_DEVICE_BLOB_RULES_H

#include "device/blob.h"

/* The rule "there was no memory", by address. */
extern const char lv_blob_nomem[];

/* All fields are read: ranges, and what they say together. 0; -EBADMSG; -ENOTSUP (recorded). */
int lv_blob_check(struct lv_errslot *err, const struct lv_blob *b);

#endif
