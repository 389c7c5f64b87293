/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Which sanitizer this is compiled for: gcc and clang say it in two ways. */
#ifndef LV_CORE_SANITIZE_H
#define LV_CORE_SANITIZE_H

#if defined(__has_feature)
#define LV_HAS_FEATURE(name) __has_feature(name)
#else
#define LV_HAS_FEATURE(name) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || LV_HAS_FEATURE(address_sanitizer)
#define LV_ASAN 1
#else
#define LV_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__) || LV_HAS_FEATURE(thread_sanitizer)
#define LV_TSAN 1
#else
#define LV_TSAN 0
#endif

#endif
