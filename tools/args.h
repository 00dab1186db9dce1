/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the command lines of the tools have in common.
 */
#ifndef UMBRA_TOOLS_ARGS_H
#define UMBRA_TOOLS_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "4096", "0x1000", "16K", "1.5G", "2T" (powers of 1024; iB after it is fine). False: not a size, or too large. */
bool args_size(const char *text, uint64_t *bytes);

/* "1.5 GiB"; exact below 10 KiB. Returns text. */
const char *args_size_text(uint64_t bytes, char *text, size_t text_size);
#define ARGS_SIZE_TEXT 32

/* Standard output could not be written: full disk, closed pipe. To be called last. */
bool args_stdout_failed(void);

#endif
