/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Bytes written as text: "0100 ff*16". */
#ifndef LV_TESTS_PROTOCOL_HEX_H
#define LV_TESTS_PROTOCOL_HEX_H

#include "check.h"

#include <stdlib.h>

static inline uint32_t hex(const char *text, uint8_t *to, uint32_t cap)
{
	uint32_t len = 0;

	while (text && *text) {
		char digits[3] = {text[0], text[1], 0}, *end;
		unsigned long times = 1, byte;

		if (*text == ' ') {
			text++;
			continue;
		}
		byte = strtoul(digits, &end, 16);
		CHECK(end == digits + 2);
		text += 2;
		if (*text == '*') {
			times = strtoul(text + 1, &end, 10);
			text = end;
		}
		CHECK(len + times <= cap);
		memset(to + len, (int)byte, times);
		len += (uint32_t)times;
	}
	return len;
}

/* The tables are written little-endian; the wire is in host order. */
static inline bool little_endian(void)
{
	return *(const uint8_t *)&(uint16_t){1} == 1;
}

#endif
